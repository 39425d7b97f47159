"""What a Gaussian source of the images' covariance would need: reverse water-filling."""

from __future__ import annotations

from torch import Tensor


def reverse_water_filling(variances: Tensor, bits: float) -> tuple[float, int]:
    """Distortion-rate function of a proper complex Gaussian vector (Cover and Thomas, "Elements of information theory",
    theorem 10.3.3, for complex components: log2(variance / level) bits each).

    Of all sources of a covariance the Gaussian one needs the most bits: no coder that knows of the images nothing but
    their covariance can promise less distortion, one that knows more can have less.

    Args:
        variances: [K] float64, of independent components, descending, the first above 0.
        bits: of a vector, at least 0.

    Returns:
        Distortion over the sum of the variances, and how many components get bits.
    """
    positive = variances[variances > 0]
    rates = positive.log2().cumsum(0)
    for active in range(len(positive), 0, -1):
        level = float(2 ** ((rates[active - 1] - bits) / active))
        if level <= positive[active - 1]:
            break
    distortion = active * level + float(positive[active:].sum())
    return distortion / float(positive.sum()), active
