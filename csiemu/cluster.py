"""A Ray cluster for commands that are given --ray: one that runs already, or one of this machine alone for as long as
the command runs. Ray is the extra `ray`, and imported when a command asks for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import threading
from collections.abc import Iterator

import grpc

from shared.errors import InvalidInput, NotReady
from shared.stopping import SIGNALS

AUTO = "auto"

ANSWER_S = 5.0
"""How long a cluster may take to answer [s]; Ray itself waits for minutes."""

_OF_A_NEW_ONE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
"""Variables of a cluster that is begun here: it reports nothing, and its processes are no slower than ours."""

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):[1-9][0-9]{0,4}")


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Ray is there to be used, `import ray`, and what runs by this driver ends with the context.

    Args:
        address: host:port of a running cluster, of which this machine is a node; or `auto`: the cluster of RAY_ADDRESS,
            else the one that `ray start` has begun on this machine, else a new one of this machine alone.

    Raises:
        InvalidInput: it is no address, or Ray is not installed.
        NotReady: no cluster answers there, or it does not take this machine, or wants a token that is not said.
    """
    if address != AUTO and not _ADDRESS.fullmatch(address):
        raise InvalidInput(f"ray: '{address}': wanted {AUTO}, or host:port of a cluster, an IPv6 host in brackets")
    try:
        import ray
        from ray._private.authentication import authentication_token_setup as tokens
        from ray._private.services import find_bootstrap_address
    except ImportError:
        raise InvalidInput(
            "ray: Ray is not installed; pip install 'csi-feedback-emulator[ray]', or go without --ray"
        ) from None
    named = os.environ.get("RAY_ADDRESS") if address == AUTO else address
    # of `ray start`: its file, which may be left from a cluster that is gone
    found = named or find_bootstrap_address(None)
    answer = _answer(found) if found is not None else None
    if answer is grpc.StatusCode.UNAUTHENTICATED and "RAY_AUTH_MODE" not in os.environ:
        # as Ray: an address that somebody names gets a token only if it is asked for
        if named or not tokens.maybe_enable_token_auth_if_token_available(warn_if_disabled=False):
            raise NotReady(
                f"ray: the cluster at {found} wants a token; wanted RAY_AUTH_MODE=token, and its token in"
                " RAY_AUTH_TOKEN or ~/.ray/auth_token"
            )
    elif answer is grpc.StatusCode.UNAVAILABLE:
        if named:
            raise NotReady(f"ray: no cluster answers at {named}; `ray start --head` begins one")
        found = None
    os.environ.update(_OF_A_NEW_ONE)
    try:
        with _own_signals():
            ray.init(
                found or "local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise NotReady(f"ray: {found or 'a cluster of this machine'}: {' '.join(str(error).split())}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _answer(address: str) -> grpc.StatusCode:
    """Whether a cluster's head serves there: OK, UNAUTHENTICATED where it does and wants a token, else UNAVAILABLE."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=ANSWER_S)
        except grpc.RpcError as error:
            wants_token = error.code() is grpc.StatusCode.UNAUTHENTICATED
            return grpc.StatusCode.UNAUTHENTICATED if wants_token else grpc.StatusCode.UNAVAILABLE
    return grpc.StatusCode.OK


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Our signal handlers are there again afterwards: Ray's for SIGTERM exits in the midst of what is being done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
