from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from shared.channels.streams import Samples, Split
from shared.errors import InvalidInput
from shared.link.target import TargetCoder
from shared.metrics import Domain

SHAPES: list[tuple[Domain, tuple[int, ...], int]] = [
    ("spatial", (16,), 16),
    ("spatial", (100,), 64),
    ("angular-delay", (32, 32), 64),
    ("angular-delay", (4, 8), 32),
    ("precoder", (13, 32), 64),
    ("precoder", (13, 128), 128),
]


def samples(count: int) -> Samples:
    return Samples(3, Split.EMULATE, torch.arange(count), torch.full((count,), 2))


def channels(shape: tuple[int, ...], count: int, seed: int = 0) -> Tensor:
    """Sparse, as images are, and weak."""
    generator = torch.Generator().manual_seed(seed)
    full = torch.complex(*(torch.randn(count, *shape, generator=generator) for _ in range(2)))
    return 1e-3 * full * (torch.rand(count, *shape, generator=generator) < 0.6)


@pytest.mark.parametrize(("domain", "shape", "entries"), SHAPES)
def test_it_is_fine_and_its_bits_are_known(domain: Domain, shape: tuple[int, ...], entries: int) -> None:
    coder, true = TargetCoder(domain, shape), channels(shape, 30)
    sent = coder.encode(true, samples(30))
    assert coder.layout.bits == 8 + 16 * entries
    assert len(sent) == -(-30 * coder.layout.bits // 8)
    own = coder.ratio(true, coder.decode(sent, 30), samples(30))
    assert own.shape == (30,)
    assert 10 * np.log10(own.mean()) < -32


@pytest.mark.parametrize(("domain", "shape", "entries"), SHAPES)
def test_it_tells_the_nmse_of_an_estimate(domain: Domain, shape: tuple[int, ...], entries: int) -> None:
    """Of a sample of entries: over many frames the mean is right."""
    coder, true = TargetCoder(domain, shape), channels(shape, 600)
    noise = channels(shape, 600, seed=1)
    target = coder.decode(coder.encode(true, samples(600)), 600)
    for share in (0.1, 0.5):
        estimates = true + share * noise
        found = coder.ratio(estimates, target, samples(600)).mean()
        if domain == "precoder":
            product = (estimates.conj() * true).sum(-1).abs().square()
            powers = estimates.abs().square().sum(-1) * true.abs().square().sum(-1)
            expected = float((1 - product / powers).mean())
        else:
            expected = float(
                ((share * noise).abs().square().flatten(1).sum(1) / true.abs().square().flatten(1).sum(1)).mean()
            )
        assert found == pytest.approx(expected, rel=0.1)


def test_other_frames_have_other_entries() -> None:
    coder, true = TargetCoder("angular-delay", (32, 32)), channels((32, 32), 2)
    same = true[:1].expand(2, -1, -1)
    first, second = coder.decode(coder.encode(same, samples(2)), 2)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("target", [b"abc", bytes(200)])
def test_another_length_is_refused(target: bytes) -> None:
    with pytest.raises(
        InvalidInput, match=f"target: payload: {len(target)} bytes for 2 reports of 264 bits; wanted 66"
    ):
        TargetCoder("spatial", (16,)).decode(target, 2)
