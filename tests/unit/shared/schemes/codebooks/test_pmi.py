"""The PMI of enhanced Type II: through a payload and back, and to a precoder as the clause writes it."""

from __future__ import annotations

import cmath
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.channels.scenario import Scenario
from shared.errors import InvalidInput
from shared.schemes.codebooks import EnhancedTypeII, EnhancedTypeIIConfig
from shared.schemes.codebooks.pmi import Pmi, PmiFields
from shared.schemes.codebooks.tables import COMBINATIONS, PORTS

SUBBANDS = 13


def fields_of(ports: str, combination: int) -> PmiFields:
    return PmiFields(PORTS[ports], COMBINATIONS[combination], SUBBANDS)


@st.composite
def pmis(draw: Any, fewest: int = 1) -> tuple[str, int, Pmi]:
    """Ports, combination and the PMI of one report."""
    ports, combination = draw(st.sampled_from(sorted(PORTS))), draw(st.integers(1, 8))
    fields = fields_of(ports, combination)
    size, length = fields.size, 2 * fields.size * fields.delays
    strongest = draw(st.integers(0, 2 * size - 1))
    others = draw(st.sets(st.integers(0, length - 1), min_size=fewest - 1, max_size=fields.most - 1)) - {strongest}
    filled, amplitude, phase = torch.zeros(length, dtype=torch.bool), torch.zeros(length), torch.zeros(length)
    filled[[strongest, *others]] = True
    amplitude[strongest] = 7
    for other in others:
        amplitude[other], phase[other] = draw(st.integers(0, 7)), draw(st.integers(0, 15))
    rotation = [draw(st.integers(0, oversampling - 1)) for oversampling in PORTS[ports][2:]]
    beams = sorted(draw(st.sets(st.integers(0, 15), min_size=size, max_size=size)))
    most = fields.delays - 1
    delays = [0, *sorted(draw(st.sets(st.integers(1, SUBBANDS - 1), min_size=most, max_size=most)))]
    reference = draw(st.integers(1, 15))
    columns = (rotation, beams, delays, filled, strongest, reference, amplitude.long(), phase.long())
    return ports, combination, Pmi(*(torch.as_tensor(column)[None] for column in columns))


def sent(fields: PmiFields, pmi: Pmi) -> dict[str, NDArray[np.int64]]:
    return {name: values.numpy() for name, values in fields.write(pmi).items()}


def scheme_of(ports: str, combination: int) -> EnhancedTypeII:
    config = EnhancedTypeIIConfig(ports=ports, combination=combination)
    return EnhancedTypeII(Scenario.parse("cost2100-indoor-csinet"), config)


@given(pmis())
def test_through_a_payload_and_back(drawn: tuple[str, int, Pmi]) -> None:
    ports, combination, pmi = drawn
    scheme = scheme_of(ports, combination)
    fields = fields_of(ports, combination)
    written = sent(fields, pmi)
    received = scheme.layout.unpack(scheme.layout.pack(written, 1), 1)
    scheme.check_fields(received)
    for name, values in written.items():
        assert np.array_equal(received[name], values), name
    again = fields.read({name: torch.from_numpy(values) for name, values in received.items()})
    for field in dataclasses.fields(Pmi):
        assert torch.equal(getattr(again, field.name), getattr(pmi, field.name)), field.name


def precoder(ports: str, fields: PmiFields, pmi: Pmi) -> NDArray[np.complex128]:
    """Table 5.2.2.2.5-5 for one layer, number by number: [N3, 2 N1 N2]."""
    n1, n2, o1, o2 = PORTS[ports]
    size = fields.size
    q1, q2 = pmi.rotation[0].tolist()
    rows = []
    for t in range(SUBBANDS):
        halves, gamma = [np.zeros(n1 * n2, complex) for _ in range(2)], 0.0
        for i in range(2 * size):
            polarisation, beam = divmod(i, size)
            of_strongest = polarisation == pmi.strongest.item() // size
            p1 = 1.0 if of_strongest else 2 ** (-(15 - pmi.reference.item()) / 4)
            total = 0j
            for f, delay in enumerate(pmi.delays[0].tolist()):
                place = 2 * size * f + i
                if pmi.filled[0, place]:
                    p2 = 2 ** (-(7 - pmi.amplitude[0, place].item()) / 2)
                    phi = cmath.exp(2j * math.pi * pmi.phase[0, place].item() / 16)
                    total += cmath.exp(2j * math.pi * t * delay / SUBBANDS) * p2 * phi
            number = pmi.beams[0, beam].item()
            m1, m2 = o1 * (number % n1) + q1, o2 * (number // n1) + q2
            u = np.exp(2j * math.pi * m2 * np.arange(n2) / (o2 * n2))
            v = np.concatenate([cmath.exp(2j * math.pi * m1 * k / (o1 * n1)) * u for k in range(n1)])
            halves[polarisation] += v * p1 * total
            gamma += p1**2 * abs(total) ** 2
        rows.append(np.concatenate(halves) / math.sqrt(n1 * n2 * max(gamma, 1e-30)))
    return np.stack(rows)


@given(pmis())
def test_the_precoder_is_that_of_the_clause(drawn: tuple[str, int, Pmi]) -> None:
    ports, combination, pmi = drawn
    scheme, fields = scheme_of(ports, combination), fields_of(ports, combination)
    found = scheme.decoder.step(fields.write(pmi), torch.zeros(1, 0), {})[0][0].numpy()
    expected = precoder(ports, fields, pmi)
    clear = np.linalg.norm(expected, axis=1) > 0.5  # not where waves cancel each other
    by_beam = (fields.basis(pmi) @ fields.coefficients(pmi))[0].abs().square().sum(-1).numpy()
    clear &= by_beam > 1e-4
    assert np.abs(found - expected)[clear].max(initial=0) < 1e-3
    assert np.abs(np.linalg.norm(found, axis=1) - 1)[clear].max(initial=0) < 1e-4


def plain() -> dict[str, NDArray[np.int64]]:
    """Of combination 4: 3 coefficients, the second of the first delay the strongest."""
    fields = fields_of("16x1", 4)
    filled = torch.zeros(1, 32, dtype=torch.bool)
    filled[0, [1, 5, 30]] = True
    amplitude, phase = torch.zeros(2, 1, 32, dtype=torch.int64)
    amplitude[0, [1, 5, 30]], phase[0, [5, 30]] = torch.tensor([7, 4, 3]), torch.tensor([9, 15])
    columns = (torch.tensor([[2, 0]]), torch.tensor([[0, 3, 4, 15]]), torch.tensor([[0, 1, 2, 12]]), filled)
    return sent(fields, Pmi(*columns, torch.tensor([1]), torch.tensor([15]), amplitude, phase))


def test_fields_of_a_report() -> None:
    found = {name: values[0].tolist() for name, values in plain().items()}
    assert found["i11"] == [2]
    assert found["i12"] == [math.comb(15, 4) + math.comb(12, 3) + math.comb(11, 2) + math.comb(0, 1)]
    assert found["i16"] == [math.comb(11, 3) + math.comb(10, 2) + math.comb(0, 1)]
    assert [place for place, bit in enumerate(found["i17"]) if bit] == [1, 5, 30]
    assert found["i18"] == [0]
    assert found["i23"] == [15]
    assert found["i24"] == [4, 3, *13 * [0]]
    assert found["i25"] == [9, 15, *13 * [0]]


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("i12", 0, 1820, r"payload i12: 1820; wanted a combination's number, less than 1820"),
        ("i16", 0, 220, r"payload i16: 220; wanted a combination's number, less than 220"),
        ("i17", slice(None), 0, r"payload i17: 0 coefficients; wanted 1 to 16"),
        ("i17", slice(0, 17), 1, r"payload i17: 18 coefficients; wanted 1 to 16"),
        ("i18", 0, 2, r"payload i18: 2; wanted less than the number of coefficients of delay 0"),
        ("i23", 0, 0, r"payload i23: 0 is reserved; wanted 1 to 15"),
        ("i24", 2, 1, r"payload i24: a value of no coefficient; wanted 0 behind those of i17"),
        ("i25", 14, 3, r"payload i25: a value of no coefficient; wanted 0 behind those of i17"),
    ],
)
def test_what_is_no_pmi_is_refused(name: str, place: int | slice, value: int, message: str) -> None:
    scheme, fields = scheme_of("16x1", 4), plain()
    scheme.check_fields(fields)
    fields[name][0, place] = value
    with pytest.raises(InvalidInput, match=message):
        scheme.check_fields(fields)


@given(st.sampled_from(range(1, 9)), st.randoms(use_true_random=False), st.integers(0, 40))
def test_any_payload_is_a_precoder_or_one_clear_error(combination: int, random: Any, flipped: int) -> None:
    """Noise, and reports with some bits changed."""
    scheme = scheme_of("16x1", combination)
    fields = fields_of("16x1", combination)
    filled = torch.zeros(1, 2 * fields.size * fields.delays, dtype=torch.bool)
    filled[0, : fields.most] = True
    none = torch.zeros(1, filled.shape[1], dtype=torch.int64)
    beams, delays = torch.arange(fields.size)[None], torch.arange(fields.delays)[None]
    whole = Pmi(torch.tensor([[1, 0]]), beams, delays, filled, torch.tensor([0]), torch.tensor([9]), none, none)
    payload = bytearray(scheme.layout.pack(sent(fields, whole), 1))
    for _ in range(flipped):
        place = random.randrange(scheme.layout.bits)
        payload[place // 8] ^= 128 >> place % 8
    if flipped == 40:
        payload = bytearray(random.randbytes(len(payload)))
        payload[-1] &= 256 - (1 << (-scheme.layout.bits % 8))
    received = scheme.layout.unpack(bytes(payload), 1)
    try:
        scheme.check_fields(received)
    except InvalidInput:
        return
    found, _ = scheme.decoder.step({name: torch.from_numpy(of) for name, of in received.items()}, torch.zeros(1, 0), {})
    assert found.shape == (1, SUBBANDS, 32)
    assert torch.isfinite(torch.view_as_real(found)).all()
