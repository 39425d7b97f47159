"""What decodes and compares loses states: they are decoded again from what is kept, and nobody notices."""

from __future__ import annotations

import numpy as np
import pytest

from gnb_server.app import service
from gnb_server.handlers import Handlers
from gnb_server.serving.backend import InProcessBackend, StateNotHeld
from gnb_server.settings import Settings
from shared.checkpoints import CheckpointStore
from shared.errors import NotReady
from tests.unit.gnb_server.sending import UES, Ues, one_batch


def nmse(handlers: Handlers, store: CheckpointStore, losing_before: int | None) -> np.ndarray:
    """Of the slots of two frames and a half of two fleets, [fleets, slots, U]; the states of all go before one."""
    fleets, acks = [Ues(handlers, store).open() for _ in range(2)], []
    for slot in range(20):
        if slot == losing_before:
            for ues in fleets:
                handlers._serving._executor.forget(ues.fleet.lease.token)
        with one_batch(handlers):
            futures = [ues.submit(slot) for ues in fleets]
        acks.append([future.result(30).nmse[0] for future in futures])
    return np.array(acks)


@pytest.mark.parametrize("slot", [3, 8, 15, 18])
def test_states_that_have_gone_are_decoded_again(
    settings: Settings, small_store: CheckpointStore, slot: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In the middle, at the beginning and before the last slot of a frame."""
    calm = settings.model_copy(update={"store": f"sqlite:///{tmp_path_factory.mktemp('calm') / 'gnb.sqlite'}"})
    with service(calm) as handlers:
        expected = nmse(handlers, small_store, None)
    with service(settings) as handlers:
        found = nmse(handlers, small_store, slot)
        assert handlers.nmse()["overall"]["reports"] == found.size
    np.testing.assert_allclose(found, expected, rtol=1e-4)  # batches may be of other sizes


def test_what_cannot_be_decoded_again_fails(
    handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, and the fleet is restored when it comes back."""
    ues = Ues(handlers, small_store).open()
    ues.send(0, 1)
    with monkeypatch.context() as patch:

        def decode(*_: object) -> None:
            raise StateNotHeld("frame 0 of UE 0: its state is not held")

        patch.setattr(InProcessBackend, "decode", decode)
        with pytest.raises(NotReady, match="state is not held"):
            ues.send(2)
    assert ues.come_back().send(2)[0].nmse.shape == (1, UES)
    assert handlers.nmse()["overall"]["reports"] == 3 * UES
