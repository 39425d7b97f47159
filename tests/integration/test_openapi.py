"""Every REST operation under generated requests: answers fit the schema, and nothing is a server error."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI

from gnb_server.app import service
from gnb_server.rest.app import create_app
from gnb_server.settings import Settings
from shared.checkpoints import CheckpointStore


@pytest.fixture(scope="module")
def rest_app(small_store: CheckpointStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    store = f"sqlite:///{tmp_path_factory.mktemp('rest') / 'gnb.sqlite'}"
    with service(Settings(checkpoints=small_store.root, store=store)) as handlers:
        yield create_app(handlers, 10.0)


def test_every_operation(rest_app: FastAPI) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", rest_app).exclude(path="/v1/stream")  # never ends
    methods_not_listed = schemathesis.checks.CHECKS.get_one("unsupported_method")
    tried = 0
    for found in schema.get_all_operations():

        @hypothesis.settings(max_examples=15, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
        @hypothesis.given(case=found.ok().as_strategy())
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(excluded_checks=[methods_not_listed])

        check()
        tried += 1
    assert tried >= 14
