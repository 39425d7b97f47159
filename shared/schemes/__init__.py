"""The registry of schemes."""

from __future__ import annotations

from shared.errors import NotFound
from shared.schemes.base import Decoder, Encoder, Scheme, SchemeConfig, State
from shared.schemes.crnet import CrNet, CrNetConfig
from shared.schemes.csinet import CsiNet
from shared.schemes.dldnn import DlDnn, HyperDnn
from shared.schemes.dualnet_mp import DualNetConfig, DualNetMp
from shared.schemes.hyperrnn import HyperRnn, Rnn
from shared.schemes.image_feedback import ImageConfig
from shared.schemes.pilots import PilotConfig
from shared.schemes.references import AngleLmmse, GenieLmmse, UplinkOnly

SCHEMES: dict[str, type[Scheme]] = {
    scheme.name: scheme
    for scheme in (HyperRnn, Rnn, DlDnn, HyperDnn, CrNet, CsiNet, DualNetMp, GenieLmmse, AngleLmmse, UplinkOnly)
}
"""Every scheme by name."""


def scheme_class(name: str) -> type[Scheme]:
    """The scheme of that name. Raises NotFound."""
    if name not in SCHEMES:
        raise NotFound(f"scheme: '{name}' is unknown; schemes are {', '.join(SCHEMES)}")
    return SCHEMES[name]


__all__ = [
    "SCHEMES",
    "CrNetConfig",
    "Decoder",
    "DualNetConfig",
    "DualNetMp",
    "Encoder",
    "ImageConfig",
    "PilotConfig",
    "Scheme",
    "SchemeConfig",
    "State",
    "scheme_class",
]
