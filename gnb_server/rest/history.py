"""REST over how a run went."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gnb_server.handlers import Handlers
from gnb_server.monitor import LONGEST_WINDOW_S

Window = Annotated[float | None, Query(gt=0, le=LONGEST_WINDOW_S, description="sliding window [s]; else the stream's")]
Since = Annotated[float, Query(ge=0, le=1e12, description="only what was later [s since 1970]")]

Cell = Annotated[
    str | None,
    Query(description="a run of the gNB's store, as it is stored; without it the gNB's own run, and how it is now"),
]


class Series(BaseModel):
    """Figures of a scheme, version and air at the times of the answer; null where nothing of it was decoded."""

    scheme: str
    version: int
    encoder_id: str
    preset: str = Field(description="of the scenarios, whatever fields UEs have chosen, over all seeds")
    air: str | None = Field(description="empty: undisturbed; null: all but the first 16 of the run")
    reports: list[int | None]
    nmse_db: list[float | None] = Field(description="mean of ratios [dB]")
    ratio_of_sums_db: list[float | None]
    sgcs: list[float | None]


class HistoryAnswer(BaseModel):
    """Answer of GET /v1/history."""

    cell: str = Field(description="whose figures these are")
    window_s: float
    times: list[float] = Field(description="ends of the window, K of them [s since 1970]")
    reports_per_s: list[float] = Field(description="decoded, over all schemes")
    dropped_per_s: list[float]
    series: list[Series] = Field(description="K figures each")


def router(handlers: Handlers, window_s: float) -> APIRouter:
    """The route; `window_s`: of the live stream [s]."""
    routes = APIRouter()

    @routes.get("/v1/history", response_model=HistoryAnswer)
    def history(window: Window = None, since: Since = 0.0, cell: Cell = None) -> dict[str, Any]:
        """Figures of the whole run over a sliding window, at 360 times at most, which the store keeps, and now; or of
        another gNB's run in the same store.
        """
        return handlers.history(window or window_s, since, cell)

    return routes
