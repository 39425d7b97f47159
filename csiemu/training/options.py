"""Options of a training, as they stand at the fields of `TrainingJob` and `Recipe`, for any parser of command lines."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, get_args, get_type_hints

from csiemu.training.job import TrainingJob
from csiemu.training.trainer import Recipe


@dataclass(frozen=True)
class Option:
    """An option that sets a field.

    Attributes:
        field: the field's name. name: the option's, with `_` for `-`.
        kind: str, int, float, bool or Path.
        help: what it is.
        default: what the field is without it, None where the help says it; MISSING if it has to be given.
    """

    field: str
    name: str
    kind: type
    help: str
    default: Any


def options() -> list[Option]:
    """Those of the job, then those that replace values of its recipe."""
    return [*options_of(TrainingJob), *(dataclasses.replace(option, default=None) for option in options_of(Recipe))]


def job_of(given: Mapping[str, Any]) -> TrainingJob:
    """The job that options ask for: field -> value, None where the option is not given. Raises InvalidInput."""
    values = {field: value for field, value in given.items() if value is not None}
    changes = {field.name: values.pop(field.name) for field in fields(Recipe) if field.name in values}
    return TrainingJob(**values, changes=changes)


def options_of(owner: type) -> Iterator[Option]:
    """Those of a dataclass: one for each field that has a help text."""
    hints = get_type_hints(owner, include_extras=True)
    for field in fields(owner):
        if not (metadata := getattr(hints[field.name], "__metadata__", ())):
            continue
        name = next((note for note in metadata[1:] if isinstance(note, str)), field.name)
        kind = hints[field.name].__origin__
        if isinstance(kind, types.UnionType):  # with None
            kind = get_args(kind)[0]
        default = field.default if field.default_factory is MISSING else field.default_factory()
        yield Option(field.name, name, kind, metadata[0], default)
