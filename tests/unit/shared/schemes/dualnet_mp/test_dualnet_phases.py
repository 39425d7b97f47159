"""Methods of phase feedback: what is sent, and what the gNB makes of it."""

from __future__ import annotations

import math

import torch
from torch import nn

from csiemu.training.schemes.dualnet_mp import project_on_components
from shared.quantizers.base import Quantizer
from shared.schemes.dualnet_mp.branches import Branch, BranchDecoder, BranchEncoder
from shared.schemes.dualnet_mp.phases import (
    AngleDecoder,
    AngleEncoder,
    CosineDecoder,
    CosineEncoder,
    DominantAngles,
)

SHAPE = (1, 8, 10)


def images(count: int = 30) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(count, *SHAPE[1:], dtype=torch.complex64)


def in_order(image: torch.Tensor, count: int) -> torch.Tensor:
    return image.abs().flatten(1).topk(count, dim=1).indices


def fields_of(end: nn.Module) -> list[tuple[str, int, int]]:
    """What it sends or gets: name, count, bits."""
    quantizers = [module for module in end.modules() if isinstance(module, Quantizer)]
    return [(field.name, field.count, field.bits) for quantizer in quantizers for field in quantizer.fields()]


def test_signs_are_sent_of_dominant_entries_alone() -> None:
    image = images()
    branch = Branch("phase", SHAPE, 20, "ssq", 8, "c-cnn", "paper", nn.Tanh)
    encoder, decoder = CosineEncoder(branch, signs=12), CosineDecoder(branch, signs=12, kernel=5)
    dominant = in_order(image, 12)
    fields = encoder.encode(image, dominant)
    assert fields_of(encoder) == fields_of(decoder) == [("phase", 20, 8), ("sign", 12, 1)]
    assert fields["sign"].shape == (30, 12)
    cosine, sine = decoder(*decoder.received(fields, dominant))
    sent = torch.zeros(30, 80).scatter(1, dominant, 1.0).bool().view(30, 1, 8, 10)
    assert torch.equal(sine != 0, sent)
    assert torch.equal(sine[sent] > 0, image.imag[:, None][sent] >= 0)
    torch.testing.assert_close((cosine.square() + sine.square())[sent], torch.ones(30 * 12), rtol=1e-4, atol=2e-6)
    torch.testing.assert_close(encoder.seen(image)[:, 0], image.angle().cos())


def test_angles_become_cosine_and_sine() -> None:
    image = images()
    branch = Branch("phase", SHAPE, 20, "ssq", 10, "cnn", "released", nn.Tanh)
    encoder, decoder = AngleEncoder(branch), AngleDecoder(branch, kernel=5)
    fields = encoder.encode(image, in_order(image, 0))
    assert fields_of(encoder) == fields_of(decoder) == [("phase", 20, 10)]
    cosine, sine = decoder(*decoder.received(fields, in_order(image, 0)))
    torch.testing.assert_close(cosine.square() + sine.square(), torch.ones(30, 1, 8, 10))
    torch.testing.assert_close(encoder.seen(image)[:, 0] * math.pi, image.angle())


def test_angles_are_rounded_by_rank() -> None:
    """Of 80 entries 8 get 7 bits, the next 8 get 3, the rest nothing (the paper's [0, 0, 0, 3, 7])."""
    image, method = images(), DominantAngles(SHAPE, (0, 0, 0, 3, 7))
    dominant = in_order(image, method.reach)
    assert method.reach == 16
    assert fields_of(method) == [("phase0", 8, 7), ("phase8", 8, 3)]
    fields = method.encode(image, dominant)
    assert fields["phase0"].max() < 128
    cosine, sine = (part.flatten(1) for part in method(*method.received(fields, dominant)))
    unit = torch.polar(torch.ones(30, 80), image.angle().flatten(1))
    error = (torch.complex(cosine, sine) - unit).abs().gather(1, in_order(image, 80))
    assert error[:, :8].max() <= 2 * math.sin(math.pi / 256) + 1e-5
    assert 2 * math.sin(math.pi / 256) < error[:, 8:16].max() <= 2 * math.sin(math.pi / 16) + 1e-5
    assert (error[:, 16:] - 1).abs().max() < 1e-5  # nothing is said of them


def test_half_of_the_entries_may_get_one_bit() -> None:
    method = DominantAngles(SHAPE, (1, 2, 3, 4, 5))
    assert method.reach == 80
    assert sum(count * bits for _, count, bits in fields_of(method)) == 40 + 16 * 2 + 8 * (3 + 4 + 5)


def low_rank(count: int, rank: int) -> torch.Tensor:
    """Images in [0, 1] of a few components."""
    draw = torch.Generator().manual_seed(0)
    mixed = torch.rand(count, rank, generator=draw) @ torch.rand(rank, math.prod(SHAPE), generator=draw)
    return (mixed / rank).view(count, *SHAPE)


def test_linear_start_recovers_images_of_few_components() -> None:
    """With SSQ but for rounding; with eight binary entries for each component roughly."""
    image = low_rank(400, 6)
    for quantizer, entries, error in (("ssq", 8, 0.05), ("blq", 64, 0.25)):
        for core in ("c-cnn", "cnn", "dnn"):
            torch.manual_seed(0)
            branch = Branch("phase", SHAPE, entries, quantizer, 8, core, "paper", nn.ReLU)
            encoder, decoder = BranchEncoder(branch), BranchDecoder(branch, kernel=7)
            project_on_components(encoder, decoder, image, torch.ones(80))
            found = decoder.image(decoder.quantizer.from_levels(encoder.quantizer.to_levels(encoder.codeword(image))))
            spread = (image - image.mean(0)).norm()
            assert (found - image).norm() < error * spread, (core, entries)
