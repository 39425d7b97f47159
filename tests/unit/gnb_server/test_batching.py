"""Chunks keep the order of each UE, and no UE is twice in a round."""

from __future__ import annotations

from concurrent.futures import Future

from hypothesis import given
from hypothesis import strategies as st

from gnb_server.serving.batching import FairQueue, rounds_of
from gnb_server.serving.chunks import Chunk, Job
from gnb_server.sessions import Fleet, Lease
from shared.channels.scenario import Scenario
from shared.conditions import RunConditions

CONDITIONS = RunConditions(Scenario.parse("multipath-p2:slots=2"))
FLEETS = [Fleet(Lease(str(n), "rnn", CONDITIONS, 8 * n, 8), "") for n in range(2)]


@st.composite
def jobs(draw: st.DrawFn) -> list[Job]:
    found = []
    for _ in range(draw(st.integers(0, 20))):
        fleet = draw(st.sampled_from(FLEETS))
        first, count = draw(st.integers(0, 7)), draw(st.integers(1, 4))
        chunk = Chunk("", fleet.lease.first_ue + first, min(count, 8 - first), 0, 1, b"", 0)
        found.append(Job(fleet, 0, chunk, Future()))
    return found


@given(jobs())
def test_rounds(found: list[Job]) -> None:
    rounds = rounds_of(found)
    assert sorted(map(id, found)) == sorted(id(job) for round_ in rounds for job in round_)
    place = {id(job): number for number, round_ in enumerate(rounds) for job in round_}
    for later, job in enumerate(found):
        overlapping = [place[id(other)] for other in found[:later] if job.overlaps(other)]
        assert place[id(job)] == max((number + 1 for number in overlapping), default=0)


def a_chunk(fleet: Fleet, reports: int) -> Job:
    return Job(fleet, 0, Chunk("", fleet.lease.first_ue, 1, 0, reports, b"", 0), Future())


def fleets(count: int, model: str = "rnn") -> list[Fleet]:
    return [Fleet(Lease(f"{model}-{n}", model, CONDITIONS, 8 * n, 8), "") for n in range(count)]


def test_who_asks_for_little_does_not_wait_for_those_who_ask_for_much() -> None:
    queue, many, fresh = FairQueue(), fleets(200), fleets(1, "dldnn")[0]
    for _ in range(3):
        for fleet in many:
            queue.add(a_chunk(fleet, 512))
    queue.take()
    queue.add(a_chunk(fresh, 8))
    assert [job.fleet for job in queue.take()] == [fresh]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 600)), max_size=60), st.integers(0, 3))
def test_every_chunk_has_its_turn_once_in_its_fleet_s_order(sent: list[tuple[int, int]], gone: int) -> None:
    """And those of a fleet that is gone have none."""
    queue, known = FairQueue(), [*fleets(2), *fleets(2, "dldnn")]
    added = [a_chunk(known[index], reports) for index, reports in sent]
    for job in added:
        queue.add(job)
    removed = queue.remove(lambda job: job.fleet is known[gone])
    taken: list[Job] = []
    while queue:
        batch = queue.take()
        assert len({job.fleet.lease.model for job in batch}) == 1
        assert len(batch) == 1 or sum(job.chunk.reports for job in batch) <= 1000  # 0.1 s at the first pace
        taken += batch
    assert sorted(map(id, removed)) == sorted(id(job) for job in added if job.fleet is known[gone])
    for fleet in known:
        theirs = [job for job in added if job.fleet is fleet and job.fleet is not known[gone]]
        assert [job for job in taken if job.fleet is fleet] == theirs
    assert queue.share() == FairQueue().share()  # nobody is left


def test_shares_are_of_time() -> None:
    """A model whose reports take ten times as long has a tenth of the reports."""
    queue, (fast,), (slow,) = FairQueue({"rnn": 1e-4, "dldnn": 1e-3}), fleets(1), fleets(1, "dldnn")
    for _ in range(100):
        queue.add(a_chunk(fast, 100))
        queue.add(a_chunk(slow, 100))
    taken = [job for _ in range(11) for job in queue.take()[:10]][:55]
    assert 9 <= sum(job.fleet is fast for job in taken) / sum(job.fleet is slow for job in taken) <= 11


def test_the_share_of_the_queue_falls_with_those_who_wait() -> None:
    queue, many = FairQueue(), fleets(10)
    whole = queue.share()
    for fleet in many:
        queue.add(a_chunk(fleet, 1))
    assert queue.share() == (whole[0] / 10, whole[1] / 10)
