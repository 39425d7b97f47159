"""Uploaded checkpoints: received into a hidden folder beside the others, checked there, moved in by one rename."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from gnb_server.archives import CARD, DECODER, ENCODER, open_archive
from gnb_server.evaluator import check_ends
from gnb_server.hardening import shorten
from shared.channels.scenario import Scenario
from shared.checkpoints import Checkpoint, CheckpointStore, card_text, check_name
from shared.errors import Conflict, CsiError, DamagedCheckpoint, InvalidInput, LimitReached, TooLarge
from shared.schemes import scheme_class

AT_ONCE = 4
"""Uploads under way, at most."""

LEAST_WEIGHT_BYTES = 2
"""Of a weight in a file: fp16."""

_FOLDERS = ".upload-"


class Uploads:
    """Uploads into a folder of checkpoints. Safe to use from any thread.

    Args:
        store: where they are to stand.
        most_bytes: of an archive, and of all that is in it.
    """

    def __init__(self, store: CheckpointStore, most_bytes: int) -> None:
        self.store, self.most_bytes = store, most_bytes
        self.accepting = threading.Lock()
        self._seats = threading.BoundedSemaphore(AT_ONCE)

    def clear(self) -> None:
        """Remove what uploads that were cut off by a kill have left; those of other gNBs that are under way stay."""
        for folder in self.store.root.glob(f"{_FOLDERS}*"):
            with contextlib.suppress(OSError), _owned(folder):
                shutil.rmtree(folder)

    @contextlib.contextmanager
    def begin(self) -> Iterator[Upload]:
        """An upload, to be written and then accepted; nothing but an accepted version stays of it.

        Raises:
            LimitReached: too many are under way. Conflict: the folder cannot be written.
        """
        if not self._seats.acquire(blocking=False):
            raise LimitReached(f"uploads: {AT_ONCE} are under way, and more are not taken; try again later")
        try:
            with _writing(self.store.root):
                folder = Path(tempfile.mkdtemp(prefix=_FOLDERS, dir=self.store.root))
            try:
                with _owned(folder), tempfile.TemporaryFile(dir=folder) as file:
                    yield Upload(self, folder, file)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            self._seats.release()


@dataclass
class Upload:
    """One archive on its way.

    Attributes:
        folder: its own, where it is checked.
        file: the archive, as far as it is here: `written` bytes.
    """

    uploads: Uploads
    folder: Path
    file: BinaryIO
    written: int = 0

    def write(self, data: bytes) -> None:
        """The next piece of the archive. Raises TooLarge, and Conflict if it cannot be kept."""
        self.written += len(data)
        if self.written > self.uploads.most_bytes:
            raise TooLarge(f"archive: more than {self.uploads.most_bytes} bytes")
        with _writing(self.uploads.store.root):
            self.file.write(data)

    def accept(self, name: str | None = None, version: int | None = None) -> Checkpoint:
        """Check the archive, and have its checkpoint stand in the repository.

        Args:
            name: default: the one in its card.
            version: default: the next that is free.

        Returns:
            The checkpoint; its card has this name and this version.

        Raises:
            InvalidInput: no archive of a checkpoint, or no such name or version can be. TooLarge: more is in it than is
            taken. DamagedCheckpoint: its parts do not fit together. Conflict: the version is there already, or cannot
            be written.
        """
        store = self.uploads.store
        with open_archive(self.file, self.uploads.most_bytes) as archive, self.uploads.accepting:
            card = _card(archive.read(CARD))
            name = check_name(str(card.get("name")) if name is None else name)
            version = _next_version(store.root / name) if version is None else version
            place = store.new_folder(name, version)
            inside = self.folder / name / str(version)
            with _writing(store.root):
                inside.mkdir(parents=True)
                (inside / CARD).write_text(card_text({**card, "name": name, "version": version}))
                (inside / DECODER).write_bytes(archive.read(DECODER))
                encoder = archive.read(ENCODER) if ENCODER in archive else _known_encoder(store, name, card)
                (inside / ENCODER).write_bytes(encoder)
            checkpoint = self._check(name, version)
            with _writing(store.root):
                place.parent.mkdir(exist_ok=True)
                try:
                    inside.rename(place)  # onto an empty folder, but no other
                except OSError:
                    if place.exists():
                        raise Conflict(f"checkpoint: {place} is there already; choose another version") from None
                    raise
        return checkpoint

    def _check(self, name: str, version: int) -> Checkpoint:
        """Load both ends, and have them do what the card's probe says. Raises DamagedCheckpoint, TooLarge."""
        here = CheckpointStore(self.folder)
        try:
            card = here.card(name, version)
            _check_size(card, self.uploads.most_bytes)
            checkpoint = here.load(name, version)
            bits = checkpoint.scheme.layout.bits
            if bits != card["feedback_bits"]:
                raise DamagedCheckpoint(f"feedback_bits: {card['feedback_bits']}, of its layout {bits}")
            check_ends(checkpoint)
        except TooLarge:
            raise
        except Exception as error:  # whatever a card can bring about is the fault of the card
            what = f"checkpoint {name}/{version}: "
            reason = str(error) if isinstance(error, CsiError) else f"{type(error).__name__}: {error}"
            raise DamagedCheckpoint(what + reason.removeprefix(what)) from error
        return checkpoint


def _card(data: bytes) -> dict[str, Any]:
    """A card that JSON can say again to whoever asks for it. Raises InvalidInput."""
    try:
        card = json.loads(data)
        json.dumps(card, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"archive: {CARD} is not JSON: {shorten(str(error))}") from None
    if not isinstance(card, dict):
        raise InvalidInput(f"archive: {CARD} is not a JSON object")
    return card


def _check_size(card: dict[str, Any], most_bytes: int) -> None:
    """Raises TooLarge for a card of more weights than files can hold, before memory is taken for them."""
    kind = scheme_class(card["scheme"])
    with torch.device("meta"):
        scheme = kind(Scenario.parse(card["scenario"]), kind.config_class(**card["config"]))
    weights = sum(value.numel() for value in scheme.state_dict().values())
    if LEAST_WEIGHT_BYTES * weights > most_bytes:
        raise TooLarge(f"its scheme has {weights} weights, more than there are in {most_bytes} bytes")


def _next_version(folder: Path) -> int:
    """Above all that there are, whole or not."""
    return max((int(path.name) for path in folder.glob("*") if path.name.isdecimal()), default=0) + 1


def _known_encoder(store: CheckpointStore, name: str, card: dict[str, Any]) -> bytes:
    """The encoder that another version of the name has, for one whose archive has none. Raises InvalidInput."""
    digests = card.get("sha256")
    wanted = digests.get("encoder") if isinstance(digests, dict) else None
    for path in sorted((store.root / name).glob(f"*/{ENCODER}")):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() == wanted:
            return data
    raise InvalidInput(f"archive: {ENCODER} is missing, and no version of {name} has the one of the card")


@contextlib.contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which a process that is killed gives up. Raises OSError if another has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _writing(root: Path) -> Iterator[None]:
    """Raises Conflict where the folder of checkpoints cannot be written."""
    try:
        yield
    except OSError as error:
        raise Conflict(f"checkpoints: {root} cannot be written: {error.strerror}") from None
