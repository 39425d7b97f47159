"""NMSE of a trained autoencoder against the bits of a codeword entry, every payload packed and unpacked.

python -m experiments.crnet.rate_distortion [NAME[/VERSION]] [ues]
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch

from shared.checkpoints import CheckpointStore
from shared.errors import InvalidInput
from shared.schemes.image_feedback import FLOAT_BITS, ImageScheme
from training.evaluation import evaluate
from training.run import calibrate

ENTRY_BITS = (2, 3, 4, 5, 6, 7, 8, FLOAT_BITS)


def main(name: str, ues: int) -> None:
    """Print the table: the checkpoint's networks, their quantiser calibrated anew for each number of bits."""
    torch.set_num_threads(1)
    checkpoint = CheckpointStore(Path("checkpoints")).load_named(name)
    trained = checkpoint.scheme
    if not isinstance(trained, ImageScheme):
        raise InvalidInput(f"checkpoint: {name} is a {trained.name}; wanted crnet or csinet")
    print(
        f"{checkpoint.name}/{checkpoint.version}: {trained.name} 1/{trained.config.compression}, {checkpoint.scenario}"
    )
    print("| bits an entry | feedback bits | NMSE (dB) | from float (dB) | spatial-frequency NMSE (dB) | rho |")
    print("|---|---|---|---|---|---|")
    rows = []
    for bits in ENTRY_BITS:
        scheme = type(trained)(trained.scenario, dataclasses.replace(trained.config, entry_bits=bits)).eval()
        for side in ("encoder", "decoder"):
            getattr(scheme, side).network.load_state_dict(getattr(trained, side).network.state_dict())
        calibrate(scheme, seed=1)
        rows.append((bits, scheme.layout.bits, evaluate(scheme, checkpoint.scenario, ues=ues)))
    reference = rows[-1][2]["nmse_db"]
    for bits, total, found in rows:
        label = "float32" if bits == FLOAT_BITS else str(bits)
        nmse = f"{found['nmse_db']:.3f} ± {found['nmse_se_db']:.3f}"
        print(
            f"| {label} | {total} | {nmse} | {found['nmse_db'] - reference:+.3f} | {found['nmse_sf_db']:.3f}"
            f" | {found['rho']:.4f} |"
        )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "crnet", int(sys.argv[2]) if len(sys.argv) > 2 else 5000)
