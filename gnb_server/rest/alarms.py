"""REST over the monitoring: alarms, what is watched, and, apart from both, what only the emulator knows of them."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from gnb_server.handlers import Handlers

TRUTH = "no real gNB could know this: it is measured against the true channels; null where nothing is"


class Grade(BaseModel):
    """Whether an alarm was right."""

    verdict: Literal["right", "false"] = Field(
        description="right: in the window that raised it the true NMSE was worse than usual, by alarm_margin_db"
    )
    nmse_db: float = Field(description="true NMSE of that window, mean of ratios [dB]; of precoders of 1 - SGCS")
    usual_nmse_db: float = Field(description="of the reference of the fleet's first version [dB]")
    reports_late: int | None = Field(description="from when it got worse to the alarm; null of a false one")


class OfFleet(BaseModel):
    """A fleet's reports by one version."""

    model: str
    version: int
    first_ue: int
    ue_count: int


class AlarmAnswer(OfFleet):
    """An indicator that is, or was, not as usual."""

    number: int
    indicator: str
    meaning: str
    text: str = Field(description="whose reports it is of, and what they are like, for people")
    unit: str
    value: float = Field(description="mean of the window of frames that raised it")
    usual: float = Field(description="mean of the version's reference")
    limit: float = Field(description="how far a healthy window's mean is from it at most")
    report: int = Field(description="watched reports of the fleet by the version until it was raised")
    raised_at: float = Field(description="seconds since 1970")
    cleared_at: float | None = Field(description="null while it is on")
    ended: str = Field(description="why it is not on any more")
    emulator_truth: Grade | None = Field(description=TRUTH)


class IndicatorRow(BaseModel):
    """An indicator's newest full window."""

    indicator: str
    unit: str
    value: float
    usual: float
    limit: float
    exceeds: bool


class WindowsRow(BaseModel):
    """Windows of frames by what became of them."""

    right: int = Field(description="bad, with an alarm on")
    false: int = Field(description="not bad, with an alarm on")
    missed: int = Field(description="bad, without one")
    quiet: int = Field(description="not bad, without one")


class TruthRow(BaseModel):
    """What the windows really were."""

    nmse_db: float | None = Field(description="of the newest full window [dB]")
    usual_nmse_db: float
    windows: WindowsRow


class WatchedRow(OfFleet):
    """What is made of them."""

    state: str = Field(description="watched, or why not")
    frames: int = Field(description="that were judged")
    target_reports: int = Field(description="target CSI that came")
    target_bits: int | None = Field(description="feedback bits of each, which no other figure counts")
    indicators: list[IndicatorRow]
    emulator_truth: TruthRow | None = Field(description=TRUTH)


class AlarmsAnswer(BaseModel):
    """Answer of GET /v1/alarms."""

    alarms: list[AlarmAnswer] = Field(description="the newest first, of this process")
    watched: list[WatchedRow]


def router(handlers: Handlers) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.get("/v1/alarms", response_model=AlarmsAnswer)
    def alarms() -> dict[str, Any]:
        """Alarms of the monitoring and the newest values of all that is watched."""
        return handlers.alarms()

    return routes
