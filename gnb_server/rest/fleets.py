"""REST over the fleets that a gNB holds: what each is to send and is served; its rate and link can be changed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gnb_server.handlers import Handlers
from gnb_server.rest.models import HELD, OFFERED, Age, Latency, Queueing, World


class FleetListed(World):
    """A fleet in /v1/fleets; rates and delays of the last 10 to 20 s."""

    first_ue: int
    ue_count: int
    status: str = Field(description="attached, idle (and silent) or gone (its stream ended)")
    offered_reports_per_s: float | None = OFFERED
    reports_per_s: float
    rate_held: bool | None = HELD
    limited_by: Literal["gNB", "UE"] | None = Field(
        description="of a rate that is not held: gNB, if its UEs wait for acks, or the UEs; null: not known"
    )
    latency_ms: Latency
    queue_ms: Queueing
    age_ms: Age


class FleetsAnswer(BaseModel):
    """Answer of GET /v1/fleets."""

    fleets: list[FleetListed]
    total: int


def router(handlers: Handlers) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.get("/v1/fleets", response_model=FleetsAnswer)
    def fleets(
        offset: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=100_000)] = 1000
    ) -> dict[str, Any]:
        """Fleets by their first UE: those that have not detached, nor been gone for long."""
        return handlers.fleets(offset, limit)

    return routes
