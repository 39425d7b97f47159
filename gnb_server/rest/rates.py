"""REST over the rates of fleets: how many bits their reports may take."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field

from gnb_server.handlers import Handlers
from gnb_server.rest.access import who
from gnb_server.rest.models import Strict
from shared.link.rate import MOST_BITS, MOST_STEPS, Rate

FleetUe = Annotated[int, Path(ge=0, lt=2**32, description="id of a UE of the fleet, the first for example")]


class RateAsked(Strict):
    """Body of POST /v1/fleets/{ue}/rate; nothing set: the scheme's own rate."""

    bits: int | None = Field(default=None, ge=1, le=MOST_BITS, description="most bits of a report, all fields counted")
    step: int | None = Field(default=None, ge=0, lt=MOST_STEPS, description="index of the finest step of a report")
    target_nmse_db: float | None = Field(
        default=None, ge=-60, le=0, description="the gNB chooses each UE's step, to hold this with the fewest bits"
    )


class UesAsked(BaseModel):
    """UEs that are asked for the same."""

    first_ue: int
    ue_count: int
    bits: int
    step: int


class RateAnswer(BaseModel):
    """The rate of a fleet, and which it can have."""

    scheme: str
    first_ue: int
    ue_count: int
    rate: RateAsked
    asked: list[UesAsked] = Field(description="what that comes to for its UEs; of none it is the scheme's own rate")
    least_bits: int
    most_bits: int
    steps: int = Field(description="steps that a report may choose from, the finest last; 0: it has no choice")


def router(handlers: Handlers, changing: dict[str, Any]) -> APIRouter:
    """The routes; `changing` are the arguments of those that change something."""
    routes = APIRouter()

    @routes.get("/v1/fleets/{ue}/rate", response_model=RateAnswer)
    def rate(ue: FleetUe) -> dict[str, Any]:
        """What the reports of a fleet may take."""
        return handlers.rate(ue)

    @routes.post("/v1/fleets/{ue}/rate", response_model=RateAnswer, **changing)
    def set_rate(request: Request, ue: FleetUe, body: RateAsked) -> dict[str, Any]:
        """Have the reports of a fleet take more or fewer bits, from the UEs' next frames on; nothing is lost."""
        return handlers.set_rate(ue, Rate(**body.model_dump()), who(request))

    return routes
