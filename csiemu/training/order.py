"""A training as a command line asks for it: names of designs, recipes and checkpoints, and what is to be otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csiemu.training import recipes
from csiemu.training.recipes import Design
from csiemu.training.run import train
from csiemu.training.trainer import Progress, Recipe
from shared.checkpoints import Checkpoint, CheckpointStore
from shared.fields import read_fields


@dataclass(frozen=True)
class Order:
    """What is to be trained.

    Attributes:
        name: design or scheme. save_as, version: of the checkpoint, the design's name by default.
        checkpoints: folder of checkpoints. state: folder of the resumable state, runs/training/NAME-VERSION by default.
        device: `cpu` or `cuda`.
        freeze_encoder_from, start_from, frozen_from, pilots_from: NAME[/VERSION], as for `training.run.train`.
        scenario, sizes: instead of the design's, preset[:field=value,...] and field=value,...
        recipe: its name, the design's by default. epochs: instead of its steps. changes: other values of its fields.
        save_every: steps. evaluation_ues: UEs of the card's figures.
    """

    name: str
    save_as: str | None = None
    version: int = 1
    checkpoints: Path = Path("checkpoints")
    state: Path | None = None
    device: str = "cpu"
    freeze_encoder_from: str | None = None
    start_from: str | None = None
    frozen_from: str | None = None
    pilots_from: str | None = None
    scenario: str | None = None
    sizes: str = ""
    recipe: str | None = None
    epochs: int | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    save_every: int = 500
    evaluation_ues: int = 5000

    @property
    def design(self) -> Design:
        """The design with other sizes and scenario. Raises NotFound, InvalidInput."""
        found = recipes.design(self.name)
        config = read_fields("set", found.config, self.sizes)
        return dataclasses.replace(found, config=config, scenario=self.scenario or found.scenario)

    @property
    def chosen(self) -> Recipe:
        """The recipe with other values. Raises NotFound, InvalidInput."""
        return recipes.recipe(self.recipe or recipes.design(self.name).recipe, self.changes, self.epochs)

    def carry_out(self, on_progress: Callable[[Progress], None]) -> Checkpoint:
        """Train and write the checkpoint. Raises as `training.run.train`, and NotFound."""
        store, name = CheckpointStore(self.checkpoints), self.save_as or self.name

        def found(named: str | None) -> Checkpoint | None:
            return store.load_named(named) if named else None

        return train(
            name,
            self.version,
            self.design,
            self.chosen,
            store=store,
            state=self.state or Path(f"runs/training/{name}-{self.version}"),
            device=self.device,
            freeze_encoder_from=found(self.freeze_encoder_from),
            start_from=found(self.start_from),
            frozen_from=found(self.frozen_from),
            pilots_from=found(self.pilots_from),
            save_every=self.save_every,
            evaluation_ues=self.evaluation_ues,
            on_progress=on_progress,
        )
