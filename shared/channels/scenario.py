"""What every scenario is: a world of channels, named by a preset and changed field by field."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from torch import Tensor

from shared.channels.streams import Samples
from shared.errors import NotFound
from shared.fields import Within, check_fields, read_fields

SPEED_OF_LIGHT = 299_792_458.0  # m/s

PRESETS: dict[str, Scenario] = {}
"""Presets by name, from the modules of the worlds; any field can be changed: `multipath-p2:paths=4,snr_db=0`."""


class Link(Enum):
    """Direction of a channel."""

    UPLINK = "uplink"
    DOWNLINK = "downlink"


@dataclass(frozen=True)
class Scenario(ABC):
    """A world: a pure function of (scenario, seed, split, ue, frame), with long-term features fixed for a frame.

    The text form `preset[:field=value,...]` (`parse`, `str`) names a scenario in commands, cards and attach requests.

    Attributes:
        antennas: M, elements of the gNB's uniform linear array.
        slots: T, slots in a frame.
        snr_db: pilot SNR per unit-power channel coefficient and unit-norm pilot, uplink and downlink [dB].
    """

    antennas: Annotated[int, Within(1, 1024)] = 64
    slots: Annotated[int, Within(1, 1024)] = 8
    snr_db: Annotated[float, Within(-100, 200)] = 10.0

    def __post_init__(self) -> None:
        check_fields(self, "scenario ")

    @property
    def noise_power(self) -> float:
        """N0, variance of the complex noise on each received pilot sample."""
        return 10 ** (-self.snr_db / 10)

    @property
    def has_uplink(self) -> bool:
        """Whether the world has uplink channels."""
        return True

    def pinned(self) -> Scenario:
        """Self with the identity of what lies outside of it (data files), for those who must have the same."""
        return self

    def check_here(self, delay_slots: int = 0) -> None:  # noqa: B027  # most worlds need nothing
        """Raises NotFound, InvalidInput or Conflict if what the world needs from this machine is missing or another,
        or lacks the slots T .. T-1+delay_slots.
        """

    @abstractmethod
    def spatial(self, samples: Samples, link: Link, slots: Tensor) -> Tensor:
        """Channels of the array on one subcarrier, E|h_m|^2 = 1.

        Args:
            samples: N frames.
            slots: [S] int64, slot numbers in the frame, ascending; numbers beyond T go on with the same process.

        Returns:
            [N, S, M] complex64.
        """

    @classmethod
    def parse(cls, text: str) -> Scenario:
        """The scenario that `preset[:field=value,...]` names.

        Raises:
            NotFound: no such preset. InvalidInput: a field that is unknown, malformed or out of range.
        """
        preset, _, overrides = text.partition(":")
        if preset not in PRESETS:
            raise NotFound(f"scenario: '{preset}' is unknown; presets are {', '.join(PRESETS)}")
        return read_fields("scenario", PRESETS[preset], overrides)

    def __str__(self) -> str:
        """The shortest text that `parse` reads back as this scenario."""

        def differences(base: Scenario) -> list[str]:
            pairs = ((f.name, getattr(self, f.name), getattr(base, f.name)) for f in dataclasses.fields(self))
            return [f"{name}={'none' if mine is None else mine}" for name, mine, theirs in pairs if mine != theirs]

        kin = [(name, differences(preset)) for name, preset in PRESETS.items() if type(preset) is type(self)]
        name, changes = min(kin, key=lambda item: len(item[1]))
        return f"{name}:{','.join(changes)}" if changes else name
