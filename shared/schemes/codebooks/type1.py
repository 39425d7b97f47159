"""Type I single panel, rank 1 (TS 38.214, 5.2.2.2.1, codebookMode 1): one beam, and a phase between polarisations.

The beam holds for the whole band, the phase for a subband. The UE takes the beam and the phases of the highest SGCS.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from shared.channels.wideband import Wideband
from shared.link.payload import Field, PayloadLayout
from shared.schemes import register
from shared.schemes.base import Decoder, SchemeConfig, State
from shared.schemes.codebooks.base import (
    CodebookConfig,
    CodebookEncoder,
    CodebookScheme,
    beams,
    index_field,
    read_index,
    write_index,
)
from shared.schemes.codebooks.tables import COPHASES, PORTS, Ports


def indicators(ports: Ports, subbands: int) -> tuple[Field, ...]:
    """i_{1,1} and i_{1,2}, the beam's numbers; i_2 of each subband (Table 5.2.2.2.1-5)."""
    return (
        index_field("i11", ports.n1 * ports.o1),
        index_field("i12", ports.n2 * ports.o2),
        Field("i2", subbands, 2),
    )


def cophases() -> Tensor:
    """phi_n = exp(j pi n / 2), [4] complex64."""
    turns = torch.arange(COPHASES) / COPHASES
    return torch.polar(torch.ones_like(turns), 2 * math.pi * turns)


class TypeIEncoder(CodebookEncoder):
    """Tries all beams, with the best phase for each subband."""

    def __init__(self, world: Wideband, config: CodebookConfig) -> None:
        super().__init__(world, config)
        self.first, self.second, _ = indicators(self.ports, self.subbands)

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        wanted = self.precoders(observation)
        of_second = self.ports.n2 * self.ports.o2
        number = torch.arange(self.ports.n1 * self.ports.o1 * of_second)
        grid = beams(self.ports, number // of_second, number % of_second)
        gains = torch.einsum("nspk,bk->nbsp", wanted, grid.conj())
        # |g_0 + phi* g_1|^2 of each phase, but for what all phases have
        together = gains[..., 0].conj() * gains[..., 1]
        matched, phase = (together[..., None] * cophases().conj()).real.max(-1)
        gain = gains.abs().square().sum(-1) + 2 * matched
        best = gain.sum(-1).argmax(-1)
        return {
            "i11": write_index(self.first, best // of_second),
            "i12": write_index(self.second, best % of_second),
            "i2": phase[torch.arange(len(best)), best],
        }


class TypeIDecoder(Decoder):
    """The beam on both polarisations, W = [v; phi_n v] / sqrt(P)."""

    def __init__(self, config: CodebookConfig) -> None:
        super().__init__()
        self.ports = PORTS[config.ports]

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        beam = beams(self.ports, read_index(fields["i11"]), read_index(fields["i12"]))
        phase = cophases()[fields["i2"]]
        both = torch.stack([torch.ones_like(phase), phase], dim=-1)  # [N, S, 2]
        return (both[..., None] * beam[:, None, None]).flatten(2) / math.sqrt(self.ports.total), {}


@register
class TypeI(CodebookScheme):
    """Type I single panel, rank 1, with a phase for each subband: the floor of the codebooks."""

    name: ClassVar[str] = "type1"
    config_class: ClassVar[type[SchemeConfig]] = CodebookConfig

    def make_encoder(self) -> TypeIEncoder:
        return TypeIEncoder(self.world, self.config)

    def make_decoder(self) -> TypeIDecoder:
        return TypeIDecoder(self.config)

    @property
    def layout(self) -> PayloadLayout:
        return PayloadLayout(indicators(self.ports, self.world.subbands))
