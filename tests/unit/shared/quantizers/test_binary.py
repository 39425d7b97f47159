from __future__ import annotations

import torch

from shared.quantizers.binary import BinaryLevels


def test_levels_are_signs_at_both_ends_and_in_training() -> None:
    quantizer, values = BinaryLevels("codeword", 4), torch.tensor([[-2.0, -0.1, 0.0, 0.3]], requires_grad=True)
    levels = quantizer.to_levels(values)
    assert levels.tolist() == [[0, 0, 1, 1]]
    assert quantizer.from_levels(levels).tolist() == [[-1, -1, 1, 1]]
    trained = quantizer(values)
    torch.testing.assert_close(trained, quantizer.from_levels(levels))
    trained.sum().backward()
    torch.testing.assert_close(values.grad, 1 - torch.tanh(values.detach()).square())
