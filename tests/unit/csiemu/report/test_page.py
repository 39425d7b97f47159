"""One page that needs nothing else, and says what the store says."""

from __future__ import annotations

import html.parser
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from csiemu.report.differences import compare_runs
from csiemu.report.figures import Styles
from csiemu.report.page import comparison_page, report_page
from csiemu.report.reading import read_run
from csiemu.report.svg import INK, PALETTE, STYLE, inline_svg
from gnb_server.history import OF_CARD, OF_EVALUATION
from shared.conditions import AirChange
from shared.errors import InvalidInput
from shared.link.air import Air, Fates
from shared.link.rate import Rate
from tests.unit.csiemu.report.making import SLOTS, MadeRun

RESULTS: dict[str, Any] = {
    "settings": {"ues": 4, "schemes": "rnn", "fault": "none"},
    "schemes": {"rnn": {"round_trip_ms": {"p50": 7.25}}},
    "lost": 0,
    "misdecoded": 0,
    "checked": 12,
    "dropped": 0,
    "unacked": 0,
    "failed": [],
}


class Reader(html.parser.HTMLParser):
    """Text, tags, ids and whatever is loaded or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.ids += [str(value)] if name == "id" else []
            self.loaded += [str(value)] if name in ("src", "href", "xlink:href", "data") or name[:2] == "on" else []

    def handle_data(self, data: str) -> None:
        self.texts += [" ".join(data.split())] if data.strip() else []


@pytest.fixture
def made(tmp_path: Path) -> MadeRun:
    """Two versions of rnn, swapped, and precoders."""
    run = MadeRun(tmp_path / "run")
    generator = np.random.default_rng(0)
    first, second = generator.uniform(0.05, 0.15, (2, 4, 6, SLOTS))
    run.decoded(first, version=1)
    run.decoded(second, version=2, bits=32)
    run.decoded(first, "etype2", first_ue=10, domain="precoder", bits=277)
    card = dict.fromkeys(OF_CARD) | {"encoder_id": "e" * 16, "encoder_sha256": None}
    run.store.keep_checkpoint("rnn", 1, "d" * 64, card | {"evaluation": dict.fromkeys(OF_EVALUATION)})
    run.store.keep_event("loaded", "rnn", "2", "<b>me</b>", "for all UEs")
    run.snapshot(100.0, [])
    run.snapshot(101.0, [("rnn", 1, first)])
    run.snapshot(103.0, [("rnn", 1, first), ("rnn", 2, second)])
    return run


def page_of(made: MadeRun, folder: Path, results: dict[str, Any] | None = None) -> Reader:
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results))
    return Reader(report_page(read_run(str(folder))))


def test_figures(made: MadeRun, tmp_path: Path) -> None:
    rows = {(row["scheme"], row["version"]): row for row in read_run(str(tmp_path / "run")).rows}
    text = " ".join(page_of(made, tmp_path / "run").texts)
    for version in (1, 2):
        row = rows["rnn", version]
        assert (row["reports"], row["frames"]) == (4 * 6 * SLOTS, 4 * 6)
        assert f"{row['nmse_db']:.2f} ± {row['nmse_se_db']:.2f}" in text
        low, high = (row["nmse_db"] + sign * 1.96 * row["nmse_se_db"] for sign in (-1, 1))
        assert f"{low:.2f} to {high:.2f}" in text
        assert f"{row['sgcs']:.4f} ± {row['sgcs_se']:.4f}" in text
    for said in ("rnn/1", "rnn/2", "etype2/1", "277", "spatial, one subcarrier", "precoder per subband", "d" * 64):
        assert said in text
    assert "seconds since" in text
    assert "NMSE (dB), mean of ratios" in text
    assert "<b>me</b>" in text  # as text


@pytest.mark.parametrize(
    ("rate", "says"),
    [
        (Rate(), "the scheme's own"),
        (Rate(bits=520), "at most 520 bits"),
        (Rate(bits=520, target_nmse_db=-12.5), "at most 520 bits, NMSE of -12.5 dB"),
        (Rate(step=3), "step 3"),
    ],
)
def test_rates(made: MadeRun, tmp_path: Path, rate: Rate, says: str) -> None:
    made.store.keep_rate("t0-rnn", rate)
    assert says in page_of(made, tmp_path / "run").texts


def test_bits_that_differ(tmp_path: Path) -> None:
    run = MadeRun(tmp_path / "run")
    run.decoded(np.full((2, 3, SLOTS), 0.1), bits=100)
    run.decoded(np.full((2, 1, SLOTS), 0.1), bits=200)
    text = " ".join(page_of(run, tmp_path / "run").texts)
    assert "125 100 to 200" in text


def test_airs_are_named(tmp_path: Path) -> None:
    """Figures, plots, what happened over time, and which air was when."""
    run, generator = MadeRun(tmp_path / "run"), np.random.default_rng(0)
    before, after = generator.uniform(0.05, 0.15, (2, 4, 3, SLOTS))
    run.decoded(before)
    lease = run.store.leases()[0][0]
    run.store.keep_air(lease, AirChange(3, Air(loss=0.5)))
    run.decoded(2 * after, air_from=3, fates=Fates(air_lost=1234))
    run.store.keep_event("air", "rnn", "", "me", "UEs 0..3: loss=0.5 from frame 3")
    run.snapshot(100.0, [])
    run.snapshot(101.0, [("rnn", 1, before)], airs=[""])
    run.snapshot(102.0, [("rnn", 1, before), ("rnn", 1, after)], airs=["", "loss=0.5"], air_lost=1234)
    rows = [row for row in read_run(str(tmp_path / "run")).rows if row["reports"]]
    assert [(row.get("air"), row["frames"], row["air_lost"]) for row in rows] == [(None, 12, 0), ("loss=0.5", 12, 3702)]
    texts = page_of(run, tmp_path / "run").texts
    assert f"{rows[1]['nmse_db']:.2f} ± {rows[1]['nmse_se_db']:.2f}" in texts
    assert texts.count("rnn/1, loss=0.5") == 4  # three plots and the table of last slots
    for said in ("lost 3,702, detected 0, corrupted 0", "erased", "undisturbed, then loss=0.5 from frame 3"):
        assert said in texts
    assert any("1: air of rnn, UEs 0..3: loss=0.5 from frame 3" in text for text in texts)
    both = comparison_page(compare_runs(*2 * [read_run(str(tmp_path / "run"))]))
    assert both.count("air loss=0.5</small>") == 2


def test_looks_differ() -> None:
    """Each version and air has a colour of its own while there are enough, and schemes keep theirs."""
    kinds = [("rnn", 1, ""), ("rnn", 1, "delay=2"), ("rnn", 1, "loss=0.5"), ("rnn", 2, ""), ("dldnn", 1, "")]
    styles = Styles([{"scheme": scheme, "version": version, "air": air} for scheme, version, air in kinds])
    looks = [styles.of(*kind) for kind in kinds]
    assert len({look["color"] for look in looks}) == len(kinds)
    assert len({(look["marker"], look["ls"]) for look in looks[:4]}) == 4
    assert [looks[place]["color"] for place in (0, 4)] == list(PALETTE[:2])
    assert styles.of("rnn", 1, None) == looks[0]
    many = Styles([{"scheme": "rnn", "version": version} for version in range(1, 20)])
    assert {many.of("rnn", version, "")["color"] for version in range(1, 20)} == set(PALETTE)


def test_nothing_is_run_or_loaded(made: MadeRun, tmp_path: Path) -> None:
    found = page_of(made, tmp_path / "run")
    assert not {"script", "link", "img", "iframe", "object", "b"} & set(found.tags)
    assert all(address.startswith("#") for address in found.loaded)
    assert {address[1:] for address in found.loaded} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert found.tags.count("svg") == 3
    page = report_page(read_run(str(tmp_path / "run")))
    assert not re.search(r"url\((?!#)|@import", page)
    assert page == report_page(read_run(str(tmp_path / "run")))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "All checks passed:"),
        ({"lost": 3}, "Checks failed:"),
        ({"failed": ["UEs of rnn ended with 1"]}, "UEs of rnn ended with 1"),
        ({"settings": {"fault": "lose"}}, "Faults were injected: lose."),
    ],
)
def test_checks(made: MadeRun, tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    found = page_of(made, tmp_path / "run", RESULTS | changes)
    assert any(says in text for text in found.texts)
    assert any("rnn 7.2 ms" in text for text in found.texts)


def test_without_results_nothing_is_said_of_lost_reports(made: MadeRun, tmp_path: Path) -> None:
    texts = page_of(made, tmp_path / "run").texts
    assert not any("All checks passed" in text for text in texts)
    assert any("nothing is said about lost and misdecoded reports" in text for text in texts)


def test_a_store_of_before_has_neither_timeline_nor_settings(tmp_path: Path) -> None:
    run = MadeRun(tmp_path / "run", by_history=False)
    run.decoded(np.full((2, 3, SLOTS), 0.1))
    found = page_of(run, tmp_path / "run")
    assert found.tags.count("svg") == 2
    assert any("written before it kept them" in text for text in found.texts)
    comparison_page(compare_runs(read_run(str(tmp_path / "run")), read_run(str(tmp_path / "run"))))


def test_a_run_without_reports(tmp_path: Path) -> None:
    MadeRun(tmp_path / "run")
    with pytest.raises(InvalidInput, match=r"run: .*/run has no reports"):
        read_run(str(tmp_path / "run"))


def test_a_plot_is_a_part_of_the_page() -> None:
    with matplotlib.rc_context(STYLE):
        figure = Figure()
        axes = figure.subplots()
        axes.plot([1, 2], [3, 4], color=PALETTE[1], marker="o", label='a<b> & "c"')
        axes.legend()
    text = inline_svg(figure, "one", 'x "y" <z>')
    root = ElementTree.fromstring(text)
    assert root.get("aria-label") == 'x "y" <z>'
    assert 'a<b> & "c"' in [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert INK not in text
    assert "var(--ink)" in text
    assert "var(--series-1)" in text
    assert not set(re.findall(r"#[0-9a-f]{6}\b", text)) & set(PALETTE)
    assert inline_svg(figure, "one", "") == inline_svg(figure, "one", "")
    other = {element.get("id") for element in ElementTree.fromstring(inline_svg(figure, "two", "")).iter()}
    assert {element.get("id") for element in root.iter()} & other == {None}
