"""Settings of a gNB: command-line options, or environment variables with the prefix CSIEMU_GNB_."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from shared.settings import CheckpointSettings, OutFile, OutFolder, options


class Settings(CheckpointSettings):
    """Every setting of the gNB process."""

    model_config = options("CSIEMU_GNB_")

    host: str = "127.0.0.1"
    """Address that gRPC and REST listen on; 0.0.0.0 in a container."""

    grpc_port: int = Field(50051, ge=0, le=65535)
    """Port of the feedback service; 0 takes a free one."""

    rest_port: int = Field(8000, ge=0, le=65535)
    """Port of REST; 0 takes a free one."""

    store: str = "sqlite:///runs/gnb.sqlite"
    """SQLAlchemy URL of the result store."""

    run: str = "default"
    """Name under which results are kept in the store; a gNB that starts again with the same run goes on with it."""

    reports_kept: int = Field(256, ge=1, le=1_000_000)
    """Single reports kept per UE, the newest; sums are kept of all."""

    window_s: float = Field(10.0, gt=0, le=600)
    """Default sliding window of the live figures [s]."""

    stream_clients: int = Field(64, ge=1, le=10_000)
    """Clients that may read the live stream at once; further ones are refused with 503."""

    record: OutFolder | None = None
    """Folder for payloads, estimates and true channels of reports (.npz); off by default."""

    record_every: int = Field(1, ge=1)
    """Record only frames whose number is a multiple of this."""

    record_whole_band: bool = False
    """Record estimates at every subcarrier and antenna, too: zero filling and inverse DFT of images."""

    ready_file: OutFile | None = None
    """File that gets the addresses, as JSON, once both services answer."""

    fault: Literal["none", "lose", "misdecode", "slow"] = "none"
    """Fault injection, to see that the checks can fail: `lose` acks some reports without storing them, `misdecode`
    inverts the payload bits of some before decoding, `slow` holds every batch for 50 ms."""

    evaluate: bool = True
    """Compare estimates with the truth; off only in benchmarks."""

    @field_validator("rest_port")
    @classmethod
    def _another_port(cls, port: int, info: ValidationInfo) -> int:
        if port and port == info.data.get("grpc_port"):
            raise ValueError("is the port of gRPC; wanted another one")
        return port
