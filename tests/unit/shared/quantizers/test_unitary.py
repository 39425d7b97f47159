from __future__ import annotations

import torch

from shared.quantizers.unitary import UnitaryMatrices


def drawn(count: int, size: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(size)
    return torch.linalg.qr(torch.randn(count, size, size, dtype=torch.complex64, generator=draw)).Q


def test_whatever_is_rounded_they_are_unitary() -> None:
    found = UnitaryMatrices(3, 40)
    found.packed.copy_(torch.randint(-127, 128, found.packed.shape))
    found.scales.fill_(0.01)
    torch.testing.assert_close(found.matrices.mH @ found.matrices, torch.eye(40).expand(3, -1, -1) + 0j)


def test_columns_are_those_that_were_set_but_for_their_phases() -> None:
    for size in (1, 2, 7, 64):
        wanted, found = drawn(4, size), UnitaryMatrices(4, size)
        found.set(wanted)
        alike = (wanted.conj() * found.matrices).sum(1).abs()
        assert alike.min() > 0.997


def test_they_travel_in_a_byte_an_entry() -> None:
    first, second = UnitaryMatrices(2, 16), UnitaryMatrices(2, 16)
    first.set(drawn(2, 16))
    assert second.matrices.shape == (2, 16, 16)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.matrices, second.matrices)
    assert first.packed.dtype == torch.int8
