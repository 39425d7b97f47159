"""How many clients may read at once what takes long to read."""

from __future__ import annotations

from collections.abc import AsyncIterator

from shared.errors import NotReady


class Seats:
    """A dependency for a route: a client has a seat until its answer is over.

    Args:
        what, rule: for the error: what is read, and why no more may.

    Raises:
        NotReady: all seats are taken.
    """

    def __init__(self, count: int, what: str, rule: str) -> None:
        self._count = count
        self._what = what
        self._rule = rule
        self._taken = 0

    async def __call__(self) -> AsyncIterator[None]:
        if self._taken >= self._count:
            raise NotReady(f"{self._what}: {self._taken} clients read it, {self._rule}; try again later")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
