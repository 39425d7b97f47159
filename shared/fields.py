"""Dataclasses changed by text, `field=value,...`, and limits of their fields, which stand at these."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from shared.errors import InvalidInput

T = TypeVar("T")


class Within(NamedTuple):
    """Limits of a number, `Annotated[int, Within(1, 8)]`, both allowed, NaN not; None has none. One is enough."""

    low: float
    high: float = math.inf


class OneOf(NamedTuple):
    """The names that a field may be, `Annotated[str, OneOf(("one", "other"))]`."""

    names: tuple[str, ...]


_BOOLS = {"true": True, "false": False}


def read_fields(what: str, base: T, text: str) -> T:
    """`base` (a dataclass) with the fields changed that `text` names; their own checks are its class's.

    Raises:
        InvalidInput: a field that is unknown, malformed or out of range; the message begins with `what`.
    """
    kinds = typing.get_type_hints(type(base))
    names = [field.name for field in dataclasses.fields(base)]  # type: ignore[arg-type]  # it is a dataclass
    changes: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        name, _, value = item.partition("=")
        if name not in names:
            missing = "" if "=" in item else " (a comma always begins another field)"
            raise InvalidInput(f"{what}: field '{name}' is unknown{missing}; fields are {', '.join(names)}")
        changes[name] = _read(f"{what} {name}", value, kinds[name])
    return dataclasses.replace(base, **changes)  # type: ignore[type-var]  # it is a dataclass


def _read(what: str, text: str, kind: Any) -> Any:
    """A value from its text: int, float, bool, text, numbers with hyphens between, or `none` where that is allowed."""
    if isinstance(kind, types.UnionType):
        if text == "none":
            return None
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
    if kind is bool:
        if text not in _BOOLS:
            raise InvalidInput(f"{what}: '{text}' is not true or false")
        return _BOOLS[text]
    if typing.get_origin(kind) is tuple:
        return tuple(_read(what, part, typing.get_args(kind)[0]) for part in text.split("-"))
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        raise InvalidInput(f"{what}: '{text}' is not a number") from None


def check_fields(owner: object, what: str = "") -> None:
    """Raises InvalidInput, beginning with `what`, for a field that is not within the limits that stand at it; a field
    that a subclass declares anew, with another default, keeps those that it had.
    """
    for name, limit in _limits(type(owner).__mro__).items():
        value = getattr(owner, name)
        if isinstance(limit, OneOf):
            if value not in limit.names:
                names = f"{', '.join(limit.names[:-1])} or {limit.names[-1]}"
                raise InvalidInput(f"{what}{name}: '{value}' is not {names}")
        elif value is not None and not limit.low <= value <= limit.high:
            wanted = f"is less than {limit.low}" if limit.high == math.inf else f"is not in [{limit.low}, {limit.high}]"
            raise InvalidInput(f"{what}{name}: {value} {wanted}")


@functools.cache
def _limits(classes: tuple[type, ...]) -> dict[str, Within | OneOf]:
    hints = [hint for owner in classes[::-1] for hint in typing.get_type_hints(owner, include_extras=True).items()]
    notes = ((name, note) for name, hint in hints for note in getattr(hint, "__metadata__", ()))
    return {name: note for name, note in notes if isinstance(note, Within | OneOf)}


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], what: str = "") -> Iterator[str]:
    """What differs between settings, those within others (`recipe batch`) too: `NAME was THEIRS, is OURS`."""
    for name in dict.fromkeys([*ours, *theirs]):
        mine, other = ours.get(name), theirs.get(name)
        if isinstance(mine, dict) and isinstance(other, dict):
            yield from differences(mine, other, f"{what}{name} ")
        elif mine != other:
            yield f"{what}{name} was {other}, is {mine}"
