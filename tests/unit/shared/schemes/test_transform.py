"""Transform coding of a fixed length: as many bits as were asked for, both ends the same, nearer with more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from csiemu.training.complexity import complexity
from csiemu.training.schemes import training_of
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.conditions import RunConditions
from shared.errors import InvalidInput
from shared.link.decoding import decode_frames
from shared.link.encoding import encode_frames
from shared.link.evaluation import outcomes, over_the_link
from shared.metrics import energy
from shared.quantizers.scale import PowerScale
from shared.schemes import Scheme
from shared.schemes.transform import Analysis, Synthesis, Transform, TransformConfig

MakeScheme = Callable[..., Scheme]
MakeSamples = Callable[..., Samples]

INDOOR = "cost2100-indoor-csinet"
SMALL = f"{INDOOR}:antennas=8,first_rows=8"


def fitted(make_scheme: MakeScheme, frames: Samples, **config: Any) -> Transform:
    scheme = make_scheme("transform", SMALL, **{"bits": 100, "components": 32, **config})
    assert isinstance(scheme, Transform)
    training_of(scheme).calibrate(DownlinkView(scheme.scenario, frames))
    return scheme


@pytest.fixture(scope="module")
def frames(make_samples: MakeSamples) -> Samples:
    return make_samples(1500, split=Split.TRAIN)


def mean_ratio(scheme: Scheme, samples: Samples) -> float:
    conditions = RunConditions(scheme.scenario)
    return float(outcomes(scheme, conditions, samples, over_the_link(scheme, conditions, samples)).ratio.mean())


@pytest.mark.parametrize("bits", [9, 63, 100, 392])
def test_a_report_has_the_bits_that_were_asked_for(make_scheme: MakeScheme, frames: Samples, bits: int) -> None:
    """Before and after they are shared out."""
    raw = make_scheme("transform", SMALL, bits=bits, components=32)
    assert raw.layout.bits == bits
    scheme = fitted(make_scheme, frames, bits=bits)
    assert scheme.layout.bits == bits
    assert scheme.layout.fields[0].name == "scale"
    assert scheme.decoder.quantizer.fields() == scheme.encoder.quantizer.fields()


def test_more_bits_are_nearer(make_scheme: MakeScheme, make_samples: MakeSamples, frames: Samples) -> None:
    found = [mean_ratio(fitted(make_scheme, frames, bits=bits), make_samples(300)) for bits in (20, 100, 300)]
    assert found[0] > 1.5 * found[1] > 2 * found[2]


def test_vectors_are_the_best_for_as_many(make_scheme: MakeScheme, frames: Samples) -> None:
    """Without quantisation they leave what the covariance's smallest eigenvalues hold."""
    scheme = fitted(make_scheme, frames, components=6)
    encoder, basis = scheme.encoder, scheme.decoder.basis
    view = DownlinkView(scheme.scenario, frames)
    images = encoder.scaled(encoder.images(encoder.observe(view)[:, 0]))
    left = energy(images.flatten(1) - basis(encoder.basis(images))).mean()
    flat = images.flatten(1)
    values = torch.linalg.eigvalsh((flat.mT @ flat.conj()).to(torch.complex128)) / len(flat)
    assert float(left) == pytest.approx(float(values[:-6].sum()), rel=1e-3)
    gram = torch.complex(*basis.vectors)
    torch.testing.assert_close(gram.mH @ gram, torch.eye(6, dtype=torch.complex64), atol=1e-5, rtol=0)


def test_phase_of_a_channel_is_free(make_scheme: MakeScheme, frames: Samples) -> None:
    """So that real and imaginary parts get about the same bits."""
    real, imaginary = fitted(make_scheme, frames, bits=392).encoder.quantizer.bits.long().view(2, -1).sum(1).tolist()
    assert abs(real - imaginary) <= 0.03 * (392 - 8)


def test_noise_in_the_measurement_is_in_the_report(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    samples = make_samples(6)
    reports = [
        encode_frames(make_scheme("transform", f"{SMALL},snr_db=-10", observation=kind, components=64, bits=392), *at)
        for kind in ("perfect", "estimated")
        for at in [(Scenario.parse(f"{SMALL},snr_db=-10"), samples)]
    ]
    assert (reports[0] != reports[1]).any()


def test_analysis_and_synthesis_are_inverse_within_the_span() -> None:
    analysis, synthesis = Analysis(12, 5), Synthesis(12, 5)
    unitary = torch.linalg.qr(torch.randn(12, 5, dtype=torch.complex64)).Q
    for basis in (analysis, synthesis):
        basis.vectors.copy_(torch.stack([unitary.real, unitary.imag]))
    coefficients = torch.randn(7, 10)
    torch.testing.assert_close(analysis(synthesis(coefficients).unflatten(1, (3, 4))), coefficients)


def test_power_scale_is_the_nearest_level() -> None:
    scale = PowerScale(-88, -12)
    images = torch.randn(50, 4, 4, dtype=torch.complex64) * torch.logspace(-4, -1, 50)[:, None, None]
    wanted = 10 * images.abs().square().mean((1, 2)).log10()
    found = 20 * scale(images)[:, 0].log10()
    assert (found - wanted).abs().max() <= 76 / 255 / 2 + 1e-3
    assert scale.to_levels(images * 1e-9).eq(0).all()
    assert scale.to_levels(images * 1e9).eq(255).all()
    assert scale.to_levels(torch.zeros(1, 2, 2, dtype=torch.complex64)).eq(0).all()


def test_both_ends_agree_whatever_the_batch(
    make_scheme: MakeScheme, make_samples: MakeSamples, frames: Samples
) -> None:
    scheme, samples = fitted(make_scheme, frames), make_samples(40)
    together = encode_frames(scheme, scheme.scenario, samples)
    alone = [encode_frames(scheme, scheme.scenario, samples.take(slice(row, row + 1))) for row in range(40)]
    assert (together == torch.cat([torch.from_numpy(part) for part in alone]).numpy()).all()
    estimates = decode_frames(scheme, scheme.scenario, samples, together)
    assert estimates.shape == (40, 1, 8, 8)


def test_multiply_accumulates_are_those_of_complex_products(make_scheme: MakeScheme) -> None:
    cost = complexity(make_scheme("transform", SMALL, components=30, bits=100))
    assert cost["encoder"].macs == cost["decoder"].macs == 4 * 64 * 30


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"bits": 8}, "bits: 8 is not in [9, 65536]"),
        ({"components": 0}, "components: 0 is not in [1, 65536]"),
        ({"bits": 777, "components": 32}, "bits: 777 is more than 32 components take, 776"),
        ({"companding": -1.0}, "companding: -1.0 is not in [0, 1000]"),
        ({"observation": "guessed"}, "observation: 'guessed' is not perfect or estimated"),
        ({"scale_low_db": 9.0}, "scale_low_db, scale_high_db: 9.0, -12.0; wanted -200 <= low < high <= 200"),
    ],
)
def test_configuration_names_what_it_refuses(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        TransformConfig(**config)
    assert str(refused.value) == message


def test_worlds_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInput, match="scenario: transform needs a wideband world"):
        Transform(Scenario.parse("multipath-p2"), TransformConfig())
    with pytest.raises(InvalidInput, match="components: 128 is more than 64, the entries of an image"):
        Transform(Scenario.parse(SMALL), TransformConfig())
