"""Settings of a gNB: command-line options, or environment variables with the prefix CSIEMU_GNB_."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import CliSuppress

from gnb_server.monitor import LONGEST_WINDOW_S
from gnb_server.openvino import Backend
from shared.errors import InvalidInput
from shared.link.precision import Precision
from shared.settings import CheckpointSettings, Late, OutFile, OutFolder, options

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What a bearer token may be (RFC 6750, section 2.1)."""

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")

MOST_WORKERS = 8
"""Decode workers by default, at most."""


def default_workers() -> int:
    """A decode worker for each core but one, on which the rest of the gNB runs; none where there are two cores at most:
    UEs on the same machine have the other one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(cores, _quota())
    return 0 if cores <= 2 else min(cores - 1, MOST_WORKERS)


def _quota() -> int:
    """Cores' worth of time that a container may take (Linux, cgroup v2: `cpu.max` is microseconds and of how many)."""
    try:
        most, period = CPU_MAX.read_text().split()
        return max(1, int(most) // int(period))
    except (OSError, ValueError):  # there is no such file, or `max`
        return sys.maxsize


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

    store_wait_s: float = Field(60.0, ge=0, le=86_400)
    """How long a PostgreSQL that is away is waited for at the start [s]; one that goes away later always is."""

    run: str = "default"
    """Name under which results are kept in the store; a gNB that starts again with the same run goes on with it."""

    reports_kept: int = Field(256, ge=1, le=1_000_000)
    """Single reports kept per UE, the newest; sums are kept of all."""

    window_s: float = Field(10.0, gt=0, le=LONGEST_WINDOW_S)
    """Default sliding window of the live figures [s]."""

    log_figures_s: float = Field(60.0, ge=0, le=LONGEST_WINDOW_S)
    """How often the log gets a line with the NMSE of each version over this time [s]; 0: never."""

    evict_s: float = Field(600.0, gt=0)
    """What is held for a fleet that has been gone, or silent, for so long is freed [s]; when it comes back it goes on
    where it was."""

    late: Late = "decode"
    """What becomes of reports that have waited for longer than --late-s when their turn comes: decode them all the
    same, or drop them and the rest of their frames."""

    late_s: float = Field(1.0, gt=0)
    """How long a report may wait to be decoded with --late drop [s]."""

    stream_clients: int = Field(64, ge=1, le=10_000)
    """Clients that may read the live stream at once; further ones are refused with 503."""

    upload_mib: int = Field(64, ge=1, le=4096)
    """Largest upload of a checkpoint, and largest size of what is in it [MiB]."""

    token: CliSuppress[SecretStr | None] = None
    """Bearer token that REST wants for whatever changes something: CSIEMU_GNB_TOKEN, for others on the machine can read
    a command line."""

    token_file: Path | None = None
    """File with the bearer token that REST wants for whatever changes something (or CSIEMU_GNB_TOKEN has it); without
    one only clients on this machine may."""

    tls_certificate: Path | None = None
    """Certificate that gRPC and REST show, with those between it and its authority behind it, PEM; without it both are
    in the clear."""

    tls_key: Path | None = None
    """Its private key, PEM, without a passphrase."""

    tls_client_ca: Path | None = None
    """Certificates of the authorities that have to have signed a UE's, PEM; without it UEs need none. REST asks for a
    token instead."""

    workers: int = Field(default_factory=default_workers, ge=0, le=256)
    """Processes that decode and compare, each for UEs of its own; 0: the gNB's own process does it. By default by the
    cores."""

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

    precision: Precision = "fp32"
    """What decoders compute in: bf16 is faster where the processor has AMX or AVX512-BF16, and used for checkpoints
    whose cards say that their NMSE grows by 0.02 dB at most."""

    backend: Backend = "torch"
    """What computes the networks of image autoencoders: torch, or OpenVINO in float32 (extra `openvino`)."""

    monitoring: bool = True
    """Watch decoded reports by what a gNB can know of them, and raise alarms (docs/monitoring.md)."""

    false_alarms: float = Field(1e-5, gt=0, le=0.5)
    """Probability that a window of a healthy fleet's frames raises an alarm, about."""

    alarm_window: int = Field(200, ge=20, le=4000)
    """Whole frames of a fleet that are judged together: more of them notice less, and later."""

    alarm_margin_db: float = Field(1.0, ge=0, le=60)
    """How much worse than its reference the true NMSE has to be for an alarm to be right [dB]."""

    evaluate: bool = True
    """Compare estimates with the truth; off only in benchmarks."""

    @field_validator("rest_port")
    @classmethod
    def _another_port(cls, port: int, info: ValidationInfo) -> int:
        if port and port == info.data.get("grpc_port"):
            raise ValueError("is the port of gRPC; wanted another one")
        return port

    def access_token(self) -> str | None:
        """The bearer token; None if none is set. Raises InvalidInput, which does not say it."""
        if self.token_file is None:
            token = None if self.token is None else self.token.get_secret_value()
        elif self.token is not None:
            raise InvalidInput(f"token_file: {self.token_file}, and CSIEMU_GNB_TOKEN is set; wanted one of them")
        else:
            try:
                token = self.token_file.read_text().strip()
            except OSError as error:
                raise InvalidInput(f"token_file: {self.token_file} cannot be read: {error.strerror}") from None
            except ValueError:
                raise InvalidInput(f"token_file: {self.token_file} is no text") from None
        if token is not None:
            check_token(token)
        return token


def check_token(token: str) -> None:
    """Raises InvalidInput, which does not say it: it cannot be a bearer token."""
    if not _TOKEN.fullmatch(token):
        raise InvalidInput("token: wanted letters, digits and - . _ ~ + / only, and at least one of them")
