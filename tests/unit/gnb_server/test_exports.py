"""What is exported is what the store has."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnb_server import exports, store
from gnb_server.additions import Reports
from gnb_server.exports import COLUMNS, Export, Selection
from gnb_server.results import Stored
from gnb_server.sessions import Fleet, Lease, VersionFacts
from gnb_server.store import Store
from gnb_server.tables import NoParquet
from shared.channels.scenario import Scenario
from shared.conditions import AirChange, RunConditions
from shared.link.air import UNDISTURBED, Air
from shared.metrics import MEASURED

SLOTS, KEPT, SEED = 4, 6, 2**64 - 1
CONDITIONS = RunConditions(Scenario.parse(f"multipath-p2:slots={SLOTS},paths=3"), SEED, Air(delay=1))
CHANNELS = Lease("a", "rnn", CONDITIONS, 10, 3)
PRECODERS = Lease("b", "etype2", dataclasses.replace(CONDITIONS, seed=3), 20, 2)
LEASES = {lease.token: lease for lease in (CHANNELS, PRECODERS)}

FATES = ("received", "corrupted", "detected", "lost")

REACHED: Counter[tuple[str, int]] = Counter()
"""Sequence that each UE of a fleet goes on with."""

Row = dict[str, Any]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path_factory.mktemp('store') / 'gnb.sqlite'}", "run", KEPT)
    for lease in LEASES.values():
        made.lease(lease, "00" * 8)
    for version in (1, 2):
        made.keep_version("rnn", version, VersionFacts(f"{version:016x}", 10 * version, "spatial"))
    made.keep_version("etype2", 1, VersionFacts("ab" * 8, 277, "precoder"))
    made.keep_process(5.0, {"machine": {"cores": 2}, "settings": {"late": "drop"}})
    yield made
    made.close()


def chunk(lease: Lease, row: int, first: int, version: int, measured: list[float], at: float, slots: int) -> Stored:
    """Reports of a UE, alike but for their sequences. Precoders have no scale; what was dropped has nothing."""
    values = np.array(measured)
    values[:3] *= lease is CHANNELS
    values = np.tile((values * (version > 0))[:, None, None], (1, slots, 1))
    lengths = np.arange(first, first + slots)[:, None]
    fates = lengths.astype(np.uint8) % 4 if version else None
    reports = Reports(version, np.array([row]), first, values, lengths, at / 3, at, fates)
    return Stored(Fleet(lease, "00" * 8), reports=[reports])


finite = st.floats(1e-12, 1e12, allow_subnormal=False)
chunks = st.tuples(
    st.sampled_from(["a", "b"]),
    st.integers(0, 1),
    st.integers(0, 1),
    st.lists(finite, min_size=len(MEASURED), max_size=len(MEASURED)),
    st.floats(0, 2e9),
    st.integers(1, SLOTS),
)


def read(parts: Iterator[bytes]) -> tuple[Row, list[Row]]:
    """Header and rows of a CSV file."""
    text = b"".join(parts).decode().splitlines(keepends=True)
    assert text[0].startswith("# ")
    return json.loads(text[1].removeprefix("# ")), list(csv.DictReader(text[2:]))


def number(text: str) -> float:
    return float(text) if text else 0.0


@settings(max_examples=40, deadline=None)
@given(st.lists(chunks, max_size=12), st.floats(0, 2e9))
def test_csv_read_back_is_the_store(opened: Store, made: list[Any], since: float) -> None:
    batch = []
    for token, row, version, measured, at, slots in made:
        first = REACHED[token, row]
        slots = min(slots, SLOTS - first % SLOTS)
        batch.append(chunk(LEASES[token], row, first, version, measured, at, slots))
        REACHED[token, row] += slots
    opened.commit(batch)
    _, rows = read(Export(opened, Selection(since=since)).write("csv"))
    ues = [ue for lease in LEASES.values() for ue in lease.ues]
    kept = [row for ue in ues for row in opened.reports(ue, dropped=True) if row["received_at"] >= since]
    assert [(int(row["ue"]), int(row["sequence"])) for row in rows] == [(row["ue"], row["sequence"]) for row in kept]
    for row, stored in zip(rows, kept, strict=True):
        assert set(row) == set(COLUMNS)
        for name in (*MEASURED, "latency_ms", "received_at"):
            assert number(row[name]) == stored[name]
        assert int(row["decoder_version"]) == stored["version"]
        assert row["feedback_bits"] == (str(stored["feedback_bits"]) if stored["version"] else "")
        assert row["fate"] == (FATES[stored["sequence"] % 4] if stored["version"] else "")
        assert int(row["slot"]) == stored["sequence"] % SLOTS + 1
        scaled = stored["power"] > 0
        assert bool(row["nmse"]) == scaled
        if scaled:
            assert float(row["nmse"]) == pytest.approx(stored["error"] / stored["power"])
            assert float(row["nmse_db"]) == pytest.approx(10 * math.log10(float(row["nmse"])))


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Store]:
    """Nine reports of each UE but the last, of which six are kept; the last slot of UE 11 was dropped."""
    made = Store(f"sqlite:///{tmp_path / 'gnb.sqlite'}", "run", KEPT)
    for lease in LEASES.values():
        made.lease(lease, "00" * 8)
    made.keep_version("rnn", 1, VersionFacts("cd" * 8, 10, "spatial"))
    made.keep_version("etype2", 1, VersionFacts("ab" * 8, 277, "precoder"))
    made.keep_process(5.0, {"machine": {"cores": 2}, "settings": {"late": "drop"}})
    measured = [1.0, 2.0, 4.0, 0.25, 0.5]
    for row in (0, 1):
        for lease in LEASES.values():
            made.commit(chunk(lease, row, at, 1, measured, float(at), 1) for at in range(9))
    made.commit([chunk(CHANNELS, 1, 9, 0, measured, 9.0, 1)])
    yield made
    made.close()


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), [(ue, at) for ue in (10, 11, 20, 21) for at in range(3 + (ue == 11), 9 + (ue == 11))]),
        (Selection(scheme="etype2", ues=21), [(20, at) for at in range(3, 9)]),
        (Selection(first_ue=11, ues=10, since=8.0), [(11, 8), (11, 9), (20, 8)]),
        (Selection(limit=7), [(10, at) for at in range(3, 9)] + [(11, 4)]),
        (Selection(scheme="crnet"), []),
    ],
)
@pytest.mark.parametrize("page", [1, 4, 6, 1000])
def test_selections(
    filled: Store, monkeypatch: pytest.MonkeyPatch, selection: Selection, expected: list[tuple[int, int]], page: int
) -> None:
    monkeypatch.setattr(store, "PAGE", page)
    monkeypatch.setattr(exports, "ROWS", 5)
    header, rows = read(Export(filled, selection).write("csv"))
    assert [(int(row["ue"]), int(row["sequence"])) for row in rows] == expected
    assert header["selection"]["scheme"] == selection.scheme
    assert header["gnb"]["settings"] == {"late": "drop"}


def test_what_rows_are_named_with(filled: Store) -> None:
    header, rows = read(Export(filled, Selection(first_ue=11)).write("csv"))
    dropped, precoder = rows[5], rows[6]
    assert dropped["decoder_version"] == "0"
    assert {name for name, value in dropped.items() if not value} == {
        *("fate", "encoder_id", "domain", "feedback_bits", "nmse", "nmse_db", "nmse_sf_db"),
        *("sgcs", "rho", "error", "power", "total"),
    }
    assert (precoder["domain"], precoder["feedback_bits"], precoder["nmse"]) == ("precoder", "3", "")
    assert rows[0]["seed"] == str(SEED)
    assert rows[0]["scenario"] == str(CONDITIONS.scenario)
    assert float(rows[0]["nmse_sf_db"]) == pytest.approx(10 * math.log10((1 + 2) / 4))
    assert header["fleets"][0]["seed"] == SEED
    assert "token" not in json.dumps(header)


def test_each_report_has_the_air_of_its_frame(tmp_path: Path) -> None:
    made, air = Store(f"sqlite:///{tmp_path / 'gnb.sqlite'}", "run", 3 * SLOTS), Air(loss=0.5, delay=3)
    made.lease(CHANNELS, "00" * 8)
    made.keep_version("rnn", 1, VersionFacts("cd" * 8, 10, "spatial"))
    for change in (AirChange(1, air), AirChange(2, UNDISTURBED)):
        made.keep_air(CHANNELS, change)
    made.commit([chunk(CHANNELS, 0, SLOTS * frame, 1, [1.0, 2.0, 4.0, 0.25, 0.5], 1.0, SLOTS) for frame in range(3)])
    header, rows = read(Export(made, Selection()).write("csv"))
    assert [row["air"] for row in rows] == [*SLOTS * ["delay=1"], *SLOTS * ["loss=0.5,delay=3"], *SLOTS * [""]]
    assert [row["delay_slots"] for row in rows] == [*SLOTS * ["1"], *SLOTS * ["3"], *SLOTS * ["0"]]
    assert header["fleets"][0]["air_changes"] == [[1, "loss=0.5,delay=3"], [2, ""]]
    made.close()


def test_parquet_and_csv_say_the_same(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "ROWS", 5)
    header, rows = read(Export(filled, Selection()).write("csv"))
    table = pyarrow.parquet.read_table(io.BytesIO(b"".join(Export(filled, Selection()).write("parquet"))))
    assert {field.name: str(field.type) for field in table.schema} == {
        name: kind.replace("float64", "double") for name, kind in COLUMNS.items()
    }
    assert json.loads(table.schema.metadata[b"csiemu"]) == header
    assert [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in table.to_pylist()
    ] == [dict(row) for row in rows]


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_parts_are_made_when_they_are_wanted(filled: Store, monkeypatch: pytest.MonkeyPatch, file_format: Any) -> None:
    monkeypatch.setattr(exports, "ROWS", 2)
    read_so_far = 0

    def counted(*_: Any) -> Iterator[Row]:
        nonlocal read_so_far
        for read_so_far in itertools.count(1):
            names = (*MEASURED, "version", "feedback_bits", "fate", "latency_ms", "received_at")
            yield {"ue": 10, "sequence": read_so_far} | dict.fromkeys(names, 1)

    monkeypatch.setattr(filled, "kept_reports", counted)
    parts = Export(filled, Selection()).write(file_format)
    for _ in range(10):
        next(parts)
    assert 10 <= read_so_far <= 22


def test_without_pyarrow(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(NoParquet, match=r"parquet: pyarrow is not installed; pip install 'csi-feedback-emulator\[par"):
        Export(filled, Selection()).write("parquet")
