"""Dataclasses changed by text, `field=value,...`, and limits of their fields, which stand at these."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

from shared.errors import InvalidInput

T = TypeVar("T")


class Within(NamedTuple):
    """Limits of a number, `Annotated[int, Within(1, 8)]`: both are allowed, NaN is not; None has none."""

    low: float
    high: float


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


def check_fields(owner: object, what: str = "", *, one_of: bool = False) -> None:
    """`check_ranges` and `check_choices` by the limits that stand at the fields; a field that a subclass declares anew,
    with another default, keeps those that it had.
    """
    limits = _limits(type(owner).__mro__)
    check_ranges(owner, {name: limit for name, limit in limits.items() if isinstance(limit, Within)}, what)
    choices = {name: limit.names for name, limit in limits.items() if isinstance(limit, OneOf)}
    check_choices(owner, choices, what, one_of=one_of)


@functools.cache
def _limits(classes: tuple[type, ...]) -> dict[str, Within | OneOf]:
    hints = [hint for owner in classes[::-1] for hint in typing.get_type_hints(owner, include_extras=True).items()]
    return {name: hint.__metadata__[0] for name, hint in hints if typing.get_origin(hint) is Annotated}


def check_ranges(owner: object, ranges: Mapping[str, tuple[float, float]], what: str = "") -> None:
    """Raises InvalidInput, beginning with `what`, for a field that is not within [low, high], NaN among them; a field
    that is None has no number.
    """
    for name, (low, high) in ranges.items():
        value = getattr(owner, name)
        if value is not None and not low <= value <= high:
            wanted = f"is less than {low}" if high == math.inf else f"is not in [{low}, {high}]"
            raise InvalidInput(f"{what}{name}: {value} {wanted}")


def check_choices(
    owner: object, choices: Mapping[str, tuple[str, ...]], what: str = "", *, one_of: bool = False
) -> None:
    """Raises InvalidInput, beginning with `what`, for a field that is none of the names that it may be; the message
    has them as `a, b or c`, or as `one of a, b, c`.
    """
    for name, allowed in choices.items():
        if (value := getattr(owner, name)) not in allowed:
            others = ", ".join(allowed[:-1])
            names = f"one of {others}, {allowed[-1]}" if one_of else f"{others} or {allowed[-1]}"
            raise InvalidInput(f"{what}{name}: '{value}' is not {names}")
