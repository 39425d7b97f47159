"""Scenarios that are compared on, each with what transform coders need to know of it, and published points."""

from __future__ import annotations

from dataclasses import dataclass

_INDOOR_SCALES = (-88.0, -12.0)


@dataclass(frozen=True)
class Published:
    """A coder of the literature whose points count real bits, measured by its authors on their own data.

    Attributes:
        name: as the plot calls it. source: and the table.
        points: (feedback bits, NMSE in dB).
    """

    name: str
    source: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class World:
    """A scenario to compare on.

    Attributes:
        scenario: its text.
        scales: range [dB] of the root of an image's mean power, for transform coders.
        published: of the literature's data set of the same setting.
        others: checkpoints that were made for another scenario, and are measured on this one all the same.
    """

    scenario: str
    scales: tuple[float, float] = _INDOOR_SCALES
    published: tuple[Published, ...] = ()
    others: tuple[str, ...] = ()


_QCRNET = "QCRNet; average not known here, its code is of CRNet's line, which takes the mean of ratios"
_CSICOGEN = "CsiCoGen (arXiv 2606.06846); average not known here; indices only, no scale; not confirmed by others"
_OVQ = "OVQ, one nested TransNet; average not known here"

WORLDS = {
    "indoor": World(
        "cost2100-indoor-csinet",
        published=(
            Published("QCRNet", _QCRNET, ((512, -10.55), (768, -11.68), (2048, -19.94), (3072, -25.82))),
            Published("CsiCoGen", _CSICOGEN, ((792, -28.58), (1592, -30.72))),
        ),
    ),
    "outdoor": World(
        "cost2100-outdoor-csinet",
        published=(
            Published("QCRNet", _QCRNET, ((512, -5.36), (768, -5.51), (2048, -12.13), (3072, -12.70))),
            Published("OVQ", _OVQ, ((80, -1.87), (260, -4.99), (510, -7.68), (800, -9.50), (1280, -10.66))),
            Published("CsiCoGen", _CSICOGEN, ((792, -13.96), (1592, -20.37))),
        ),
        others=("crnet-outdoor",),
    ),
    "umi": World("tr38901-umi-nlos", scales=(-38.0, 38.0)),
    "indoor-5g1-5g3": World("cost2100-indoor-5g1-5g3"),
}
"""By the name of their files. What the literature's points rest on is in `../shared/reference` (FIELD.md, BEYOND.md):
its data set, which our own channels resemble in their statistics and are not."""
