"""What actors answer; apart from them, so that who looks after UEs does not have what a gNB needs in memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a gNB is: host:port of its services, and the node, by its address in the cluster."""

    grpc: str
    rest: str
    node: str


@dataclass(frozen=True)
class Checked:
    """What was found of a gNB's records at its end: reports that were decoded wrongly, and compared; and its log."""

    misdecoded: int
    checked: int
    log: str


@dataclass(frozen=True)
class Ended:
    """How the UEs of a fleet ended: what is wrong, if anything is; and their log."""

    problem: str
    log: str
