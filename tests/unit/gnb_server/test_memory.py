from __future__ import annotations

import pytest

from gnb_server.serving import memory
from gnb_server.serving.memory import EVERY_S, Returning


def test_memory_is_given_back_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now, given_back = [0.0], []
    monkeypatch.setattr(memory.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(memory, "return_memory", lambda: given_back.append(now[0]))
    returning = Returning()
    for at in (0.5 * EVERY_S, EVERY_S, 1.9 * EVERY_S, 3 * EVERY_S, 3.5 * EVERY_S):
        now[0] = at
        returning.tick()
    assert given_back == [EVERY_S, 3 * EVERY_S]
