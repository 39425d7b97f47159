"""The archive of a checkpoint: a zip file of card.json, decoder.safetensors and, as a rule, encoder.safetensors.

It is made by whoever may upload: looked at before it is believed. No name in it is ever the name of a file here.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from gnb_server.hardening import shorten
from shared.errors import InvalidInput, TooLarge

CARD, ENCODER, DECODER = "card.json", "encoder.safetensors", "decoder.safetensors"
MEMBERS = (CARD, ENCODER, DECODER)

MOST_CARD_BYTES = 2**20
MOST_DIRECTORY_BYTES = 2**16
"""Of the archive's directory, which is read as a whole: a million entries would fill the memory."""

_END = struct.Struct("<4s4H2LH")
"""The end of an archive (APPNOTE.TXT 4.3.16): signature, two disks, entries on this one and on all, bytes of the
directory, its offset, bytes of the comment."""

_END_SIGNATURE, _ZIP64_SIGNATURE = b"PK\5\6", b"PK\6\7"
_ZIP64_BYTES = 20


class Archive:
    """The members of an archive, by name: those of a checkpoint, each a file of its own. See `open_archive`."""

    def __init__(self, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> None:
        self._archive, self._members = archive, members

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def read(self, name: str) -> bytes:
        """A member, whole; never more than its entry in the directory says. Raises InvalidInput if it is broken."""
        try:
            return self._archive.read(self._members[name])
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
            # RuntimeError: it is encrypted, or compressed in a way that zipfile cannot undo
            raise InvalidInput(f"archive: {name} cannot be read: {error}") from None


@contextlib.contextmanager
def open_archive(file: BinaryIO, most_bytes: int) -> Iterator[Archive]:
    """The archive in a file.

    Args:
        most_bytes: of all members, expanded.

    Raises:
        InvalidInput: it is not the archive of a checkpoint. TooLarge: more is in it than is taken.
    """
    _check_end(file)
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:  # the last: of a later ZIP version
        raise InvalidInput(f"archive: cannot be read: {error}") from None
    with archive:
        members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            if reason := _why_not(member, members):
                raise InvalidInput(f"archive: {shorten(repr(member.orig_filename))} {reason}")
            members[member.orig_filename] = member
        for name in (CARD, DECODER):
            if name not in members:
                raise InvalidInput(f"archive: {name} is missing")
        expanded = sum(member.file_size for member in members.values())
        if expanded > most_bytes:
            raise TooLarge(f"archive: {expanded} bytes when expanded; at most {most_bytes} are taken")
        if members[CARD].file_size > MOST_CARD_BYTES:
            raise TooLarge(f"archive: {CARD} has {members[CARD].file_size} bytes; at most {MOST_CARD_BYTES} are taken")
        yield Archive(archive, members)


def _check_end(file: BinaryIO) -> None:
    """Look at what the archive says of its directory before `zipfile` reads that."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size - _ZIP64_BYTES))
    tail = file.read()
    end = tail[-_END.size :]
    if len(end) < _END.size or not end.startswith(_END_SIGNATURE) or tail.startswith(_ZIP64_SIGNATURE):
        raise InvalidInput("archive: not a zip file; wanted a plain one, without zip64 and comment")
    if (directory := _END.unpack(end)[5]) > MOST_DIRECTORY_BYTES:
        raise InvalidInput(f"archive: a directory of {directory} bytes; wanted the files of one checkpoint")


def _why_not(member: zipfile.ZipInfo, others: dict[str, zipfile.ZipInfo]) -> str | None:
    """Why a member of an archive is none of a checkpoint's; None if it is."""
    name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
    if "/" in name or "\\" in name or name in (".", ".."):
        return "is a path; wanted the files alone, without folders"
    if kind == stat.S_IFLNK:
        return "is a link; wanted the file"
    if name not in MEMBERS or kind not in (0, stat.S_IFREG):
        return f"is no file of a checkpoint; these are {', '.join(MEMBERS)}"
    if name in others:
        return "is there twice"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed by another method than deflate"
    return None
