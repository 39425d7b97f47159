"""NMSE of a trained autoencoder against the bits of a codeword entry, every payload packed and unpacked: the same
number of bits for each entry; as many in all, shared out where they help most; and these of entries compressed by the
mu-law.

python -m csiemu.experiments.crnet.rate_distortion [NAME[/VERSION]] [ues]
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import torch

from csiemu.training.run import calibrate
from csiemu.training.schemes import training_of
from shared.checkpoints import CheckpointStore, default_checkpoints
from shared.conditions import RunConditions
from shared.errors import InvalidInput
from shared.link.evaluation import evaluate
from shared.quantizers import float32
from shared.schemes.image_feedback import ImageScheme

ENTRY_BITS = (2, 3, 4, 5, 6, 7, 8)

QUANTIZERS: dict[str, dict[str, Any]] = {
    "equal bits": {"allocation": "equal", "companding": 0.0},
    "greedy": {"allocation": "greedy", "companding": 0.0},
    "greedy, mu = 20": {"allocation": "greedy", "companding": 20.0},
}
"""Fields of the configuration, by what they are called."""


def main() -> None:
    """Print the table: the checkpoint's networks, their quantiser set anew for each number of bits and allocation."""
    parser = argparse.ArgumentParser(description=" ".join(__doc__.split("\n\n")[0].split()))
    parser.add_argument("name", nargs="?", default="crnet", metavar="NAME[/VERSION]")
    parser.add_argument("ues", type=int, nargs="?", default=5000)
    options = parser.parse_args()
    name, ues = options.name, options.ues
    torch.set_num_threads(1)
    checkpoint = CheckpointStore(default_checkpoints()).load_named(name)
    trained = checkpoint.scheme
    if not isinstance(trained, ImageScheme):
        raise InvalidInput(f"checkpoint: {name} is a {trained.name}; wanted crnet or csinet")
    print(
        f"{checkpoint.name}/{checkpoint.version}: {trained.name} 1/{trained.config.compression}, {checkpoint.scenario}"
    )
    print(
        f"| bits an entry | feedback bits | {''.join(f'{name}: NMSE (dB) | from float | ' for name in QUANTIZERS)}rho |"
    )
    print("|---|---|" + "---|---|" * len(QUANTIZERS) + "---|")
    most, reference = _evaluated(trained, float32.BITS, QUANTIZERS["equal bits"], ues)
    for bits in ENTRY_BITS:
        cells = []
        for fields in QUANTIZERS.values():
            total, found = _evaluated(trained, bits, fields, ues)
            cells.append(f"{found['nmse_db']:.2f} ± {found['nmse_se_db']:.2f}")
            cells.append(f"{found['nmse_db'] - reference['nmse_db']:+.2f}")
        print(f"| {bits} | {total} | {' | '.join(cells)} | {found['rho']:.4f} |", flush=True)
    nmse = f"{reference['nmse_db']:.2f} ± {reference['nmse_se_db']:.2f}"
    print(f"| float32 | {most} | {nmse} |{' |' * (2 * len(QUANTIZERS) - 1)} {reference['rho']:.4f} |")


def _evaluated(trained: ImageScheme, bits: int, quantizer: dict[str, Any], ues: int) -> tuple[int, dict[str, Any]]:
    """Feedback bits and figures."""
    config = dataclasses.replace(trained.config, entry_bits=bits, **quantizer)
    scheme = type(trained)(trained.scenario, config).eval()
    for side in ("encoder", "decoder"):
        getattr(scheme, side).network.load_state_dict(getattr(trained, side).network.state_dict())
    calibrate(training_of(scheme), seed=1)
    return scheme.layout.bits, evaluate(scheme, RunConditions(trained.scenario), ues=ues)


if __name__ == "__main__":
    main()
