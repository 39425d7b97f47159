"""The gNB process: one event loop for gRPC and REST, one serving thread, one store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections.abc import Iterator

import uvicorn

from gnb_server.calibration import Calibrator
from gnb_server.evaluator import CardCheck, Evaluator
from gnb_server.faults import Faults
from gnb_server.figures_log import FiguresLog
from gnb_server.grading import Grader
from gnb_server.handlers import Handlers
from gnb_server.history import History
from gnb_server.monitor import Clock, Monitor
from gnb_server.monitoring.watch import Watch
from gnb_server.openvino import check_backend
from gnb_server.recorder import Recorder
from gnb_server.repository import Repository
from gnb_server.rest.access import Access
from gnb_server.rest.app import create_app
from gnb_server.rollouts import Rollouts
from gnb_server.rpc import GrpcServer, bracketed, server_credentials
from gnb_server.serving.execution import Executor, InProcessExecutor
from gnb_server.serving.loop import ServingLoop
from gnb_server.serving.monitoring import Monitoring
from gnb_server.serving.workers import Workers
from gnb_server.settings import Settings
from gnb_server.snapshots import Snapshots
from gnb_server.store import Store
from gnb_server.uploads import Uploads
from shared.checkpoints import CheckpointStore
from shared.errors import Conflict, InvalidInput, StoreUnavailable
from shared.link.precision import fast_in_bf16
from shared.tls import read_authorities, read_identity

HEALTH_S = 1.0
"""How often gRPC's health follows what the gNB can do, roll-outs and silent fleets are looked at, and the log may get
figures."""

STORE_PAUSE_S = 1.0
"""Between two attempts to reach a store that is away."""

UNTOLD = {"token", "token_file", "tls_key", "store", "ready_file"}
"""Settings that do not go into a report: secrets and where they are, and what says nothing about the run."""


@contextlib.contextmanager
def service(settings: Settings, clock: Clock = time.monotonic, store: Store | None = None) -> Iterator[Handlers]:
    """The gNB without its protocols: handlers over a running serving loop, earlier fleets of the run restored.

    Args:
        clock: monotonic [s]. store: the one of the settings, if it is open.
    """
    executor = _executor(settings, clock)
    with contextlib.closing(executor), _decoding_by(executor, settings, clock, store) as handlers:
        yield handlers


def _executor(settings: Settings, clock: Clock) -> Executor:
    """What decodes and compares."""
    if settings.workers:
        return Workers(settings.workers, evaluate=settings.evaluate)
    return InProcessExecutor(Evaluator() if settings.evaluate else None, clock)


@contextlib.contextmanager
def _decoding_by(executor: Executor, settings: Settings, clock: Clock, store: Store | None) -> Iterator[Handlers]:
    """As `service`, over an executor."""
    check_backend(settings.backend)
    checkpoints = CheckpointStore(settings.checkpoints)
    repository = Repository(checkpoints, settings.precision, executor.load, executor.unload, settings.backend)
    if settings.precision == "bf16" and not fast_in_bf16():
        logging.warning("precision: bf16, for which this processor has no instructions; fp32 is faster here")
    store = store or Store(settings.store, settings.run, settings.reports_kept)
    store.own()
    monitor = Monitor(clock)
    recorder = None
    if settings.record:
        recorder = Recorder(
            settings.record, settings.record_every, settings.precision, whole_band=settings.record_whole_band
        )
    rollouts, snapshots = Rollouts(), Snapshots(clock=clock)
    history = History(store, monitor, repository)
    monitoring = None
    if settings.monitoring and settings.evaluate:
        calibrator = Calibrator(repository.store, settings.precision)
        watch = Watch(calibrator, settings.false_alarms, settings.alarm_window)
        grader = Grader(calibrator.expected, settings.alarm_margin_db, settings.alarm_window)
        monitoring = Monitoring(watch, grader)
    serving = ServingLoop(
        repository,
        executor,
        store,
        monitor,
        rollouts,
        recorder=recorder,
        snapshots=snapshots,
        monitoring=monitoring,
        faults=Faults(settings.fault),
        evaluate=settings.evaluate,
        late_s=settings.late_s if settings.late == "drop" else None,
        clock=clock,
    )
    handlers = Handlers(
        repository,
        store,
        monitor,
        serving,
        rollouts,
        CardCheck(repository.store),
        history.tick,
        snapshots=snapshots,
        monitoring=monitoring,
        evict_s=settings.evict_s,
        clock=clock,
    )
    serving.start()
    try:
        for problem in handlers.restore():
            logging.error("not restored: %s", problem)
        history.begin(settings.model_dump(mode="json", exclude=UNTOLD))
        handlers.started = True
        yield handlers
    finally:
        handlers.started = False
        serving.close()
        if monitoring is not None:
            monitoring.watch.close()
        with contextlib.suppress(StoreUnavailable):
            handlers.swaps.keep_figures()
            history.note()
        store.close()


class _RestServer(uvicorn.Server):
    """uvicorn without its own signal handlers: the process has one for both servers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _family(host: str) -> socket.AddressFamily:
    """IPv4 if the host has such an address, else IPv6. Raises InvalidInput."""
    try:
        families = {found[0] for found in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)}
        return socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    except OSError as error:
        raise InvalidInput(f"host: '{host}' is no address of this machine: {error.strerror}") from None


async def _opened(settings: Settings) -> Store:
    """The store; one that is away is waited for. Raises InvalidInput; StoreUnavailable: it is away for too long."""
    deadline, told = time.monotonic() + settings.store_wait_s, False
    while True:
        try:
            return await asyncio.to_thread(Store, settings.store, settings.run, settings.reports_kept)
        except StoreUnavailable as error:
            if time.monotonic() >= deadline:
                raise
            if not told:
                logging.warning("%s; it is waited for, %g s at most", error, settings.store_wait_s)
            told = True
        await asyncio.sleep(STORE_PAUSE_S)


async def serve(settings: Settings) -> None:
    """Serve until cancelled."""
    family, access = _family(settings.host), Access(settings.access_token())
    identity = read_identity(settings.tls_certificate, settings.tls_key)
    client_ca = read_authorities("tls_client_ca", settings.tls_client_ca)
    if client_ca is not None and identity is None:
        raise InvalidInput(f"tls_client_ca: {settings.tls_client_ca}, and no tls_certificate; wanted both")
    with service(settings, store=await _opened(settings)) as handlers, socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.rest_port))
        except OSError as error:
            raise Conflict(f"rest_port: {settings.host}:{settings.rest_port} cannot be had: {error.strerror}") from None
        uploads = Uploads(CheckpointStore(settings.checkpoints), settings.upload_mib * 2**20)
        uploads.clear()
        app = create_app(handlers, settings.window_s, settings.stream_clients, access, uploads)
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            timeout_graceful_shutdown=1,
            http="h11",  # the same parser, whatever else is installed
            ws="none",
            proxy_headers=False,  # a client is who is connected, whatever X-Forwarded-For says
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
        rest = _RestServer(config)
        credentials = server_credentials(identity, client_ca)
        grpc_server = GrpcServer(handlers, settings.host, settings.grpc_port, credentials)
        await grpc_server.start()
        rest_task = asyncio.create_task(rest.serve([listener]))
        while not rest.started and not rest_task.done():
            await asyncio.sleep(0.01)
        addresses = {
            "grpc": f"{bracketed(settings.host)}:{grpc_server.port}",
            "rest": f"{bracketed(settings.host)}:{listener.getsockname()[1]}",
        }
        logging.info("REST on http%s://%s; %s", "s" if identity else "", addresses["rest"], access.rule)
        if settings.ready_file:
            partial = settings.ready_file.with_suffix(".partial")
            partial.write_text(json.dumps(addresses))
            partial.replace(settings.ready_file)
        figures = FiguresLog(
            lambda window_s: handlers.nmse(window_s=window_s, by_version=True)["schemes"], settings.log_figures_s
        )
        try:
            while not (await asyncio.wait([rest_task], timeout=HEALTH_S))[0]:
                await grpc_server.say(ready=await asyncio.to_thread(handlers.tick))
                await asyncio.to_thread(figures.tick)
        finally:
            handlers.started = False
            await grpc_server.stop()
            app.state.stopping.set()
            rest.should_exit = True
            await rest_task
