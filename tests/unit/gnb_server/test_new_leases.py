"""Who was not answered asks for the same lease again, and gets it: UEs, the gNB or its store were away in between."""

from __future__ import annotations

import dataclasses

import pytest

from gnb_server.app import service
from gnb_server.handlers import Handlers
from gnb_server.settings import Settings
from shared.checkpoints import CheckpointStore
from shared.errors import Conflict, InvalidInput
from tests.unit.gnb_server.sending import Clock, Ues

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("ue_base", [None, 70])
def test_the_same_lease(settings: Settings, small_store: CheckpointStore, clock: Clock, ue_base: int | None) -> None:
    """Of this process of the gNB, or of an earlier one."""
    with service(settings, clock) as handlers:
        first = Ues(handlers, small_store, new_token=TOKEN, ue_base=ue_base)
        again = Ues(handlers, small_store, new_token=TOKEN, ue_base=ue_base).open()
        assert first.fleet.lease == again.fleet.lease
        again.send(0)
    with service(settings, clock) as handlers:
        later = Ues(handlers, small_store, new_token=TOKEN, ue_base=ue_base).open()
        assert later.fleet.lease == first.fleet.lease
        later.send(1)
        assert handlers.ues()["total"] == 2
        other = Ues(handlers, small_store, new_token=TOKEN[::-1])
        assert other.fleet.lease.first_ue == later.fleet.lease.ues.stop
        with pytest.raises(Conflict, match="seed: 9; the lease of this token has 0"):
            handlers.attach(dataclasses.replace(later.wanted, seed=9))
        handlers.detach(TOKEN)
        with pytest.raises(Conflict, match="has detached"):
            handlers.attach(later.wanted)


@pytest.mark.parametrize("token", ["0123", TOKEN.upper(), TOKEN + "0", "x" * 1000])
def test_a_token_of_another_form(handlers: Handlers, small_store: CheckpointStore, token: str) -> None:
    with pytest.raises(InvalidInput, match=r"new_token: '.{1,300}'; wanted 16 hexadecimal digits, small letters"):
        Ues(handlers, small_store, new_token=token)
