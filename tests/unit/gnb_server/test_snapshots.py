"""Estimate and true channel of UEs that somebody looks at."""

from __future__ import annotations

import numpy as np
import pytest

from gnb_server.handlers import Handlers
from gnb_server.snapshots import Snapshot, Snapshots
from shared.checkpoints import CheckpointStore
from shared.errors import NotFound
from tests.unit.gnb_server.sending import Clock, Ues


def test_only_reports_since_the_first_question_are_shown(handlers: Handlers, small_store: CheckpointStore) -> None:
    ues = Ues(handlers, small_store).open()
    ues.send(0)
    assert handlers.channel(1)["report"] is None
    ues.send(1)
    found = handlers.channel(1)
    assert (found["scheme"], found["status"], found["report"]["sequence"]) == ("hyperrnn", "attached", 1)
    assert found["report"]["decoder_version"] == 1
    with pytest.raises(NotFound, match="ue: 9 is unknown"):
        handlers.channel(9)


def test_what_is_shown_is_the_channel_that_was_compared(handlers: Handlers, small_store: CheckpointStore) -> None:
    """The DFT over antennas keeps the ratio of energies, and so the bound on the error that magnitudes allow."""
    ues = Ues(handlers, small_store).open()
    handlers.channel(0)
    ues.send(0, 1, 2)
    report = handlers.channel(0)["report"]
    truth, estimate = np.array(report["truth"]), np.array(report["estimate"])
    assert truth.shape == estimate.shape == (1, 16)
    assert truth.max() == 1
    nmse = handlers.reports(0, 1)["reports"][-1]["nmse"]
    assert np.sum((estimate - truth) ** 2) / np.sum(truth**2) <= nmse + 1e-3
    assert report["received_at"] == handlers.reports(0, 1)["reports"][-1]["received_at"]


def test_images_have_delay_rows(handlers: Handlers, small_store: CheckpointStore) -> None:
    ues = Ues(handlers, small_store, "crnet").open()
    handlers.channel(0)
    ues.send(0)
    report = handlers.channel(0)["report"]
    assert np.array(report["truth"]).shape == (8, 8)
    assert (report["rows"], report["columns"]) == ("delay", "angle")


def test_a_path_at_broadside_is_in_the_middle() -> None:
    flat = np.ones(16, np.complex64)
    shown = Snapshot("spatial", 0, 1, 0.0, flat / 2, flat).to_json()
    assert np.argmax(shown["truth"][0]) == 8
    assert shown["estimate"][0][8] == 0.5


def test_who_is_not_asked_for_any_more_is_forgotten(clock: Clock) -> None:
    snapshots = Snapshots(most_ues=2, keep_s=60, clock=clock)
    for ue in (1, 2, 3):
        snapshots.ask(ue)
    assert [*snapshots._watched] == [2, 3]
    clock.now += 59
    snapshots.ask(2)
    clock.now += 59
    snapshots.ask(4)
    assert [*snapshots._watched] == [2, 4]
