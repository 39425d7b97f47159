"""The documentation as it is written: fenced blocks, the commands in them, headings and links.

The first word of a block's info string is its language, the words behind it say what the tests do with it:

    ```sh            run
    ```sh gnb        run beside a gNB with UEs, whose addresses stand in for localhost:8000 and 127.0.0.1:50051
    ```sh slow       run on demand (`make test-slow`); also `sh slow gnb`
    ```sh parse      not run: it takes hours, a GPU, containers or another machine, or a test of its own runs it
    ```yaml FILE     written to FILE for the blocks that are run; also python, toml and json
    ```text          what a command prints, or a drawing

The commands of every `sh` block are parsed: programs, options, environment variables and names have to exist.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
"""By their paths in the repository."""

FILES = ("json", "python", "toml", "yaml")
"""Languages of files."""

WAYS = ({"sh"}, {"sh", "gnb"}, {"sh", "slow"}, {"sh", "slow", "gnb"}, {"sh", "parse"})
"""Info strings of commands."""

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_LINK = re.compile(r"\]\(([^)\s]+)\)")

_BETWEEN = re.compile(r"[|&;()]+")


@dataclass(frozen=True)
class Block:
    """A fenced block; `where` is document:line."""

    where: str
    info: tuple[str, ...]
    text: str

    @property
    def is_classed(self) -> bool:
        """Whether its info string says what is to be done with it."""
        if self.info[:1] == ("sh",):
            return set(self.info) in WAYS
        return self.info == ("text",) or (len(self.info) == 2 and self.info[0] in FILES)

    def commands(self) -> Iterator[list[str]]:
        """Words of each command of an `sh` block: `&&`, `|`, `$( )` and ends of lines are between commands."""
        for line in self.text.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if not _BETWEEN.fullmatch(word):
                    words.append(word)
                elif words:
                    yield _without_redirections(words)
                    words = []


def _without_redirections(words: list[str]) -> list[str]:
    kept = list(words)
    while (place := next((i for i, word in enumerate(kept) if set(word) <= {"<", ">"}), None)) is not None:
        del kept[place : place + 2]
    return kept


def blocks(document: str) -> list[Block]:
    """Fenced blocks in their order."""
    text = (ROOT / document).read_text()
    found = [
        Block(f"{document}:{text.count(chr(10), 0, match.start()) + 1}", tuple(match[1].split()), match[2])
        for match in _FENCE.finditer(text)
    ]
    assert 2 * len(found) == text.count("```"), f"{document}: a block that does not end, or does not begin a line"
    return found


def files(document: str) -> dict[str, str]:
    """Name -> content of the files that a document shows."""
    return {block.info[1]: block.text for block in blocks(document) if block.info[0] in FILES}


def anchors(document: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", _FENCE.sub("", (ROOT / document).read_text()), re.MULTILINE):
        text = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "]", heading).lower()).replace(" ", "-")
        found.append(f"{text}-{found.count(text)}" if text in found else text)
    return set(found)


def links(document: str) -> list[str]:
    """Targets of links and pictures that are in the repository."""
    targets = _LINK.findall(_FENCE.sub("", (ROOT / document).read_text()))
    return [target for target in targets if "://" not in target]
