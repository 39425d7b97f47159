from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from csiemu.training.trainer import Progress, Recipe, Trainer, TrainingDiverged
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.channels.uplink import UplinkView
from shared.errors import InvalidInput
from shared.schemes import Scheme
from shared.schemes.crnet import CrNet, CrNetConfig

MakeScheme = Callable[..., Scheme]

SCENARIO = "multipath-p2:antennas=8,slots=4"
RECIPE = Recipe(steps=6, batch=4, warmup=2)
KINDS: dict[str, dict[str, Any]] = {
    "hyperrnn": {"feedback_bits": 6, "uplink_reading": "projected"},
    "dldnn": {"feedback_bits": 6, "uplink_reading": "none"},  # has batch statistics
    "hyperrnn_angles": {},  # both ends have the same pilots
}


def trainer_of(
    make_scheme: MakeScheme, kind: str = "dldnn", recipe: Recipe = RECIPE, seed: int = 3, **options: Any
) -> Trainer:
    scheme = make_scheme(kind, SCENARIO, seed=seed, perturbed=False, **KINDS[kind])
    return Trainer(scheme, recipe, **options)


def tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Weights, buffers and the optimiser's state, copied."""
    found = dict(trainer.scheme.state_dict())
    for index, state in trainer.optimizer.state_dict()["state"].items():
        found |= {f"adam.{index}.{name}": value for name, value in state.items()}
    return {name: value.clone() for name, value in found.items()}


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [0, 3, 6])
def test_resumed_training_is_the_unbroken_one(tmp_path: Path, make_scheme: MakeScheme, kind: str, stop: int) -> None:
    """Bit for bit, from a trainer whose own weights are others."""
    whole = trainer_of(make_scheme, kind)
    whole.run(report_every=1)
    first = trainer_of(make_scheme, kind)
    first.run(stop, report_every=1)
    first.save(tmp_path / "state")
    second = trainer_of(make_scheme, kind, seed=99)
    second.load(tmp_path / "state")
    assert second.step == stop
    assert_equal(tensors(second), tensors(first))
    second.run(report_every=1)
    assert second.step == 6
    assert_equal(tensors(second), tensors(whole))
    losses = [[point["loss"] for point in trainer.history] for trainer in (whole, second)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


@pytest.mark.parametrize(
    ("arguments", "stop"),
    [({"seed": 3, "freeze_encoder": True}, 2), ({"recipe": dataclasses.replace(RECIPE, frames=9)}, 3)],
    ids=["of a decoder", "on fixed frames"],
)
def test_other_resumed_training_is_the_unbroken_one(
    tmp_path: Path, make_scheme: MakeScheme, arguments: dict[str, Any], stop: int
) -> None:
    whole, first, second = (trainer_of(make_scheme, **arguments) for _ in range(3))
    whole.run()
    first.run(stop)
    first.save(tmp_path / "state")
    second.load(tmp_path / "state")
    second.run()
    assert_equal(tensors(second), tensors(whole))


def test_training_changes_every_parameter(make_scheme: MakeScheme) -> None:
    trainer = trainer_of(make_scheme, "hyperrnn")
    before = tensors(trainer)
    trainer.run()
    unchanged = [
        name for name, value in tensors(trainer).items() if name in before and torch.equal(value, before[name])
    ]
    assert not unchanged


def test_saved_state_is_small_files_of_one_step(
    tmp_path: Path, make_scheme: MakeScheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csiemu.training.trainer.PART_BYTES", 2000)
    trainer = trainer_of(make_scheme)
    trainer.run(1)
    trainer.save(tmp_path / "state")
    trainer.run(2)
    trainer.save(tmp_path / "state")
    state = json.loads((tmp_path / "state" / "state.json").read_text())
    assert state["step"] == 2
    assert len(state["parts"]) > 2
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == sorted([*state["parts"], "state.json"])
    found: dict[str, Tensor] = {}
    for part in state["parts"]:
        tensors_of_part = load_file(tmp_path / "state" / part)
        assert len(tensors_of_part) == 1 or sum(value.nbytes for value in tensors_of_part.values()) <= 2000
        found |= tensors_of_part
    assert_equal({name.removeprefix("model."): value for name, value in found.items()}, tensors(trainer))
    (tmp_path / "state" / state["parts"][1]).unlink()
    with pytest.raises(InvalidInput, match=rf"resume: {tmp_path}/state lacks step-2-part-1.safetensors; remove"):
        trainer_of(make_scheme).load(tmp_path / "state")


def test_fixed_frames_are_refused_where_the_uplink_is_learned(make_scheme: MakeScheme) -> None:
    with pytest.raises(InvalidInput, match="frames: 9; the uplink's part in this hyperrnn is learned: 0 only"):
        trainer_of(make_scheme, "hyperrnn", dataclasses.replace(RECIPE, frames=9)).run()


def test_fixed_frames_come_once_an_epoch_in_another_order(make_scheme: MakeScheme) -> None:
    """They are those that fresh ones begin with, and a resumed training sees the same."""
    recipe = dataclasses.replace(RECIPE, frames=10)
    trainer, late = (trainer_of(make_scheme, recipe=recipe) for _ in range(2))
    orders = []
    for epoch in range(2):
        steps = [trainer.fixed.at(2 * epoch + place)[0].samples.ue for place in range(2)]  # 2 frames are left over
        orders.append(torch.cat(steps).tolist())
        assert len(set(orders[-1])) == 8
        assert set(orders[-1]) <= set(range(10))
    assert orders[0] != orders[1]
    assert late.fixed.at(3)[0].samples.ue.tolist() == orders[1][4:]
    downlink, truth, side = trainer.fixed.at(1)
    samples = Samples(recipe.seed, Split.TRAIN, downlink.samples.ue, torch.zeros(4, dtype=torch.int64))
    view = DownlinkView(trainer.scheme.scenario, samples)
    torch.testing.assert_close(truth, view.channel())
    wanted = trainer.scheme.decoder.side_information(UplinkView(trainer.scheme.scenario, samples))
    torch.testing.assert_close(side, wanted)
    trainer.run()
    assert trainer.step == 6


@pytest.mark.parametrize(
    ("says", "changed"),
    [
        (f"recipe rate was {RECIPE.rate}, is 0.002$", {"recipe": dataclasses.replace(RECIPE, rate=2e-3)}),
        (f"recipe steps was {RECIPE.steps}, is 7$", {"recipe": dataclasses.replace(RECIPE, steps=7)}),
        ("scheme was .*, is hyperrnn", {"kind": "hyperrnn"}),
        ("frozen_encoder was None, is [0-9a-f]{16}$", {"freeze_encoder": True}),
    ],
)
def test_state_of_other_settings_is_refused(
    tmp_path: Path, make_scheme: MakeScheme, says: str, changed: dict[str, Any]
) -> None:
    state = tmp_path / "state"
    first = trainer_of(make_scheme)
    first.run(1)
    first.save(state)
    other = trainer_of(make_scheme, **changed)
    before = tensors(other)
    with pytest.raises(InvalidInput, match=rf"resume: {state} was made with other settings: .*{says}"):
        other.load(state)
    assert other.step == 0
    assert_equal(tensors(other), before)


@pytest.mark.parametrize(
    ("says", "scenario", "config"),
    [
        (f"scenario was {SCENARIO}, is .*snr_db=0.*", "multipath-p2:antennas=8,slots=4,snr_db=0", {}),
        ("config downlink_pilots was 2, is 3", SCENARIO, {"downlink_pilots": 3}),
    ],
)
def test_state_of_another_scheme_is_refused(
    tmp_path: Path, make_scheme: MakeScheme, says: str, scenario: str, config: dict[str, Any]
) -> None:
    state = tmp_path / "state"
    trainer_of(make_scheme).save(state)
    scheme = make_scheme("dldnn", scenario, **KINDS["dldnn"], **config)
    with pytest.raises(InvalidInput, match=f"made with other settings: {says}$"):
        Trainer(scheme, RECIPE).load(state)


@pytest.mark.parametrize("cause", ["weight", "rate"])
def test_loss_that_is_no_number_ends_the_training(make_scheme: MakeScheme, cause: str) -> None:
    recipe = dataclasses.replace(RECIPE, rate=1e37, warmup=0) if cause == "rate" else RECIPE
    trainer = trainer_of(make_scheme, recipe=recipe)
    if cause == "weight":
        with torch.no_grad():
            trainer.scheme.decoder.layers[-1].bias[0] = math.nan
    with pytest.raises(TrainingDiverged, match=r"training: loss is (nan|inf) at step [1-6]; lower the learning rate"):
        trainer.run(report_every=1)
    assert all(math.isfinite(point["loss"]) for point in trainer.history)


def test_explosion_ends_the_training(make_scheme: MakeScheme) -> None:
    """In finite numbers too."""
    trainer = trainer_of(make_scheme)
    trainer.run(2, report_every=1)
    with torch.no_grad():
        trainer.scheme.decoder.layers[-1].weight *= 1e4
    message = r"training: NMSE has risen from -?\d+\.\d to \d\d\.\d dB at step 3; lower the learning rate \(0.001\)"
    with pytest.raises(TrainingDiverged, match=message):
        trainer.run(report_every=1)


def test_frozen_encoder_stays_as_it_is(make_scheme: MakeScheme) -> None:
    trainer = trainer_of(make_scheme, "hyperrnn", freeze_encoder=True)
    with torch.no_grad():
        trainer.scheme.encoder.pilots.parts *= 1.001  # off the norm that an optimiser step would put back
    encoder = {name: value.clone() for name, value in trainer.scheme.encoder.state_dict().items()}
    decoder = {name: value.clone() for name, value in trainer.scheme.decoder.state_dict().items()}
    trainer.run()
    assert_equal(trainer.scheme.encoder.state_dict(), encoder)
    for name, value in trainer.scheme.decoder.state_dict().items():
        assert not torch.equal(value, decoder[name]), name


def test_pilots_keep_their_power(make_scheme: MakeScheme) -> None:
    trainer = trainer_of(make_scheme, "hyperrnn")
    before = trainer.scheme.encoder.pilots().detach().clone()
    trainer.run()
    for pilots in (trainer.scheme.encoder.pilots, trainer.scheme.decoder.uplink.pilots):
        power = pilots().detach().abs().square().sum(0)
        torch.testing.assert_close(power, torch.ones_like(power))
    assert not torch.allclose(trainer.scheme.encoder.pilots(), before, atol=1e-5)


def test_loss_goes_down(make_scheme: MakeScheme) -> None:
    """One path, two antennas, four bits: far below the power of the channel within 60 steps."""
    scheme = make_scheme(
        "dldnn",
        "multipath-p2:antennas=2,slots=1,paths=1,snr_db=30",
        perturbed=False,
        feedback_bits=4,
        uplink_reading="none",
    )
    trainer = Trainer(scheme, Recipe(steps=60, batch=64, warmup=5))
    trainer.run(report_every=10)
    errors = [point["nmse_db"] for point in trainer.history]
    assert len(errors) == 6
    assert errors[0] > -1.5
    assert errors[-1] < errors[0] - 1.5
    assert errors[-1] < -2.5


def test_a_step_reports_the_error_before_it(make_scheme: MakeScheme) -> None:
    """By hand, of the samples (seed, TRAIN, ue = 0 .. batch-1, frame 0)."""
    trainer = trainer_of(make_scheme, "hyperrnn")
    scheme, world = trainer.scheme, trainer.scheme.scenario
    ue = torch.arange(4)
    samples = Samples(RECIPE.seed, Split.TRAIN, ue, torch.zeros_like(ue))
    downlink = DownlinkView(world, samples)
    with torch.no_grad():
        side = scheme.decoder.side_information(UplinkView(world, samples))
        estimate = trainer.training.reconstruct(scheme.encoder.observe(downlink), side, RECIPE.slope)
    error, power = ((x.abs() ** 2).double().mean() for x in (estimate - downlink.channel(), downlink.channel()))
    reported: list[Progress] = []
    trainer.run(1, on_progress=reported.append)
    assert [progress.step for progress in reported] == [1]
    assert reported[0].loss == pytest.approx(float(error), rel=1e-5)
    assert reported[0].nmse_db == pytest.approx(10 * math.log10(error / power), abs=1e-4)
    assert trainer.history == [dataclasses.asdict(reported[0])]


def test_progress_averages_since_the_last_report(make_scheme: MakeScheme) -> None:
    by_step, by_four = trainer_of(make_scheme), trainer_of(make_scheme)
    by_step.run(report_every=1)
    by_four.run(report_every=4)
    assert [point["step"] for point in by_four.history] == [4, 6]
    losses = [point["loss"] for point in by_step.history]
    expected = [sum(losses[:4]) / 4, sum(losses[4:]) / 2]
    assert [point["loss"] for point in by_four.history] == pytest.approx(expected)


def test_no_step_sees_the_samples_of_another(make_scheme: MakeScheme, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(make_scheme, recipe=dataclasses.replace(RECIPE, seed=5))
    seen: list[Samples] = []
    decoder = trainer.scheme.decoder
    original = decoder.side_information

    def watched(uplink: UplinkView) -> Tensor:
        seen.append(uplink.samples)
        return original(uplink)

    monkeypatch.setattr(decoder, "side_information", watched)
    trainer.run()
    assert torch.cat([samples.ue for samples in seen]).tolist() == list(range(24))
    assert all(not samples.frame.any() for samples in seen)
    assert {(samples.seed, samples.split) for samples in seen} == {(5, Split.TRAIN)}


def test_bf16_keeps_parameters_in_fp32(make_scheme: MakeScheme) -> None:
    fp32, bf16 = (trainer_of(make_scheme, recipe=dataclasses.replace(RECIPE, precision=p)) for p in ("fp32", "bf16"))
    for trainer in (fp32, bf16):
        trainer.run(1)
    assert {parameter.dtype for parameter in bf16.scheme.parameters()} == {torch.float32}
    assert bf16.history[0]["loss"] != fp32.history[0]["loss"]
    assert bf16.history[0]["loss"] == pytest.approx(fp32.history[0]["loss"], rel=0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": -1}, "steps: -1 is less than 0"),
        ({"batch": 1}, "batch: 1 is less than 2"),
        ({"warmup": -1}, "warmup: -1 is less than 0"),
        ({"seed": -1}, "seed: -1 is less than 0"),
        ({"rate": 0}, "rate: 0 is not a positive number"),
        ({"final_rate": math.nan}, "final_rate: nan is not a positive number"),
        ({"slope": -1.0}, "slope: -1.0 is not a positive number"),
        ({"final_slope": math.inf}, "final_slope: inf is not a positive number"),
        ({"precision": "fp16"}, "precision: 'fp16' is not fp32 or bf16"),
    ],
)
def test_recipe_names_what_it_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Recipe(**fields)
    assert str(refused.value) == message


def test_rate_rises_and_falls_by_a_cosine() -> None:
    recipe = Recipe(steps=1010, warmup=10, rate=1e-2, final_rate=1e-4)
    assert [recipe.rate_at(step) for step in (0, 4, 9, 10)] == pytest.approx([1e-3, 5e-3, 1e-2, 1e-2])
    assert recipe.rate_at(510) == pytest.approx((1e-2 + 1e-4) / 2)
    assert recipe.rate_at(260) == pytest.approx(1e-4 + (1e-2 - 1e-4) * (1 + 0.5**0.5) / 2)
    assert recipe.rate_at(1009) == pytest.approx(1e-4, rel=1e-3)
    assert recipe.rate_at(5000) == pytest.approx(1e-4)
    assert Recipe(warmup=0, rate=1e-2).rate_at(0) == pytest.approx(1e-2)


def test_rate_of_the_recipe_is_the_optimisers(make_scheme: MakeScheme) -> None:
    trainer = trainer_of(make_scheme)
    trainer.run(1)
    assert trainer.optimizer.param_groups[0]["lr"] == RECIPE.rate_at(0)
    trainer.run(4)
    assert trainer.optimizer.param_groups[0]["lr"] == RECIPE.rate_at(3)


def test_slope_grows_geometrically() -> None:
    recipe = Recipe(steps=100, slope=2, final_slope=8)
    assert [recipe.slope_at(step) for step in (0, 50, 100)] == pytest.approx([2, 4, 8])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_training_is_the_plain_one(precision: str) -> None:
    """Up to rounding; needs a C++ compiler."""
    nmse = []
    for compiled in (False, True):
        recipe = Recipe(steps=5, batch=8, warmup=1, frames=40, precision=precision, compiled=compiled)
        torch.manual_seed(0)
        world = Scenario.parse("cost2100-indoor-csinet:antennas=8,first_rows=8").pinned()
        trainer = Trainer(CrNet(world, CrNetConfig(compression=2)), recipe)
        trainer.run()
        nmse.append(trainer.history[-1]["nmse_db"])
    assert nmse[1] == pytest.approx(nmse[0], abs=0.1 if precision == "bf16" else 1e-3)
