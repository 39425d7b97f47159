"""What holds for every quantiser: integers that fit their fields, and stand for the same again."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.link.payload import PayloadLayout
from shared.quantizers.base import Quantizer
from shared.quantizers.float32 import Float32
from shared.quantizers.lloyd_max import LloydMax
from shared.quantizers.sign import BinaryLevels, Sign
from shared.quantizers.sum_of_sigmoids import SumOfSigmoids
from shared.quantizers.uniform import Angle, UniformQuantizer

ENTRIES = 6


def allocated() -> UniformQuantizer:
    """Of 0 to 5 bits an entry or so."""
    values = torch.randn(500, ENTRIES, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, 1, ENTRIES)
    quantizer = UniformQuantizer("codeword", ENTRIES, 3, allocated=True, mu=20.0)
    quantizer.calibrate(values, torch.logspace(-3, 0, ENTRIES))
    return quantizer


def tables() -> LloydMax:
    """Of 4 and 3 bits an entry."""
    values = torch.randn(500, ENTRIES, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, 1, ENTRIES)
    quantizer = LloydMax("codeword", ENTRIES, 20)
    quantizer.calibrate(values)
    return quantizer


QUANTIZERS: dict[str, Quantizer] = {
    "sign": Sign("codeword", ENTRIES),
    "binary": BinaryLevels("codeword", ENTRIES),
    "float32": Float32("codeword", ENTRIES),
    "uniform": UniformQuantizer("codeword", ENTRIES, 5),
    "uniform, mu-law": UniformQuantizer("codeword", ENTRIES, 5, mu=50.0),
    "uniform, allocated": allocated(),
    "tables": tables(),
    "angle": Angle("codeword", ENTRIES, 4),
    "sum of sigmoids": SumOfSigmoids("codeword", ENTRIES, 4),
}
kinds = pytest.mark.parametrize("kind", QUANTIZERS)
values_ = st.lists(st.lists(st.floats(-50, 50, width=32), min_size=ENTRIES, max_size=ENTRIES), min_size=1, max_size=8)


@kinds
@given(rows=values_)
def test_integers_fit_their_fields_and_survive_the_link(kind: str, rows: list[list[float]]) -> None:
    quantizer, layout = QUANTIZERS[kind], PayloadLayout(QUANTIZERS[kind].fields())
    sent = quantizer.encode(torch.tensor(rows))
    fields = {name: levels.numpy() for name, levels in sent.items()}
    received = layout.unpack(layout.pack(fields, len(rows)), len(rows))  # which refuses what does not fit
    quantizer.check(received)
    decoded = quantizer.decode(
        {"other": torch.zeros(len(rows), 1)} | {k: torch.from_numpy(v) for k, v in received.items()}
    )
    assert decoded.shape == (len(rows), ENTRIES)
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded, quantizer.decode(sent))


@pytest.mark.parametrize("kind", [kind for kind in QUANTIZERS if kind != "sum of sigmoids"])
@given(rows=values_)
def test_what_was_quantised_stays_as_it_is(kind: str, rows: list[list[float]]) -> None:
    """A codeword of sigmoids stands for its tanh: `test_sum_of_sigmoids` has that."""
    quantizer = QUANTIZERS[kind]
    first = quantizer.encode(torch.tensor(rows))
    again = quantizer.encode(quantizer.decode(first))
    assert first.keys() == again.keys()
    assert all(torch.equal(levels, again[name]) for name, levels in first.items())


@kinds
def test_path_of_training_is_near_the_link(kind: str) -> None:
    """To a step of the softest of them."""
    quantizer = QUANTIZERS[kind]
    values = torch.randn(200, ENTRIES, generator=torch.Generator().manual_seed(1))
    wanted = quantizer.decode(quantizer.encode(values))
    torch.testing.assert_close(
        quantizer(values, 3.0), wanted, rtol=0, atol=1 / 8 if kind == "sum of sigmoids" else 1e-5
    )


@kinds
def test_weights_and_ranges_are_state_and_nothing_else(kind: str) -> None:
    """Names that checkpoints have."""
    wanted = {"uniform": ["low", "high"], "uniform, mu-law": ["low", "high"], "sum of sigmoids": ["weight"]}
    wanted["uniform, allocated"] = ["low", "high", "bits"]
    wanted["tables"] = ["levels", "distortion"]
    assert list(QUANTIZERS[kind].state_dict()) == wanted.get(kind, [])


def test_a_quantiser_without_integers_is_none() -> None:
    class Nothing(Quantizer):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Nothing("codeword", 1, 1)
