"""The command `csiemu ue`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
from typing import Any

import numpy as np

from shared.commands import write_json
from shared.stopping import SIGNALS
from ue_client.fleet import Counts, NotAcked, UeFleet
from ue_client.settings import Settings

__all__ = ["Settings", "run"]


def run(settings: Settings) -> None:
    """Send until the slots or the duration are over, or SIGINT or SIGTERM; write summary and record."""
    checkpoint = settings.checkpoint_store().load(settings.scheme, settings.version, ("encoder",))
    asyncio.run(_run(UeFleet(settings, checkpoint)))


async def _run(fleet: UeFleet) -> None:
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, fleet.stop)
    settings, stuck = fleet.settings, False
    try:
        await fleet.run()
    except NotAcked as error:
        stuck = True
        logging.error("stopped: %s", error)
    finally:
        save_record(fleet)
        if settings.summary:
            write_json(settings.summary, summary(fleet.counts))
    if stuck:
        os._exit(1)  # with a thread that may still be encoding
    logging.info("%s", json.dumps(summary(fleet.counts)))


def save_record(fleet: UeFleet) -> None:
    """Write the reports that were acked, if `--record` asks for them: ue, sequence, encoder_id, decoder_version [K] and
    payload [K, bits], zeros and ones; where encoders differ in their bits, shorter reports are followed by zeros.
    """
    if fleet.settings.record and fleet.recorded["ue"]:
        columns = dict(fleet.recorded)
        widest = max(part.shape[1] for part in columns["payload"])
        columns["payload"] = [np.pad(part, ((0, 0), (0, widest - part.shape[1]))) for part in columns["payload"]]
        fleet.settings.record.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            fleet.settings.record,
            **{name: np.concatenate(parts) for name, parts in columns.items()},
            allow_pickle=False,
        )


def summary(counts: Counts) -> dict[str, Any]:
    """Counts with the round trips as quantiles [ms]."""
    fields = dataclasses.asdict(counts)
    waits = 1e3 * np.array(fields.pop("waits"))
    return {**fields, "round_trip_ms": {f"p{q}": float(np.percentile(waits, q)) for q in (50, 99) if len(waits)}}
