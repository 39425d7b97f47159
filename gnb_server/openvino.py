"""Decoders' networks by OpenVINO (extra `openvino`), which computes small convolutions faster than torch.

These are the networks of the image autoencoders, between codeword and image; all else stays torch's. They compute in
float32, with one thread, and are used if their estimates are torch's but for what no NMSE shows.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import torch
from torch import Tensor, nn

from shared.errors import InvalidInput
from shared.link.decoding import decode_frames, probed_frames, probed_reports
from shared.schemes import Scheme
from shared.schemes.image_feedback import ImageDecoder

Backend = Literal["torch", "openvino"]

TOLERANCE = 5e-5
"""Largest relative difference ||a - b|| / ||b|| from torch's estimates: whatever the truth is, no NMSE above -33 dB can
grow by more than 0.02 dB by it.
"""

OPTIONS = {"INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False, "INFERENCE_PRECISION_HINT": "f32"}


def check_backend(backend: Backend) -> None:
    """Raises InvalidInput if it is not installed."""
    if backend == "openvino" and importlib.util.find_spec("openvino") is None:
        raise InvalidInput("backend: openvino is not installed; pip install 'csi-feedback-emulator[openvino]'")


def use_openvino(scheme: Scheme, probe: dict[str, Any]) -> float | None:
    """Have OpenVINO compute the network of a decoder, if it has one whose estimates of the card's probe are those of
    torch; returns by how much they differ, None without a network.
    """
    decoder = scheme.decoder
    if not isinstance(decoder, ImageDecoder):
        return None
    by_torch: Any = decoder.network
    sent = probed_reports(scheme, probe)
    frames = scheme.scenario, probed_frames(len(sent)), sent
    expected = decode_frames(scheme, *frames)
    decoder.network = OpenVinoNetwork(by_torch, by_torch.fc.in_features)  # type: ignore[assignment]  # takes its place
    found = decode_frames(scheme, *frames)
    difference = float((found - expected).norm() / expected.norm().clamp(min=1e-30))
    if not difference <= TOLERANCE:
        decoder.network = by_torch
    return difference


class OpenVinoNetwork(nn.Module):
    """A network of [N, inputs] float32. Copies of it, those of decode workers too, are compiled where they are used."""

    def __init__(self, network: nn.Module, inputs: int) -> None:
        super().__init__()
        self.network, self.inputs = network, inputs
        self._compiled: Any = None

    def forward(self, values: Tensor) -> Tensor:
        if self._compiled is None:
            self._compiled = self._compile()
        return torch.from_numpy(self._compiled([values.contiguous().numpy()], share_inputs=True)[0])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}

    def _compile(self) -> Any:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        # not openvino.convert_model, which tells its maker about it
        with torch.inference_mode(False), torch.enable_grad():  # as if in training: by torch's own operations
            example = torch.zeros(1, self.inputs)
            traced = torch.jit.trace(self.network, example, check_trace=False)
        reading = TorchScriptPythonDecoder(traced, example_input=(example,))
        frontend = FrontEndManager().load_by_framework("pytorch")
        loaded = frontend.load(reading)
        return openvino.Core().compile_model(frontend.convert(loaded), "CPU", OPTIONS)
