"""Files of TLS: what can be used is read, the rest is refused before anything begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from shared.errors import InvalidInput
from shared.tls import read_authorities, read_identity


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cert.pem (and one between it and ca.pem), key.pem; sealed.pem is the key with a passphrase, other.pem another."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.create_child_ca().issue_cert("localhost")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(folder / "cert.pem", append=True)
    issued.private_key_pem.write_to_path(folder / "key.pem")
    authority.issue_cert("localhost").private_key_pem.write_to_path(folder / "other.pem")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (folder / "sealed.pem").write_bytes(sealed)
    (folder / "empty.pem").write_bytes(b"")
    (folder / "text.pem").write_bytes(b"\xff\xfe no certificate")
    return folder


def test_what_can_be_used(files: Path) -> None:
    found = read_identity(files / "cert.pem", files / "key.pem")
    assert found is not None
    assert found.certificate == (files / "cert.pem").read_bytes()
    assert found.certificate.count(b"BEGIN CERTIFICATE") == 2
    assert found.key == (files / "key.pem").read_bytes()
    assert read_authorities("tls_ca", files / "ca.pem") == (files / "ca.pem").read_bytes()
    assert read_identity(None, None) is None
    assert read_authorities("tls_ca", None) is None


@pytest.mark.parametrize(
    ("certificate", "key", "says"),
    [
        ("cert.pem", None, "^tls_certificate: .*cert.pem, and no tls_key; wanted both$"),
        (None, "key.pem", "^tls_key: .*key.pem, and no tls_certificate; wanted both$"),
        ("missing.pem", "key.pem", "^tls_certificate: .*missing.pem cannot be read: No such file or directory$"),
        ("cert.pem", "missing.pem", "^tls_key: .*missing.pem cannot be read: No such file or directory$"),
        ("cert.pem", ".", "^tls_key: .* cannot be read: Is a directory$"),
        ("cert.pem", "other.pem", r"^tls_key: .*other.pem is not the key of .*cert.pem$"),
        ("cert.pem", "sealed.pem", "^tls_key: .*sealed.pem is not a private key in PEM, without a passphrase$"),
        ("cert.pem", "cert.pem", "^tls_key: .*cert.pem is not a private key in PEM"),
        ("cert.pem", "empty.pem", "^tls_key: .*empty.pem is not a private key in PEM"),
        ("cert.pem", "text.pem", "^tls_key: .*text.pem is not a private key in PEM"),
        ("key.pem", "key.pem", "^tls_certificate: .*key.pem has no certificate in PEM$"),
        ("text.pem", "key.pem", "^tls_certificate: .*text.pem has no certificate in PEM$"),
    ],
)
def test_what_cannot(files: Path, certificate: str | None, key: str | None, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        read_identity(*(name and files / name for name in (certificate, key)))


@pytest.mark.parametrize("name", ["empty.pem", "text.pem", "key.pem"])
def test_no_authority(files: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^tls_client_ca: .*{name} has no certificate in PEM$"):
        read_authorities("tls_client_ca", files / name)
