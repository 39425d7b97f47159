"""Linear MMSE estimate of the downlink from received pilots, over the slots of a frame, for paths at known angles."""

from __future__ import annotations

import torch
from torch import Tensor

from shared.channels import multipath
from shared.channels.multipath import Multipath
from shared.channels.scenario import Link
from shared.channels.uplink import UplinkView
from shared.quantizers.base import Quantizer
from shared.schemes.angles import estimate_angles
from shared.schemes.base import Decoder, State, to_complex
from shared.schemes.pilots import PilotConfig, Pilots


class LmmseDecoder(Decoder):
    """LMMSE of the path amplitudes from the pilots of the frame's slots so far, given angles and gains.

    The scenario's statistics (fading correlation, noise power, gains) are known, as is the pilot matrix.
    Side information, real: [sines of the P angles, 0]. State: received pilots and their number.
    """

    def __init__(self, scenario: Multipath, config: PilotConfig, pilots: Pilots, quantizer: Quantizer) -> None:
        super().__init__()
        self.scenario = scenario
        self.config = config
        self.pilots = pilots
        self.quantizer = quantizer

    def received(self, fields: dict[str, Tensor]) -> Tensor:
        """What the received pilots are taken for, [N, 2 L_dl]."""
        return self.quantizer.decode(fields)

    def error_power(self) -> Tensor:
        """Variance of the error of what `received` gives, beside noise: [L_dl] or a scalar."""
        return torch.zeros(())

    def side_information(self, uplink: UplinkView) -> Tensor:
        if self.config.uplink_reading == "genie":
            return uplink.path_sines()[:, None].expand(-1, self.scenario.slots, -1)
        return estimate_angles(self.scenario, uplink.array_pilots(self.config.uplink_pilots).mean(-1))

    def initial_state(self, count: int) -> State:
        length = self.scenario.slots * 2 * self.config.downlink_pilots
        return {"received": torch.zeros(count, length), "slots": torch.zeros(count, 1)}

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        newest = self.received(fields)
        received = torch.cat([newest, state["received"][:, : -newest.shape[1]]], dim=1)
        slots = state["slots"] + 1
        return self.estimate(received, slots, side), {"received": received, "slots": slots}

    def estimate(self, received: Tensor, slots: Tensor, sine: Tensor) -> Tensor:
        """[N, M] complex64 from pilots of the slots t, t-1, ... ([N, T * 2 L_dl]), their number and the angles."""
        world, slots_max = self.scenario, self.scenario.slots
        pilots = to_complex(received.unflatten(1, (slots_max, -1))).conj()  # y* = X^H h + n*
        vectors = world.gain * multipath.steering(world, world.downlink_ghz, sine)  # [N, M, P]
        response = self.pilots().mH @ vectors  # [N, L, P]
        age = torch.arange(slots_max, device=sine.device)
        correlation = torch.full((), world.correlation(Link.DOWNLINK), device=sine.device) ** (age[:, None] - age).abs()
        known = (age < slots).to(response.dtype)  # [N, T]
        gram = response @ response.mH  # [N, L, L]
        covariance = torch.einsum("ns,st,nt,nij->nsitj", known, correlation.to(gram.dtype), known, gram)
        covariance = covariance.flatten(3, 4).flatten(1, 2)
        noise = (world.noise_power + self.error_power()).expand(slots_max, pilots.shape[-1]).flatten()
        weighted = torch.linalg.solve(covariance + noise.diag(), (pilots * known[..., None]).flatten(1)[..., None])
        weight = known * correlation[0]
        amplitudes = torch.einsum(
            "nlp,nt,ntl->np", response.conj(), weight, weighted.unflatten(1, (slots_max, -1))[..., 0]
        )
        return (vectors @ amplitudes[..., None])[..., 0]
