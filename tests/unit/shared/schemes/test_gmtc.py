"""A mixture of transforms, entropy coded: no report too long, what is written is read, damage is one clear error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csiemu.training.complexity import complexity
from csiemu.training.schemes import training_of
from csiemu.training.schemes.gmtc import MixtureTrainer, gaussian_nmse, k_means, laplace_tables
from csiemu.training.trainer import Progress, Recipe
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.conditions import RunConditions
from shared.errors import InvalidInput
from shared.link.decoding import decode_frames
from shared.link.encoding import encode_frames
from shared.link.evaluation import outcomes, over_the_link
from shared.link.rate import Rate, Rates
from shared.quantizers.trellis import CLASSES, SYMBOLS
from shared.schemes import Scheme
from shared.schemes.gmtc import STEPS, Gmtc, GmtcConfig, SeparableBasis

MakeScheme = Callable[..., Scheme]
MakeSamples = Callable[..., Samples]

SMALL = "cost2100-indoor-csinet:antennas=8,first_rows=8"
SIZES_OF_IT: dict[str, Any] = {"mixtures": 3, "subspace": 32, "components": 48, "ranked": 8}
RECIPE = Recipe(steps=3, batch=1500, frames=1500)


def fitted(make_scheme: MakeScheme, bits: int = 120, recipe: Recipe = RECIPE, **sizes: Any) -> Gmtc:
    """A mixture whose reports fill `bits` bits as far as they can."""
    scheme = make_scheme("gmtc", SMALL, bits=bits, **{"step": STEPS - 1, **SIZES_OF_IT, **sizes})
    assert isinstance(scheme, Gmtc)
    training = training_of(scheme)
    trainer = training.rounds(recipe, {})
    assert trainer is not None
    trainer.run()
    ue = torch.arange(1000)
    training.calibrate(DownlinkView(scheme.scenario, Samples(1, Split.TRAIN, ue, torch.zeros_like(ue))))
    return scheme


@pytest.fixture(scope="module")
def scheme(make_scheme: MakeScheme) -> Gmtc:
    return fitted(make_scheme)


def mean_ratio(scheme: Scheme, samples: Samples) -> float:
    conditions = RunConditions(scheme.scenario)
    return float(outcomes(scheme, conditions, samples, over_the_link(scheme, conditions, samples)).ratio.mean())


def scaled(scheme: Gmtc, samples: Samples) -> torch.Tensor:
    encoder = scheme.encoder
    return encoder.scaled(encoder.images(encoder.observe(DownlinkView(scheme.scenario, samples))[:, 0]))


def test_multiply_accumulates(scheme: Gmtc) -> None:
    """Complex ones: of all images' directions, of the kinds that are tried, and of the search for them."""
    cost = complexity(scheme)
    assert cost["decoder"].macs == 4 * (64 * (8 + 8) + 32 * 32)
    assert cost["encoder"].macs == 4 * (64 * (8 + 8) + 3 * 32 * 32 + 3 * 32 * 8)


def test_layout_is_scale_length_and_code(scheme: Gmtc) -> None:
    assert scheme.layout.describe() == "scale:1x8 length:1x7 code:0..105x1"
    assert (scheme.layout.least_bits, scheme.layout.bits) == (15, 120)


def test_what_is_written_is_read(scheme: Gmtc, make_samples: MakeSamples) -> None:
    images = scaled(scheme, make_samples(60))
    labels, choice = scheme.encoder.choose(images, torch.full((60,), 105), torch.full((60,), STEPS - 1))
    assert len(set(labels.tolist())) == 3
    for label, step, levels in zip(labels.tolist(), choice.steps.tolist(), choice.levels, strict=True):
        found = scheme.decoder.code.trellis.read(scheme.encoder.code.trellis.write(label, step, levels))
        assert found[:2] == (label, step)
        assert (found[2] == levels.numpy()).all()


def test_coefficients_are_of_one_kind_and_back(scheme: Gmtc, make_samples: MakeSamples) -> None:
    code = scheme.encoder.code
    points = code.basis.analyse(scaled(scheme, make_samples(4)))
    found = torch.view_as_complex(code.coefficients(points, torch.tensor([[0, 2]] * 4)))
    for place, kind in enumerate((0, 2)):
        back = torch.stack([code.point(kind, row) for row in found[:, place]])
        torch.testing.assert_close(back, points)
    assert not torch.allclose(found[:, 0], found[:, 1])


def test_directions_of_all_images_are_orthonormal_products() -> None:
    basis = SeparableBasis((3, 5), 15)
    draw = torch.Generator().manual_seed(0)
    for name, size in (("rows", 3), ("columns", 5)):
        vectors = torch.linalg.qr(torch.randn(size, size, dtype=torch.complex64, generator=draw)).Q
        getattr(basis, name).copy_(torch.stack([vectors.real, vectors.imag]))
    basis.places.copy_(torch.randperm(15, generator=draw))
    images = torch.randn(4, 3, 5, dtype=torch.complex64, generator=draw)
    points = basis.analyse(images)
    torch.testing.assert_close(points.abs().square().sum(1), images.abs().square().sum((1, 2)))
    torch.testing.assert_close(basis.synthesise(points), images)
    row, column = divmod(int(basis.places[0]), 5)
    direction = basis.synthesise(torch.eye(15, dtype=torch.complex64))[0]
    rows, columns = torch.complex(*basis.rows), torch.complex(*basis.columns)
    torch.testing.assert_close(direction, torch.outer(rows[:, row], columns[:, column]))


def test_the_strongest_directions_come_first(scheme: Gmtc, make_samples: MakeSamples) -> None:
    points = scheme.encoder.code.basis.analyse(scaled(scheme, make_samples(200, split=Split.TRAIN)))
    power = points.abs().square().mean(0)
    assert power[:8].mean() > 3 * power[8:24].mean() > 6 * power[24:].mean()


def test_the_kinds_that_are_tried_out_are_worth_it(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    one, all_of_them = (fitted(make_scheme, tried=tried) for tried in (1, 3))
    found = [mean_ratio(scheme, make_samples(300)) for scheme in (one, all_of_them)]
    assert found[1] < found[0]


@pytest.mark.parametrize("bits", [80, 81, 87])
def test_the_shortest_reports_are_reports(make_scheme: MakeScheme, make_samples: MakeSamples, bits: int) -> None:
    scheme, samples = fitted(make_scheme, bits), make_samples(40)
    sent = encode_frames(scheme, scheme.scenario, samples)
    assert sent.shape == (40, 1, bits)
    assert scheme.layout.lengths(sent).max() <= bits
    assert mean_ratio(scheme, samples) < 0.9


def test_no_report_is_longer_than_its_rate_allows(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme, samples = fitted(make_scheme, bits=400), make_samples(64)
    bits = torch.arange(64) * 3 + 80
    sent = encode_frames(scheme, scheme.scenario, samples, Rates(bits, torch.full((64,), STEPS - 1)))[:, 0]
    lengths = torch.from_numpy(scheme.layout.lengths(sent))
    assert (lengths <= bits).all()
    assert (lengths > bits - 40).float().mean() > 0.9
    assert int(scheme.layout.lengths(encode_frames(scheme, scheme.scenario, samples)).max()) > int(bits.max())


def test_reports_at_one_step_have_lengths_of_their_own_and_one_distortion(
    make_scheme: MakeScheme, make_samples: MakeSamples
) -> None:
    scheme, samples = fitted(make_scheme, bits=400, step=122), make_samples(200)
    conditions = RunConditions(scheme.scenario)
    sent = over_the_link(scheme, conditions, samples)
    at_most = scheme.rates(Rate(bits=200), 200)
    filled = encode_frames(scheme, scheme.scenario, samples, at_most)
    lengths, ratios = scheme.layout.lengths(sent), outcomes(scheme, conditions, samples, sent).db
    assert np.ptp(lengths) > 50
    assert ratios.std() < outcomes(scheme, conditions, samples, filled).db.std()
    finer = over_the_link(scheme, conditions, samples, Rate(step=138))
    assert scheme.layout.lengths(finer).mean() > lengths.mean()
    assert outcomes(scheme, conditions, samples, finer).ratio.mean() < 0.8 * 10 ** (ratios / 10).mean()


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (Rate(bits=79), "bits: 79; this gmtc takes 80 to 120 a report"),
        (Rate(bits=121), "bits: 121; this gmtc takes 80 to 120 a report"),
        (Rate(step=STEPS), f"step: {STEPS}; gmtc has steps 0 to {STEPS - 1}"),
    ],
)
def test_rates_that_it_cannot_have_are_refused(scheme: Gmtc, rate: Rate, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        scheme.check_rate(rate)


@pytest.mark.parametrize("step", [108, 120, 132, 148])
def test_the_gnb_expects_the_distortion_that_there_is(
    make_scheme: MakeScheme, make_samples: MakeSamples, step: int
) -> None:
    many = Recipe(steps=3, batch=12_000, frames=12_000)  # of few, the weakest coefficients are taken for weaker
    scheme, samples = fitted(make_scheme, bits=600, recipe=many, step=step), make_samples(300)
    conditions = RunConditions(scheme.scenario)
    sent = over_the_link(scheme, conditions, samples)
    found = float(outcomes(scheme, conditions, samples, sent).ratio.mean())
    fields = {name: torch.from_numpy(values) for name, values in scheme.layout.fields_of(sent[:, 0]).items()}
    expected, steps = scheme.decoder.distortion(fields)
    assert steps.tolist() == [step] * 300
    assert 10 * np.log10(float(expected.mean()) / found) == pytest.approx(0, abs=0.4)


def test_it_is_nearer_than_one_transform_of_fixed_bits(
    scheme: Gmtc, make_scheme: MakeScheme, make_samples: MakeSamples
) -> None:
    plain = make_scheme("transform", SMALL, bits=120, components=32)
    training_of(plain).calibrate(DownlinkView(plain.scenario, make_samples(1500, split=Split.TRAIN)))
    found, other = (mean_ratio(kind, make_samples(300)) for kind in (scheme, plain))
    assert found < 0.8 * other


def test_more_bits_are_nearer(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    found = [mean_ratio(fitted(make_scheme, bits), make_samples(200)) for bits in (80, 160, 320)]
    assert found[0] > 1.5 * found[1] > 2 * found[2]


def test_a_report_does_not_depend_on_its_company(scheme: Gmtc, make_samples: MakeSamples) -> None:
    samples = make_samples(40)
    together = encode_frames(scheme, scheme.scenario, samples)
    alone = [encode_frames(scheme, scheme.scenario, samples.take(slice(row, row + 1))) for row in range(40)]
    assert (together == np.concatenate(alone)).all()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        estimates = decode_frames(scheme, scheme.scenario, samples, together)
    finally:
        torch.set_num_threads(threads)
    one = [
        decode_frames(scheme, scheme.scenario, samples.take(slice(n, n + 1)), together[n : n + 1]) for n in range(40)
    ]
    torch.testing.assert_close(estimates, torch.cat(one), rtol=1e-4, atol=1e-5 * float(estimates.abs().max()))


@pytest.mark.parametrize("reports", [1500, pytest.param(100_000, marks=pytest.mark.slow)])
def test_damaged_reports_are_an_estimate_or_one_clear_error(
    scheme: Gmtc, make_samples: MakeSamples, reports: int
) -> None:
    draw, refused = np.random.default_rng(0), 0
    sent = encode_frames(scheme, scheme.scenario, make_samples(32))[:, 0]
    for count in range(reports):
        bits = sent[count % 32].copy()
        if count % 2:
            bits[draw.integers(15, int(scheme.layout.lengths(bits)), int(draw.integers(1, 8)))] ^= 1
        else:
            length = draw.integers(0, 106)
            bits[8:] = 0
            bits[8:15] = length >> np.arange(6, -1, -1) & 1
            bits[15 : 15 + length] = draw.integers(0, 2, length)
        fields = scheme.layout.fields_of(bits[None])
        try:
            scheme.check_fields(fields)
        except InvalidInput as error:
            refused += str(error).startswith("payload: ")
            continue
        estimate, _ = scheme.decoder.step(
            {name: torch.from_numpy(values) for name, values in fields.items()}, torch.zeros(1, 0), {}
        )
        assert torch.isfinite(torch.view_as_real(estimate)).all()
    assert refused > 2 * reports // 3


def test_a_silent_channel_is_a_report(scheme: Gmtc) -> None:
    fields = scheme.encoder.encode(torch.zeros(2, 128))
    estimate, _ = scheme.decoder.step(fields, torch.zeros(2, 0), {})
    assert estimate.abs().max() < 1e-3


def test_expected_tables_are_laws() -> None:
    found = laplace_tables()
    assert found.shape == (2, CLASSES, SYMBOLS)
    torch.testing.assert_close(found.sum(2), torch.ones(2, CLASSES))
    assert found.min() >= 0
    assert (found[..., 1:-1].diff(dim=2) <= 1e-6).all()


def test_gaussian_vectors_are_left_with_what_water_filling_leaves() -> None:
    power, shares = torch.tensor([[4.0, 1.0], [4.0, 4.0]]), torch.tensor([0.5, 0.5])
    assert gaussian_nmse(power, shares, 0) == pytest.approx(1, rel=1e-3)
    assert gaussian_nmse(power, shares, 3) == pytest.approx(2 / 6.5, rel=1e-3)  # all at a level of 1
    assert gaussian_nmse(power, shares, 5) == pytest.approx(1 / 6.5, rel=1e-3)


def test_training_goes_on_where_it_was_stopped(make_scheme: MakeScheme, tmp_path: Path) -> None:
    schemes = [make_scheme("gmtc", SMALL, bits=120, **SIZES_OF_IT) for _ in range(3)]
    seen: list[Progress] = []
    whole, first, second = (MixtureTrainer(scheme, RECIPE, {}) for scheme in schemes)
    whole.run(on_progress=seen.append)
    first.run(1)
    first.save(tmp_path)
    first.save(tmp_path)
    second.load(tmp_path)
    second.run()
    assert (second.labels == whole.labels).all()
    ours, theirs = (schemes[number].encoder.code.state_dict() for number in (2, 0))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [point["loss"] for point in second.history] == [progress.loss for progress in seen]
    assert seen[-1].loss < seen[0].loss
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    other = MixtureTrainer(schemes[1], Recipe(steps=4, batch=1500, frames=1500), {})
    with pytest.raises(InvalidInput, match=r"resume: .* was made with other settings: recipe steps was 3, is 4"):
        other.load(tmp_path)
    whole.step = 0
    whole.stop()
    whole.run()
    assert whole.step == 0


def test_what_a_mixture_cannot_begin_with_is_refused(make_scheme: MakeScheme) -> None:
    scheme = make_scheme("gmtc", SMALL, bits=120, **SIZES_OF_IT)
    with pytest.raises(InvalidInput, match=r"start_from, .*: a/1; a mixture is fitted from its frames alone"):
        training_of(scheme).rounds(RECIPE, {"frozen_from": None, "started_from": "a/1"})
    with pytest.raises(InvalidInput, match="frames: 0; a mixture is fitted to a fixed number of frames"):
        training_of(scheme).rounds(Recipe(), {})


def test_k_means_finds_clusters_and_the_same_ones_again() -> None:
    points = torch.cat([torch.randn(50, 4) + 20 * torch.eye(4)[kind] for kind in range(4)])
    labels = k_means(points, 4, seed=2)
    assert torch.equal(labels, k_means(points, 4, seed=2))
    assert all(len(set(part.tolist())) <= 2 for part in labels.split(50))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"bits": 79}, "bits: 79 is not in [80, 65536]"),
        ({"step": 192}, "step: 192 is not in [0, 191]"),
        ({"mixtures": 0}, "mixtures: 0 is not in [1, 1024]"),
        (
            {"ranked": 300},
            "ranked, subspace, components: 300, 256, 448; wanted ranked <= subspace <= components",
        ),
        ({"observation": "guessed"}, "observation: 'guessed' is not perfect or estimated"),
    ],
)
def test_configuration_names_what_it_refuses(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        GmtcConfig(**config)
    assert str(refused.value) == message


def test_worlds_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInput, match="scenario: gmtc needs a wideband world"):
        Gmtc(Scenario.parse("multipath-p2"), GmtcConfig())
    with pytest.raises(InvalidInput, match="components: 448 is more than 64, the entries of an image"):
        Gmtc(Scenario.parse(SMALL), GmtcConfig())
