"""Whether fleets are served what their UEs are to send, and one warning when they are not, and when they are again."""

from __future__ import annotations

import logging
from concurrent.futures import Future

from gnb_server.monitor import Clock, limited_by
from gnb_server.serving.chunks import Ack, Chunk
from gnb_server.sessions import Fleet
from gnb_server.store import Store
from shared.errors import InvalidInput
from shared.rate_watch import RateWatch

LEAST_PER_S, MOST_PER_S = 1e-6, 1e6
"""Reports a second that a UE may be asked for."""


LIMITS = {
    "gNB": "; the gNB limits: UEs wait for acks",
    "UE": "; the UEs limit: they do not send so many",
    None: "",
}
"""What is said of who limits."""


def check_offered(per_s: float | None) -> None:
    """Raises InvalidInput for a rate that no UE can have."""
    if per_s is not None and not LEAST_PER_S <= per_s <= MOST_PER_S:  # which no NaN is
        raise InvalidInput(f"offered_reports_per_s: {per_s} is not in [{LEAST_PER_S:g}, {MOST_PER_S:g}]")


def follow(watch: RateWatch, chunk: Chunk, future: Future[Ack]) -> None:
    """Take notice of a chunk that has come, and of its answer. One that is sent again counts again, which only makes up
    for what was not answered on an earlier stream.
    """
    watch.sent(chunk.ack_wait_s)

    def answered(done: Future[Ack]) -> None:
        failed = done.cancelled() or done.exception() is not None
        watch.answered(0 if failed else chunk.reports - done.result().dropped)

    future.add_done_callback(answered)


class ServedRates:
    """Watches fleets. `clock`: monotonic [s]."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def watch(self, fleet: Fleet) -> None:
        """Begin with a fleet's new stream."""
        if fleet.offered_per_s is not None:
            ues = fleet.lease.ue_count
            fleet.watch = RateWatch(ues * fleet.offered_per_s, ues, self._clock)

    def tick(self, fleets: list[Fleet]) -> None:
        """Judge fleets with a stream; a change is logged and kept as an event. Raises StoreUnavailable."""
        for fleet in fleets:
            if fleet.watch is not None and fleet.watch.judge():
                self._tell(fleet, fleet.watch)

    def _tell(self, fleet: Fleet, watch: RateWatch) -> None:
        ues = fleet.lease.ues
        held = "is held again" if watch.held else "is not held"
        text = f"UEs {ues.start}..{ues.stop - 1}: the rate {held}: {watch}{LIMITS[limited_by(watch)]}"
        logging.warning("%s: %s", fleet.lease.model, text)
        versions = sorted({int(version) for version in fleet.version if version})
        kind = "rate_held" if watch.held else "rate_not_held"
        self._store.keep_event(kind, fleet.lease.model, ",".join(map(str, versions)), "gNB", text)
