"""What the parts of `gmtc`'s code are worth: each left out of a checkpoint, its tables measured anew without it.

python -m csiemu.experiments.transform_coding.worth [CHECKPOINT] [--checkpoints DIR] [--bits B ...] [--ues N]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from csiemu.experiments.transform_coding import variable
from csiemu.training.schemes.gmtc import GmtcTraining, TableStatistics
from shared.channels.downlink import DownlinkView
from shared.channels.streams import Samples, Split
from shared.checkpoints import CheckpointStore, default_checkpoints
from shared.errors import InvalidInput
from shared.link.rate import Rate
from shared.quantizers.trellis import PARTS, TrellisCode
from shared.schemes.gmtc import Gmtc, GmtcConfig

FRAMES = 4096
"""Of the training split, seed 1, by which tables are measured."""


class OneContext(TableStatistics):
    """Symbols are taken to have the same probabilities in all contexts."""

    def set(self, code: TrellisCode) -> None:
        """As `TableStatistics.set`."""
        self.symbols = self.symbols.sum(2, keepdim=True).expand_as(self.symbols)
        super().set(code)


class OneContextTraining(GmtcTraining):
    """Training without contexts."""

    statistics = OneContext


def without_price(scheme: Gmtc) -> None:
    """The path of the least error, whatever it takes."""
    scheme.encoder.code.trellis.price = 0.0


def without_trellis(scheme: Gmtc) -> None:
    """One uniform quantiser of twice the step."""
    for end in (scheme.encoder, scheme.decoder):
        end.code.trellis.trellis = np.zeros((1, 2), np.int64)


def as_it_is(scheme: Gmtc) -> None:
    """Nothing is left out."""


Change = Callable[[Gmtc], None]

ROWS: dict[str, tuple[Change, type[GmtcTraining], int | None]] = {
    "all": (as_it_is, GmtcTraining, None),
    "one kind tried": (as_it_is, GmtcTraining, 1),
    "no contexts": (as_it_is, OneContextTraining, None),
    "no trellis": (without_trellis, GmtcTraining, None),
    "no price of bits": (without_price, GmtcTraining, None),
}
"""What is left out -> how the scheme is changed, how its tables are measured, kinds tried."""


def main() -> None:
    """Print the table, Markdown: NMSE at so many bits on average, interpolated between two steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", default="gmtc", metavar="CHECKPOINT")
    parser.add_argument("--checkpoints", type=Path, default=default_checkpoints())
    parser.add_argument("--bits", type=int, nargs="*", default=[392, 776, 2056])
    parser.add_argument("--ues", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| left out | {' | '.join(f'{bits:,} bits' for bits in options.bits)} |")
    print("|---" * (1 + len(options.bits)) + "|")
    for left_out, (change, training, tried) in ROWS.items():
        scheme = CheckpointStore(options.checkpoints).load_named(options.name).scheme
        if not isinstance(scheme, Gmtc):
            raise InvalidInput(f"checkpoint: {options.name} is a {scheme.name}; wanted gmtc")
        if tried is not None:
            scheme = with_kinds_tried(scheme, tried)
        change(scheme)
        ue = torch.arange(FRAMES)
        training(scheme).calibrate(DownlinkView(scheme.scenario, Samples(1, Split.TRAIN, ue, torch.zeros_like(ue))))
        cells = [f"{nmse_at(scheme, bits, options.ues):.2f}" for bits in options.bits]
        print(f"| {left_out} | {' | '.join(cells)} |", flush=True)


def with_kinds_tried(scheme: Gmtc, tried: int) -> Gmtc:
    """The same with another number of kinds that are tried out."""
    config = GmtcConfig(**{**scheme.config.to_json(), "tried": tried})
    other: Gmtc = Gmtc(scheme.scenario, config).eval()
    other.load_state_dict(scheme.state_dict())
    return other


def nmse_at(scheme: Gmtc, bits: int, ues: int) -> float:
    """NMSE [dB] of reports of so many bits on average."""
    step = variable.finest(scheme, bits, min(ues, variable.CHUNK))
    found = [variable.measured(scheme, Rate(step=at), ues) for at in (step - 1, step + PARTS // 8)]
    means = [float(part.bits.mean()) for part in found]
    return float(np.interp(bits, means, [10 * np.log10(part.ratios.mean()) for part in found]))


if __name__ == "__main__":
    main()
