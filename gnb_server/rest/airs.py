"""REST over the airs of fleets: what the simulated link does to their reports, while it runs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from gnb_server.handlers import Handlers
from gnb_server.rest.access import who
from gnb_server.rest.models import Strict
from gnb_server.rest.rates import FleetUe
from shared.link.air import Air

DESCRIBED = (
    "ber=1e-3,loss=0.1,burst=5,crc=16,policy=last,state=continue,delay=2, all of them or some; empty: undisturbed"
)


class AirAsked(Strict):
    """Body of POST /v1/fleets/{ue}/air."""

    air: str = Field(max_length=200, description=DESCRIBED)


class AirFrom(BaseModel):
    """An air, and the frame from which on reports come over it."""

    air: str = Field(description="what differs from an undisturbed link; empty: nothing")
    from_frame: int


class AirAnswer(AirFrom):
    """The air of a fleet."""

    scheme: str
    first_ue: int
    ue_count: int
    history: list[AirFrom] = Field(description="since the fleet attached, the present one last")


def router(handlers: Handlers, changing: dict[str, Any]) -> APIRouter:
    """The routes; `changing` are the arguments of those that change something."""
    routes = APIRouter()

    @routes.get("/v1/fleets/{ue}/air", response_model=AirAnswer)
    def air(ue: FleetUe) -> dict[str, Any]:
        """What the simulated link does to the reports of a fleet, and did before."""
        return handlers.air(ue)

    @routes.post("/v1/fleets/{ue}/air", response_model=AirAnswer, **changing)
    def set_air(request: Request, ue: FleetUe, body: AirAsked) -> dict[str, Any]:
        """Have the link do something else to the reports of a fleet, from the next frame on that none of its UEs has
        begun.
        """
        return handlers.set_air(ue, Air.parse(body.air), who(request))

    return routes
