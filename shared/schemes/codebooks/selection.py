"""How the UE chooses the PMI of enhanced Type II. The standard leaves it to the UE; this is ours.

For each rotation:
1. The L orthogonal beams that hold most power over the band and both polarisations.
2. The phase of each subband's precoder means nothing and is free: it is turned to that of what 1, 2 .. M delays and K_0
   coefficients make of it, so that few delays hold most of the power.
3. The M delays of most power, the K_0 largest coefficients of these, less those that are nearer to 0 than to their
   smallest level. Amplitudes go to the nearest level, phases to the nearest of 16.
Of all rotations, that with the highest SGCS.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from shared.schemes.codebooks.base import beams
from shared.schemes.codebooks.pmi import Pmi, PmiFields
from shared.schemes.codebooks.tables import DIFFERENTIAL_AMPLITUDES, PHASES, REFERENCE_AMPLITUDES, Ports

TURNS = 2
"""How often phases are turned for each number of delays."""


class Selection:
    """From precoders to a PMI, of ports whose PMI has these fields."""

    def __init__(self, ports: Ports, fields: PmiFields) -> None:
        self.fields = fields
        self.size, self.delays, self.most, self.subbands = fields.size, fields.delays, fields.most, fields.subbands
        first, second = torch.cartesian_prod(torch.arange(ports.o1), torch.arange(ports.o2)).mT[..., None]
        number = torch.arange(ports.positions)
        grid = beams(ports, ports.o1 * (number % ports.n1) + first, ports.o2 * (number // ports.n1) + second)
        self.rotations = torch.stack([first, second], dim=-1)[:, 0]  # [rotation, 2]
        self.grid = grid / math.sqrt(ports.positions)  # [rotation, beam, position]

    def __call__(self, precoders: Tensor) -> Pmi:
        """Precoders [N, N3, 2, N1 N2] to the PMI of the nearest that we find."""
        rotations, chosen, by_beam = self._beams(precoders)
        delays, coefficients = self._delays(self._turned(by_beam))
        found = self._quantised(rotations, chosen, delays, coefficients)
        near = self.fields.basis(found) @ self.fields.coefficients(found)
        match, power = (by_beam.conj() * near).sum(-1).abs().square(), near.abs().square().sum(-1)
        similarity = (match / power.clamp(min=1e-30)).sum(-1)  # the beams are orthogonal
        count = len(self.rotations)
        best = similarity.unflatten(0, (-1, count)).argmax(1) + torch.arange(len(precoders)) * count
        return Pmi(*(getattr(found, field.name)[best] for field in dataclasses.fields(Pmi)))

    def _beams(self, precoders: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotations, R for each of N / R reports, [N, 2], numbers of beams [N, L], and coefficients [N, N3, 2L]."""
        found = torch.einsum("nspk,rbk->nrspb", precoders, self.grid.conj()).flatten(0, 1)
        chosen = found.abs().square().sum((1, 2)).topk(self.size, dim=-1).indices.sort(1).values
        by_beam = found.gather(3, chosen[:, None, None].expand(-1, *found.shape[1:3], -1))
        return self.rotations.repeat(len(precoders), 1), chosen, by_beam.flatten(2)

    def _turned(self, by_beam: Tensor) -> Tensor:
        """Coefficients [N, N3, 2L] by subband to those by delay, the subbands' phases turned."""
        by_delay = torch.fft.fft(by_beam, dim=1, norm="forward")
        for count in [delays for delays in range(1, self.delays + 1) for _ in range(TURNS)]:
            near = torch.fft.ifft(self._sparse(by_delay, count), dim=1, norm="forward")
            turn = (by_beam.conj() * near).sum(-1, keepdim=True).angle()
            by_delay = torch.fft.fft(by_beam * torch.polar(torch.ones_like(turn), turn), dim=1, norm="forward")
        return by_delay

    def _sparse(self, by_delay: Tensor, count: int) -> Tensor:
        """The K_0 largest of the coefficients [N, N3, 2L] at the `count` strongest delays, zeros elsewhere."""
        delays = by_delay.abs().square().sum(-1).topk(count, dim=1).indices
        kept = torch.zeros_like(by_delay).scatter(1, self._all(delays), self._at(by_delay, delays)).flatten(1)
        largest = kept.abs().topk(min(self.most, 2 * self.size * count), dim=1).indices
        return torch.zeros_like(kept).scatter(1, largest, kept.gather(1, largest)).view_as(by_delay)

    def _delays(self, by_delay: Tensor) -> tuple[Tensor, Tensor]:
        """The M strongest delays, turned so that that of the largest coefficient is 0 and comes first, and the
        coefficients at these: [N, M], [N, M, 2L].
        """
        delays = by_delay.abs().square().sum(-1).topk(self.delays, dim=1).indices
        largest = self._at(by_delay, delays).abs().amax(-1).argmax(1, keepdim=True)
        origin = delays.gather(1, largest)
        turned = ((delays - origin) % self.subbands).sort(1).values
        return turned, self._at(by_delay, (turned + origin) % self.subbands)

    def _quantised(self, rotation: Tensor, chosen: Tensor, delays: Tensor, coefficients: Tensor) -> Pmi:
        """Coefficients [N, M, 2L], the largest of them in the first row, to levels."""
        strongest = coefficients[:, 0].abs().argmax(1)
        scale = coefficients[:, 0].gather(1, strongest[:, None])[..., None]
        relative = coefficients / torch.where(scale == 0, 1, scale)
        polarisation = torch.arange(2 * self.size) // self.size
        weaker = polarisation != (strongest // self.size)[:, None]  # [N, 2L]
        references = torch.tensor(REFERENCE_AMPLITUDES[1:])
        reference = _nearest((relative.abs() * weaker[:, None]).amax((1, 2)), references)
        levels = torch.tensor(DIFFERENTIAL_AMPLITUDES)
        share = relative.abs() / torch.where(weaker, references[reference][:, None], 1.0)[:, None]
        sent = torch.zeros_like(share.flatten(1), dtype=torch.bool)
        sent.scatter_(1, relative.abs().flatten(1).topk(self.most, dim=1).indices, True)
        sent &= (share >= levels[0] / 2).flatten(1)
        sent.scatter_(1, strongest[:, None], True)
        phase = (relative.angle() * (PHASES / (2 * math.pi))).round().long() % PHASES
        amplitude = _nearest(share, levels)
        return Pmi(
            rotation,
            chosen,
            delays,
            sent,
            strongest,
            reference + 1,
            amplitude.flatten(1) * sent,
            phase.flatten(1) * sent,
        )

    def _at(self, by_delay: Tensor, delays: Tensor) -> Tensor:
        """Coefficients [N, N3, 2L] at delays [N, M]: [N, M, 2L]."""
        return by_delay.gather(1, self._all(delays))

    def _all(self, delays: Tensor) -> Tensor:
        """Delays [N, M] as an index for all coefficients, [N, M, 2L]."""
        return delays[..., None].expand(-1, -1, 2 * self.size)


def _nearest(values: Tensor, levels: Tensor) -> Tensor:
    """The number of the level [K] that is nearest to each value."""
    return (values[..., None] - levels).abs().argmin(-1)
