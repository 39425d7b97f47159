"""Scenarios of the multipath world (HyperRNN paper, section II and Table I), by preset name or by parameters."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from scipy.special import j0

from shared.errors import InvalidInput, NotFound

SPEED_OF_LIGHT = 299_792_458.0  # m/s


@dataclass(frozen=True)
class Scenario:
    """Multipath channels of P paths, long-term features fixed for a frame of T slots, AR(1) fading.

    The text form `preset[:field=value,...]` (`parse`, `str`) names a scenario in commands, cards and attach requests.

    Attributes:
        antennas: M, elements of the gNB's uniform linear array.
        paths: P.
        slots: T, slots in a frame.
        snr_db: pilot SNR per unit-power channel coefficient and unit-norm pilot, uplink and downlink [dB].
        rho: AR(1) coefficient of both links; None computes J0(2 pi f_d tau) per link.
        speed_kmh: UE speed [km/h], used when rho is None.
        slot_ms: slot duration tau [ms], used when rho is None.
        uplink_ghz, downlink_ghz: carriers [GHz].
        spacing_m: element spacing of the one physical array [m].
        angle_deg: angles of departure are uniform on (-angle_deg, angle_deg) [degrees].
    """

    antennas: int = 64
    paths: int = 2
    slots: int = 8
    snr_db: float = 10.0
    rho: float | None = None
    speed_kmh: float = 30.0
    slot_ms: float = 0.1
    uplink_ghz: float = 3.0
    downlink_ghz: float = 3.1
    spacing_m: float = 0.05
    angle_deg: float = 30.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("antennas", 1, 1024),
            ("paths", 1, 256),
            ("slots", 1, 1024),
            ("snr_db", -100, 200),
            ("speed_kmh", 0, 1e4),
            ("slot_ms", 1e-6, 1e4),
            ("uplink_ghz", 1e-3, 1e3),
            ("downlink_ghz", 1e-3, 1e3),
            ("spacing_m", 1e-6, 1e3),
            ("angle_deg", 1e-6, 90),
        ):
            value = getattr(self, name)
            if not low <= value <= high:  # false for NaN too
                raise InvalidInput(f"scenario {name}: {value} is not in [{low}, {high}]")
        if self.rho is not None and not -1 <= self.rho <= 1:
            raise InvalidInput(f"scenario rho: {self.rho} is not in [-1, 1]")

    @property
    def uplink_rho(self) -> float:
        """AR(1) coefficient of the uplink fading from slot to slot."""
        return self._rho(self.uplink_ghz)

    @property
    def downlink_rho(self) -> float:
        """AR(1) coefficient of the downlink fading from slot to slot."""
        return self._rho(self.downlink_ghz)

    @property
    def noise_power(self) -> float:
        """N0, variance of the complex noise on each received pilot sample."""
        return 10 ** (-self.snr_db / 10)

    def _rho(self, carrier_ghz: float) -> float:
        if self.rho is not None:
            return self.rho
        doppler = self.speed_kmh / 3.6 * carrier_ghz * 1e9 / SPEED_OF_LIGHT
        return float(j0(2 * math.pi * doppler * self.slot_ms * 1e-3))

    @classmethod
    def parse(cls, text: str) -> Scenario:
        """The scenario that `preset[:field=value,...]` names.

        Raises:
            NotFound: no such preset. InvalidInput: a field that is unknown, malformed or out of range.
        """
        preset, _, overrides = text.partition(":")
        if preset not in PRESETS:
            raise NotFound(f"scenario: '{preset}' is unknown; presets are {', '.join(PRESETS)}")
        types = {"antennas": int, "paths": int, "slots": int}
        changes: dict[str, float | None] = {}
        for item in filter(None, overrides.split(",")):
            name, _, value = item.partition("=")
            if name not in cls.__dataclass_fields__:
                raise InvalidInput(
                    f"scenario: field '{name}' is unknown; fields are {', '.join(cls.__dataclass_fields__)}"
                )
            try:
                changes[name] = None if (name, value) == ("rho", "none") else types.get(name, float)(value)
            except ValueError:
                raise InvalidInput(f"scenario {name}: '{value}' is not a number") from None
        return dataclasses.replace(PRESETS[preset], **changes)  # type: ignore[arg-type]  # names checked above

    def __str__(self) -> str:
        """The shortest text that `parse` reads back as this scenario."""

        def differences(base: Scenario) -> list[str]:
            pairs = ((f.name, getattr(self, f.name), getattr(base, f.name)) for f in dataclasses.fields(self))
            return [f"{name}={'none' if mine is None else mine}" for name, mine, theirs in pairs if mine != theirs]

        name, changes = min(((n, differences(p)) for n, p in PRESETS.items()), key=lambda item: len(item[1]))
        return f"{name}:{','.join(changes)}" if changes else name


PRESETS: dict[str, Scenario] = {
    "multipath-p2": Scenario(paths=2, rho=0.99),  # Fig. 5: correlated fading, few paths
    "multipath-p8": Scenario(paths=8, rho=0.0),  # Fig. 4: independent fading
    "multipath-30kmh": Scenario(paths=2),  # Table I: rho computed from speed and slot duration
}
"""Presets by name; any field can be changed, e.g. `multipath-p2:paths=4,snr_db=0`."""
