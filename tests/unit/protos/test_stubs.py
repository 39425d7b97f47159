"""The stubs in the repository are what `make protos` makes of the .proto file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
FOLDER = Path("protos/csi_feedback/v1")


def test_stubs_are_reproducible(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    shutil.copy(ROOT / FOLDER / "csi_feedback.proto", tmp_path / FOLDER)
    outputs = ["--python_out=.", "--grpc_python_out=.", "--mypy_out=quiet:.", "--mypy_grpc_out=quiet:."]
    line = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, str(FOLDER / "csi_feedback.proto")]
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    subprocess.run(line, cwd=tmp_path, env={"PATH": path}, check=True)
    made = sorted(path.name for path in (tmp_path / FOLDER).iterdir())
    assert len(made) == 5
    for name in made:
        assert (tmp_path / FOLDER / name).read_text() == (ROOT / FOLDER / name).read_text(), name
