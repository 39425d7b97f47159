"""Designs, of which the shipped checkpoints are made, and recipes. `csiemu train NAME` starts from these."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from csiemu.training.trainer import Recipe
from shared.errors import InvalidInput, NotFound
from shared.schemes import SchemeConfig, schemes
from shared.schemes.crnet import CrNetConfig
from shared.schemes.crnet_nested import NestedConfig
from shared.schemes.dualnet_mp import DualNetConfig
from shared.schemes.gmtc import GmtcConfig
from shared.schemes.hyperrnn_angles import AngleConfig
from shared.schemes.image_feedback import ImageConfig
from shared.schemes.pilots import PilotConfig
from shared.schemes.predictive_lmmse import PredictiveConfig
from shared.schemes.transform import TransformConfig

EPOCH = 100_000
"""Frames of the training set of the CRNet paper (section IV.A)."""

_DUALNET = Recipe(
    batch=200, rate=3e-4, final_rate=1e-5, warmup=100, frames=EPOCH // 2, start="principal", precision="bf16"
)

RECIPES: dict[str, Recipe] = {
    "default": Recipe(),
    "const": Recipe(steps=1000 * EPOCH // 200, batch=200, rate=1e-3, final_rate=1e-3, warmup=0, frames=EPOCH),
    "cosine": Recipe(
        steps=2500 * EPOCH // 200, batch=200, rate=2e-3, final_rate=5e-5, warmup=30 * EPOCH // 200, frames=EPOCH
    ),
    "principal": Recipe(
        batch=200, rate=2e-3, final_rate=5e-5, warmup=50, frames=EPOCH // 2, start="principal", precision="bf16"
    ),
    "linear": Recipe(batch=200, rate=3e-4, final_rate=1e-6, warmup=200, start="linear", frozen_norms=True),
    "dualnet": _DUALNET,
    "magnitude": dataclasses.replace(_DUALNET, stage="magnitude"),
    "phase": dataclasses.replace(_DUALNET, stage="phase", rate=1e-3),
    "linear-tuning": Recipe(batch=200, rate=3e-5, final_rate=1e-6, warmup=50, frozen_norms=True),
    "nested-tuning": Recipe(batch=200, rate=2e-4, final_rate=1e-6, warmup=50, frozen_norms=True, stage="decoder"),
    "mixture": Recipe(steps=9, batch=320 * 1024, frames=320 * 1024),
    "tuning": Recipe(batch=200, rate=2e-4, final_rate=1e-5, warmup=50, frames=EPOCH // 2, precision="bf16"),
}
"""Recipes by name: `const` and `cosine` are those of the CRNet paper (section IV.A, eq. 5: 30 of 2,500 epochs of
warm-up); `principal` is `cosine` for a CPU's budget, from principal components and on half of the frames;
`linear` begins as the best linear autoencoder and draws fresh frames;
`magnitude` and `phase` are the stages of DualNet-MP, `dualnet` is both at once (their magnitude branch, eight
convolutions without normalisation, explodes at the paper's 1e-3);
`mixture` is rounds over all frames;
`tuning` goes on from a checkpoint's weights (`--start-from`) with a quantiser in the path, `linear-tuning` from those
that `linear` made; `nested-tuning` trains the decoder of a nested CRNet alone."""

_OF_EPOCHS = ("const", "cosine")
"""Recipes whose steps are so many epochs."""


@dataclass(frozen=True)
class Design:
    """A scheme, the scenario that it is trained for, its sizes, and the name of its recipe."""

    scheme: str
    scenario: str = "multipath-p2"
    config: SchemeConfig = field(default_factory=PilotConfig)
    recipe: str = "default"


_NO_UPLINK = PilotConfig(uplink_reading="none")
_PROJECTED = PilotConfig(feedback_bits=30, uplink_pilots=8, uplink_reading="projected")

MU = 20.0
"""Companding by the mu-law, for codewords that are nearly the image's principal components."""

_INDOOR = "cost2100-indoor-csinet"
_OUTDOOR = "cost2100-outdoor-csinet"

DESIGNS: dict[str, Design] = {
    "hyperrnn": Design("hyperrnn"),
    "hyperrnn-beams": Design("hyperrnn", config=PilotConfig(beam_power=True)),
    "rnn": Design("rnn", config=_NO_UPLINK),
    "dldnn": Design("dldnn", config=_NO_UPLINK),
    "hyperdnn": Design("hyperdnn"),
    "hyperrnn-projected": Design("hyperrnn", "multipath-p8", _PROJECTED),
    "dldnn-projected": Design("dldnn", "multipath-p8", PilotConfig(feedback_bits=30, uplink_reading="none")),
    "crnet": Design("crnet", _INDOOR, CrNetConfig(entry_bits=8, allocation="greedy", companding=MU), "linear"),
    "crnet-4bit": Design(
        "crnet",
        _INDOOR,
        CrNetConfig(entry_bits=4, allocation="greedy", companding=MU, quantised_training=True),
        "linear-tuning",
    ),
    "crnet-16": Design("crnet", _INDOOR, CrNetConfig(compression=16, entry_bits=6, allocation="greedy"), "principal"),
    "crnet-32": Design("crnet", _INDOOR, CrNetConfig(compression=32, entry_bits=6, allocation="greedy"), "principal"),
    "crnet_nested": Design("crnet_nested", _INDOOR, NestedConfig(), "nested-tuning"),
    "crnet_nested-4": Design(
        "crnet_nested",
        _INDOOR,
        NestedConfig(compression=4, rates=(264, 392, 520, 776, 1032, 2056)),
        "nested-tuning",
    ),
    "crnet-outdoor": Design("crnet", _OUTDOOR, CrNetConfig(entry_bits=8, allocation="greedy"), "principal"),
    "csinet": Design("csinet", _INDOOR, ImageConfig(entry_bits=8, allocation="greedy", companding=MU), "principal"),
    "dualnet_mp": Design("dualnet_mp", "cost2100-indoor-5g1-5g3", DualNetConfig(), "dualnet"),
    "dualnet_mp-outdoor": Design(
        "dualnet_mp", "tr38901-umi-nlos", DualNetConfig(scale_low_db=-10, scale_high_db=50), "dualnet"
    ),
    "dualnet_mp-mdpq-outdoor": Design(
        "dualnet_mp",
        "tr38901-umi-nlos",
        DualNetConfig(phase="mdpq", mdpq_bits=(0, 0, 2, 4, 6), scale_low_db=-10, scale_high_db=50),
        "dualnet",
    ),
    "transform": Design("transform", _INDOOR, TransformConfig(components=120)),
    "transform-2056": Design("transform", _INDOOR, TransformConfig(bits=2056, components=256, companding=MU)),
    "transform-4104": Design("transform", _INDOOR, TransformConfig(bits=4104, components=384, companding=MU)),
    "transform-outdoor": Design("transform", _OUTDOOR, TransformConfig(bits=4104, components=640)),
    "gmtc": Design("gmtc", _INDOOR, GmtcConfig(), "mixture"),
    "transform-entropy": Design("gmtc", _INDOOR, GmtcConfig(mixtures=1), "mixture"),
    "gmtc-outdoor": Design(
        "gmtc", _OUTDOOR, GmtcConfig(bits=8192, step=112, mixtures=16, components=1024, subspace=384), "mixture"
    ),
    "genie_lmmse": Design("genie_lmmse", config=PilotConfig(feedback_bits=0, uplink_reading="genie")),
    "angle_lmmse": Design("angle_lmmse", config=PilotConfig(feedback_bits=0)),
    "uplink_only": Design("uplink_only", config=PilotConfig(feedback_bits=0)),
    "pilot_lmmse": Design("pilot_lmmse"),
    "predictive_lmmse": Design("predictive_lmmse", config=PredictiveConfig()),
    "hyperrnn_angles": Design("hyperrnn_angles", config=AngleConfig()),
}
"""Designs by checkpoint name. A default checkpoint bears its scheme's name."""


def design(name: str) -> Design:
    """The design of that name, or the default sizes of the scheme of that name. Raises NotFound."""
    if name in DESIGNS:
        return DESIGNS[name]
    if name in (known := schemes()):
        return Design(name, known[name].default_scenario, known[name].config_class())
    raise NotFound(f"design: '{name}' is unknown; designs are {', '.join(DESIGNS)}; schemes are {', '.join(known)}")


def recipe(name: str, changes: dict[str, Any], epochs: int | None = None) -> Recipe:
    """The recipe of that name with other values of some fields, and as many steps as `epochs` have. Those of the CRNet
    paper stay the same number of epochs, also of warm-up, with other frames or batches.

    Raises:
        NotFound: no such recipe. InvalidInput: a value is not allowed.
    """
    if name not in RECIPES:
        raise NotFound(f"recipe: '{name}' is unknown; recipes are {', '.join(RECIPES)}")
    chosen = dataclasses.replace(RECIPES[name], **changes)
    if name in _OF_EPOCHS:
        known, an_epoch = RECIPES[name], (chosen.frames or EPOCH) / chosen.batch
        of_epochs = {f: round(getattr(known, f) * an_epoch * known.batch / known.frames) for f in ("steps", "warmup")}
        chosen = dataclasses.replace(chosen, **{**of_epochs, **changes})
    if epochs is None:
        return chosen
    if "steps" in changes:
        raise InvalidInput(f"epochs: {epochs} and steps: {chosen.steps} cannot both be given")
    return dataclasses.replace(chosen, steps=epochs * (chosen.frames or EPOCH) // chosen.batch)
