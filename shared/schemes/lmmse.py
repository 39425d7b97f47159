"""Linear MMSE estimate of the downlink from received pilots, over the slots of a frame, for paths at known angles."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from shared.channels import multipath
from shared.channels.multipath import Multipath, require_multipath
from shared.channels.scenario import Link, Scenario
from shared.channels.uplink import UplinkView
from shared.quantizers.base import Quantizer
from shared.quantizers.lloyd_max import LloydMax
from shared.schemes.angles import estimate_angles
from shared.schemes.base import Decoder, State, to_complex, to_real
from shared.schemes.pilots import PilotConfig, Pilots, PilotScheme


class LmmseDecoder(Decoder):
    """LMMSE of the path amplitudes from the pilots of the frame's slots so far, given angles and gains.

    The scenario's statistics (fading correlation, noise power, gains) are known, as is the pilot matrix.
    Side information, real: [sines of the P angles, 0]. State: received pilots, which of them came, and the number of
    slots so far.
    """

    def __init__(self, scenario: Multipath, config: PilotConfig, pilots: Pilots, quantizer: Quantizer) -> None:
        super().__init__()
        self.scenario = scenario
        self.config = config
        self.pilots = pilots
        self.quantizer = quantizer

    def side_information(self, uplink: UplinkView) -> Tensor:
        if self.config.uplink_reading == "genie":
            return uplink.path_sines()[:, None].expand(-1, self.scenario.slots, -1)
        return estimate_angles(self.scenario, uplink.array_pilots(self.config.uplink_pilots).mean(-1))

    def initial_state(self, count: int) -> State:
        length = self.scenario.slots * 2 * self.config.downlink_pilots
        came = torch.zeros(count, self.scenario.slots)
        return {"received": torch.zeros(count, length), "came": came, "slots": torch.zeros(count, 1)}

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        state = self.receive(self.quantizer.decode(fields), state)
        return self.channel(self.fading(state, side), side), state

    def predicted(self, side: Tensor, state: State) -> tuple[Tensor, State] | None:
        """LMMSE of the slot's channel from the pilots that came before."""
        state = self.receive(None, state)
        return self.channel(self.fading(state, side), side), state

    def receive(self, newest: Tensor | None, state: State) -> State:
        """The state with one more slot: its received pilots, [N, 2 L_dl], or none that came."""
        before = state["received"][:, : -2 * self.config.downlink_pilots]
        nothing = before.new_zeros(len(before), 2 * self.config.downlink_pilots)
        received = torch.cat([nothing if newest is None else newest, before], dim=1)
        came = torch.cat([torch.full_like(state["slots"], newest is not None), state["came"][:, :-1]], dim=1)
        return {**state, "received": received, "came": came, "slots": state["slots"] + 1}

    def fading(self, state: State, sine: Tensor) -> Tensor:
        """As `amplitudes`, by a state."""
        return self.amplitudes(state["received"], state["came"], state["slots"], sine)

    def forward(self, received: Tensor, side: Tensor) -> Tensor:
        """Whole frames, for training of pilots: [N, T, 2 L_dl] and [N, T, P] to [N, T, M] complex64."""
        return self.channel(self.frame_amplitudes(received, side), side)

    def amplitudes(self, received: Tensor, came: Tensor, slots: Tensor, sine: Tensor) -> Tensor:
        """Fading of the paths in the newest slot, [N, P] complex64.

        Args:
            received: [N, T * 2 L_dl], pilots of the slots t, t-1, ...
            came: [N, T], 1 for those of them that came, 0 for others.
            slots: [N, 1], t.
            sine: [N, P], of the angles.
        """
        world, slots_max = self.scenario, self.scenario.slots
        pilots = to_complex(received.unflatten(1, (slots_max, -1))).conj()  # y* = X^H h + n*
        response = self.pilots().mH @ self.vectors(sine)  # [N, L, P]
        age = torch.arange(slots_max, device=sine.device)
        correlation = torch.full((), world.correlation(Link.DOWNLINK), device=sine.device) ** (age[:, None] - age).abs()
        known = came.to(response.dtype)
        gram = response @ response.mH  # [N, L, L]
        covariance = torch.einsum("ns,st,nt,nij->nsitj", known, correlation.to(gram.dtype), known, gram)
        covariance = covariance.flatten(3, 4).flatten(1, 2)
        noise = (world.noise_power + self.quantisation_noise(slots)).expand(-1, slots_max, -1).flatten(1).diag_embed()
        # noise makes it regular; to look whether it is would hold up a GPU
        weighted, _ = torch.linalg.solve_ex(covariance + noise, (pilots * known[..., None]).flatten(1)[..., None])
        weight = known * correlation[0]
        return torch.einsum("nlp,nt,ntl->np", response.conj(), weight, weighted.unflatten(1, (slots_max, -1))[..., 0])

    def frame_amplitudes(self, received: Tensor, sine: Tensor) -> Tensor:
        """As `amplitudes`, of every slot of whole frames: [N, T, 2 L_dl] and [N, T, P] to [N, T, P] complex64."""
        slot = torch.arange(self.scenario.slots, device=received.device)
        age = slot[:, None] - slot  # [t, place in the window]
        windows = (received[:, age.clamp(min=0)] * (age >= 0)[..., None]).flatten(2)  # [N, T, T * 2 L_dl]
        slots = (slot + 1).repeat(len(received))[:, None]
        came = (slot < slots).to(received.dtype)
        return self.amplitudes(windows.flatten(0, 1), came, slots, sine.flatten(0, 1)).unflatten(0, sine.shape[:2])

    def channel(self, amplitudes: Tensor, sine: Tensor) -> Tensor:
        """[..., P] fading of the paths and sines of their angles to the downlink [..., M] complex64."""
        return (self.vectors(sine) @ amplitudes[..., None])[..., 0]

    def quantisation_noise(self, slots: Tensor) -> Tensor:
        """Mean squared error of the tables by which pilots are sent, which counts as noise: [N or 1, T or 1, L_dl], of
        the slots t, t-1, ..., where t is the last of so many, [N, 1].
        """
        if isinstance(self.quantizer, LloydMax):
            return self.quantizer.distortion.unflatten(-1, (2, -1)).sum(-2)[None, None]
        return torch.zeros(1, 1, self.config.downlink_pilots, device=self.pilots.parts.device)

    def expected_pilots(self, channel: Tensor) -> Tensor:
        """What the UE receives of a channel [N, M] but for noise, as it is sent: [N, 2 L_dl]."""
        return to_real((self.pilots().mH @ channel[..., None])[..., 0].conj())

    def vectors(self, sine: Tensor) -> Tensor:
        """Steering vectors of the downlink times the gain of a path, [..., M, P]."""
        return self.scenario.gain * multipath.steering(self.scenario, self.scenario.downlink_ghz, sine)


class MultipathScheme(PilotScheme):
    """Base of the schemes that know the multipath world that they were built for; any other is refused."""

    sizes: ClassVar[tuple[str, ...]] = tuple(field.name for field in dataclasses.fields(Multipath))

    @property
    def world(self) -> Multipath:
        """The scenario that it was built for. Raises InvalidInput for one without paths."""
        return require_multipath(self.scenario, self.name)

    def check_sizes(self) -> None:
        super().check_sizes()
        require_multipath(self.scenario, self.name)

    def check_scenario(self, scenario: Scenario, delay_slots: int = 0) -> None:
        super().check_scenario(require_multipath(scenario, self.name), delay_slots)
