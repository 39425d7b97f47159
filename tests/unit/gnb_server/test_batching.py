"""Chunks keep the order of each UE, and no UE is twice in a round."""

from __future__ import annotations

from concurrent.futures import Future

from hypothesis import given
from hypothesis import strategies as st

from gnb_server.serving.batching import rounds_of
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
        found.append(Job(fleet, chunk, Future()))
    return found


@given(jobs())
def test_rounds(found: list[Job]) -> None:
    rounds = rounds_of(found)
    assert sorted(map(id, found)) == sorted(id(job) for round_ in rounds for job in round_)
    place = {id(job): number for number, round_ in enumerate(rounds) for job in round_}
    for later, job in enumerate(found):
        overlapping = [place[id(other)] for other in found[:later] if job.overlaps(other)]
        assert place[id(job)] == max((number + 1 for number in overlapping), default=0)
