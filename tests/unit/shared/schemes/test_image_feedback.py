"""CRNet and CsiNet: sizes of the papers, the way of a codeword and its scale, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from csiemu.training.complexity import complexity
from csiemu.training.schemes import training_of
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples
from shared.conditions import RunConditions
from shared.errors import InvalidInput
from shared.link.decoding import decode_frames
from shared.link.encoding import encode_frames
from shared.link.evaluation import evaluate, outcomes, over_the_link
from shared.link.payload import Field
from shared.quantizers.scale import Scale
from shared.schemes import Scheme, scheme_class
from shared.schemes.crnet import CrNetConfig
from shared.schemes.image_feedback import ImageScheme, from_network, to_network

MakeScheme = Callable[..., Scheme]
MakeSamples = Callable[..., Samples]

INDOOR = "cost2100-indoor-csinet"
SMALL = f"{INDOOR}:antennas=8,first_rows=8"


def image_scheme(make_scheme: MakeScheme, name: str = "crnet", scenario: str = SMALL, **config: Any) -> ImageScheme:
    scheme = make_scheme(name, scenario, **config)
    assert isinstance(scheme, ImageScheme)
    return scheme


@pytest.mark.parametrize(
    ("compression", "parameters", "macs", "flops"),
    [
        (4, 2_102_838, 5_122_048, 7.66),
        (8, 1_054_006, 4_073_472, 5.56),
        (16, 529_590, 3_549_184, 4.51),
        (32, 267_382, 3_287_040, 3.99),
        (64, 136_278, 3_155_968, 3.72),
    ],
)
def test_crnet_has_the_size_of_the_paper(
    make_scheme: MakeScheme, compression: int, parameters: int, macs: int, flops: float
) -> None:
    """FLOPs of Table I [millions], in the paper's count."""
    scheme = image_scheme(make_scheme, scenario=INDOOR, compression=compression)
    assert sum(parameter.numel() for parameter in scheme.parameters()) == parameters
    cost = complexity(scheme)
    assert cost["encoder"].macs + cost["decoder"].macs == macs
    assert (cost["encoder"] + cost["decoder"]).paper_flops / 1e6 == pytest.approx(flops, abs=0.006)


@pytest.mark.parametrize(("compression", "flops"), [(4, 7.80), (8, 5.70), (16, 4.65), (32, 4.13), (64, 3.87)])
def test_csinet_has_the_size_of_its_paper(make_scheme: MakeScheme, compression: int, flops: float) -> None:
    """FLOPs of Table I [millions]: there the last convolution, too, has a batch normalisation and a leaky ReLU."""
    cost = complexity(image_scheme(make_scheme, "csinet", INDOOR, compression=compression))
    both = cost["encoder"] + cost["decoder"]
    assert both.macs - 2 * 2048 * 2048 // compression == 3_317_760
    assert (both.paper_flops + 5 * 2048) / 1e6 == pytest.approx(flops, abs=0.006)


@pytest.mark.parametrize(("head", "flops"), [("blank", 7.54), ("3x3", 7.59), ("dual3x3", 7.64), ("7x7", 7.76)])
def test_heads_have_the_cost_of_table_iv(make_scheme: MakeScheme, head: str, flops: float) -> None:
    cost = complexity(image_scheme(make_scheme, scenario=INDOOR, head=head))
    assert (cost["encoder"] + cost["decoder"]).paper_flops / 1e6 == pytest.approx(flops, abs=0.012)


@pytest.mark.parametrize(("entry_bits", "bits"), [(2, 8 + 64), (8, 8 + 256), (32, 8 + 1024)])
def test_bits_are_codeword_and_scale(make_scheme: MakeScheme, entry_bits: int, bits: int) -> None:
    scheme = image_scheme(make_scheme, entry_bits=entry_bits)
    assert scheme.layout.bits == bits
    assert scheme.layout.describe() == f"scale:1x8 codeword:32x{entry_bits}"


def test_network_sees_rows_of_angles() -> None:
    image = torch.zeros(1, 3, 4, dtype=torch.complex64)  # 3 delays, 4 angles
    image[0, 2, 1] = 0.5 - 0.25j
    scale = torch.full((1, 1), 2.0)
    numbers = to_network(image, scale)
    assert numbers.shape == (1, 4, 2, 3)
    assert numbers[0, 1, :, 2].tolist() == [0.25, -0.125]
    torch.testing.assert_close(from_network(numbers, scale), image)


def test_scale_is_the_least_level_that_holds_the_image() -> None:
    scale = Scale(-52, 8)
    image = torch.randn(200, 4, 4, dtype=torch.complex64) * torch.logspace(-2.4, -0.5, 200)[:, None, None]
    level = scale.to_levels(image)
    largest = image.abs().amax((1, 2))
    assert (largest / scale.from_levels(level)[:, 0] <= 0.5 + 1e-6).all()
    assert (largest / scale.from_levels(level - 1)[:, 0] > 0.5 - 1e-6)[level[:, 0] > 0].all()
    assert scale.to_levels(image * 1e-9).eq(0).all()
    assert scale.to_levels(image * 1e9).eq(255).all()
    assert torch.equal(scale(image), scale.decode(scale.encode(image)))


@pytest.mark.parametrize("name", ["crnet", "csinet"])
def test_float_codeword_is_the_path_of_training(make_scheme: MakeScheme, make_samples: MakeSamples, name: str) -> None:
    """Packed, unpacked and decoded, the float reference gives what `reconstruct` gives."""
    scheme, samples = image_scheme(make_scheme, name, f"{SMALL},slots=2"), make_samples(20)
    with torch.no_grad():
        observation = scheme.encoder.observe(DownlinkView(scheme.scenario, samples))
        wanted = training_of(scheme).reconstruct(observation, torch.zeros(0), 1.0)
    fields = encode_frames(scheme, scheme.scenario, samples)
    found = decode_frames(scheme, scheme.scenario, samples, fields)
    assert found.shape == (20, 2, 8, 8)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_more_bits_are_nearer_to_the_float_codeword(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    samples, estimates = make_samples(60), {}
    for bits in (2, 4, 8, 32):
        scheme = image_scheme(make_scheme, entry_bits=bits)
        training_of(scheme).calibrate(DownlinkView(scheme.scenario, make_samples(400, seed=9)))
        fields = encode_frames(scheme, scheme.scenario, samples)
        estimates[bits] = decode_frames(scheme, scheme.scenario, samples, fields)

    def distance(bits: int) -> float:
        return float(((estimates[bits] - estimates[32]).abs() / estimates[32].abs().amax((-2, -1), True)).mean())

    assert distance(8) < 0.3 * distance(4)
    assert distance(4) < 0.5 * distance(2)


def test_allocated_bits_are_as_many_and_in_the_layout(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    """And what is packed by it is decoded by it."""
    samples, schemes = make_samples(20), {}
    view = DownlinkView(Scenario.parse(SMALL), make_samples(400, seed=9))
    for allocation in ("equal", "greedy"):
        scheme = schemes[allocation] = image_scheme(make_scheme, entry_bits=3, allocation=allocation)
        training_of(scheme).start("principal", view)
        training_of(scheme).calibrate(view)
        assert scheme.layout.bits == 8 + 32 * 3
    scheme = schemes["greedy"]
    assert len(scheme.layout.fields) > 3
    assert scheme.layout.fields == image_fields(scheme)
    estimate = decode_frames(scheme, scheme.scenario, samples, encode_frames(scheme, scheme.scenario, samples))
    observation = scheme.encoder.observe(DownlinkView(scheme.scenario, samples))
    straight = type(scheme)(scheme.scenario, dataclasses.replace(scheme.config, quantised_training=True)).eval()
    straight.encoder.quantizer.bits.copy_(scheme.encoder.quantizer.bits)
    straight.load_state_dict(scheme.state_dict())
    with torch.no_grad():
        wanted = training_of(straight).reconstruct(observation, torch.zeros(0), 1.0)
    torch.testing.assert_close(estimate, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def image_fields(scheme: ImageScheme) -> tuple[Field, ...]:
    counts = torch.bincount(scheme.encoder.quantizer.bits.long()).tolist()
    codeword = (Field(f"codeword{bits}", count, bits) for bits, count in enumerate(counts) if bits and count)
    return (Field("scale", 1, 8), *codeword)


def test_training_with_the_quantiser_has_its_error(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    view = DownlinkView(Scenario.parse(SMALL), make_samples(30))
    estimates: list[Tensor] = []
    for quantised in (False, True):
        scheme = image_scheme(make_scheme, entry_bits=2, quantised_training=quantised)
        training_of(scheme).calibrate(view)
        estimates.append(training_of(scheme).reconstruct(scheme.encoder.observe(view), torch.zeros(0), 1.0))
    assert not torch.allclose(*estimates, rtol=1e-3)
    estimates[1].abs().sum().backward()
    assert all(parameter.grad is not None for parameter in scheme.encoder.network.parameters())


def test_noisy_observation(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    """Noise of N0 per subcarrier and antenna leaves M N0 / N_f of the mean power per subcarrier and antenna."""
    world, samples = Scenario.parse(f"{INDOOR}:snr_db=3"), make_samples(300)
    perfect, noisy = (DownlinkView(world, samples).image(noisy=noise) for noise in (False, True))
    power = perfect.abs().square().sum((-2, -1)) / 32**2
    noise = (noisy - perfect).abs().square().mean((-2, -1))
    assert (noise / power).mean() == pytest.approx(10**-0.3 * 32 / 257, rel=0.02)
    scheme = image_scheme(make_scheme, observation="estimated")
    view = DownlinkView(scheme.scenario, samples)
    torch.testing.assert_close(scheme.encoder.images(scheme.encoder.observe(view)[:, 0]), view.image(noisy=True)[:, 0])


def test_outcomes_are_those_of_images(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme, samples = image_scheme(make_scheme, scenario=INDOOR, compression=64, entry_bits=4), make_samples(6)
    conditions = RunConditions(scheme.scenario)
    found = outcomes(scheme, conditions, samples, over_the_link(scheme, conditions, samples))
    view = DownlinkView(scheme.scenario, samples)
    estimate = decode_frames(scheme, scheme.scenario, samples, encode_frames(scheme, scheme.scenario, samples))
    error = (estimate - view.image()).abs().square().sum((-2, -1)) / view.image().abs().square().sum((-2, -1))
    torch.testing.assert_close(torch.from_numpy(found.ratio).float(), error, rtol=1e-4, atol=0)
    assert (found.floor > 0.0005).all()
    assert (found.rho**2 <= found.sgcs + 1e-9).all()  # a mean of squares is no less than the square of the mean


@pytest.mark.parametrize("scheme_name", ["crnet", "csinet"])
def test_principal_components_are_a_better_start(
    make_scheme: MakeScheme, make_samples: MakeSamples, scheme_name: str
) -> None:
    """Leaky ReLUs bend it, yet what comes out resembles the channel, and the layers can be trained from there."""
    view = DownlinkView(Scenario.parse(SMALL), make_samples(400, seed=9))
    truth, alike = view.image()[:, 0].flatten(1), {}
    for start in ("random", "principal"):
        scheme = image_scheme(make_scheme, scheme_name, compression=2, perturbed=False)
        if start == "principal":
            training_of(scheme).start("principal", view)
        estimate = (
            training_of(scheme.train()).reconstruct(scheme.encoder.observe(view), torch.zeros(0), 1.0)[:, 0].flatten(1)
        )
        match = (truth.conj() * estimate).sum(1).abs()
        alike[start] = (match / (truth.norm(dim=1) * estimate.norm(dim=1))).mean().item()
    assert alike["principal"] > 0.6 > 0.3 > alike["random"]
    estimate.abs().sum().backward()
    assert all(parameter.grad is not None for parameter in scheme.parameters())


def test_saturated_scales_are_counted(make_scheme: MakeScheme) -> None:
    whole = image_scheme(make_scheme, entry_bits=4, scale_low_db=-100.0, scale_high_db=100.0)
    assert evaluate(whole, RunConditions(whole.scenario), ues=20)["saturated_scales"] == 0
    narrow = image_scheme(make_scheme, entry_bits=4, scale_low_db=-100.0, scale_high_db=-99.0)
    assert evaluate(narrow, RunConditions(narrow.scenario), ues=20)["saturated_scales"] == 20


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"compression": 0}, "compression: 0 is not in [1, 1024]"),
        ({"entry_bits": 9}, "entry_bits: 9 is not 2 to 8, or 32 for float32"),
        ({"allocation": "fair"}, "allocation: 'fair' is not equal or greedy"),
        ({"allocation": "greedy"}, "allocation: 'greedy' has no bits to share out when the codeword is float32"),
        ({"companding": -1.0, "entry_bits": 4}, "companding: -1.0 is not in [0, 1000]"),
        ({"companding": 20.0}, "companding: 20.0 has nothing to compress when the codeword is float32"),
        ({"observation": "guessed"}, "observation: 'guessed' is not perfect or estimated"),
        ({"scale_low_db": 9.0}, "scale_low_db, scale_high_db: 9.0, 8.0; wanted -200 <= low < high <= 200"),
        ({"slope": 1.0}, "slope: 1.0 is not in [0, 1)"),
        ({"head": "9x9"}, "head: '9x9' is not blank, 3x3, dual3x3, 5x5 or 7x7"),
    ],
)
def test_configuration_names_what_it_refuses(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        CrNetConfig(**config)
    assert str(refused.value) == message


def test_worlds_that_do_not_fit_are_refused(make_scheme: MakeScheme) -> None:
    with pytest.raises(InvalidInput, match="scenario: crnet needs a wideband world"):
        scheme_class("crnet")(Scenario.parse("multipath-p2"), CrNetConfig())
    with pytest.raises(InvalidInput, match="compression: 3 does not divide 128"):
        image_scheme(make_scheme, compression=3)
    scheme = image_scheme(make_scheme)
    with pytest.raises(InvalidInput, match="scenario first_rows: 32; this crnet was built for 8"):
        scheme.check_scenario(Scenario.parse(f"{INDOOR}:antennas=8"))
    with pytest.raises(InvalidInput, match="scenario first_rows: none; this crnet was built for 8"):
        scheme.check_scenario(Scenario.parse("multipath-p2:antennas=8"))
    scheme.check_scenario(Scenario.parse("cost2100-outdoor-csinet:antennas=8,first_rows=8,slots=4"))
