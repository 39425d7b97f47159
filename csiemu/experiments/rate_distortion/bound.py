"""What ideal codes would need: reverse water-filling for a Gaussian of the images' covariance, and for a mixture."""

from __future__ import annotations

from torch import Tensor

HALVINGS = 60
"""Of the interval that has the level of a mixture."""


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


def of_a_mixture(variances: Tensor, rest: Tensor, shares: Tensor, bits: float) -> float:
    """The same for a mixture of J Gaussians whose label is sent, one level for all: mean bits, and distortion over mean
    power.

    Args:
        variances: [J, K] float64, of the components of each kind.
        rest: [J], power of each kind in no component, which is not sent.
        shares: [J], probabilities of the kinds.
        bits: of a vector on average.
    """
    power = float(shares @ (variances.sum(1) + rest))
    low, high = 0.0, float(variances.max())
    for _ in range(HALVINGS):
        level = (low + high) / 2
        found = shares @ (variances / level).log2().clamp(min=0).sum(1) - shares @ shares.log2()
        low, high = (low, level) if found < bits else (level, high)
    return float(shares @ (variances.clamp(max=high).sum(1) + rest)) / power
