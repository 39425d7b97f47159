from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor

from shared.channels import compiled
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Purpose, Samples, Split, philox4x32
from shared.channels.uplink import UplinkView
from shared.errors import InvalidInput

WORD = st.integers(0, 2**32 - 1)

OTHER_PROCESS = """
import hashlib, json, sys
import numpy as np, torch
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Purpose, Samples, Split
from shared.channels.uplink import UplinkView

torch.set_num_threads(1)
words, channels = {}, {}
for ues in ([9, 8], [7], [6, 5, 4, 3], [0, 2, 1]):
    ue = torch.tensor(ues)
    samples = Samples(2**40 + 5, Split.EMULATE, ue, ue * 3)
    drawn = torch.cat([samples._words(p, torch.arange(4), 10).flatten(1) for p in Purpose], 1)
    world = Scenario.parse("multipath-p2:antennas=8,slots=4")
    both = torch.cat([UplinkView(world, samples).channel(), DownlinkView(world, samples).channel()], -1)
    for row, number in enumerate(ues):
        words[number], channels[number] = drawn[row], both[row]
digest = hashlib.sha256(torch.stack([words[n] for n in range(10)]).numpy().astype("<i8").tobytes()).hexdigest()
np.save(sys.argv[1], torch.stack([channels[n] for n in range(10)]).numpy())
print(json.dumps(digest))
"""


def words_of(samples: Samples, purpose: Purpose, slots: Tensor, count: int) -> Tensor:
    """The 32-bit integers behind the floats."""
    return samples._words(purpose, slots, count)


def naive_philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """The block function on Python integers, as in Salmon et al., figure and table of section 2."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [
            (right >> 32) ^ c[1] ^ k0,
            right % 2**32,
            (left >> 32) ^ c[3] ^ k1,
            left % 2**32,
        ]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return tuple(c)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_known_answers_of_random123(
    counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    c0, c1, c2, c3 = (torch.tensor(word) for word in counter)
    assert tuple(int(word) for word in philox4x32((c0, c1, c2, c3), key)) == expected


@given(st.lists(st.tuples(WORD, WORD, WORD, WORD), min_size=1, max_size=8), st.tuples(WORD, WORD))
def test_philox_equals_python_integers(counters: list[tuple[int, int, int, int]], key: tuple[int, int]) -> None:
    c0, c1, c2, c3 = torch.tensor(counters).unbind(1)
    blocks = torch.stack(philox4x32((c0, c1, c2, c3), key), dim=1).tolist()
    assert [tuple(block) for block in blocks] == [naive_philox(counter, key) for counter in counters]


@pytest.mark.parametrize("rows", [1, 3])
def test_compiled_streams_are_those_of_torch(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Bit for bit, at the ends of all ranges too; torch's are a GPU's."""
    top = 2**32 - 1
    samples = Samples(2**64 - 2, Split.EMULATE, torch.tensor([0, 7, top]), torch.tensor([top, 0, 2**31]))
    index = torch.randint(top, (4, rows, 5), generator=torch.Generator().manual_seed(0))
    index[:, 0, 0] = torch.tensor([0, top, 2**31, 1])

    def drawn() -> tuple[Tensor, ...]:
        words = words_of(samples, Purpose.DOWNLINK_NOISE, torch.tensor([0, 3, 2**29]), 7)
        return words, samples.six_uniforms(Purpose.CLUSTER, index), samples.six_uniforms(Purpose.PLACE, index[:, :1])

    ours = drawn()
    monkeypatch.setattr(compiled, "for_device", lambda device: None)
    for mine, wanted in zip(ours, drawn(), strict=True):
        assert mine.dtype == wanted.dtype
        assert torch.equal(mine, wanted)
    assert ours[1].shape == ours[2].shape == (6, 4, 3, 5)


@given(st.permutations(range(12)), st.integers(1, 12))
def test_words_do_not_depend_on_batch_or_order(order: list[int], size: int) -> None:
    slots = torch.arange(3)

    def draw(ues: Tensor) -> Tensor:
        return words_of(Samples(2**63 + 1, Split.TRAIN, ues, ues * 5 + 1), Purpose.UPLINK_NOISE, slots, 7)

    ues = torch.tensor(order)
    parts = torch.cat([draw(part) for part in ues.split(size)])
    assert torch.equal(parts, draw(torch.arange(12))[ues])


def test_another_process_draws_the_same_world(root: Path, tmp_path: Path) -> None:
    """There in other batches and another order: integers bit for bit, channels to float32 rounding."""
    run = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, str(tmp_path / "channels.npy")],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=True,
        capture_output=True,
        text=True,
    )
    ue = torch.arange(10)
    samples = Samples(2**40 + 5, Split.EMULATE, ue, ue * 3)
    words = torch.cat([words_of(samples, p, torch.arange(4), 10).flatten(1) for p in Purpose], dim=1)
    assert json.loads(run.stdout) == hashlib.sha256(words.numpy().astype("<i8").tobytes()).hexdigest()
    world = Scenario.parse("multipath-p2:antennas=8,slots=4")
    ours = torch.cat([UplinkView(world, samples).channel(), DownlinkView(world, samples).channel()], dim=-1).numpy()
    theirs = np.load(tmp_path / "channels.npy")
    assert (np.linalg.norm(theirs - ours, axis=-1) <= 1e-5 * np.linalg.norm(ours, axis=-1)).all()


def test_nothing_shares_a_block() -> None:
    """128-bit blocks: two seeds, splits, purposes, UEs, frames or slots that shared words would share a block."""
    ue, frame = (axis.flatten() for axis in torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij"))
    blocks = []
    for seed, split, purpose in itertools.product((0, 1, 2**32, 2**32 + 1), Split, Purpose):
        words = words_of(Samples(seed, split, ue, frame), purpose, torch.arange(3), 8)
        blocks += [tuple(block) for block in words.reshape(-1, 4).tolist()]
    assert len(blocks) == 4 * len(Split) * len(Purpose) * 9 * 3 * 2
    assert len(set(blocks)) == len(blocks)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_slots_of_a_stream_do_not_overlap(make_samples: Callable[..., Samples], count: int) -> None:
    words = words_of(make_samples(5), Purpose.DOWNLINK_NOISE, torch.arange(6), count)
    assert words.shape == (5, 6, count)
    assert len(set(words.flatten().tolist())) == words.numel()


def test_a_slot_is_the_same_whichever_are_drawn_with_it(make_samples: Callable[..., Samples]) -> None:
    samples = make_samples(4)
    all_slots = samples.complex_normal(Purpose.DOWNLINK_FADING, torch.arange(9), 3)
    some = samples.complex_normal(Purpose.DOWNLINK_FADING, torch.tensor([2, 7]), 3)
    assert torch.equal(
        words_of(samples, Purpose.DOWNLINK_FADING, torch.tensor([7]), 6),
        words_of(samples, Purpose.DOWNLINK_FADING, torch.arange(9), 6)[:, 7:8],
    )
    torch.testing.assert_close(some, all_slots[:, [2, 7]])


def test_uniform_is_uniform(make_samples: Callable[..., Samples]) -> None:
    values = make_samples(25_000).uniform(Purpose.PATH_ANGLE, 4)
    assert values.shape == (25_000, 4)
    assert values.dtype == torch.float32
    assert 0 < values.min() < 1e-4
    assert 1 - 1e-4 < values.max() < 1
    assert kstest(values.double().flatten().numpy(), "uniform").statistic < 1.95 / values.numel() ** 0.5  # p of 0.001
    assert np.abs(np.corrcoef(values.numpy().T) - np.eye(4)).max() < 0.03


def test_uniform_is_below_one_for_the_largest_word() -> None:
    """UE 21889 draws a word whose upper 24 bits are all ones."""
    ue = torch.tensor([21889])
    value = Samples(0, Split.TEST, ue, torch.zeros_like(ue)).uniform(Purpose.PATH_ANGLE, 1)
    assert 0.9999 < float(value) < 1


def test_complex_normal_is_circular_with_unit_power(make_samples: Callable[..., Samples]) -> None:
    values = make_samples(5000).complex_normal(Purpose.UPLINK_FADING, torch.arange(4), 5)
    assert values.shape == (5000, 4, 5)
    assert values.dtype == torch.complex64
    flat = values.flatten().numpy().astype(complex)
    spread = flat.size**-0.5
    assert abs(np.mean(np.abs(flat) ** 2) - 1) < 4 * spread
    assert abs(np.mean(flat)) < 4 * spread
    assert abs(np.mean(flat**2)) < 5 * spread
    for part in (flat.real, flat.imag):
        assert kstest(part * 2**0.5, "norm").statistic < 1.95 * spread
    table = values.flatten(1).numpy()
    correlation = np.abs(table.conj().T @ table) / len(table)
    assert np.abs(correlation - np.diag(np.diag(correlation))).max() < 5 * len(table) ** -0.5


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_outside_64_bits_is_refused(seed: int) -> None:
    with pytest.raises(InvalidInput, match=rf"seed: {seed} is not in \[0, 2\^64\)"):
        Samples(seed, Split.TEST, torch.arange(2), torch.arange(2))


@pytest.mark.parametrize("shapes", [((2,), (3,)), ((2, 1), (2, 1)), ((), ())])
def test_rows_that_do_not_pair_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    ue, frame = (torch.zeros(shape, dtype=torch.int64) for shape in shapes)
    with pytest.raises(InvalidInput, match="ue, frame"):
        Samples(0, Split.TEST, ue, frame)
