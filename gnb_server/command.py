"""The command `csiemu gnb`."""

from __future__ import annotations

import asyncio

from gnb_server.app import serve
from gnb_server.hardening import limit_repeats
from gnb_server.settings import Settings

__all__ = ["Settings", "run"]


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM."""
    settings.checkpoint_store()  # or say that there are none, before anything begins
    limit_repeats()
    asyncio.run(serve(settings))
