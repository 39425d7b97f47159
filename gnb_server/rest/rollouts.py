"""REST over roll-outs and the events of models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field

from gnb_server.handlers import Handlers
from gnb_server.rest.access import who
from gnb_server.rest.models import Strict
from gnb_server.rollouts import Guard
from shared.checkpoints import NAME

Number = Annotated[int, Path(ge=1, lt=2**31, description="number of a roll-out")]


class GuardAsked(Strict):
    """When a roll-out ends by itself."""

    worse_db: float = Field(default=0.2, ge=0, le=100, description="abort when it is worse by more than this [dB]")
    better_db: float | None = Field(
        default=0.0, ge=0, le=100, description="promote when it is better by more than this [dB]; null: people do"
    )
    standard_errors: float = Field(
        default=3.0, ge=0, le=100, description="that must lie between the difference and these limits"
    )
    frames: int = Field(default=200, ge=2, le=10**9, description="whole frames of each version before a decision")


class RolloutAsked(Strict):
    """Body of POST /v1/rollouts."""

    model: str = Field(pattern=f"^{NAME}$", description="checkpoint name")
    version: int = Field(ge=1, lt=10**9)
    mode: Literal["shadow", "canary"] = Field(
        default="canary",
        description="shadow: decodes every report beside the old version of the same encoder; canary: some UEs use it",
    )
    share: float = Field(default=0.1, gt=0, lt=1, description="of the UEs that a canary is for")
    guard: GuardAsked | None = Field(default_factory=GuardAsked, description="null: people decide")


class Difference(BaseModel):
    """The new version beside the old one, by whole frames; means of ratios, of precoders of 1 - SGCS."""

    frames_new: int
    frames_old: int
    nmse_db_new: float | None
    nmse_db_old: float | None
    difference_db: float | None = Field(description="new minus old [dB]: below 0 where the new version is better")
    standard_error_db: float | None = Field(description="of the difference; of a shadow, of paired frames")


class UesOn(BaseModel):
    """UEs of the model by version."""

    assigned: int = Field(description="that are to use the new version")
    new: int = Field(description="whose open or last frame is of the new version")
    old: int = Field(description="whose open or last frame is of the old one")
    refused: int = Field(description="that are to use the new version and do not; /v1/ues says why")


class RolloutAnswer(BaseModel):
    """A roll-out."""

    number: int
    model: str
    version: int
    old_version: int
    mode: str
    share: float
    guard: GuardAsked | None
    state: Literal["running", "promoted", "aborted"]
    reason: str = Field(description="of the decision")
    failure: str = Field(description="why the new version could not decode, if so")
    by: str = Field(description="who asked for it")
    started_at: float = Field(description="seconds since 1970")
    decided_at: float | None
    figures: Difference
    ues: UesOn


class RolloutsAnswer(BaseModel):
    """Answer of GET /v1/rollouts."""

    rollouts: list[RolloutAnswer] = Field(description="the newest first")


class Event(BaseModel):
    """Something that happened to a model."""

    number: int
    at: float = Field(description="seconds since 1970")
    kind: str = Field(
        description="loaded, unloaded, refused, shadow, canary, promoted, aborted, switched, not switched, retired, ..."
    )
    model: str
    version: str
    by: str = Field(description="who asked for it")
    text: str


class EventsAnswer(BaseModel):
    """Answer of GET /v1/events."""

    events: list[Event] = Field(description="the oldest first")


def router(handlers: Handlers, changing: dict[str, Any]) -> APIRouter:
    """The routes; `changing` are the arguments of those that change something."""
    routes, swaps = APIRouter(), handlers.swaps

    @routes.get("/v1/rollouts", response_model=RolloutsAnswer)
    def rollouts() -> dict[str, Any]:
        """All roll-outs of the run."""
        return {"rollouts": [swaps.describe(rollout) for rollout in reversed(swaps.rollouts.all())]}

    @routes.post("/v1/rollouts", response_model=RolloutAnswer, status_code=201, **changing)
    def start(request: Request, body: RolloutAsked) -> dict[str, Any]:
        """Begin a roll-out: a new version beside the one in service."""
        guard = None if body.guard is None else Guard(**body.guard.model_dump())
        rollout = swaps.start(body.model, body.version, body.mode, body.share, guard, who(request))
        return swaps.describe(rollout)

    @routes.get("/v1/rollouts/{number}", response_model=RolloutAnswer)
    def rollout(number: Number) -> dict[str, Any]:
        """A roll-out, with its figures so far."""
        return swaps.describe(swaps.rollouts.get(number))

    @routes.post("/v1/rollouts/{number}/promote", response_model=RolloutAnswer, **changing)
    def promote(request: Request, number: Number) -> dict[str, Any]:
        """Have all UEs use the new version."""
        return swaps.describe(swaps.promote(number, who(request)))

    @routes.post("/v1/rollouts/{number}/abort", response_model=RolloutAnswer, **changing)
    def abort(request: Request, number: Number) -> dict[str, Any]:
        """Bring all UEs back to the old version."""
        return swaps.describe(swaps.abort(number, who(request)))

    @routes.get("/v1/events", response_model=EventsAnswer)
    def events(
        after: Annotated[int, Query(ge=0, lt=2**31, description="only events with a larger number")] = 0,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    ) -> dict[str, Any]:
        """What happened to models, the newest `limit` events: who loaded, rolled out, switched, refused, retired."""
        return {"events": handlers.events(after, limit)}

    return routes
