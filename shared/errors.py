"""The error classes that every part raises; gRPC and REST map each to one status."""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """What went wrong, as (canonical gRPC status name, HTTP status)."""

    INVALID = ("INVALID_ARGUMENT", 400)
    NOT_FOUND = ("NOT_FOUND", 404)
    CONFLICT = ("FAILED_PRECONDITION", 409)
    OUT_OF_ORDER = ("OUT_OF_RANGE", 409)
    DAMAGED = ("DATA_LOSS", 422)
    TOO_LARGE = ("RESOURCE_EXHAUSTED", 413)
    EXHAUSTED = ("RESOURCE_EXHAUSTED", 429)
    UNAVAILABLE = ("UNAVAILABLE", 503)

    def __init__(self, grpc_status: str, http_status: int) -> None:
        self.grpc_status = grpc_status
        self.http_status = http_status


class CsiError(Exception):
    """Base of all errors that are the caller's to read. The message names the field, its value and what is allowed."""

    kind = Kind.INVALID


class InvalidInput(CsiError):
    """A value that is not allowed, whatever the state of the system."""


class NotFound(CsiError):
    """A UE, scheme, checkpoint or version that does not exist."""

    kind = Kind.NOT_FOUND


class Conflict(CsiError):
    """A request that the present state forbids (wrong encoder, a model in use, ids taken)."""

    kind = Kind.CONFLICT


class SequenceGap(CsiError):
    """Reports that do not follow the last one that was stored.

    Attributes:
        expected: the sequence (absolute slot) that the gNB waits for.
    """

    kind = Kind.OUT_OF_ORDER

    def __init__(self, message: str, expected: int) -> None:
        super().__init__(message)
        self.expected = expected


class DamagedCheckpoint(CsiError):
    """A checkpoint whose files, hashes or probe do not match its card."""

    kind = Kind.DAMAGED


class TooLarge(CsiError):
    """More bytes than are taken at once."""

    kind = Kind.TOO_LARGE


class LimitReached(CsiError):
    """More than the service is set up for."""

    kind = Kind.EXHAUSTED


class NotReady(CsiError):
    """The service is starting or stopping."""

    kind = Kind.UNAVAILABLE


class StoreUnavailable(NotReady):
    """The result store cannot be read or written for the time being."""
