"""What each shipped checkpoint is: scheme, scenario and sizes. `csiemu train NAME` starts from these."""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.errors import NotFound
from shared.schemes import SCHEMES, CrNetConfig, ImageConfig, PilotConfig, SchemeConfig


@dataclass(frozen=True)
class Design:
    """A scheme, the scenario that it is trained for, and its sizes."""

    scheme: str
    scenario: str = "multipath-p2"
    config: SchemeConfig = field(default_factory=PilotConfig)


_NO_UPLINK = PilotConfig(uplink_reading="none")
_PROJECTED = PilotConfig(feedback_bits=30, uplink_pilots=8, uplink_reading="projected")

_INDOOR = "cost2100-indoor-csinet"

DESIGNS: dict[str, Design] = {
    "hyperrnn": Design("hyperrnn"),
    "hyperrnn-beams": Design("hyperrnn", config=PilotConfig(beam_power=True)),
    "rnn": Design("rnn", config=_NO_UPLINK),
    "dldnn": Design("dldnn", config=_NO_UPLINK),
    "hyperdnn": Design("hyperdnn"),
    "hyperrnn-projected": Design("hyperrnn", "multipath-p8", _PROJECTED),
    "dldnn-projected": Design("dldnn", "multipath-p8", PilotConfig(feedback_bits=30, uplink_reading="none")),
    "crnet": Design("crnet", _INDOOR, CrNetConfig(entry_bits=8)),
    "csinet": Design("csinet", _INDOOR, ImageConfig(entry_bits=8)),
    "genie_lmmse": Design("genie_lmmse", config=PilotConfig(feedback_bits=0, uplink_reading="genie")),
    "angle_lmmse": Design("angle_lmmse", config=PilotConfig(feedback_bits=0)),
    "uplink_only": Design("uplink_only", config=PilotConfig(feedback_bits=0)),
}
"""Designs by checkpoint name. A default checkpoint bears its scheme's name."""


def design(name: str) -> Design:
    """The design of that name, or the default sizes of the scheme of that name. Raises NotFound."""
    if name in DESIGNS:
        return DESIGNS[name]
    if name in SCHEMES:
        return Design(name, config=SCHEMES[name].config_class())
    raise NotFound(f"design: '{name}' is unknown; designs are {', '.join(DESIGNS)}; schemes are {', '.join(SCHEMES)}")
