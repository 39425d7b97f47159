"""Every REST operation under generated requests: answers fit the schema, and nothing is a server error."""

from __future__ import annotations

import asyncio
import collections
import logging
import re
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method
from starlette.types import ASGIApp, Receive, Scope, Send

from gnb_server.app import service
from gnb_server.handlers import Attachment
from gnb_server.rest.access import Access
from gnb_server.rest.app import create_app
from gnb_server.settings import Settings
from gnb_server.uploads import Uploads
from shared.checkpoints import NAME, CheckpointStore

AIRS = ("", "loss=0.1", "ber=0.01,crc=6")
NAMES = ("hyperrnn", "rnn", "crnet", "nonsense")
SLOW = pytest.mark.slow
TOKEN = "an-open-secret"
BEARER = {"Authorization": f"Bearer {TOKEN}"}

schemathesis.openapi.media_type("application/zip", hypothesis.strategies.binary())

answered: collections.Counter[tuple[str, int]] = collections.Counter()


class TakingUploads:
    """Uploads would end, too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"].state.stopping = asyncio.Event()  # streams have theirs
        await self.app(scope, receive, send)


@pytest.fixture
def rest_app(small_store: CheckpointStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """With two UEs and a roll-out to ask for."""
    answered.clear()
    store = f"sqlite:///{tmp_path_factory.mktemp('rest') / 'gnb.sqlite'}"
    with service(Settings(checkpoints=small_store.root, store=store)) as handlers:
        checkpoint = small_store.load("rnn")
        handlers.attach(Attachment("rnn", str(checkpoint.scenario), 0, checkpoint.encoder_id, ue_count=2))
        handlers.swaps.load("hyperrnn", 1)
        handlers.swaps.start("hyperrnn", 3, "canary", 0.5, None)
        app = create_app(handlers, 10.0, access=Access(TOKEN), uploads=Uploads(small_store, 2**20))
        app.state.stopping.set()  # or a stream would never end
        app.add_middleware(TakingUploads)
        yield app


def settings(examples: int, steps: int = 50) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=examples <= 200,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def there(name: str, value: Any) -> Any:
    """Something like it that is there, if it is valid."""
    if name == "name" and isinstance(value, str) and re.fullmatch(NAME, value):
        return NAMES[len(value) % len(NAMES)]
    if type(value) is int and 0 < value < 10**9:
        return value % 2 if name == "ue" else value % 3 + 1
    return value


def schema_of(app: FastAPI) -> schemathesis.BaseSchema:
    """Most of the models, versions and UEs that are asked for are there."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)

    @schema.hook
    def map_path_parameters(_: schemathesis.HookContext, found: dict[str, Any] | None) -> dict[str, Any] | None:
        return found and {name: there(name, value) for name, value in found.items()}

    @schema.hook
    def map_body(_: schemathesis.HookContext, found: Any) -> Any:
        match found:
            case {"parameters": {"version": version, **others}}:
                return {**found, "parameters": {**others, "version": there("version", version)}}
            case {"model": model, "version": version, **others}:
                return {**others, "model": there("name", model), "version": there("version", version)}
            case {"air": str(air)} if len(air) <= 200:
                return {**found, "air": AIRS[len(air) % len(AIRS)]}
        return found

    return schema


def check(case: schemathesis.Case, response: Any) -> None:
    answered[case.operation.label, response.status_code] += 1
    may_be_unready = case.operation.label.endswith("/ready") and response.status_code == 503
    is_upload = case.operation.path == "/v1/checkpoints"  # bytes as they come are no archive
    excluded = [unsupported_method, *[not_a_server_error] * may_be_unready, *[positive_data_acceptance] * is_upload]
    case.validate_response(response, excluded_checks=excluded)


def validate(case: schemathesis.Case) -> None:
    check(case, case.call(headers=BEARER))


def all_is_well(caplog: pytest.LogCaptureFixture, *found: str) -> None:
    """Nothing in the log, and what was to be found there was found."""
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    for operation in found:
        assert answered[operation, 200], answered


@pytest.mark.parametrize("examples", [20, pytest.param(1000, marks=SLOW)])
def test_every_operation(rest_app: FastAPI, caplog: pytest.LogCaptureFixture, examples: int) -> None:
    operations = [found.ok() for found in schema_of(rest_app).get_all_operations()]
    assert len(operations) >= 22
    for operation in operations:
        settings(examples)(hypothesis.given(case=operation.as_strategy())(validate))()
    everything = hypothesis.strategies.one_of(operation.as_strategy() for operation in operations)
    settings(10 * examples)(hypothesis.given(case=everything)(validate))()  # in any order
    name = "/v2/models/{name}"
    load, unload = (f"POST /v2/repository/models/{{name}}/{action}" for action in ("load", "unload"))
    all_is_well(caplog, "GET /v1/ues/{ue}", f"GET {name}", f"GET {name}/versions/{{version}}", load, unload)
    all_is_well(caplog, "GET /v1/fleets/{ue}/air", "POST /v1/fleets/{ue}/air")
    all_is_well(caplog, "GET /v1/rollouts", "GET /v1/rollouts/{number}", "GET /v1/events")
    assert answered["POST /v1/rollouts/{number}/promote", 200] + answered["POST /v1/rollouts/{number}/abort", 200]


@pytest.mark.parametrize(("runs", "steps"), [(8, 15), pytest.param(300, 40, marks=SLOW)])
def test_what_answers_name_can_be_asked_for(
    rest_app: FastAPI, caplog: pytest.LogCaptureFixture, runs: int, steps: int
) -> None:
    class Machine(schema_of(rest_app).as_state_machine()):
        def get_call_kwargs(self, case: schemathesis.Case) -> dict[str, Any]:
            return {"headers": BEARER}

        def validate_response(self, response: Any, case: schemathesis.Case, **_: Any) -> None:
            check(case, response)

    run_state_machine_as_test(Machine, settings=settings(runs, steps))
    all_is_well(caplog, "GET /v1/ues/{ue}", "GET /v1/ues/{ue}/reports")
