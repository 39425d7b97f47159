"""What changes at set times of an emulation: versions that serve, and airs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from csiemu.rest import Rest
from shared.checkpoints import NAME
from shared.errors import CsiError, InvalidInput, NotReady
from shared.link.air import Air

_AT = r"@([0-9]+(?:\.[0-9]+)?)s?"
_SWAP = re.compile(rf"({NAME}):([1-9][0-9]{{0,8}}){_AT}")
_AIR_CHANGE = re.compile(rf"\s*({NAME}):([^@]*){_AT}\s*(?:,|$)")


@dataclass(frozen=True)
class Swap:
    """A version that all UEs of a model are to use, so many seconds after the first reports."""

    model: str
    version: int
    at_s: float

    def __str__(self) -> str:
        return f"swap of {self.model} to version {self.version}"

    def ask(self, rest: Rest) -> str:
        """Ask for it; returns what there is to say. Raises CsiError."""
        rest.post(f"/v2/repository/models/{self.model}/load", {"parameters": {"version": self.version}})
        return f"{self.model}/{self.version} is loaded: UEs use it from their next frame on"


@dataclass(frozen=True)
class AirChange:
    """An air that the reports of all UEs of a model are to come over, so many seconds after the first reports; the
    fleet of UE `ue` is all of them.
    """

    model: str
    air: Air
    at_s: float
    ue: int

    def __str__(self) -> str:
        return f"air of {self.model}: {str(self.air) or 'undisturbed'}"

    def ask(self, rest: Rest) -> str:
        """Ask for it; returns what there is to say. Raises CsiError."""
        answer = rest.post(f"/v1/fleets/{self.ue}/air", {"air": str(self.air)})
        return f"{self} from frame {answer['from_frame']} on"


Change = Swap | AirChange


def parse_swaps(text: str) -> list[Swap]:
    """`NAME:VERSION@SECONDS`, comma-separated. Raises InvalidInput."""
    swaps = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        found = _SWAP.fullmatch(part)
        if found is None:
            raise InvalidInput(f"swap: '{part}'; wanted NAME:VERSION@SECONDS, as hyperrnn:3@10s")
        swaps.append(Swap(found[1], int(found[2]), float(found[3])))
    return swaps


def parse_air_changes(text: str, first_ues: Mapping[str, int]) -> Iterator[AirChange]:
    """`NAME:AIR@SECONDS`, comma-separated, AIR with commas as in `Air.parse`.

    Args:
        first_ues: of each model that runs.

    Raises:
        InvalidInput: it is none, or a model does not run.
    """
    rest = text.strip()
    while rest:
        found = _AIR_CHANGE.match(rest)
        if found is None:
            raise InvalidInput(f"air_change: '{rest}'; wanted NAME:AIR@SECONDS, as hyperrnn:loss=0.3,burst=5@10s")
        if found[1] not in first_ues:
            raise InvalidInput(f"air_change: '{found[1]}' does not run; wanted one of {', '.join(first_ues)}")
        yield AirChange(found[1], Air.parse(found[2].strip()), float(found[3]), first_ues[found[1]])
        rest = rest[found.end() :]


@dataclass
class Schedule:
    """Changes of a gNB that are still to come, in the order of their times, and what of those before failed."""

    changes: list[Change]
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.changes.sort(key=lambda change: change.at_s)

    def step(self, rest: Rest, elapsed_s: float) -> list[str]:
        """Ask for what is due so long after the first reports; returns what there is to say about it. A gNB that is
        away, or not ready, is to be asked again.
        """
        said = []
        while self.changes and elapsed_s >= self.changes[0].at_s:
            change = self.changes[0]
            try:
                said.append(change.ask(rest))
            except NotReady:
                break
            except CsiError as error:
                self.failed.append(f"{change} failed: {error}")
                said.append(self.failed[-1])
            del self.changes[0]
        return said

    def end(self) -> list[str]:
        """What failed, or can be asked for no more."""
        return [*self.failed, *(f"{change}: the run was over" for change in self.changes)]
