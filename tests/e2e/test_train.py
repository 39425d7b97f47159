"""The training command, stopped and taken up again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from e2e_tools import wait_for


def train(folder: Path) -> list[str]:
    options = ["--checkpoints", str(folder), "--state", str(folder / "state"), "--save-every", "5"]
    sizes = ["--steps", "120", "--batch", "32", "--scenario", "multipath-p2:antennas=8", "--evaluation-ues", "64"]
    return [sys.executable, "-m", "csiemu", "train", "rnn", *options, *sizes]


def test_ctrl_c_and_the_same_command_again(tmp_path: Path) -> None:
    """Bit-equal to a training that was never stopped."""
    cards = []
    for name in ("whole", "broken"):
        folder = tmp_path / name
        if name == "broken":
            process = subprocess.Popen(train(folder))
            wait_for((folder / "state" / "state.json").exists)
            process.send_signal(signal.SIGINT)
            assert process.wait() == 130
            assert not (folder / "rnn").exists()
        subprocess.run(train(folder), check=True)
        cards.append(json.loads((folder / "rnn" / "1" / "card.json").read_text()))
    for key in ("sha256", "encoder_id", "evaluation"):
        assert cards[0][key] == cards[1][key]
