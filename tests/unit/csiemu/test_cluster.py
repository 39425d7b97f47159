"""Connecting to a Ray cluster, and what is said where there is none."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import ray

from csiemu.cluster import connected
from shared.errors import InvalidInput, NotReady
from shared.stopping import stopping
from tests.ray_cluster import start_cluster


def test_refused_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for address in ("nonsense", "ray://head:10001", "::1:6379", "head:", "head:0"):
        with pytest.raises(InvalidInput, match=f"ray: '{address}': wanted auto, or host:port of a cluster"):
            connected(address).__enter__()
    with pytest.raises(NotReady, match=r"ray: no cluster answers at 127\.0\.0\.1:9; `ray start --head` begins one"):
        connected("127.0.0.1:9").__enter__()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(NotReady, match=r"ray: no cluster answers at 127\.0\.0\.1:9"):
        connected("auto").__enter__()


@pytest.fixture
def refusing() -> Iterator[str]:
    """Address of a server that wants a token."""

    class Refusing(grpc.ServerInterceptor):
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            def refuse(_: Any, context: grpc.ServicerContext) -> None:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")

            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.server(ThreadPoolExecutor(1), interceptors=[Refusing()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def test_a_cluster_that_wants_a_token(refusing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(NotReady, match=f"ray: the cluster at {refusing} wants a token; wanted RAY_AUTH_MODE=token"):
        connected(refusing).__enter__()


def test_where_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidInput, match=r"ray: Ray is not installed; pip install 'csi-feedback-emulator\[ray\]'"):
        connected("auto").__enter__()


def test_a_cluster_that_runs_is_the_one_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = start_cluster(num_cpus=3, include_dashboard=False)
    try:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        with stopping():
            ours = signal.getsignal(signal.SIGTERM)
            with connected("auto"):
                assert ray.cluster_resources()["CPU"] == 3
                assert signal.getsignal(signal.SIGTERM) is ours  # Ray's would exit at once
            assert not ray.is_initialized()
        with connected(f"127.0.0.1:{cluster.address.rpartition(':')[2]}"):
            assert ray.cluster_resources()["CPU"] == 3
    finally:
        cluster.shutdown()
