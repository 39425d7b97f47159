"""A decoder behind Ray Serve: its throughput-optimised mode, where gRPC calls go straight to the replica."""

from __future__ import annotations

import os
from typing import Any

import grpc

from csiemu.benchmarks.peers.decoder import BATCH_WAIT_S, PeerDecoder, Request, free_port, options
from protos.csi_feedback.v1 import csi_feedback_pb2 as pb

METHOD = "/csiemu.Peer/Decode"


def add_decoder_to_server(servicer: Any, server: grpc.Server) -> None:
    """As generated code does for a service of one call: a FeedbackRequest of one slot, answered by an Ack."""
    handler = grpc.unary_unary_rpc_method_handler(
        servicer.Decode, pb.FeedbackRequest.FromString, pb.Ack.SerializeToString
    )
    service, method = METHOD.strip("/").split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))


def main() -> None:
    """Serve until the process is ended."""
    asked = options(__doc__)
    os.environ |= {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(asked.port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(asked.port + 1),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    import ray  # an extra; reads the variables
    from ray import serve

    ray.init(address="local", num_cpus=2, include_dashboard=False, _temp_dir=str(asked.folder))
    proxy = {
        "port": free_port(),
        "grpc_servicer_functions": ["csiemu.benchmarks.peers.ray_serve.add_decoder_to_server"],
    }
    serve.start(proxy_location="Disabled", grpc_options=proxy)

    class Decoding:
        def __init__(self) -> None:
            self._decode = PeerDecoder(asked)

        @serve.batch(max_batch_size=asked.batch, batch_wait_timeout_s=BATCH_WAIT_S)
        async def Decode(self, requests: list[Any]) -> list[Any]:
            found = self._decode([Request(r.first_ue, r.ue_count, r.first_slot, r.payload) for r in requests])
            return [pb.Ack(ue_count=len(estimates)) for estimates in found]

    deployment = serve.deployment(max_ongoing_requests=2 * asked.ues, logging_config={"enable_access_log": False})
    serve.run(deployment(Decoding).bind(), route_prefix=None, blocking=True)


if __name__ == "__main__":
    main()
