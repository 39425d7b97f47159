"""The page's files: nothing from elsewhere, no script in the text, colours that can be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gnb_server.rest.page import FOLDER, HEADERS

INDEX = (FOLDER / "index.html").read_text()
OURS = [path for path in FOLDER.rglob("*") if path.suffix in {".html", ".css", ".js"} and "vendor" not in path.parts]
COLOURS = dict(re.findall(r"--([\w-]+): light-dark\(([^)]+)\)", (FOLDER / "page.css").read_text()))
THEMES = {"light": 0, "dark": 1}


def test_what_the_page_names_is_there() -> None:
    named = re.findall(r'(?:src|href)="page/([^"]+)"', INDEX)
    assert len(named) >= 4
    for path in OURS:
        named += [
            str((path.parent / name).relative_to(FOLDER)) for name in re.findall(r'from "\./(.+)"', path.read_text())
        ]
    for name in named:
        assert (FOLDER / name).is_file(), name
    assert (FOLDER / "vendor/uplot/LICENSE").read_text().startswith("The MIT License")


def test_no_module_is_left_over() -> None:
    asked = {name for path in OURS for name in re.findall(r'"(?:\./|page/js/)(\w+\.js)"', path.read_text())}
    assert asked == {path.name for path in (FOLDER / "js").iterdir()}


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_nothing_is_asked_of_another_host(path: Path) -> None:
    addresses = re.findall(r"https?://[^\s\"']+", path.read_text())
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_no_script_nor_style_is_in_the_text() -> None:
    """The policy would not let it be."""
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", INDEX)


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(name: str, other: str, theme: str) -> float:
    """Contrast ratio, WCAG 2.2."""
    found = [luminance(COLOURS[each].split(", ")[THEMES[theme]]) for each in (name, other)]
    return (max(found) + 0.05) / (min(found) + 0.05)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("behind", ["back", "panel", "hover"])
@pytest.mark.parametrize("name", ["text", "quiet", "accent", "good", "warn", "bad"])
def test_text_can_be_read(name: str, behind: str, theme: str) -> None:
    assert contrast(name, behind, theme) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
def test_names_beside_lines_and_controls_can_be_seen(theme: str) -> None:
    for number in range(8):
        assert contrast(f"series-{number}", "panel", theme) >= 4.5, number
    assert contrast("control", "panel", theme) >= 3
    assert contrast("on-accent", "accent", theme) >= 4.5
