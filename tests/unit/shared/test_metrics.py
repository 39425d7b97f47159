from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from shared.channels.transforms import kept_rows, to_spatial_frequency, zero_fill
from shared.errors import InvalidInput
from shared.metrics import COLUMNS, OF_ERRORS, Outcomes, Truth, averages, summarise

Complex = NDArray[np.complex128]


def channels(shape: tuple[int, ...], seed: int = 0, noise: float = 0.5) -> tuple[Complex, Complex]:
    """Estimate and truth, the truth of uneven power."""
    draw = np.random.default_rng(seed)

    def normal() -> Complex:
        return draw.normal(size=shape) + 1j * draw.normal(size=shape)

    truth = normal() * draw.uniform(0.3, 3, (*shape[:-1], 1))
    return truth + noise * normal(), truth


def measure(estimate: Complex, truth: Complex) -> Outcomes:
    ours, theirs = (torch.from_numpy(values).to(torch.complex64) for values in (estimate, truth))
    return Outcomes.measure(ours, Truth.narrowband(theirs))


def of(error: object, power: object, sgcs: object) -> Outcomes:
    """Outcomes of narrowband channels."""
    columns = [np.asarray(values, float) for values in (error, power, power, sgcs)]
    return Outcomes.of(np.stack([*columns, np.sqrt(columns[-1])]))


def direct(estimate: Complex, truth: Complex) -> dict[str, float]:
    """The definitions, over all reports at once."""
    error = np.sum(np.abs(estimate - truth) ** 2, axis=-1)
    power = np.sum(np.abs(truth) ** 2, axis=-1)
    match = np.abs(np.sum(estimate.conj() * truth, axis=-1)) ** 2
    return {
        "nmse_db": 10 * np.log10(np.mean(error / power)),
        "ratio_of_sums_db": 10 * np.log10(np.sum(error) / np.sum(power)),
        "mean_of_db": np.mean(10 * np.log10(error / power)),
        "sgcs": np.mean(match / np.sum(np.abs(estimate) ** 2, axis=-1) / power),
    }


def summary_of(outcomes: Outcomes) -> dict[str, object]:
    return summarise(outcomes.moments().sum(0), outcomes.frame_moments().sum(0))


def test_averages_are_their_definitions() -> None:
    estimate, truth = channels((40, 3, 5))
    found = summary_of(measure(estimate, truth))
    assert found["reports"] == 120
    assert found["frames"] == 40
    for name, value in direct(estimate, truth).items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    by_slot = found["by_slot"]
    assert isinstance(by_slot, list)
    assert [slot["slot"] for slot in by_slot] == [1, 2, 3]
    for t, slot in enumerate(by_slot):
        assert slot["reports"] == 40
        for name, value in direct(estimate[:, t], truth[:, t]).items():
            assert slot[name] == pytest.approx(value, rel=1e-5), name


def test_the_three_averages_differ() -> None:
    """One report of power 100 and error 1, one of power 1 and error 1."""
    outcomes = of([1.0, 1.0], [100.0, 1.0], [0.9, 0.5])
    found = averages(outcomes.moments().sum(0), outcomes.moments().sum(0))
    assert found["nmse_db"] == pytest.approx(10 * np.log10(0.505))
    assert found["ratio_of_sums_db"] == pytest.approx(10 * np.log10(2 / 101))
    assert found["mean_of_db"] == pytest.approx(-10)
    assert found["sgcs"] == pytest.approx(0.7)


def test_moments_are_in_the_order_of_the_columns() -> None:
    moments = Outcomes.of(np.array([[3.0], [30.0], [40.0], [0.2], [0.4]])).moments()
    expected = {
        "count": 1,
        "ratio": 0.1,
        "ratio_sq": 0.01,
        "db": -10,
        "db_sq": 100,
        "error": 3,
        "power": 30,
        "error_sq": 9,
        "power_sq": 900,
        "error_power": 90,
        "sgcs": 0.2,
        "sgcs_sq": 0.04,
        "rho": 0.4,
        "rho_sq": 0.16,
        "ratio_sf": 13 / 40,
        "ratio_sf_sq": (13 / 40) ** 2,
        "floor": 0.25,
        "floor_sq": 0.0625,
    }
    assert dict(zip(COLUMNS, moments[0].tolist(), strict=True)) == pytest.approx(expected)


def test_sums_of_halves_add_to_the_whole() -> None:
    outcomes = measure(*channels((30, 4, 3)))
    halves = [Outcomes.of(outcomes.measured[:, part]) for part in (slice(0, 11), slice(11, None))]
    by_slot = sum(half.moments().sum(0) for half in halves)
    frames = sum(half.frame_moments().sum(0) for half in halves)
    assert isinstance(by_slot, np.ndarray)
    assert isinstance(frames, np.ndarray)
    np.testing.assert_allclose(by_slot, outcomes.moments().sum(0), rtol=1e-12)
    np.testing.assert_allclose(frames, outcomes.frame_moments().sum(0), rtol=1e-12)
    whole, added = summary_of(outcomes), summarise(by_slot, frames)
    assert added.keys() == whole.keys()
    assert added["truncation_floor_db"] is whole["truncation_floor_db"] is None
    for name in whole.keys() - {"by_slot", "truncation_floor_db"}:
        assert added[name] == pytest.approx(whole[name], rel=1e-9), name


def test_sgcs_ignores_a_complex_factor() -> None:
    _, truth = channels((6, 5))
    outcomes = measure(truth * (0.3 - 2j), truth)
    assert outcomes.sgcs == pytest.approx(1, abs=1e-5)
    assert (outcomes.ratio > 1).all()


def test_sgcs_of_an_orthogonal_estimate_is_zero() -> None:
    outcomes = measure(np.array([[1.0 + 0j, 1j]]), np.array([[1.0 + 0j, -1j]]))
    assert outcomes.sgcs == pytest.approx(0, abs=1e-7)


def test_all_zero_estimate() -> None:
    _, truth = channels((6, 5))
    outcomes = measure(np.zeros_like(truth), truth)
    assert outcomes.sgcs.tolist() == [0] * 6
    assert outcomes.ratio == pytest.approx(1)
    assert outcomes.db == pytest.approx(0, abs=1e-5)


def test_perfect_estimate_has_finite_db() -> None:
    _, truth = channels((6, 5))
    outcomes = measure(truth, truth)
    assert outcomes.error.tolist() == [0] * 6
    assert np.isfinite(outcomes.db).all()
    assert (outcomes.db < -200).all()
    assert outcomes.sgcs == pytest.approx(1, abs=1e-6)


ERRORS = {
    "nmse_db": "nmse_se_db",
    "ratio_of_sums_db": "ratio_of_sums_se_db",
    "mean_of_db": "mean_of_db_se",
    "sgcs": "sgcs_se",
}


def correlated(repetitions: int, frames: int, slots: int) -> Outcomes:
    """Outcomes [repetitions * frames, slots] whose error, power and SGCS depend mostly on the frame."""
    draw = np.random.default_rng(4)
    shape = (repetitions * frames, slots)
    common = draw.normal(size=(shape[0], 1))
    power = np.exp(0.4 * common + 0.2 * draw.normal(size=shape))
    error = 0.1 * power * np.exp(0.6 * draw.normal(size=(shape[0], 1)) + 0.2 * draw.normal(size=shape))
    sgcs = 1 / (1 + np.exp(-common - 0.3 * draw.normal(size=shape)))
    return of(error, power, sgcs)


def test_standard_errors_are_the_spread_of_repeated_measurements() -> None:
    """Over 400 repetitions of 150 frames; the spread is then known to 3.5 %. Slots taken for independent are not."""
    repetitions, frames, slots = 400, 150, 4
    outcomes = correlated(repetitions, frames, slots)
    moments = outcomes.moments().reshape(repetitions, frames, slots, -1).sum(1)
    of_frames = outcomes.frame_moments().reshape(repetitions, frames, -1).sum(1)
    summaries = [summarise(*sums) for sums in zip(moments, of_frames, strict=True)]
    for name, error_name in ERRORS.items():
        spread = np.std([summary[name] for summary in summaries], ddof=1)
        assert np.mean([summary[error_name] for summary in summaries]) == pytest.approx(spread, rel=0.15), name
        for t in range(slots):
            in_slot = [summary["by_slot"][t] for summary in summaries]
            spread_in_slot = np.std([slot[name] for slot in in_slot], ddof=1)
            assert np.mean([slot[error_name] for slot in in_slot]) == pytest.approx(spread_in_slot, rel=0.15), name
        naive = np.mean([averages(sums.sum(0), sums.sum(0))[error_name] for sums in moments])
        assert naive < 0.65 * spread, name


def test_standard_error_of_independent_reports() -> None:
    """By its textbook formula, std / sqrt(n), for the means that are no logarithms."""
    outcomes = measure(*channels((25, 1, 4)))
    found = summary_of(outcomes)
    assert found["sgcs_se"] == pytest.approx(np.std(outcomes.sgcs, ddof=1) / 5)
    assert found["mean_of_db_se"] == pytest.approx(np.std(outcomes.db, ddof=1) / 5)


def test_too_few_observations_have_no_standard_error() -> None:
    one = summary_of(measure(*channels((1, 2, 4))))
    assert isinstance(one["nmse_db"], float)
    assert [one[name] for name in ERRORS.values()] == [None] * 4


def test_nothing_measured() -> None:
    nothing = summarise(np.zeros((3, len(COLUMNS))), np.zeros(len(COLUMNS)))
    measured = summary_of(measure(*channels((4, 3, 2))))
    assert nothing.keys() == measured.keys()
    assert (nothing["reports"], nothing["frames"], nothing["by_slot"]) == (0, 0, [])
    assert {nothing[name] for pair in ERRORS.items() for name in pair} == {None}


def test_slots_without_reports_are_left_out() -> None:
    sums = measure(*channels((4, 3, 2))).moments().sum(0)
    sums[1] = 0
    found = summarise(sums, np.zeros(len(COLUMNS)))
    assert [slot["slot"] for slot in found["by_slot"]] == [1, 3]
    assert found["reports"] == 8
    assert found["nmse_se_db"] is None


@pytest.mark.parametrize("leading", [(5,), (2, 5), (5, 2)])
@pytest.mark.parametrize("entries", [1, 40, 2**18])
def test_compared_some_at_a_time(monkeypatch: pytest.MonkeyPatch, leading: tuple[int, ...], entries: int) -> None:
    """Images of 6 rows: each with its own truth, and in their order."""
    torch.manual_seed(1)
    synthesis = torch.randn(3, 6, dtype=torch.complex64)
    channel, estimate = torch.randn(2, *leading, 6, 4, dtype=torch.complex64).unbind()
    subcarriers = torch.randn(*leading, 3, 4, dtype=torch.complex64)
    truth = Truth(channel, torch.rand(leading), subcarriers, synthesis)
    expected = [Outcomes.measure(estimate[at], truth[at]).measured for at in np.ndindex(leading)]
    monkeypatch.setattr("shared.metrics.ENTRIES_AT_ONCE", entries)
    found = Outcomes.measure(estimate, truth).measured
    np.testing.assert_allclose(found.reshape(len(found), -1), np.stack(expected, axis=1), rtol=1e-5)
    if len(leading) == 2:
        swapped = Outcomes.measure(estimate.transpose(0, 1), truth.swapped()).measured
        np.testing.assert_allclose(swapped, found.swapaxes(1, 2), rtol=1e-5)


def test_images_in_both_domains() -> None:
    """Against the full spatial-frequency channels themselves: NMSE, its floor, and similarity by subcarrier."""
    generator = torch.Generator().manual_seed(0)
    full = torch.randn(6, 2, 16, 4, dtype=torch.complex64, generator=generator)  # delay x angle
    full[:, :, 5:] *= 0.2
    kept = kept_rows(16, 5, 1)
    estimate = full[:, :, kept] + 0.3 * torch.randn(6, 2, 6, 4, dtype=torch.complex64, generator=generator)
    chosen = torch.arange(0, 16, 3)
    waves = torch.fft.fft(torch.eye(16, dtype=torch.complex64), dim=0)[chosen]
    truth = Truth(full[:, :, kept], full.abs().square().sum((-2, -1)), waves @ full, waves[:, kept])
    outcomes = Outcomes.measure(estimate, truth)
    ours, theirs = to_spatial_frequency(zero_fill(estimate, 5, 1, 16)), to_spatial_frequency(full)

    def ratio(error: torch.Tensor, power: torch.Tensor) -> np.ndarray:
        return (error.abs().square().sum((-2, -1)) / power.abs().square().sum((-2, -1))).numpy()

    np.testing.assert_allclose(outcomes.ratio, ratio(estimate - full[:, :, kept], full[:, :, kept]), rtol=1e-5)
    np.testing.assert_allclose(outcomes.ratio_sf, ratio(ours - theirs, theirs), rtol=1e-5)
    perfect = to_spatial_frequency(zero_fill(full[:, :, kept], 5, 1, 16))
    np.testing.assert_allclose(outcomes.floor, ratio(perfect - theirs, theirs), rtol=1e-4)
    cosine = (ours.conj() * theirs).sum(-1).abs() / (ours.norm(dim=-1) * theirs.norm(dim=-1))
    np.testing.assert_allclose(outcomes.rho, cosine[..., chosen].mean(-1).numpy(), rtol=1e-5)
    np.testing.assert_allclose(outcomes.sgcs, cosine[..., chosen].square().mean(-1).numpy(), rtol=1e-5)


def test_narrowband_channels_have_nothing_cut_off() -> None:
    found = summary_of(measure(*channels((40, 3, 5))))
    assert found["nmse_sf_db"] == pytest.approx(found["nmse_db"])
    assert found["truncation_floor_db"] is None


@pytest.mark.parametrize("shape", [(1, 3), (2, 1), (3,), (2, 3, 1), (1,)])
def test_estimates_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    """They would be broadcast, and give figures."""
    truth = Truth.narrowband(torch.ones(2, 3, dtype=torch.complex64))
    with pytest.raises(InvalidInput, match=r"estimates: shape .*; the true channels have \(2, 3\)"):
        Outcomes.measure(torch.ones(shape, dtype=torch.complex64), truth)


def test_truth_whose_parts_are_of_other_channels_is_refused() -> None:
    channel = torch.ones(4, 2, 3, dtype=torch.complex64)
    whole = torch.ones(4, 5, 3, dtype=torch.complex64)
    synthesis = torch.ones(5, 2, dtype=torch.complex64)
    Truth(channel, torch.ones(4), whole, synthesis)
    for total, subcarriers in ((torch.ones(1), whole), (torch.ones(4), whole[:1]), (torch.ones(4, 1), whole)):
        with pytest.raises(InvalidInput, match="truth: channel, total and subcarriers have shapes"):
            Truth(channel, total, subcarriers, synthesis)


def test_precoders_have_similarities_and_no_error() -> None:
    """Neither the scale of an estimate nor the phases of its subbands mean anything."""
    estimate, wanted = channels((6, 2, 5, 4))
    wanted /= np.linalg.norm(wanted, axis=-1, keepdims=True)
    turned = 3 * estimate * np.exp(1j * np.arange(5))[:, None]
    truth = Truth.precoders(torch.from_numpy(wanted).to(torch.complex64))
    found = [Outcomes.measure(torch.from_numpy(of).to(torch.complex64), truth) for of in (estimate, turned)]
    cosine = np.abs((estimate.conj() * wanted).sum(-1)) / np.linalg.norm(estimate, axis=-1)
    for outcomes in found:
        assert outcomes.sgcs == pytest.approx((cosine**2).mean(-1), rel=1e-5)
        assert outcomes.rho == pytest.approx(cosine.mean(-1), rel=1e-5)
        assert outcomes.ratio == pytest.approx(1 - outcomes.sgcs)
        assert np.isnan(outcomes.nmse).all()
        assert np.isfinite(outcomes.moments()).all()
        assert np.array_equal(Outcomes.of(outcomes.measured).ratio, outcomes.ratio)
        summary = summary_of(outcomes)
        assert {name: summary[name] for name in OF_ERRORS} == dict.fromkeys(OF_ERRORS)
        assert summary["sgcs"] == pytest.approx(outcomes.sgcs.mean())
        assert summary["sgcs_se"] is not None


def test_precoders_can_be_held_and_picked() -> None:
    wanted = torch.from_numpy(channels((3, 2, 5, 4))[1]).to(torch.complex64)
    truth = Truth.precoders(wanted)
    room = truth.room_for(3)
    room.put(torch.tensor([2, 0]), truth[:2])
    assert torch.equal(room.channel[[2, 0]], wanted[:2])
    assert Outcomes.measure(wanted[:1, 0], room[2:, 0]).sgcs == pytest.approx(1)
    assert not room[2:, 0].scaled


def test_with_a_scale_the_ratio_is_the_nmse() -> None:
    outcomes = measure(*channels((6, 5)))
    assert np.array_equal(outcomes.nmse, outcomes.ratio)
