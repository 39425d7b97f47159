from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from gnb_server.monitoring.indicators import NAMES, Decoded
from gnb_server.monitoring.references import Calibration
from gnb_server.monitoring.watch import OWN_RATE, Frames, Watch
from gnb_server.repository import ModelVersion
from gnb_server.serving.backend import Part
from gnb_server.sessions import Fleet, Lease
from shared.channels.scenario import Scenario
from shared.channels.streams import Split
from shared.conditions import RunConditions
from shared.errors import NotFound
from shared.link.rate import Rate
from shared.link.target import TargetCoder
from shared.schemes import Scheme

SCENARIO = "cost2100-indoor-csinet:antennas=8,first_rows=8,slots=2"
UES, SLOTS, WINDOW = 12, 2, 40


def reports(scheme: Scheme, count: int, seed: int = 0, target_db: float = -10.0) -> Decoded:
    generator = np.random.default_rng(seed)
    fields = {f.name: generator.integers(0, 1 << f.bits, (count, f.count)) for f in scheme.layout.fields}
    estimates = generator.normal(size=(count, 8, 8)) + 1j * generator.normal(size=(count, 8, 8))
    target = 10 ** (generator.normal(target_db, 1, count) / 10)
    nothing = np.full(count, np.nan)
    lengths = np.full(count, scheme.layout.bits)
    return Decoded(estimates.astype(np.complex64), fields, lengths, np.zeros(count, bool), nothing, target)


class World:
    """A watch, and a fleet whose reports are like those that its reference is of."""

    def __init__(self, scheme: Scheme) -> None:
        self.scheme, self.made, self.problem = scheme, [], ""
        self.watch = Watch(self.calibrate, 1e-4, WINDOW)
        lease = Lease("secret", "crnet", RunConditions(Scenario.parse(SCENARIO)), 100, UES)
        self.fleet = Fleet(lease, "00")

    def calibrate(self, name: str, version: int) -> Calibration:
        self.made.append((name, version))
        if self.problem:
            raise NotFound(self.problem)
        return Calibration(reports(self.scheme, 1200, 99, target_db=-10.0 if version == 1 else 0.0), SLOTS)

    def model(self, version: int = 1) -> ModelVersion:
        return ModelVersion("crnet", version, "00", self.scheme.layout, self.scheme, f"sha-{version}")

    def observe(
        self, frame: int, first: int = 0, slots: int = SLOTS, *, scale: float = 1.0, version: int = 1
    ) -> Frames | None:
        """Reports of all UEs, drawn by frame."""
        found = reports(self.scheme, UES * SLOTS, 1000 + frame)
        some = slice(first, first + slots)

        def shaped(values: np.ndarray) -> np.ndarray:
            return values.reshape(SLOTS, UES, *values.shape[1:])[some]

        fields = {name: shaped(values) for name, values in found.fields.items()}
        fates = np.zeros((slots, UES), np.uint8)
        part = Part(self.fleet.lease, np.arange(UES), frame, first, slots, fields, fates)
        estimates = np.complex64(scale) * shaped(found.estimates)
        return self.watch.observe(self.fleet, self.model(version), part, shaped(found.lengths), estimates)

    def ready(self, version: int = 1) -> None:
        """Send until there is a reference."""
        for frame in range(10_000):
            if self.observe(frame, version=version) is not None:
                return
            time.sleep(0.01)
        raise AssertionError("waited in vain")


@pytest.fixture
def world(make_scheme: Callable[..., Scheme]) -> Iterator[World]:
    found = World(make_scheme("crnet", SCENARIO, compression=16, entry_bits=4))
    yield found
    found.watch.close()


def test_a_reference_is_made_once_there_are_enough_frames(world: World) -> None:
    for frame in range(3):
        assert world.observe(frame) is None
    assert world.made == []
    [row] = world.watch.describe()
    assert (row["state"], row["frames"]) == ("waits for its reference", 0)
    world.ready()
    assert world.made == [("crnet", 1)]
    assert world.watch.describe()[0]["state"] == "watched"


def test_parts_of_frames_come_to_the_same_as_whole_ones(world: World) -> None:
    world.ready()
    whole = world.observe(5)
    assert world.observe(5, 0, 1) is None
    parts = world.observe(5, 1, 1)
    assert whole is not None
    assert parts is not None
    assert whole.columns.tolist() == parts.columns.tolist() == list(range(UES))
    np.testing.assert_allclose(whole.values, parts.values, equal_nan=True)


def test_a_frame_whose_beginning_was_not_seen_does_not_count(world: World) -> None:
    world.ready()
    found = world.observe(6, 1, 1)
    assert found is not None
    assert len(found.columns) == 0


def test_alarm(world: World) -> None:
    """Of estimates that are larger than usual, and of nothing else; none of healthy ones."""
    world.ready()
    for frame in range(20):
        found = world.observe(frame)
        assert found is not None
        assert world.watch.add(world.fleet.lease, 1, found.values) == []
    raised = []
    for frame in range(20, 28):
        found = world.observe(frame, scale=2.0)
        assert found is not None
        raised += world.watch.add(world.fleet.lease, 1, found.values)
    assert [alarm.finding.indicator.name for alarm in raised] == ["norm"]
    [row] = world.watch.describe()
    assert [each["indicator"] for each in row["indicators"] if each["exceeds"]] == ["norm"]
    world.watch.forget("secret")
    assert world.watch.describe() == []
    assert world.watch.alarms.on("secret", 1) == []


def test_target_csi_of_a_later_version_is_held_to_the_first(world: World) -> None:
    world.ready()
    world.ready(version=2)
    usual = {version: world.watch._watched["secret", version].windows for version in (1, 2)}
    index = NAMES.index("target")
    assert [w._usual[0, index] for w in usual.values() if w] == pytest.approx([-10, -10], abs=0.2)


def test_target_csi_is_measured(world: World) -> None:
    """By what the UE says of the channel in the frame's last slot."""
    world.ready()
    found = reports(world.scheme, UES)
    coder = TargetCoder("angular-delay", (8, 8))
    samples = world.fleet.lease.conditions.samples(Split.EMULATE, torch.arange(UES) + 100, 7)
    true = torch.from_numpy(found.estimates)
    told = coder.decode(coder.encode(true, samples), UES)
    fields = {name: values[None].repeat(SLOTS, 0) for name, values in found.fields.items()}
    part = Part(world.fleet.lease, np.arange(UES), 7, 0, SLOTS, fields, np.zeros((SLOTS, UES), np.uint8))
    estimates = np.stack([0 * found.estimates, np.complex64(0.9) * found.estimates])
    frames = world.watch.observe(world.fleet, world.model(), part, np.zeros((SLOTS, UES), np.int64), estimates, told)
    assert frames is not None
    assert frames.values[NAMES.index("target")] == pytest.approx(np.full(UES, -20), abs=0.5)
    [row] = world.watch.describe()
    assert (row["target_reports"], row["target_bits"]) == (UES, 8 + 64 * 16)


@pytest.mark.parametrize("why", ["rate", "problem"])
def test_what_is_not_watched_says_why(world: World, why: str) -> None:
    if why == "rate":
        world.fleet.rate = Rate(bits=100)
        expected = OWN_RATE
    else:
        world.problem = expected = "checkpoint: its encoder is not here"
    for frame in range(200):
        assert world.observe(frame) is None
        if "not watched" in (state := world.watch.describe()[0]["state"]):
            break
        time.sleep(0.01)
    assert state == f"not watched: {expected}"
