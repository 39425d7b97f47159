"""The files of TLS, PEM: what a process shows others, and whom it trusts. Read and checked before anything begins."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from shared.errors import InvalidInput


@dataclass(frozen=True)
class Identity:
    """A certificate, with those between it and its authority behind it, and its private key; PEM."""

    certificate: bytes
    key: bytes


def read_identity(certificate: Path | None, key: Path | None) -> Identity | None:
    """The identity of the settings `tls_certificate` and `tls_key`; None if there are none.

    Raises:
        InvalidInput: one without the other, a file that cannot be read or is not what it is to be, another one's key.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        given, missing = ("tls_key", "tls_certificate") if certificate is None else ("tls_certificate", "tls_key")
        raise InvalidInput(f"{given}: {key or certificate}, and no {missing}; wanted both")
    found = Identity(_certificates("tls_certificate", certificate), _read("tls_key", key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # or it would ask at the terminal
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InvalidInput(f"tls_key: {key} is not the key of {certificate}") from None
        raise InvalidInput(f"tls_key: {key} is not a private key in PEM, without a passphrase") from None
    return found


def read_authorities(field: str, path: Path | None) -> bytes | None:
    """The certificates of those who sign whom we trust, PEM; None if there are none. Raises InvalidInput, naming
    `field`.
    """
    return None if path is None else _certificates(field, path)


def _certificates(field: str, path: Path) -> bytes:
    content = _read(field, path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise InvalidInput(f"{field}: {path} has no certificate in PEM") from None
    return content


def _read(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{field}: {path} cannot be read: {error.strerror}") from None
