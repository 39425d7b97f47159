"""`csiemu gnb`."""

from __future__ import annotations

import asyncio

from gnb_server.app import serve
from gnb_server.settings import Settings

__all__ = ["Settings", "run"]


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM."""
    asyncio.run(serve(settings))
