from __future__ import annotations

import pytest
import torch
from torch import nn

from shared.schemes import linear
from shared.schemes.linear import LEAST_ROWS, Linear


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each product that oneDNN computes, on a processor where it is faster."""
    rows: list[int] = []
    by_onednn = Linear._by_onednn

    def recorded(layer: Linear, values: torch.Tensor) -> bool:
        if found := by_onednn(layer, values):
            rows.append(values.numel() // layer.in_features)
        return found

    monkeypatch.setattr(linear, "onednn_is_faster", torch.backends.mkldnn.is_available)
    monkeypatch.setattr(Linear, "_by_onednn", recorded)
    return rows


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")
@pytest.mark.parametrize("bias", [True, False])
def test_results_are_those_of_torch(called: list[int], *, bias: bool) -> None:
    torch.manual_seed(0)
    layer = Linear(48, 32, bias=bias)
    for shape in ((LEAST_ROWS, 48), (3, 5, 48)):
        values = torch.randn(shape)
        with torch.inference_mode():
            found = layer(values)
        torch.testing.assert_close(found, nn.functional.linear(values, layer.weight, layer.bias))
    strided = torch.randn(16, 2, 48)[:, 1]
    with torch.inference_mode():
        torch.testing.assert_close(layer(strided), nn.functional.linear(strided, layer.weight, layer.bias))
    assert called == [LEAST_ROWS, 15, 16]


def test_all_else_is_left_to_torch(called: list[int]) -> None:
    layer, values = Linear(48, 32), torch.randn(16, 48)
    layer(values).sum().backward()
    assert layer.weight.grad is not None
    with torch.inference_mode():
        layer(values[: LEAST_ROWS - 1])
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(values).dtype == torch.bfloat16
        layer.double()(values.double())
    assert not called
