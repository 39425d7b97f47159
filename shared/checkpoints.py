"""Checkpoints: `<root>/<name>/<version>/` with encoder.safetensors, decoder.safetensors and card.json.

A part that another version of the same name has already, as a decoder for UEs in the field has their encoder, is not
written again: the card's hash says which file it is.

Loading checks the files against the card's hashes, and a gNB decodes the card's probe too before it serves with it
(`shared.link.decoding`); nothing is ever unpickled. A UE loads the encoder alone, a gNB the decoder. `encoder_id` is a
hash of the encoder's weights (pilots among them) and of the payload layout: a decoder version may decode a report only
if it was trained for the report's encoder_id.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from shared.channels.scenario import Scenario
from shared.errors import Conflict, CsiError, DamagedCheckpoint, InvalidInput, NotFound
from shared.schemes import ENDS, End, Scheme, scheme_class

FORMAT = 1
NAME = r"[a-z0-9][a-z0-9_-]{0,63}"
"""What a checkpoint may be called: never a path."""
NAME_RULE = "lower-case letters, digits, - and _; never a path"
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_CARD_FIELDS = {
    "format": int,
    "name": str,
    "version": int,
    "scheme": str,
    "config": dict,
    "scenario": str,
    "payload": str,
    "feedback_bits": int,
    "encoder_id": str,
    "sha256": dict,
}
"""What a card has to have, and of which type."""


@dataclass(frozen=True)
class Checkpoint:
    """A scheme, or one end of it, with its weights and its card.

    Attributes:
        name, version: where it stands in the repository.
        scheme: in evaluation mode, float32 weights; with the ends that were loaded.
        card: card.json as it is.
    """

    name: str
    version: int
    scheme: Scheme
    card: dict[str, Any]

    @property
    def encoder_id(self) -> str:
        """16 hexadecimal digits."""
        return str(self.card["encoder_id"])

    @property
    def scenario(self) -> Scenario:
        """The scenario that the scheme was trained for."""
        return self.scheme.scenario


def shipped_checkpoints() -> Path:
    """The folder of those that come with csiemu: a part of the wheel, in a source tree a link to the repository's."""
    return Path(__file__).parents[1] / "csiemu" / "checkpoints"


def default_checkpoints() -> Path:
    """The folder that CSIEMU_CHECKPOINTS names, else that of those that come with csiemu."""
    return Path(os.environ.get("CSIEMU_CHECKPOINTS") or shipped_checkpoints())


class CheckpointStore:
    """The checkpoints below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._digests: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def names(self) -> list[str]:
        """Names that have at least one version, sorted."""
        return sorted({path.parent.parent.name for path in self.root.glob("*/*/card.json") if _is_version(path.parent)})

    def versions(self, name: str) -> list[int]:
        """Versions of a checkpoint, ascending. Raises NotFound, or InvalidInput for what is no name (a path, say)."""
        folder = self.root / check_name(name)
        found = sorted(int(path.parent.name) for path in folder.glob("*/card.json") if _is_version(path.parent))
        if not found:
            raise NotFound(f"checkpoint: '{name}' is unknown; there are {', '.join(self.names()) or 'none'}")
        return found

    def problems(self) -> dict[tuple[str, str], str]:
        """What lies among the checkpoints and is none: (name, version or empty) -> the reason; hidden files aside."""
        found = {}
        for path in sorted(self.root.glob("[!.]*")):
            versions = sorted(path.glob("[!.]*"))
            if not path.is_dir() or not re.fullmatch(NAME, path.name):
                found[path.name, ""] = f"not the name of a checkpoint's folder ({NAME_RULE})"
            elif not versions:
                found[path.name, ""] = "has no versions"
            for version in versions if (path.name, "") not in found else []:
                if not _is_version(version):
                    found[path.name, version.name] = "not the number of a version's folder"
                    continue
                try:
                    self.card(path.name, int(version.name))
                except NotFound:
                    found[path.name, version.name] = "has no card.json"
                except CsiError as error:
                    found[path.name, version.name] = str(error)
        return found

    def folder(self, name: str, version: int) -> Path:
        """Where a version stands. Raises NotFound or InvalidInput."""
        versions = self.versions(name)
        if version not in versions:
            raise NotFound(f"version: {name} has no version {version}; it has {', '.join(map(str, versions))}")
        return self.root / name / str(version)

    def card(self, name: str, version: int) -> dict[str, Any]:
        """The card of a version. Raises NotFound or DamagedCheckpoint."""
        path = self.folder(name, version) / "card.json"
        try:
            card = dict(json.loads(path.read_text()))
            missing = [field for field, kind in _CARD_FIELDS.items() if not isinstance(card.get(field), kind)]
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise DamagedCheckpoint(f"checkpoint {name}/{version}: card.json cannot be read: {error}") from error
        if missing or card["format"] != FORMAT:
            raise DamagedCheckpoint(
                f"checkpoint {name}/{version}: card.json lacks {missing or 'nothing'},"
                f" format is {card.get('format')}, wanted {FORMAT}"
            )
        if (card["name"], card["version"]) != (name, version):
            raise DamagedCheckpoint(
                f"checkpoint {name}/{version}: card.json is that of {card['name']}/{card['version']}"
            )
        return card

    def fault(self, name: str, version: int, end: End) -> str | None:
        """Why the file of an end is not what the card says; None if it is. Raises as `card`."""
        digest = self.card(name, version)["sha256"].get(end)
        try:
            if self._digest(self._part(name, version, end, digest)) == digest:
                return None
        except OSError as error:
            return f"{end}.safetensors is missing" if isinstance(error, FileNotFoundError) else str(error)
        return f"{end}.safetensors has not the sha256 that the card says; it is another one, or not all of it is there"

    def load(self, name: str, version: int | None = None, ends: tuple[End, ...] = ENDS) -> Checkpoint:
        """Load and check a version (default: the first), or one end of it; the other's file need not be there.

        Raises:
            NotFound: no such name or version. DamagedCheckpoint: files, hashes or card do not fit together.
        """
        version = self.versions(name)[0] if version is None else version
        card = self.card(name, version)
        return assemble(name, version, card, {end: self.part(name, version, end) for end in ends})

    def part(self, name: str, version: int, end: End) -> bytes:
        """The file of an end. Raises NotFound, or DamagedCheckpoint if there is none."""
        card = self.card(name, version)
        try:
            return self._part(name, version, end, card["sha256"][end]).read_bytes()
        except (OSError, KeyError, TypeError) as error:
            raise DamagedCheckpoint(f"checkpoint {name}/{version}: {error}") from error

    def load_named(self, text: str) -> Checkpoint:
        """`load` of `NAME` or `NAME/VERSION`."""
        name, _, version = text.partition("/")
        if version and not _VERSION.fullmatch(version):
            raise InvalidInput(f"version: '{version}' of '{text}' is not a positive number")
        return self.load(name, int(version) if version else None)

    def save(self, name: str, version: int, scheme: Scheme, card: dict[str, Any], *, half: bool = True) -> Checkpoint:
        """Write a version, and load it back. With `half`, matrices and kernels are stored as fp16 (and `scheme`'s own
        are rounded to it, so that they are what was stored); all else is fp32: a large bias has no digits to spare.

        Raises:
            Conflict: the version exists. InvalidInput: no such name or version can be.
        """
        folder = self.new_folder(name, version)
        folder.mkdir(parents=True, exist_ok=True)
        digests = {}
        for part in reversed(ENDS):  # a gNB needs the decoder's file; the encoder's is left out where it is the same
            state = {key: _narrow(value, half) for key, value in getattr(scheme, part).state_dict().items()}
            data = save(state)
            digests[part] = _sha256(data)
            if (path := self._part(name, version, part, digests[part])).parent == folder:
                path.write_bytes(data)
            getattr(scheme, part).load_state_dict({key: _widen(value) for key, value in state.items()})
        card = {
            "format": FORMAT,
            "name": name,
            "version": version,
            "scheme": scheme.name,
            "config": scheme.config.to_json(),
            "scenario": str(scheme.scenario),
            "payload": scheme.layout.describe(),
            "feedback_bits": scheme.layout.bits,
            "encoder_id": encoder_id(scheme),
            "weights": "fp16" if half else "fp32",
            "sha256": digests,
            **card,
        }
        self._write_card(folder, card)
        return self.load(name, version)

    def _part(self, name: str, version: int, part: str, digest: str) -> Path:
        """File of a part: if it is not in its own place, one that is the same, of another version of the name or of the
        other part.
        """
        own = self.root / name / str(version) / f"{part}.safetensors"
        if own.exists():
            return own
        others = (
            card.with_name(f"{end}.safetensors") for card in (self.root / name).glob("*/card.json") for end in ENDS
        )
        return next((path for path in others if path.exists() and self._digest(path) == digest), own)

    def _digest(self, path: Path) -> str:
        """SHA-256 of a file, computed again only where its size, time or place on the disk has changed."""
        found = path.stat()
        state = (found.st_size, found.st_mtime_ns, found.st_ino)
        known = self._digests.get(path)
        if known is None or known[0] != state:
            known = self._digests[path] = (state, _sha256(path.read_bytes()))
        return known[1]

    def new_folder(self, name: str, version: int) -> Path:
        """Where a version would be written. Raises Conflict if it exists, InvalidInput if it can never be."""
        folder = self.root / check_name(name) / str(version)
        if not _VERSION.fullmatch(str(version)):
            raise InvalidInput(f"version: {version} is not in [1, 10^9)")
        if (folder / "card.json").exists():
            raise Conflict(f"checkpoint: {name}/{version} exists already; choose another version")
        return folder

    def annotate(self, checkpoint: Checkpoint, figures: dict[str, Any]) -> Checkpoint:
        """Add figures to a stored checkpoint's card."""
        card = {**checkpoint.card, **figures}
        self._write_card(self.folder(checkpoint.name, checkpoint.version), card)
        return dataclasses.replace(checkpoint, card=card)

    @staticmethod
    def _write_card(folder: Path, card: dict[str, Any]) -> None:
        """In one move: a process that is killed leaves no half a card."""
        partial = folder / "card.partial"
        partial.write_text(card_text(card))
        partial.replace(folder / "card.json")


def card_text(card: dict[str, Any]) -> str:
    """A card as its file has it."""
    return json.dumps(card, indent=1, separators=(",", ":")) + "\n"


def assemble(name: str, version: int, card: dict[str, Any], files: Mapping[End, bytes]) -> Checkpoint:
    """A checkpoint of its card and the files of some of its ends. Raises DamagedCheckpoint if they do not fit."""
    try:
        scenario = Scenario.parse(card["scenario"])
        kind = scheme_class(card["scheme"])
        scheme = kind(scenario, kind.config_class(**card["config"]), tuple(files)).eval()
        for end, data in files.items():
            if (digest := _sha256(data)) != card["sha256"][end]:
                raise DamagedCheckpoint(f"{end}.safetensors has sha256 {digest}, card says {card['sha256'][end]}")
            getattr(scheme, end).load_state_dict({key: _widen(value) for key, value in load(data).items()})
    except (CsiError, SafetensorError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DamagedCheckpoint(f"checkpoint {name}/{version}: {error}") from error
    found = encoder_id(scheme) if "encoder" in files else card["encoder_id"]
    if (found, scheme.layout.describe()) != (card["encoder_id"], card["payload"]):
        raise DamagedCheckpoint(
            f"checkpoint {name}/{version}: weights and layout give encoder_id {found} and payload"
            f" '{scheme.layout.describe()}', card says {card['encoder_id']} and '{card['payload']}'"
        )
    return Checkpoint(name, version, scheme, card)


def encoder_id(scheme: Scheme) -> str:
    """16 hexadecimal digits: SHA-256 of layout and encoder tensors (name, shape, float32 little-endian values)."""
    digest = hashlib.sha256(scheme.layout.describe().encode())
    for name, value in sorted(scheme.encoder.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()[:16]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _is_version(folder: Path) -> bool:
    return bool(folder.is_dir() and re.fullmatch(NAME, folder.parent.name) and _VERSION.fullmatch(folder.name))


def check_name(name: str) -> str:
    """The name of a checkpoint. Raises InvalidInput for what is none."""
    if not re.fullmatch(NAME, name):
        raise InvalidInput(f"checkpoint: '{name}' is not a name ({NAME_RULE})")
    return name


def _narrow(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if half and value.is_floating_point() and value.dim() > 1 else value


def _widen(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def parameter_counts(scheme: Scheme) -> dict[str, int]:
    """Parameters of encoder and decoder, for the card."""
    return {part: sum(parameter.numel() for parameter in getattr(scheme, part).parameters()) for part in ENDS}
