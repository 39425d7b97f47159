"""The command `csiemu gnb`."""

from __future__ import annotations

import asyncio

from gnb_server.app import serve
from gnb_server.settings import Settings

__all__ = ["Settings", "run"]


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM."""
    settings.checkpoint_store()  # or say that there are none, before anything begins
    asyncio.run(serve(settings))
