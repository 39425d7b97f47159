"""`python -m csiemu.training NAME ...`: train on a machine that has only torch, numpy, scipy and safetensors.

`csiemu train` is the same with a progress bar.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import MISSING
from typing import Any

import torch

from csiemu.training.campaign import Campaign
from csiemu.training.options import options
from csiemu.training.plan import CAMPAIGN_OPTIONS, asked
from csiemu.training.trainer import Progress
from shared.errors import CsiError
from shared.stopping import stopping


def main() -> None:
    """Parse the options and train, one design or those of a campaign."""
    parser = argparse.ArgumentParser(prog="python -m csiemu.training", description=__doc__)
    for option in [*options(), *CAMPAIGN_OPTIONS]:
        if option.default is MISSING:
            parser.add_argument(option.field, nargs="?", help=option.help)
            continue
        text = f"{option.help} (default: {option.default})" if option.default else option.help
        kind: Any = {"action": argparse.BooleanOptionalAction} if option.kind is bool else {"type": option.kind}
        parser.add_argument(f"--{option.name.replace('_', '-')}", dest=option.field, help=text, **kind)
    torch.set_num_threads(1)

    def show(progress: Progress) -> None:
        if progress.step % 500 == 0:
            print(f"step {progress.step} {progress.nmse_db:.3f} dB {progress.seconds:.0f} s", flush=True)

    try:
        with stopping():
            job = asked(vars(parser.parse_args()), json.loads)
            if isinstance(job, Campaign):
                job.run()
                return
            checkpoint = job.run(show)
    except CsiError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        exec("")  # as in shared.commands
        sys.exit(130)
    print(f"{checkpoint.name}/{checkpoint.version}: {checkpoint.card['evaluation']['by_slot'][-1]}")


if __name__ == "__main__":
    main()
