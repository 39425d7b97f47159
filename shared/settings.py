"""Options that several commands have, and how fields of a settings class become options and environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.channels.scenario import Scenario
from shared.checkpoints import Checkpoint, CheckpointStore, default_checkpoints
from shared.conditions import RunConditions
from shared.errors import NotFound
from shared.link.air import MAX_DELAY_SLOTS, Air
from shared.writable import why_no_file, why_no_folder

Rate = Annotated[float, Field(gt=0, le=1e6)] | Literal["max"]
"""Reports per second and UE, or as fast as they are acked."""

Late = Literal["decode", "drop"]
"""What becomes of reports that have waited for too long to be decoded."""

Seed = Annotated[int, Field(ge=0, lt=2**64, description="Seed of the world.")]


def _file(path: Path) -> Path:
    if reason := why_no_file(path):
        raise ValueError(reason)
    return path


def _folder(path: Path) -> Path:
    if reason := why_no_folder(path):
        raise ValueError(reason)
    return path


OutFile = Annotated[Path, AfterValidator(_file)]
"""A file to write: that it can be is checked before anything is done."""

OutFolder = Annotated[Path, AfterValidator(_folder)]
"""A folder to write files in, likewise."""

JsonFile = Annotated[OutFile | None, Field(alias="json", description="File for the results, JSON.")]


def options(env_prefix: str) -> SettingsConfigDict:
    """Fields as `--kebab-case` options, help from their docstrings, or as environment variables `<env_prefix>FIELD`."""
    return SettingsConfigDict(
        env_prefix=env_prefix,
        env_prefix_target="all",  # of aliases, too
        env_ignore_empty=True,
        extra="forbid",
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
    )


class CheckpointSettings(BaseSettings):
    """The options of a command that loads checkpoints."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True)

    checkpoints: Path = Field(default_factory=default_checkpoints)
    """Folder of checkpoints; default that of CSIEMU_CHECKPOINTS, else those that come with csiemu."""

    def checkpoint_store(self) -> CheckpointStore:
        """The checkpoints. Raises NotFound if there are none."""
        store = CheckpointStore(self.checkpoints)
        if not store.names():
            raise NotFound(
                f"checkpoints: there are none in {self.checkpoints.absolute()}; name a folder that has some with"
                " --checkpoints or CSIEMU_CHECKPOINTS, or train one: csiemu train NAME --checkpoints FOLDER"
            )
        return store


class RunSettings(CheckpointSettings):
    """The options of a command that makes reports: checkpoints, and the conditions of the run."""

    scenario: str | None = None
    """preset[:field=value,...]; default: what the checkpoint was trained for."""

    seed: Seed = 0

    delay_slots: int = Field(0, ge=0, le=MAX_DELAY_SLOTS)
    """Feedback delay: slots between a report and the channel that its estimate is compared with; as delay in --air."""

    air: str = ""
    """What the link does to reports: ber=1e-3,loss=0.1,burst=5,crc=16,policy=last,state=continue,delay=2, all of them
    or some; default: nothing."""

    def conditions(self, checkpoint: Checkpoint) -> RunConditions:
        """The conditions of a run of this checkpoint. Raises NotFound, InvalidInput."""
        scenario = Scenario.parse(self.scenario) if self.scenario else checkpoint.scenario
        return RunConditions(scenario, self.seed, Air.parse(self.air).delayed(self.delay_slots))
