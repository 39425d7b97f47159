"""Pictures for the documentation: of the live page, with a gNB, UEs of some schemes, a swap, a canary, a disturbed
link; and of the report of another run.

csiemu experiment screenshots [--out DIR] [--seconds S] [--ues N] [--schemes NAME ...] [--chromium PATH]
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, ViewportSize, expect, sync_playwright

from csiemu.processes import Gnb, end, spawn, tail
from csiemu.rest import Rest
from shared.checkpoints import default_checkpoints

SCHEMES = ("hyperrnn", "hyperrnn_angles", "dldnn", "crnet", "gmtc", "transform", "type1")

RATE = 2.0
"""Reports per second and UE."""

MOST_BYTES = 300_000
"""Of a picture."""

PATIENCE_MS = 120_000

REPORTED = "--schemes hyperrnn,rnn,crnet,etype2 --duration 30 --swap hyperrnn:3@12s --seed 1"
"""The run whose report is shown: options of `csiemu emulate`."""

REPORT_SIZE = ViewportSize(width=1000, height=1900)


@dataclass(frozen=True)
class Shot:
    """A view as it is to be seen.

    Attributes:
        ready: selector of what has to be there first.
    """

    name: str
    view: str
    width: int
    height: int
    ready: str
    dark: bool = False


SHOTS = (
    Shot("page-live", "#live", 1440, 900, "#figures tbody tr:nth-child(8)"),
    Shot("page-ue", "#ues/{crnet_ue}", 1440, 900, "#ue-channel canvas", dark=True),
    Shot("page-models", "#models", 1440, 900, "#rollouts .rollout"),
    Shot("page-link", "#link/{gmtc_ue}", 1440, 900, "#fleet-chart canvas"),
    Shot("page-phone", "#live", 390, 844, "#figures tbody tr", dark=True),
)


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(prog="csiemu experiment screenshots", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--seconds", type=float, default=90, help="that the page is open before the first picture")
    parser.add_argument("--ues", type=int, default=8, help="of each scheme")
    parser.add_argument("--schemes", nargs="+", default=SCHEMES, help="hyperrnn, crnet and gmtc among them")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="default: that of the PATH")
    options = parser.parse_args()
    if options.chromium is None:
        parser.error("--chromium: none on the PATH; apt install chromium")
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), options.schemes, options.ues) as gnb,
        sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=options.chromium)
        rest = Rest(f"http://{gnb.rest}")
        ues = {f"{name}_ue": rest.get(f"/v1/ues?scheme={name}&limit=1")["ues"][0]["ue"] for name in ("crnet", "gmtc")}
        pages = {}
        for shot in SHOTS:
            size = ViewportSize(width=shot.width, height=shot.height)
            pages[shot] = browser.new_page(viewport=size, color_scheme="dark" if shot.dark else "light")
            pages[shot].goto(f"http://{gnb.rest}/{shot.view.format(**ues)}")
        time.sleep(options.seconds / 3)
        rest.post("/v2/repository/models/hyperrnn/load", {"parameters": {"version": 3}})
        time.sleep(options.seconds / 3)
        canary = {"model": "hyperrnn", "version": 1, "mode": "canary", "share": 0.5, "guard": {"better_db": None}}
        rest.post("/v1/rollouts", canary)
        rest.post(f"/v1/fleets/{ues['gmtc_ue']}/air", {"air": "loss=0.1,burst=5"})
        time.sleep(options.seconds / 3)
        for shot, page in pages.items():
            expect(page.locator(shot.ready).first).to_be_visible(timeout=PATIENCE_MS)
            take(page, options.out / f"{shot.name}.png")
        browser.close()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        for line in (f"emulate {REPORTED} --out runs/first", "report runs/first"):
            subprocess.run([sys.executable, "-m", "csiemu", *line.split()], cwd=folder, check=True)
        page = play.chromium.launch(executable_path=options.chromium).new_page(viewport=REPORT_SIZE)
        page.goto(f"file://{folder}/runs/first/report.html")
        take(page, options.out / "report.png")


@contextlib.contextmanager
def running(folder: Path, schemes: Sequence[str], ues: int) -> Iterator[Gnb]:
    """A gNB with so many UEs of each scheme, all attached."""
    checkpoints = default_checkpoints()
    with Gnb(folder, checkpoints=checkpoints) as gnb, contextlib.ExitStack() as stack:
        processes = {}
        for scheme in schemes:
            asked = {"gnb": gnb.grpc, "scheme": scheme, "ues": ues, "rate": RATE, "checkpoints": checkpoints}
            processes[scheme] = spawn("ue_client", folder / f"{scheme}.log", **asked)
            stack.callback(end, processes[scheme])
        rest = Rest(f"http://{gnb.rest}")
        while len({row["scheme"] for row in rest.get("/v1/nmse")["schemes"] if row["reports"]}) < len(schemes):
            for scheme, process in processes.items():
                if process.poll() is not None:
                    raise SystemExit(f"UEs of {scheme} have ended:\n{tail(folder / f'{scheme}.log')}")
            time.sleep(1)
        yield gnb


def take(page: Page, path: Path) -> None:
    """One picture."""
    page.screenshot(path=path)
    print(f"{path}: {path.stat().st_size} bytes")
    if path.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{path}: more than {MOST_BYTES} bytes")


if __name__ == "__main__":
    main()
