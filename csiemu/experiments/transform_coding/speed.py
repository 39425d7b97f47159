"""Reports a second of one core, encoder and decoder, in batches as on the wire; of several checkpoints in one run.

python -m csiemu.experiments.transform_coding.speed [CHECKPOINT ...] [--checkpoints DIR]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from shared.channels.downlink import DownlinkView
from shared.channels.streams import Samples, Split
from shared.checkpoints import CheckpointStore, shipped_checkpoints
from shared.errors import NotFound
from shared.link.encoding import ENCODE_BATCH, encode
from shared.schemes import Scheme

REPORTS = 1024

ROUNDS = 5
"""Of which the fastest counts: others may use the machine too."""


def main() -> None:
    """Print the table, Markdown: CPU time, one thread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["gmtc", "transform", "crnet", "crnet-16"], metavar="CHECKPOINT")
    parser.add_argument("--checkpoints", type=Path, default=Path("runs/transform"), help="or else the shipped ones")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| checkpoint | encoded a second | checked and decoded a second |\n|---|---|---|")
    for name in options.names:
        try:
            checkpoint = CheckpointStore(options.checkpoints).load_named(name)
        except NotFound:
            checkpoint = CheckpointStore(shipped_checkpoints()).load_named(name)
        encoded, decoded = speeds(checkpoint.scheme, REPORTS)
        print(f"| {checkpoint.name}/{checkpoint.version} | {encoded:,.0f} | {decoded:,.0f} |", flush=True)


@torch.inference_mode()
def speeds(scheme: Scheme, reports: int) -> tuple[float, float]:
    """Reports a second of CPU time: encoded, and checked and decoded."""
    ue = torch.arange(reports)
    view = DownlinkView(scheme.scenario, Samples(0, Split.TEST, ue, torch.zeros_like(ue)))
    observation = scheme.encoder.observe(view)[:, 0]
    fields = encode(scheme, observation)

    def decode() -> None:
        for first in range(0, reports, ENCODE_BATCH):
            part = {name: values[first : first + ENCODE_BATCH] for name, values in fields.items()}
            scheme.check_fields(part)
            count = len(next(iter(part.values())))
            sent = {name: torch.from_numpy(values) for name, values in part.items()}
            scheme.decoder.step(sent, torch.zeros(count, 0), scheme.decoder.initial_state(count))

    return reports / _fastest(lambda: encode(scheme, observation)), reports / _fastest(decode)


def _fastest(run: Callable[[], object]) -> float:
    """CPU time of the fastest of some rounds [s]."""
    found = []
    for _ in range(ROUNDS):
        started = time.process_time()
        run()
        found.append(time.process_time() - started)
    return min(found)


if __name__ == "__main__":
    main()
