"""What an archive of a checkpoint may be, and every other one is refused with the reason."""

from __future__ import annotations

import contextlib
import io
import stat
import struct
import zipfile
from collections.abc import Callable

import hypothesis
import hypothesis.strategies
import pytest

from gnb_server.archives import CARD, DECODER, ENCODER, MEMBERS, open_archive
from shared.errors import InvalidInput, TooLarge

MOST = 2**20


def zipped(members: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


GOOD = [(name, name.encode()) for name in MEMBERS]


def of_kind(kind: int, name: str = ENCODER) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return info


def read(data: bytes, most_bytes: int = MOST) -> dict[str, bytes]:
    with open_archive(io.BytesIO(data), most_bytes) as archive:
        return {name: archive.read(name) for name in MEMBERS if name in archive}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "members", [GOOD, GOOD[::-1], [GOOD[0], GOOD[2]], [*GOOD[1:], (of_kind(stat.S_IFREG, CARD), b"")]]
)
def test_archives_of_checkpoints(members: list[tuple[str | zipfile.ZipInfo, bytes]], method: int) -> None:
    expected = {name if isinstance(name, str) else name.filename: data for name, data in members}
    assert read(zipped(members, method)) == expected


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("/etc/passwd", b"x"), *GOOD], "'/etc/passwd' is a path; wanted the files alone, without folders"),
        ([*GOOD, ("../card.json", b"x")], r"'../card.json' is a path"),
        ([*GOOD, ("..", b"x")], r"'..' is a path"),
        ([*GOOD, ("a\\b", b"x")], "is a path"),
        ([("hyperrnn/", b""), *GOOD], "'hyperrnn/' is a path"),
        ([("C:\\card.json", b""), *GOOD], "is a path"),
        ([*GOOD, (CARD, b"again")], "'card.json' is there twice"),
        ([*GOOD, ("readme.txt", b"x")], f"'readme.txt' is no file of a checkpoint; these are {', '.join(MEMBERS)}"),
        ([*GOOD, ("CARD.JSON", b"x")], "'CARD.JSON' is no file of a checkpoint"),
        ([(GOOD[0]), GOOD[2], (of_kind(stat.S_IFLNK), b"/etc/passwd")], f"'{ENCODER}' is a link; wanted the file"),
        ([(GOOD[0]), GOOD[2], (of_kind(stat.S_IFIFO), b"")], f"'{ENCODER}' is no file of a checkpoint"),
        (GOOD[1:], "card.json is missing"),
        (GOOD[:2], "decoder.safetensors is missing"),
        ([], "card.json is missing"),
        ([("x" * 10_000, b"")], r"'xxx.*characters.*xxx' is no file"),
        ([(f"file-{n}", b"") for n in range(5000)], "a directory of 2[0-9]+ bytes; wanted the files of one checkpoint"),
    ],
)
def test_members_that_are_refused(members: list[tuple[str | zipfile.ZipInfo, bytes]], says: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^archive: .*{says}"):
        read(zipped(members))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_of_compression(method: int) -> None:
    with pytest.raises(InvalidInput, match=r"'card\.json' is compressed by another method than deflate"):
        read(zipped(GOOD, method))


def test_an_encrypted_archive() -> None:
    data = bytearray(zipped(GOOD))
    data[data.index(b"PK\1\2") + 8] |= 1  # general purpose bit 0 of the first entry
    with pytest.raises(InvalidInput, match=r"'card\.json' is encrypted"):
        read(bytes(data))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: b"PK\5\6",
        lambda data: b"x" * 100,
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-2] + b"\3\0abc",  # a comment
        lambda data: data[:-22] + struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1) + data[-22:],
    ],
)
def test_what_is_no_plain_zip_file(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(InvalidInput, match="archive: not a zip file; wanted a plain one, without zip64 and comment"):
        read(change(zipped(GOOD)))


def test_a_directory_that_is_not_where_it_is_said_to_be() -> None:
    data = zipped(GOOD)
    with pytest.raises(InvalidInput, match=r"^archive: .*cannot be read: "):
        read(data[:-6] + struct.pack("<LH", len(data), 0))


def test_what_expands_beyond_the_limit() -> None:
    """A bomb: small, and large when expanded."""
    data = zipped([GOOD[0], GOOD[1], (DECODER, bytes(MOST))])
    assert len(data) < MOST / 100
    with pytest.raises(TooLarge, match=rf"archive: 10\d+ bytes when expanded; at most {MOST} are taken"):
        read(data)
    assert read(data, 2 * MOST)[DECODER] == bytes(MOST)
    with pytest.raises(TooLarge, match=r"archive: card.json has 1048577 bytes; at most 1048576 are taken"):
        read(zipped([(CARD, bytes(2**20 + 1)), *GOOD[1:]]), 4 * MOST)


def test_a_bomb_that_says_it_is_small() -> None:
    """Never more is expanded than the directory says, and the sum does not fit."""
    data = zipped([*GOOD[:2], (DECODER, bytes(MOST))])
    lying = data.replace(struct.pack("<L", MOST), struct.pack("<L", 1000))
    assert lying != data
    with pytest.raises(InvalidInput, match=r"archive: decoder\.safetensors cannot be read: Bad CRC-32"):
        read(lying)


def test_a_broken_member() -> None:
    data = zipped([(CARD, b"a stored card"), *GOOD[1:]], zipfile.ZIP_STORED)
    with pytest.raises(InvalidInput, match=r"archive: card\.json cannot be read: Bad CRC-32"):
        read(data.replace(b"stored", b"storey"))


@hypothesis.given(hypothesis.strategies.data())
@hypothesis.settings(max_examples=300, deadline=None)
def test_whatever_is_changed_is_read_or_refused(data: hypothesis.strategies.DataObject) -> None:
    """A few bytes of an archive, of its directory above all."""
    archive = bytearray(zipped(GOOD, data.draw(hypothesis.strategies.sampled_from([0, 8]))))
    for _ in range(data.draw(hypothesis.strategies.integers(1, 4))):
        place = data.draw(hypothesis.strategies.integers(0, len(archive) - 1))
        archive[place] = data.draw(hypothesis.strategies.integers(0, 255))
    with contextlib.suppress(InvalidInput, TooLarge):
        read(bytes(archive))
