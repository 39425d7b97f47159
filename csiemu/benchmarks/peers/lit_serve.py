"""A decoder behind LitServe: its own batching, a request of JSON by HTTP."""

import base64
from typing import Any

import litserve
from torch import Tensor

from csiemu.benchmarks.peers.decoder import BATCH_WAIT_S, PeerDecoder, Request, options


class Decoding(litserve.LitAPI):  # type: ignore[misc]  # has no types
    """The decoder as LitServe calls it."""

    def __init__(self, asked: Any) -> None:
        super().__init__(max_batch_size=asked.batch, batch_timeout=BATCH_WAIT_S)
        self._asked = asked

    def setup(self, device: str) -> None:
        self._decode = PeerDecoder(self._asked)

    def decode_request(self, request: litserve.Request) -> Request:
        return Request(request["ue"], request["ues"], request["slot"], base64.b64decode(request["payload"]))

    def predict(self, requests: list[Request]) -> list[Tensor]:
        return self._decode(requests)

    def encode_response(self, estimates: Tensor) -> dict[str, int]:
        return {"reports": len(estimates)}


def main() -> None:
    """Serve until the process is ended."""
    asked = options(__doc__)
    server = litserve.LitServer(
        Decoding(asked), accelerator="cpu", devices=1, workers_per_device=1, timeout=False, fast_queue=True
    )
    server.run("127.0.0.1", asked.port, num_api_servers=1, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
