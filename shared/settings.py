"""How every command's settings class turns its fields into options and environment variables."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

Rate = Annotated[float, Field(gt=0, le=1e6)] | Literal["max"]
"""Reports per second and UE, or as fast as they are acked."""


def options(env_prefix: str) -> SettingsConfigDict:
    """Fields as `--kebab-case` options, help from their docstrings, or as environment variables `<env_prefix>FIELD`."""
    return SettingsConfigDict(
        env_prefix=env_prefix,
        env_ignore_empty=True,
        extra="forbid",
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
    )
