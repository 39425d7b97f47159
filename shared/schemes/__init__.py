"""Schemes, one module each, and their registry. A scheme registers itself; adding one touches no other module.

Modules of this package are found by themselves, those of other packages by the entry point group `csiemu.schemes`:

    [project.entry-points."csiemu.schemes"]
    mine = "my_package.my_scheme"
"""

from __future__ import annotations

import functools
import importlib
import logging
import pkgutil
from importlib.metadata import entry_points
from typing import TypeVar

from shared.errors import Conflict, NotFound
from shared.schemes.base import ENDS as ENDS
from shared.schemes.base import Decoder as Decoder
from shared.schemes.base import Encoder as Encoder
from shared.schemes.base import End as End
from shared.schemes.base import Scheme as Scheme
from shared.schemes.base import SchemeConfig as SchemeConfig
from shared.schemes.base import State as State

ENTRY_POINTS = "csiemu.schemes"
"""Group of entry points whose modules register schemes of other packages."""

S = TypeVar("S", bound=Scheme)

_schemes: dict[str, type[Scheme]] = {}


def register(scheme: type[S]) -> type[S]:
    """Class decorator: make a scheme known by its `name`. Raises Conflict if another one has it."""
    other = _schemes.setdefault(scheme.name, scheme)
    if other is not scheme:
        raise Conflict(f"scheme: '{scheme.name}' of {scheme.__module__} is registered by {other.__module__} already")
    return scheme


def schemes() -> dict[str, type[Scheme]]:
    """Every scheme by name, in alphabetical order."""
    import_all("shared.schemes", ENTRY_POINTS)
    return dict(sorted(_schemes.items()))


def scheme_class(name: str) -> type[Scheme]:
    """The scheme of that name. Raises NotFound."""
    known = schemes()
    if name not in known:
        raise NotFound(f"scheme: '{name}' is unknown; schemes are {', '.join(known)}")
    return known[name]


@functools.cache
def import_all(package: str, group: str) -> None:
    """Import the modules of a package, and those of other packages that a group of entry points names."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)
    for point in entry_points(group=group):
        try:
            point.load()
        except Exception:  # another package's fault must not take ours away
            logging.exception("%s: entry point '%s' = %s cannot be loaded", group, point.name, point.value)
