"""CRNet as the best linear autoencoder at the start: what it is made of, and that it is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from csiemu.training.schemes import training_of
from csiemu.training.schemes.crnet import CrNetTraining, fit_merge, hinged_path, transparent, transparent_path
from shared.channels.downlink import DownlinkView
from shared.channels.streams import Samples
from shared.errors import InvalidInput
from shared.schemes import Scheme
from shared.schemes.crnet import CrBlock, MultiResolution
from shared.schemes.layouts.rows import RowBatchNorm

MakeScheme = Callable[..., Scheme]
MakeSamples = Callable[..., Samples]

SMALL = "cost2100-indoor-csinet:antennas=8,first_rows=8"


def images(count: int = 20, deviation: float = 0.3) -> Tensor:
    return deviation * torch.randn(count, 2, 6, 5, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_transparent_norm_lifts_and_shrinks() -> None:
    norm, image = RowBatchNorm(2).eval(), images() + 7
    wanted = image / 4 + 0.5
    torch.testing.assert_close(transparent(norm, image, 0.5, 4.0), wanted)
    torch.testing.assert_close(norm(image[:1]), wanted[:1])  # also by its own statistics alone


@torch.no_grad()
@pytest.mark.parametrize("slope", [0.05, 0.3])
@pytest.mark.parametrize("path", ["fine", "coarse"])
def test_hinges_at_zero_are_the_parts_above_and_below(path: str, slope: float) -> None:
    """However many leaky ReLUs follow, and however far the image is lifted."""
    image = images()
    found = hinged_path(getattr(CrBlock(slope).eval().paths, path), image + 2, 2.0, 0.0)[:, :4]
    wanted = torch.stack([sign * image[:, part] for part in (0, 1) for sign in (1, -1)], dim=1).clamp(min=0)
    torch.testing.assert_close(found, wanted)


@torch.no_grad()
@pytest.mark.parametrize("slope", [0.05, 0.3])
@pytest.mark.parametrize("path", ["fine", "coarse"])
def test_hinges_elsewhere_are_odd_and_bend_there(path: str, slope: float) -> None:
    """f(v - t) - f(-v - t) has slope 1 + s beyond +-t, 2 s between; the last leaky ReLU gets it and its negative."""
    image, at = images(deviation=1.0), 0.8
    bend = nn.LeakyReLU(slope)
    found = hinged_path(getattr(CrBlock(slope).eval().paths, path), image + 2, 2.0, at)[:, :4]
    odd = 2 * slope * image + (1 - slope) * ((image - at).clamp(min=0) - (-image - at).clamp(min=0))
    wanted = torch.stack([bend(sign * odd[:, part]) for part in (0, 1) for sign in (1, -1)], dim=1)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_fit_finds_what_hinges_can_make() -> None:
    """v + 2 max(v, 0) - 0.25 from parts above and below 0; where the weight is 0, the goal does not matter."""
    image, paths = images(), CrBlock(0.3).eval().paths
    assert isinstance(paths, MultiResolution)
    outputs = [hinged_path(path, image, 0.0, at) for path, at in ((paths.coarse, 0.4), (paths.fine, 0.0))]
    wanted = image + 2 * image.clamp(min=0) - 0.25
    weight = (image < 0.5).float()
    fit_merge(paths.merge, paths.norm, outputs, torch.where(image < 0.5, wanted, 100.0), weight)
    torch.testing.assert_close(paths(image), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("head", "slope"), [("5x5", 0.3), ("blank", 0.3), ("dual3x3", 0.3), ("7x7", 0.5)])
def test_begins_as_the_best_linear_autoencoder(
    make_scheme: MakeScheme, make_samples: MakeSamples, head: str, slope: float
) -> None:
    """Its codeword is linear in the image, and its estimate nearly the projection on principal components."""
    scheme = make_scheme("crnet", SMALL, compression=4, perturbed=False, head=head, slope=slope).eval()
    training = training_of(scheme)
    assert isinstance(training, CrNetTraining)
    known, new = (DownlinkView(scheme.scenario, make_samples(count, seed=seed)) for count, seed in ((600, 9), (200, 2)))
    training.start("linear", known)
    components, image = training.principal_components(training.scaled(known)), training.scaled(new)
    coordinates = image.flatten(1) @ components
    with torch.no_grad():
        codeword = scheme.encoder.network(image)
        estimate = scheme.decoder.network(codeword)
    ratio = (codeword * coordinates).sum() / coordinates.square().sum()
    torch.testing.assert_close(codeword, ratio * coordinates, atol=1e-4 * float(codeword.abs().max()), rtol=1e-3)

    def nmse(found: Tensor) -> float:
        return float((found.flatten(1) - image.flatten(1)).square().sum() / image.square().sum())

    assert nmse(estimate) < 1.2 * nmse(coordinates @ components.mT)


def test_lifts_hold_for_every_image(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    """The encoder's images reach down to -0.5, which is what they are lifted by."""
    scheme = make_scheme("crnet", SMALL, compression=1, perturbed=False).eval()
    training_of(scheme).start("linear", DownlinkView(scheme.scenario, make_samples(600, seed=9)))
    paths = scheme.encoder.network.features[0]
    assert isinstance(paths, MultiResolution)
    edge = torch.full((1, 2, 8, 8), -0.5)
    with torch.no_grad():
        torch.testing.assert_close(paths.fine(edge), torch.zeros(1, 2, 8, 8), atol=1e-5, rtol=0)
        lifted = transparent_path(paths.fine, images()[:, :, :5], 0.5)
    assert (lifted.flatten(1).mean(1) > 0.3).all()


def test_refused_where_there_is_none(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    options: list[tuple[str, dict[str, Any], str]] = [
        ("csinet", {}, "start: 'csinet' has no linear start; start is random"),
        ("crnet", {"slope": 0.0}, "start: linear needs leaky ReLUs of a slope above 0; slope is 0"),
    ]
    for name, config, message in options:
        scheme = make_scheme(name, SMALL, **config)
        with pytest.raises(InvalidInput) as refused:
            training_of(scheme).start("linear", DownlinkView(scheme.scenario, make_samples(4)))
        assert str(refused.value) == message
