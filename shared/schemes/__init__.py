"""Schemes, one module each, and the registry that finds them."""

from shared.schemes.base import ENDS, Decoder, Encoder, End, Scheme, SchemeConfig, State
from shared.schemes.registry import register, scheme_class, schemes

__all__ = [
    "ENDS",
    "Decoder",
    "Encoder",
    "End",
    "Scheme",
    "SchemeConfig",
    "State",
    "register",
    "scheme_class",
    "schemes",
]
