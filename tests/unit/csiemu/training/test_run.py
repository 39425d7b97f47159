from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from csiemu.training.recipes import DESIGNS, Design, design, recipe
from csiemu.training.run import build, train
from csiemu.training.trainer import Progress, Recipe
from shared.checkpoints import Checkpoint, CheckpointStore, parameter_counts
from shared.conditions import RunConditions
from shared.errors import Conflict, DamagedCheckpoint, InvalidInput, NotFound
from shared.link.decoding import check_probe
from shared.link.evaluation import evaluate
from shared.schemes.crnet import CrNetConfig
from shared.schemes.dualnet_mp import DualNetConfig
from shared.schemes.pilots import PilotConfig

SCENARIO = "multipath-p2:antennas=4,slots=2"
RNN = Design("rnn", SCENARIO, PilotConfig(feedback_bits=6, uplink_reading="none"))
RECIPE = Recipe(steps=4, batch=4, warmup=1)
Train = Callable[..., Checkpoint]


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


@pytest.fixture
def run(store: CheckpointStore, tmp_path: Path) -> Train:
    """`train` with little of everything."""

    def run(
        name: str = "rnn", version: int = 1, made: Design = RNN, recipe: Recipe = RECIPE, **options: Any
    ) -> Checkpoint:
        state = tmp_path / "states" / f"{name}-{version}"
        options = {"store": store, "state": state, "evaluation_ues": 12, "report_every": 1, **options}
        return train(name, version, made, recipe, **options)

    return run


def weights(checkpoint: Checkpoint, part: str = "decoder") -> torch.Tensor:
    return torch.cat([value.flatten() for value in getattr(checkpoint.scheme, part).state_dict().values()])


def as_stored(value: torch.Tensor) -> torch.Tensor:
    return value.half().float() if value.is_floating_point() and value.dim() > 1 else value


def test_train_writes_a_checkpoint_that_loads(run: Train, store: CheckpointStore) -> None:
    made = run()
    loaded = store.load("rnn", 1)
    assert torch.equal(weights(loaded), weights(made))
    assert loaded.card == made.card == json.loads((store.root / "rnn" / "1" / "card.json").read_text())
    initial = build(RNN, RECIPE.seed)
    assert loaded.encoder_id == made.encoder_id
    for part in ("encoder", "decoder"):
        for name, value in getattr(initial, part).state_dict().items():
            trained = getattr(loaded.scheme, part).state_dict()[name]
            assert not torch.equal(trained, as_stored(value)), name


def test_card_accounts_for_the_training(run: Train) -> None:
    card = run().card
    training = card["training"]
    assert training["trained"] is True
    assert training["recipe"] == {
        "steps": 4,
        "batch": 4,
        "rate": 1e-3,
        "final_rate": 1e-5,
        "warmup": 1,
        "slope": 1.0,
        "final_slope": 10.0,
        "precision": "fp32",
        "frames": 0,
        "start": "random",
        "frozen_norms": False,
        "stage": "all",
        "compiled": False,
        "seed": 1,
    }
    assert training["frames_seen"] == 16
    assert training["seconds"] >= 0
    assert training["machine"].endswith("CPU, 1 thread")
    assert training["torch"] == torch.__version__
    assert training["frozen_encoder_from"] is None
    assert [point["step"] for point in training["curve"]] == [1, 2, 3, 4]
    assert all(set(point) == {"step", "nmse_db"} for point in training["curve"])
    assert card["parameters"] == parameter_counts(build(RNN, 1))


def test_card_has_the_figures_of_the_stored_weights(run: Train, store: CheckpointStore) -> None:
    """Rounded to fp16 as they are: whoever loads it measures the same."""
    card = run().card
    loaded = store.load("rnn", 1)
    assert card["evaluation"] == json.loads(json.dumps(evaluate(loaded.scheme, RunConditions(loaded.scenario), ues=12)))
    assert card["evaluation"]["reports"] == 24
    check_probe(store.load("rnn", 1, ("decoder",)).scheme, card["probe"])
    with torch.no_grad():
        loaded.scheme.decoder.estimator.output.bias += 1
    with pytest.raises(DamagedCheckpoint, match="probe: the decoder's estimates differ by"):
        check_probe(loaded.scheme, card["probe"])


def test_curve_has_at_most_a_hundred_points(run: Train) -> None:
    made = Design("dldnn", "multipath-p2:antennas=1,slots=1", PilotConfig(feedback_bits=1, uplink_reading="none"))
    curve = run(made=made, recipe=Recipe(steps=130, batch=2, warmup=0)).card["training"]["curve"]
    assert [point["step"] for point in curve] == list(range(2, 131, 2))


def test_existing_version_is_refused_before_training(run: Train) -> None:
    run()
    steps: list[Progress] = []
    with pytest.raises(Conflict, match="checkpoint: rnn/1 exists already; choose another version"):
        run(on_progress=steps.append)
    assert not steps
    assert run(version=2).version == 2


@pytest.mark.parametrize("stop", [1, 3])
def test_interrupted_training_goes_on_to_the_same_weights(run: Train, store: CheckpointStore, stop: int) -> None:
    whole = run("whole")

    def interrupt(progress: Progress) -> None:
        if progress.step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("broken", on_progress=interrupt)
    assert store.names() == ["whole"]
    steps: list[int] = []
    broken = run("broken", on_progress=lambda progress: steps.append(progress.step))
    assert steps == list(range(stop + 1, 5))
    assert broken.encoder_id == whole.encoder_id
    assert torch.equal(weights(broken), weights(whole))
    curves = [checkpoint.card["training"]["curve"] for checkpoint in (broken, whole)]
    assert curves[0] == curves[1]


def test_state_is_saved_every_so_many_steps(run: Train) -> None:
    """A run killed at step 3 goes on from step 2."""

    class Killed(BaseException):
        pass

    def kill(progress: Progress) -> None:
        if progress.step == 3:
            raise Killed

    with pytest.raises(Killed):
        run(save_every=2, on_progress=kill)
    steps: list[int] = []
    run(save_every=2, on_progress=lambda progress: steps.append(progress.step))
    assert steps == [3, 4]


def test_decoder_for_a_frozen_encoder(run: Train) -> None:
    first = run()
    second = run(version=2, recipe=Recipe(steps=4, batch=4, warmup=1, seed=2), freeze_encoder_from=first)
    assert second.encoder_id == first.encoder_id
    assert torch.equal(weights(second, "encoder"), weights(first, "encoder"))
    assert not torch.equal(weights(second), weights(first))
    assert second.card["training"]["frozen_encoder_from"] == "rnn/1"
    assert run(version=3, recipe=Recipe(steps=4, batch=4, warmup=1, seed=3)).encoder_id != first.encoder_id


def test_frozen_encoder_that_does_not_fit_is_refused(run: Train) -> None:
    first = run()
    other = Design("rnn", SCENARIO, PilotConfig(feedback_bits=7, uplink_reading="none"))
    with pytest.raises(InvalidInput, match="freeze_encoder_from: encoder of rnn does not fit"):
        run("other", made=other, freeze_encoder_from=first)


def test_resuming_with_another_frozen_encoder_is_refused(run: Train) -> None:
    first = run()
    other = run(version=2, recipe=Recipe(steps=4, batch=4, warmup=1, seed=2))

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(version=3, freeze_encoder_from=first, on_progress=interrupt)
    with pytest.raises(InvalidInput, match=r"made with other settings: frozen_encoder was .*; sources"):
        run(version=3, freeze_encoder_from=other)


def test_reference_gets_the_pilots_of_a_trained_scheme(run: Train) -> None:
    trained = run()
    config = PilotConfig(feedback_bits=0, uplink_reading="genie")
    genie = run("genie", made=Design("genie_lmmse", SCENARIO, config), pilots_from=trained)
    assert torch.equal(genie.scheme.encoder.pilots(), trained.scheme.encoder.pilots())
    assert genie.card["training"] == {"trained": False}
    assert genie.card["evaluation"]["nmse_db"] < 0
    assert genie.card["feedback_bits"] == 128


def test_no_steps_store_the_initial_weights(run: Train) -> None:
    made = run(recipe=Recipe(steps=0, batch=4))
    assert made.card["training"] == {"trained": False}
    expected = torch.cat([as_stored(value).flatten() for value in build(RNN, 1).decoder.state_dict().values()])
    assert torch.equal(weights(made), expected)


def test_seed_gives_the_initial_weights() -> None:
    first, again, other = (build(RNN, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not any(torch.equal(value, other[name]) for name, value in first.items())


def test_designs_by_name_and_by_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(design(name) is DESIGNS[name] for name in DESIGNS)
    monkeypatch.delitem(DESIGNS, "hyperdnn")
    assert design("hyperdnn") == Design("hyperdnn")
    with pytest.raises(NotFound, match="design: 'clnet' is unknown; designs are hyperrnn, hyperrnn-beams"):
        design("clnet")


@pytest.mark.parametrize("name", DESIGNS)
def test_designs_can_be_built(name: str) -> None:
    made = DESIGNS[name]
    fewer = "" if made.scheme in ("transform", "gmtc") else ":antennas=2"  # with vectors for whole images
    scheme = build(Design(made.scheme, made.scenario + fewer, made.config), 1)
    assert scheme.name == made.scheme
    assert scheme.config == made.config


def test_training_starts_from_a_checkpoint(run: Train) -> None:
    first = run()
    recipe = Recipe(steps=1, batch=4, warmup=0, rate=1e-9, final_rate=1e-9, seed=2)
    tuned = run(version=2, recipe=recipe, start_from=first)
    assert tuned.card["training"]["started_from"] == "rnn/1"
    assert torch.allclose(weights(tuned), weights(first), atol=1e-6)
    other = Design("rnn", SCENARIO, PilotConfig(feedback_bits=7, uplink_reading="none"))
    with pytest.raises(InvalidInput, match="start_from: scheme of rnn does not fit"):
        run("other", made=other, start_from=first)


def test_a_stage_takes_over_what_it_does_not_train(run: Train) -> None:
    """The magnitude branch and the choice of dominant entries, not the phases; the card accounts for both stages."""
    scenario = "cost2100-indoor-5g1-5g3:antennas=8,first_rows=4,last_rows=4"
    made = Design("dualnet_mp", scenario, DualNetConfig())
    first = run("magnitudes", made=made, recipe=dataclasses.replace(RECIPE, stage="magnitude"))
    angles = dataclasses.replace(made, config=DualNetConfig(phase="mdpp", phase_bits=10))
    stage = dataclasses.replace(RECIPE, stage="phase", seed=2)
    second = run("angles", made=angles, recipe=stage, frozen_from=first)
    ours, theirs = (checkpoint.scheme.state_dict() for checkpoint in (second, first))
    kept = [name for name in theirs if name.split(".")[1] in ("magnitude", "dominant")]
    assert len(kept) > 20
    assert not [name for name in kept if not torch.equal(ours[name], theirs[name])]
    assert not torch.equal(ours["encoder.phase.fc.weight"], theirs["encoder.phase.fc.weight"])
    training = second.card["training"]
    assert training["frozen_from"] == "magnitudes/1"
    assert training["before"]["curve"] == first.card["training"]["curve"]
    with pytest.raises(InvalidInput, match="frozen_from: stage 'all' trains everything"):
        run("angles", 2, made=angles, frozen_from=first)
    other = dataclasses.replace(made, config=DualNetConfig(magnitude_compression=8))
    with pytest.raises(InvalidInput, match=r"frozen_from: encoder.magnitude.fc.weight, .* of magnitudes not as here"):
        run("angles", 2, made=other, recipe=stage, frozen_from=first)


def test_a_stage_goes_on_with_the_branch_that_it_began_with(run: Train) -> None:
    """Its fixed frames hold that branch's outputs; another one is refused."""
    scenario = "cost2100-indoor-5g1-5g3:antennas=8,first_rows=4,last_rows=4"
    made = Design("dualnet_mp", scenario, DualNetConfig())
    first, other = (
        run("magnitudes", version, made=made, recipe=dataclasses.replace(RECIPE, stage="magnitude", seed=version))
        for version in (1, 2)
    )
    stage = dataclasses.replace(RECIPE, stage="phase", frames=8)
    whole = run("whole", made=made, recipe=stage, frozen_from=first)

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("parts", made=made, recipe=stage, frozen_from=first, on_progress=interrupt)
    with pytest.raises(InvalidInput, match="made with other settings: sources"):
        run("parts", made=made, recipe=stage, frozen_from=other)
    parts = run("parts", made=made, recipe=stage, frozen_from=first).scheme.state_dict()
    for name, weight in whole.scheme.state_dict().items():
        assert torch.equal(parts[name], weight), name


def test_principal_start_is_refused_where_there_is_none(run: Train) -> None:
    with pytest.raises(InvalidInput, match="start: 'rnn' has no principal start; start is random"):
        run(recipe=dataclasses.replace(RECIPE, start="principal"))
    with pytest.raises(InvalidInput, match="start: 'rnn' has no linear start; start is random"):
        run(recipe=dataclasses.replace(RECIPE, start="linear"))


def test_linear_start_is_trained_with_the_norms_it_sets(run: Train, tmp_path: Path) -> None:
    """Their statistics, unlike their factors, are at the end what they were at the start, also if it was resumed."""
    made = Design("crnet", "cost2100-indoor-csinet:antennas=8,first_rows=8", CrNetConfig())
    some = dataclasses.replace(RECIPE, start="linear", frozen_norms=True, frames=16)
    first = run("first", made=made, recipe=dataclasses.replace(some, steps=1, rate=1e-9)).scheme.state_dict()

    def interrupt(progress: Progress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("second", made=made, recipe=some, on_progress=interrupt)
    second = run("second", made=made, recipe=some).scheme.state_dict()
    through = run("third", made=made, recipe=some).scheme.state_dict()
    statistics = [name for name in first if name.endswith(("running_mean", "running_var"))]
    assert len(statistics) > 20
    for name, value in second.items():
        assert torch.equal(value, through[name]), name
        if name in statistics:
            assert torch.equal(value, first[name]), name
    factor = "decoder.network.refinement.1.weight"
    assert not torch.equal(second[factor], first[factor])


def test_quantiser_of_other_bits_is_set_anew_when_weights_are_taken_over(run: Train) -> None:
    """Two bits an entry want other ranges than eight, and are fewer; training with the quantiser begins with them."""
    allocated = CrNetConfig(entry_bits=8, allocation="greedy")
    image = Design("crnet", "cost2100-indoor-csinet:antennas=8,first_rows=8", allocated)
    first = run("crnet", made=image, recipe=dataclasses.replace(RECIPE, start="principal", frames=16))
    coarse = dataclasses.replace(image, config=dataclasses.replace(allocated, entry_bits=2, quantised_training=True))
    fine = run("coarse", made=coarse, start_from=first, recipe=dataclasses.replace(RECIPE, steps=1, rate=1e-9))
    quantizers = [checkpoint.scheme.encoder.quantizer for checkpoint in (first, fine)]
    assert [int(quantizer.bits.sum()) for quantizer in quantizers] == [32 * 8, 32 * 2]
    assert [checkpoint.card["feedback_bits"] for checkpoint in (first, fine)] == [8 + 32 * 8, 8 + 32 * 2]
    assert fine.card["training"]["started_from"] == "crnet/1"
    untuned = run("untuned", made=coarse, start_from=first, recipe=dataclasses.replace(RECIPE, steps=0))
    tuned = run("tuned", made=coarse, start_from=first, recipe=dataclasses.replace(RECIPE, rate=1e-2))
    for name, value in untuned.scheme.state_dict().items():
        kept = torch.equal(value, tuned.scheme.state_dict()[name])
        assert kept or "quantizer" not in name, name  # the networks were tuned to these very ranges
    assert not torch.equal(weights(untuned), weights(tuned))


@pytest.mark.parametrize(
    ("name", "changes", "epochs", "steps", "warmup"),
    [
        ("const", {}, None, 500_000, 0),
        ("cosine", {}, None, 1_250_000, 15_000),
        ("cosine", {"frames": 30_000}, 60, 9_000, 4_500),
        ("cosine", {"batch": 100}, None, 2_500_000, 30_000),
        ("cosine", {"steps": 7, "warmup": 3}, None, 7, 3),
    ],
)
def test_recipes_of_the_paper_are_so_many_epochs(
    name: str, changes: dict[str, Any], epochs: int | None, steps: int, warmup: int
) -> None:
    """Section IV.A: 1,000 and 2,500, 30 of them of warm-up, whatever an epoch is."""
    found = recipe(name, changes, epochs)
    assert (found.steps, found.warmup) == (steps, warmup)


def test_epochs_are_steps_over_the_frames() -> None:
    assert recipe("cosine", {}, 2500).steps == 2500 * 500
    assert recipe("cosine", {"frames": 1000, "batch": 50}, 3).steps == 60
    assert recipe("default", {"batch": 100}, 1).steps == 1000
    assert recipe("const", {"rate": 3e-3}).rate == 3e-3
    assert recipe("const", {}).rate_at(10**6) == recipe("const", {}).rate_at(0) == 1e-3
    assert recipe("cosine", {}, 2500).rate_at(30 * 500) == pytest.approx(2e-3)
    with pytest.raises(InvalidInput, match="epochs: 2 and steps: 5 cannot both be given"):
        recipe("cosine", {"steps": 5}, 2)
    with pytest.raises(
        NotFound, match="recipe: 'straight' is unknown; recipes are default, const, cosine, principal, linear, dual"
    ):
        recipe("straight", {})


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"frames": 3}, "frames: 3 is less than a batch of 4; 0 draws fresh ones"),
        ({"frames": -1}, "frames: -1 is less than 0"),
        ({"start": "zero"}, "start: 'zero' is not random, principal or linear"),
    ],
)
def test_recipe_names_what_it_refuses(field: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        dataclasses.replace(RECIPE, **field)
    assert str(refused.value) == message
