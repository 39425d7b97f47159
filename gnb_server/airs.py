"""Another air for a fleet's reports while they come: from a frame on that none of its UEs has begun, the same for all.

The frame is chosen and stored before any report of it is taken, so that whoever decodes, now or again after a crash,
finds by the lease alone which air a report came over.
"""

from __future__ import annotations

import dataclasses

from gnb_server.sessions import Fleet
from gnb_server.store import Store
from shared.conditions import AirChange
from shared.errors import LimitReached
from shared.link.air import Air

MOST_CHANGES, MOST_AIRS = 1000, 16
"""Of one fleet: how often its air may change, and between how many; figures are kept for each of them."""


def change_air(store: Store, fleet: Fleet, air: Air) -> None:
    """Have the reports of a fleet come over another air. To be called between two batches of the serving thread.

    Raises:
        LimitReached: it has changed often enough. StoreUnavailable: nothing has changed.
    """
    lease = fleet.lease
    if air == lease.by_frame.newest.air:
        return
    change = AirChange(-(-store.furthest(lease) // fleet.slots), air)
    after = lease.by_frame.changed(change)
    airs = {lease.conditions.air, *(later.air for later in after.changes)}
    if len(after.changes) > MOST_CHANGES or len(airs) > MOST_AIRS:
        raise LimitReached(
            f"air: {str(air) or 'undisturbed'}; that of a fleet changes {MOST_CHANGES} times, and between {MOST_AIRS}"
            " different ones, at most; UEs that attach anew have the air that they ask for"
        )
    store.keep_air(lease, change)
    fleet.lease = dataclasses.replace(lease, air_changes=after.changes)
