"""Settings of a UE process: command-line options, or environment variables with the prefix CSIEMU_UE_."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from shared.settings import Rate, RunSettings, options


class Settings(RunSettings):
    """Every setting of a UE process."""

    model_config = options("CSIEMU_UE_")

    gnb: str = "127.0.0.1:50051"
    """host:port of the gNB's feedback service."""

    scheme: str = "hyperrnn"
    """Checkpoint whose encoder the UEs use."""

    version: int | None = Field(None, ge=1)
    """Checkpoint version; default the first."""

    ues: int = Field(32, ge=1, le=65536)
    """UEs in this process."""

    ue_base: int | None = Field(None, ge=0, lt=2**32)
    """First UE id; default: leased by the gNB."""

    rate: Rate = 20.0
    """Reports per second and UE, or `max`."""

    slots: int | None = Field(None, ge=1)
    """Reports per UE; default: no end."""

    duration: float | None = Field(None, gt=0)
    """Seconds to send for; default: no end."""

    window: int = Field(8, ge=1, le=64)
    """Chunks that may wait for their ack."""

    chunk_ues: int = Field(256, ge=1, le=8192)
    """UEs in a chunk at most."""

    summary: Path | None = None
    """File for the summary, JSON."""

    record: Path | None = None
    """File for the payload bits that were sent (.npz), to compare with what the gNB decoded."""

    record_every: int = Field(1, ge=1)
    """Record only frames whose number is a multiple of this."""
