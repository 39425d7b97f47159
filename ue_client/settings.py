"""Settings of a UE process: command-line options, or environment variables with the prefix CSIEMU_UE_."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, field_validator

from shared.errors import InvalidInput
from shared.settings import OutFile, Rate, RunSettings, options

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})")

_WANTED = "wanted host:port, a port from 1 to 65535, an IPv6 host in brackets"


class Settings(RunSettings):
    """Every setting of a UE process."""

    model_config = options("CSIEMU_UE_")

    gnb: str = "127.0.0.1:50051"
    """host:port of the gNB's feedback service; an IPv6 host in brackets, [::1]:50051. No proxy is used."""

    gnb_file: Path | None = None
    """File with this address, which is read at every connection instead of --gnb: for a gNB that comes back
    elsewhere."""

    tls_ca: Path | None = None
    """Certificates of the authorities that may have signed the gNB's, PEM; without it the channel is in the clear."""

    tls_certificate: Path | None = None
    """Certificate to show a gNB that wants one, with those between it and its authority behind it, PEM."""

    tls_key: Path | None = None
    """Its private key, PEM, without a passphrase."""

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

    bits: int | None = Field(None, ge=1)
    """Most bits of a report, of schemes that can give more or fewer; each is as fine as they allow."""

    step: int | None = Field(None, ge=0)
    """Index of the quantiser step of reports, of schemes that have steps; with --bits the finest."""

    target_nmse: float | None = Field(None, ge=-60, le=0)
    """NMSE [dB] that the gNB is to hold with the fewest bits, of schemes that have steps."""

    target_csi: int = Field(0, ge=0, le=1_000_000)
    """Send target CSI with every so many frames of a UE, for the gNB to judge its estimates by; 0: never. Its bits are
    counted apart."""

    slots: int | None = Field(None, ge=1)
    """Reports per UE; default: no end."""

    duration: float | None = Field(None, gt=0)
    """Seconds to send for; default: no end."""

    window: int = Field(8, ge=1, le=64)
    """Chunks that may wait for their ack, of those that UEs send in each part of a slot."""

    chunk_ues: int = Field(256, ge=1, le=8192)
    """UEs in a chunk at most; fewer where the chunk would have more than 1 MiB."""

    drain_s: float = Field(10.0, ge=0, le=3600)
    """Seconds that acks are waited for after SIGINT or SIGTERM; a second signal ends the process at once. Exit code 1
    if reports are not acked by then."""

    switch: bool = True
    """Fetch and use another encoder of the model when the gNB says so, from the next frame on."""

    token_file: OutFile | None = None
    """File for the secret name of the lease, while it is in use: who starts with it again, after a kill, goes on with
    the same UE ids where the gNB has got to."""

    summary: OutFile | None = None
    """File for the summary, JSON."""

    record: OutFile | None = None
    """File for the payload bits that were sent (.npz), to compare with what the gNB decoded."""

    record_every: int = Field(1, ge=1)
    """Record only frames whose number is a multiple of this."""

    @field_validator("gnb")
    @classmethod
    def _an_address(cls, address: str) -> str:
        if not _is_address(address):
            raise ValueError(_WANTED)
        return address

    def address(self) -> str:
        """host:port of the gNB's feedback service, as it is now. Raises InvalidInput: the file has none."""
        if self.gnb_file is None:
            return self.gnb
        try:
            address = self.gnb_file.read_text().strip()
        except (OSError, ValueError) as error:
            raise InvalidInput(f"gnb_file: {self.gnb_file} cannot be read: {error}") from None
        if not _is_address(address):
            raise InvalidInput(f"gnb_file: '{address}' in {self.gnb_file}; {_WANTED}")
        return address


def _is_address(text: str) -> bool:
    found = _ADDRESS.fullmatch(text)
    return found is not None and 0 < int(found[2]) < 65536
