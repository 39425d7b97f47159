"""The command `csiemu gnb`."""

from __future__ import annotations

import asyncio
import contextlib

from gnb_server.app import serve
from gnb_server.hardening import limit_repeats
from gnb_server.settings import Settings
from shared.stopping import stopping

__all__ = ["Settings", "run"]


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; a second one ends the process at once, which a store survives."""
    settings.checkpoint_store()  # or say that there are none, before anything begins
    limit_repeats()
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    loop, serving = asyncio.get_running_loop(), asyncio.ensure_future(serve(settings))
    with stopping(lambda: loop.call_soon_threadsafe(serving.cancel)):
        await serving
