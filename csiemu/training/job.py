"""A training as a command line asks for it: names of designs, recipes and checkpoints, and what is to be otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch

from csiemu.training import recipes
from csiemu.training.recipes import DESIGNS, EPOCH, RECIPES, Design
from csiemu.training.run import OnStage, train
from csiemu.training.trainer import Progress, Recipe, Rounds
from shared.checkpoints import Checkpoint, CheckpointStore, default_checkpoints, shipped_checkpoints
from shared.errors import InvalidInput, NotFound
from shared.fields import Within, check_fields, read_fields
from shared.schemes import schemes
from shared.writable import why_no_folder


@dataclass(frozen=True)
class TrainingJob:
    """What is to be trained. The texts beside the fields are also the help of their options; a second text is the
    option's name where it is another than the field's.

    Raises:
        InvalidInput: a number is not allowed.
    """

    name: Annotated[
        str,
        f"A design ({', '.join(DESIGNS)}), or a scheme in its default sizes ({', '.join(schemes())}); with --as another"
        " name for the checkpoint.",
    ]
    save_as: Annotated[str | None, "Checkpoint name; default the design's.", "as"] = None
    version: Annotated[int, "Version to write.", Within(1)] = 1
    checkpoints: Annotated[
        Path, "Folder of checkpoints to write to; else that of CSIEMU_CHECKPOINTS, else the source tree's."
    ] = field(default_factory=default_checkpoints)
    state: Annotated[Path | None, "Folder of resumable state; default runs/training/NAME-VERSION."] = None
    device: Annotated[str, "cpu or cuda."] = "cpu"
    freeze_encoder_from: Annotated[
        str | None,
        "NAME[/VERSION] of a checkpoint whose encoder stays as it is: a better decoder for UEs in the field. It and"
        " those below are of the folder of checkpoints, or else of those that come with csiemu.",
    ] = None
    start_from: Annotated[
        str | None,
        "NAME[/VERSION] of a checkpoint of the same networks whose weights to begin with; with --steps 0 they are only"
        " quantised anew.",
    ] = None
    frozen_from: Annotated[
        str | None,
        "NAME[/VERSION] of a checkpoint from which the parts are taken that this stage does not train.",
    ] = None
    pilots_from: Annotated[
        str | None, "NAME[/VERSION] of a checkpoint whose downlink pilots to begin with; references keep them."
    ] = None
    scenario: Annotated[str | None, "preset[:field=value,...] instead of the design's."] = None
    sizes: Annotated[
        str,
        "field=value,... of the scheme's configuration instead of the design's. A wrong name lists them all.",
        "set",
    ] = ""
    recipe: Annotated[
        str | None,
        f"One of {', '.join(RECIPES)}; default the design's. The options from --steps on replace its values.",
    ] = None
    epochs: Annotated[
        int | None, f"Instead of steps: passes over the recipe's frames, or over {EPOCH:,} fresh ones.", Within(1)
    ] = None
    save_every: Annotated[int, "Steps between saves of the state.", Within(1)] = 500
    evaluation_ues: Annotated[int, "UEs of the card's reference figures.", Within(16)] = 5000
    changes: dict[str, Any] = field(default_factory=dict)
    """Other values of the recipe's fields."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def saved_as(self) -> str:
        """Name of the checkpoint."""
        return self.save_as or self.name

    @property
    def sources(self) -> list[str]:
        """NAME[/VERSION] of the checkpoints that it goes out from."""
        named = (self.freeze_encoder_from, self.start_from, self.frozen_from, self.pilots_from)
        return [source for source in named if source is not None]

    @property
    def names_steps(self) -> bool:
        """Whether its number of steps is not just its recipe's."""
        return self.epochs is not None or "steps" in self.changes

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

    def run(
        self,
        on_progress: Callable[[Progress], None],
        on_stage: OnStage = lambda stage, done, of: None,
        on_ready: Callable[[Rounds], None] = lambda trainer: None,
    ) -> Checkpoint:
        """Train and write the checkpoint; the functions are those of `training.run.train`. Raises as that, NotFound,
        and InvalidInput for a folder that is a part of an installed package.
        """
        shipped = shipped_checkpoints()
        if self.checkpoints == shipped and not shipped.is_symlink():
            raise InvalidInput(
                f"checkpoints: {shipped} belongs to the installed package; name a folder to write to with"
                " --checkpoints or CSIEMU_CHECKPOINTS"
            )
        state = self.state or Path(f"runs/training/{self.saved_as}-{self.version}")
        for option, folder in (("checkpoints", self.checkpoints), ("state", state)):
            if reason := why_no_folder(folder):
                raise InvalidInput(f"{option}: {folder} {reason}")
        _check_device(self.device)
        return train(
            self.saved_as,
            self.version,
            self.design,
            self.chosen,
            store=CheckpointStore(self.checkpoints),
            state=state,
            device=self.device,
            freeze_encoder_from=self._source(self.freeze_encoder_from),
            start_from=self._source(self.start_from),
            frozen_from=self._source(self.frozen_from),
            pilots_from=self._source(self.pilots_from),
            save_every=self.save_every,
            evaluation_ues=self.evaluation_ues,
            on_progress=on_progress,
            on_stage=on_stage,
            on_ready=on_ready,
        )

    def _source(self, named: str | None) -> Checkpoint | None:
        if named is None:
            return None
        try:
            return CheckpointStore(self.checkpoints).load_named(named)
        except NotFound:
            return CheckpointStore(shipped_checkpoints()).load_named(named)


def _check_device(name: str) -> None:
    """Raises InvalidInput for what is no device, or not here."""
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise InvalidInput(f"device: '{name}' is not cpu or cuda")
    try:
        torch.zeros(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise InvalidInput(f"device: '{name}' is not here: {str(error).splitlines()[0]}") from None
