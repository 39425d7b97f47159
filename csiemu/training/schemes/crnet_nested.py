"""Training of the nested CRNet: every batch has reports of all the rates, each cut where its rate ends."""

from __future__ import annotations

import torch
from torch import Tensor

from csiemu.training.schemes import trains
from csiemu.training.schemes.crnet import CrNetTraining
from shared.channels.downlink import DownlinkView
from shared.metrics import energy
from shared.quantizers import scale
from shared.schemes.crnet_nested import CrNetNested


@trains(CrNetNested)
class NestedTraining(CrNetTraining):
    """Training of the nested CRNet. The frames of a batch have the rates in turn: which frame gets which is chance."""

    scheme: CrNetNested

    def sent(self, codeword: Tensor, slope: float) -> Tensor:
        rates, quantizer = self.scheme.config.rates, self.scheme.encoder.quantizer
        bits = torch.tensor(rates)[torch.arange(len(codeword)) % len(rates)].to(codeword.device)
        return quantizer.within(codeword.float(), quantizer.lengths(bits - scale.BITS))

    def loss(self, estimate: Tensor, truth: Tensor) -> Tensor:
        """Mean over the rates of the NMSE's logarithm: a decibel is worth the same at all of them."""
        ratios = (energy(estimate - truth, axes=2) / energy(truth, axes=2)).flatten()
        rates = min(len(self.scheme.config.rates), len(ratios))
        return torch.stack([ratios[turn::rates].mean().log() for turn in range(rates)]).mean()

    def start_principal(self, downlink: DownlinkView) -> None:
        super().start_principal(downlink)
        self.calibrate(downlink)

    def start_linear(self, downlink: DownlinkView) -> None:
        super().start_linear(downlink)
        self.scheme.eval()  # with the statistics that training keeps
        self.calibrate(downlink)
        self.scheme.train()
