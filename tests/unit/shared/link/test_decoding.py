from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from shared.channels.streams import Samples
from shared.link.decoding import decode_slot, side_information
from shared.link.encoding import encode_frames
from shared.schemes import Scheme

WORLDS = {"rnn": "multipath-p2:antennas=16,slots=3", "crnet": "cost2100-indoor-csinet:antennas=8,first_rows=8"}


@pytest.mark.parametrize("at_once", [1, 2, 5, 7])
@pytest.mark.parametrize("name", sorted(WORLDS))
def test_many_reports_are_decoded_some_at_a_time(
    make_scheme: Callable[..., Scheme],
    make_samples: Callable[..., Samples],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    at_once: int,
) -> None:
    """Each with its side information and its state, and what comes of all is in their order."""
    scheme, ues = make_scheme(name, WORLDS[name]).eval(), 5
    samples = make_samples(ues)
    fields = scheme.layout.fields_of(encode_frames(scheme, scheme.scenario, samples)[:, 0])
    side = side_information(scheme, scheme.scenario, samples)[:, 0]
    state = {key: torch.randn_like(values) for key, values in scheme.decoder.initial_state(ues).items()}
    monkeypatch.setattr(type(scheme), "decoded_at_once", None)
    expected, expected_state = decode_slot(scheme, fields, side, state)
    step, taken = scheme.decoder.step, []

    def counted(*args: dict[str, torch.Tensor]) -> object:
        taken.append(len(args[1]))
        return step(*args)

    monkeypatch.setattr(scheme.decoder, "step", counted)
    monkeypatch.setattr(type(scheme), "decoded_at_once", at_once)
    found, found_state = decode_slot(scheme, fields, side, state)
    assert sum(taken) == ues
    assert max(taken) == min(at_once, ues)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_state, expected_state)
