"""Which worker has which UEs, parts in pieces, and messages through shared memory."""

from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnb_server.serving.backend import Part, StateNotHeld
from gnb_server.serving.channel import SHARED_BYTES, Channel
from gnb_server.serving.execution import Failure, Result
from gnb_server.serving.worker import Worker, _portable
from gnb_server.serving.workers import BLOCK_UES, _columns_of, _joined, workers_of
from gnb_server.sessions import Lease
from shared.channels.scenario import Scenario
from shared.conditions import RunConditions
from shared.errors import SequenceGap

LEASE = Lease("token", "rnn", RunConditions(Scenario.parse("multipath-p2:slots=2")), 8, 64)


@given(st.text(min_size=1), st.integers(1, 9), st.integers(1, 200))
def test_a_ue_stays_with_its_worker(token: str, workers: int, ues: int) -> None:
    """Whatever others are in its chunk; neighbours are together, and a large fleet is spread evenly."""
    rows = np.arange(ues)
    owners = workers_of(token, rows, workers)
    assert set(owners.tolist()) <= set(range(workers))
    for first in range(0, ues, BLOCK_UES):
        assert len(set(owners[first : first + BLOCK_UES].tolist())) == 1
    np.testing.assert_array_equal(workers_of(token, rows[::3], workers), owners[::3])
    counts = np.bincount(owners, minlength=workers)
    assert counts.max() - counts.min() <= BLOCK_UES


def test_small_fleets_are_spread_by_their_tokens() -> None:
    assert len({int(workers_of(f"{n:x}", np.zeros(1, np.int64), 4)[0]) for n in range(50)}) == 4


def part(ues: int, slots: int = 2) -> Part:
    """Field, fates and rows say which UE and slot they are of."""
    values = np.arange(slots)[:, None] + 10 * np.arange(ues)
    return Part(LEASE, np.arange(ues) + 3, 0, 0, slots, {"field": values[:, :, None]}, values.astype(np.uint8))


def result(of: Part, decoded: float = 0.0) -> Result:
    """Echoes the part's field."""
    values = of.fields["field"][:, :, 0].astype(float)
    estimates = values[:, :, None].astype(np.complex64)
    aged = np.array([values.size, values.sum(), 0.0])
    return Result(decoded, np.stack([values, -values]), aged, estimates, estimates * 2)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=20))
def test_pieces_are_joined_as_they_were(owners: list[int]) -> None:
    whole, pieces = part(len(owners)), []
    for number in sorted(set(owners), reverse=True):
        columns = np.flatnonzero(np.array(owners) == number)
        piece = _columns_of(whole, columns)
        np.testing.assert_array_equal(piece.rows, whole.rows[columns])
        np.testing.assert_array_equal(piece.fates, whole.fates[:, columns])
        pieces.append((columns, result(piece, decoded=number)))
    found, expected = _joined(pieces), result(whole)
    assert isinstance(found, Result)
    assert found.decoded == max(owners)
    for name in ("measured", "aged", "estimates", "truth"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_part_of_which_a_piece_has_failed_has_failed() -> None:
    """With what cannot be mended, if there is such a thing."""
    good, gone, wrong = result(part(1)), Failure(StateNotHeld("gone")), Failure(RuntimeError("shapes"), by_version=True)
    columns = [np.array([n]) for n in range(3)]
    assert _joined(list(zip(columns, (good, gone, wrong), strict=True))) is wrong
    assert _joined(list(zip(columns, (good, gone, gone), strict=True))) is gone


def ends() -> tuple[Channel, Channel]:
    one, other = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    forth, back = (context.RawArray("B", SHARED_BYTES) for _ in range(2))
    return Channel(one, forth, back), Channel(other, back, forth)


def test_arrays_go_through_shared_memory() -> None:
    """As far as it has room, of any type and shape; the next message takes their place."""
    here, there = ends()
    rng = np.random.default_rng(0)
    message: dict[str, Any] = {
        "bytes": rng.integers(0, 255, 7, np.uint8),
        "complex": (rng.normal(size=(3, 5)) + 1j).astype(np.complex64),
        "none": np.zeros((0, 4), np.int64),
        "strided": np.arange(20).reshape(4, 5)[:, ::2],
        "text": ("execute", 3),
    }
    here.send(message)
    first = there.receive()
    for name, values in message.items():
        np.testing.assert_array_equal(first[name], values)
    there.send(first["complex"])
    np.testing.assert_array_equal(here.receive(), message["complex"])
    here.send({"bytes": np.zeros(7, np.uint8)})
    assert there.receive()["bytes"].tolist() == first["bytes"].tolist() == [0] * 7


def test_what_shared_memory_has_no_room_for_goes_through_the_pipe() -> None:
    here, there = ends()
    sizes = (SHARED_BYTES // 2, SHARED_BYTES // 2 + 1, 100)
    arrays = [np.full(size, n + 1, np.uint8) for n, size in enumerate(sizes)]
    answers = []
    import threading

    reader = threading.Thread(target=lambda: answers.append([values.copy() for values in there.receive()]))
    reader.start()  # a pipe holds but little
    here.send(arrays)
    reader.join()
    for found, sent in zip(answers[0], arrays, strict=True):
        np.testing.assert_array_equal(found, sent)


def test_who_has_gone_is_noticed() -> None:
    here, there = ends()
    there.close()
    with pytest.raises(ConnectionError):
        here.send("ping")
    with pytest.raises((EOFError, ConnectionError)):
        here.receive()


def test_a_version_that_is_not_held_is_an_error_of_the_request() -> None:
    worker = Worker(evaluate=False)
    with pytest.raises(KeyError):
        worker.execute("rnn", 1, [], "serving")


def test_errors_that_cannot_be_sent_say_what_they_said() -> None:
    """SequenceGap takes two arguments, of which pickle knows one."""
    sent = _portable(Failure(SequenceGap("first_slot: 5", 3), by_version=True))
    assert (str(sent.error), sent.by_version) == ("SequenceGap: first_slot: 5", True)
    assert _portable(Failure(StateNotHeld("gone"))).state_gone
