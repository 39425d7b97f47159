"""What the air does to reports: rates of errors, bursts, CRCs, erasures, and that it is the same for everybody."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from itertools import groupby
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.conditions import RunConditions
from shared.errors import InvalidInput
from shared.link.air import FATES, POLYNOMIALS, UNDISTURBED, Air, Fate, Policy, count_fates, erased, remainders
from shared.link.decoding import Received, decode_frames, decode_received_frames, receive
from shared.link.encoding import encode_frames
from shared.link.evaluation import evaluate
from shared.schemes import Scheme

MakeScheme = Callable[..., Scheme]

SLOTS = 4
SMALL = f"multipath-p2:antennas=4,slots={SLOTS}"


def frames(ues: int, number: int = 1, seed: int = 3) -> Samples:
    """Frames 0, 1, .. of each UE, by UE."""
    pairs = torch.cartesian_prod(torch.arange(ues), torch.arange(number))
    return Samples(seed, Split.TEST, *pairs.mT.contiguous())


def carried(air: Air, samples: Samples, bits: int = 40, slots: range = range(SLOTS)) -> tuple[Any, Any]:
    """Zeros after the air."""
    sent = np.zeros((len(samples), len(slots), bits), np.uint8)
    return air.carry(samples, slots, SLOTS, sent, np.full(sent.shape[:2], bits))


def recurrent(make_scheme: MakeScheme, name: str = "hyperrnn") -> Scheme:
    return make_scheme(name, SMALL, feedback_bits=6)


@pytest.mark.parametrize("text", ["", "ber=0.001", "loss=0.1,burst=5.0", "crc=16,policy=blind,state=reset"])
def test_text_says_all(text: str) -> None:
    air = Air.parse(text)
    assert str(air) == text
    conditions = RunConditions(Scenario.parse(SMALL), 5, air)
    assert RunConditions.from_json(json.loads(json.dumps(conditions.to_json()))) == conditions


def test_an_undisturbed_link_is_not_mentioned() -> None:
    conditions = RunConditions(Scenario.parse(SMALL), 5)
    assert conditions.to_json() == {"scenario": str(conditions.scenario), "seed": 5, "delay_slots": 0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ber=0.6", r"air ber: 0.6 is not in \[0, 0.5\]"),
        ("loss=nan", r"air loss: nan is not in \[0, 1\]"),
        ("burst=1000", r"air burst: 1000.0 is not in \[1, 100.0\]"),
        ("loss=0.9,burst=5", "air burst: 5, with a loss of 0.9; wanted 1, or at least 10"),
        ("loss=1,burst=5", "air burst: 5, with a loss of 1; wanted 1, which is independent losses"),
        ("crc=8", "air crc: 8; wanted 0, 6, 11, 16, 24 bits"),
        ("policy=guess", "air policy: 'guess' is not last, blind or predict"),
        ("state=keep", "air state: 'keep' is not continue or reset"),
        ("fog=1", "air: field 'fog' is unknown"),
        ("delay=1025", r"air delay: 1025 is not in \[0, 1024\]"),
        ("delay=1.5", "air delay: '1.5' is not a number"),
    ],
)
def test_what_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        Air.parse(text)


@pytest.mark.parametrize("ber", [1e-3, 1e-2, 0.1])
def test_bits_are_flipped_as_often_as_is_said(ber: float) -> None:
    """Within five standard errors, in every place."""
    received, fates = carried(Air(ber=ber), frames(5000))
    assert abs(received.mean() - ber) < 5 * math.sqrt(ber / received.size)
    assert np.abs(received.mean(axis=(0, 1)) - ber).max() < 5 * math.sqrt(ber / (5000 * SLOTS))
    assert np.array_equal(fates == Fate.CORRUPTED, received.any(axis=2))
    assert abs((fates > 0).mean() - (1 - (1 - ber) ** 40)) < 0.02


def test_what_was_not_sent_is_not_flipped() -> None:
    sent, lengths = np.zeros((500, 1, 40), np.uint8), np.arange(500)[:, None] % 41
    received, fates = Air(ber=0.3, loss=0.5).carry(frames(500), range(1), 1, sent, lengths)
    assert not received[np.arange(40) >= lengths[..., None]].any()
    assert not fates[lengths == 0].any()


@pytest.mark.parametrize(("loss", "burst"), [(0.01, 1), (0.1, 1), (0.1, 5), (0.3, 2), (0.02, 20)])
def test_losses_and_their_bursts(loss: float, burst: float) -> None:
    """Share and mean length, of 1,000 UEs over 200 frames; independent ones in a row are 1 / (1 - loss) on average."""
    samples = frames(1000, 200)
    _, fates = carried(Air(loss=loss, burst=burst), samples, bits=1)
    lost = (fates == Fate.LOST).reshape(1000, 200 * SLOTS)
    assert lost.mean() == pytest.approx(loss, rel=0.05)
    assert lost[:, 0].mean() == pytest.approx(loss, abs=4 * math.sqrt(loss / 1000))
    runs = [len(list(run)) for row in lost[:200] for value, run in groupby(row) if value]
    assert np.mean(runs) == pytest.approx(burst if burst > 1 else 1 / (1 - loss), rel=0.1)


@given(
    st.sampled_from([Air(ber=0.05, crc=6), Air(loss=0.2, burst=4), Air(ber=0.02, loss=0.5, burst=2, crc=24)]),
    st.integers(0, 2**64 - 1),
    st.integers(0, 5),
    st.integers(0, SLOTS - 1),
    st.integers(1, SLOTS),
)
def test_whoever_looks_sees_the_same(air: Air, seed: int, frame: int, first: int, count: int) -> None:
    """Some slots of one UE's frame alone, or all slots of all frames together."""
    together = Samples(seed, Split.EMULATE, torch.arange(6), torch.arange(6))
    bits, fates = carried(air, together)
    slots = range(first, min(first + count, SLOTS))
    alone = carried(air, together.take(slice(frame, frame + 1)), slots=slots)
    assert np.array_equal(alone[0][0], bits[frame, slots.start : slots.stop])
    assert np.array_equal(alone[1][0], fates[frame, slots.start : slots.stop])


def test_errors_differ_by_seed_ue_frame_and_population() -> None:
    base = Samples(1, Split.TEST, torch.tensor([4]), torch.tensor([7]))
    others = [
        dataclasses.replace(base, seed=2),
        dataclasses.replace(base, split=Split.EMULATE),
        dataclasses.replace(base, ue=torch.tensor([5])),
        dataclasses.replace(base, frame=torch.tensor([8])),
    ]
    found = [carried(Air(ber=0.5), samples)[0].tobytes() for samples in (base, *others)]
    assert len(set(found)) == 5


def divided(crc: int, bits: list[int]) -> int:
    """Remainder of a bit string times D^crc by long division (TS 38.212, clause 5.1)."""
    generator = [int(bit) for bit in f"{1 << crc | POLYNOMIALS[crc]:b}"]
    rest = [*bits, *([0] * crc)]
    for start in range(len(bits)):
        if rest[start]:
            for place, bit in enumerate(generator):
                rest[start + place] ^= bit
    return int("".join(map(str, rest[len(bits) :])), 2)


@given(st.sampled_from([*POLYNOMIALS]), st.lists(st.integers(0, 1), min_size=1, max_size=60), st.data())
def test_a_crc_finds_what_long_division_finds(crc: int, bits: list[int], data: Any) -> None:
    """Of a report with its CRC, damaged anywhere, at any length within the longest."""
    sent = [*bits, *(int(bit) for bit in f"{divided(crc, bits):0{crc}b}")]
    flips = data.draw(st.lists(st.integers(0, 1), min_size=len(sent), max_size=len(sent)))
    came = [bit ^ flip for bit, flip in zip(sent, flips, strict=True)]
    fails = divided(crc, came[: len(bits)]) != int("".join(map(str, came[len(bits) :])), 2)
    padded = np.array([[*flips[: len(bits)], 0, 0, 0, *flips[len(bits) :]]], bool)
    assert bool(remainders(crc, padded, np.array([len(bits)]))[0]) == fails


@pytest.mark.parametrize("crc", [6, 11, 16, 24])
def test_what_a_crc_misses(crc: int) -> None:
    """About 2^-crc of what is damaged badly; nothing of that is called detected without one."""
    _, fates = carried(Air(ber=0.5, crc=crc), frames(5000))
    missed = (fates == Fate.CORRUPTED).mean()
    assert missed == pytest.approx(2.0**-crc, abs=5 * math.sqrt(2.0**-crc / fates.size))
    assert not (carried(Air(ber=0.5), frames(100))[1] == Fate.DETECTED).any()
    assert Air(crc=crc).lengths(np.array([0, 20])).tolist() == [0, 20 + crc]


@pytest.mark.parametrize("policy", get_args(Policy))
@pytest.mark.parametrize("state", ["continue", "reset"])
def test_what_stands_for_an_erased_report(make_scheme: MakeScheme, policy: Any, state: Any) -> None:
    """By hand, of a decoder that remembers: the report of slot 2 is lost, or that of slot 0."""
    scheme, samples = recurrent(make_scheme), frames(3)
    sent = encode_frames(scheme, scheme.scenario, samples)
    fates = np.zeros((3, SLOTS), np.uint8)
    fates[0, 2], fates[1, 0] = Fate.LOST, Fate.DETECTED
    air = Air(loss=0.1, policy=policy, state=state)
    found = decode_received_frames(scheme, scheme.scenario, samples, Received(sent, fates), air)
    whole = decode_frames(scheme, scheme.scenario, samples, sent)
    torch.testing.assert_close(found[2], whole[2])
    torch.testing.assert_close(found[0, :2], whole[0, :2])
    if policy == "last":
        assert torch.equal(found[0, 2], found[0, 1])
        assert not found[1, 0].any()
    elif policy == "predict":  # fading is correlated by 0.99, and nothing else is known
        torch.testing.assert_close(found[0, 2], 0.99 * found[0, 1])
        assert not found[1, 0].any()
    else:
        assert not torch.equal(found[0, 2], found[0, 1])
        assert found[1, 0].any()
    assert not torch.allclose(found[0, 3], whole[0, 3])
    from_the_start = decode_received_frames(scheme, scheme.scenario, samples, Received(sent, fates * 0), air)
    assert torch.equal(from_the_start[1], whole[1]) or torch.allclose(from_the_start[1], whole[1])


def test_a_reset_forgets(make_scheme: MakeScheme) -> None:
    """After a lost report, what came before it does not matter any more; otherwise it does."""
    scheme, samples = recurrent(make_scheme, "rnn"), frames(1)
    sent = encode_frames(scheme, scheme.scenario, samples)
    other = sent.copy()
    other[:, 0] ^= 1
    fates = np.zeros((1, SLOTS), np.uint8)
    fates[0, 1] = Fate.LOST
    for state, forgotten in (("reset", True), ("continue", False)):
        air = Air(loss=0.1, state=state)  # type: ignore[arg-type]  # one of them
        one, two = (
            decode_received_frames(scheme, scheme.scenario, samples, Received(bits, fates), air)[:, 2:]
            for bits in (sent, other)
        )
        assert torch.equal(one, two) == forgotten


def test_an_erased_report_is_not_looked_at(make_scheme: MakeScheme) -> None:
    scheme, samples = recurrent(make_scheme), frames(40)
    sent = encode_frames(scheme, scheme.scenario, samples)
    air = Air(loss=0.3)
    lost = erased(receive(scheme, air, samples, range(SLOTS), sent).fates)
    other = sent ^ lost[..., None].astype(np.uint8)
    assert torch.equal(*(decode_frames(scheme, scheme.scenario, samples, bits, air) for bits in (sent, other)))


def test_codes_that_cannot_be_read_are_detected(make_scheme: MakeScheme) -> None:
    """Of an entropy code without a CRC: its length, or what is left at its end, is wrong; no chunk fails."""
    scheme = make_scheme("gmtc", "cost2100-indoor:antennas=8,subcarriers=32,last_rows=0,first_rows=8", **GMTC)
    samples = frames(32)
    sent = encode_frames(scheme, scheme.scenario, samples)
    received = receive(scheme, Air(ber=0.01), samples, range(1), sent)
    counts = count_fates(received.fates)
    assert counts["air_detected"] > 10
    kept = ~erased(received.fates)[:, 0]
    scheme.check_fields(scheme.layout.fields_of(received.bits[kept, 0]))


GMTC: dict[str, Any] = {"bits": 512, "mixtures": 2, "subspace": 16, "components": 16, "ranked": 8, "tried": 1}


def test_float32_values_that_no_report_has_are_detected(make_scheme: MakeScheme) -> None:
    """A flipped exponent gives 1e30: nothing but numbers that can be squared is decoded."""
    scheme = make_scheme("genie_lmmse", SMALL, feedback_bits=0, uplink_reading="genie")
    found = evaluate(scheme, RunConditions(scheme.scenario, air=Air(ber=0.1)), ues=300)
    assert found["air_detected"] > 100
    assert math.isfinite(found["nmse_db"])


def test_figures_of_a_disturbed_link(make_scheme: MakeScheme) -> None:
    """They name it, count, and are worse; the CRC is in the feedback bits; undisturbed ones do not mention it."""
    scheme = recurrent(make_scheme)
    air = Air(ber=0.02, loss=0.1, burst=5, crc=11)
    plain, found = (evaluate(scheme, RunConditions(scheme.scenario, air=a), ues=500) for a in (UNDISTURBED, air))
    assert found["settings"]["air"] == str(air)
    assert "air" not in plain["settings"]
    assert not plain.keys() & set(FATES)
    assert found["air_lost"] == pytest.approx(0.1 * 500 * SLOTS, rel=0.2)
    assert found["air_detected"] == pytest.approx(0.9 * (1 - 0.98**17) * 500 * SLOTS, rel=0.1)
    assert (plain["feedback_bits"], found["feedback_bits"]) == (6, 17)
    assert found == evaluate(scheme, RunConditions(scheme.scenario, air=air), ues=500)


def test_uplink_alone_cannot_be_disturbed(make_scheme: MakeScheme) -> None:
    scheme = make_scheme("uplink_only", SMALL, feedback_bits=0, uplink_reading="array")
    plain, found = (
        evaluate(scheme, RunConditions(scheme.scenario, air=a), ues=20) for a in (UNDISTURBED, Air(0.1, 1, crc=6))
    )
    assert found["nmse_db"] == pytest.approx(plain["nmse_db"])
    assert (found["air_lost"], found["feedback_bits"]) == (0, 0)


def test_fates_are_counted() -> None:
    fates: NDArray[np.uint8] = np.array([[0, 1, 3], [3, 2, 3]], np.uint8)
    assert count_fates(fates) == {"air_corrupted": 1, "air_detected": 1, "air_lost": 3}
    assert erased(fates).tolist() == [[False, False, True], [True, True, True]]
