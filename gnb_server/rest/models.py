"""What REST answers, as pydantic models; field meanings stand in /docs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from gnb_server.hardening import shorten


class Averages(BaseModel):
    """NMSE and SGCS; standard errors over independent frames; null where there are too few reports, and every NMSE of
    precoders, which have no scale.
    """

    reports: int = Field(description="reports decoded, evaluated and stored")
    nmse_db: float | None = Field(description="mean of ratios: 10 log10 mean(||e||^2/||h||^2) [dB]")
    nmse_se_db: float | None = Field(description="standard error of nmse_db [dB]")
    ratio_of_sums_db: float | None = Field(description="10 log10(sum ||e||^2 / sum ||h||^2) [dB]")
    ratio_of_sums_se_db: float | None
    mean_of_db: float | None = Field(description="mean of 10 log10(||e||^2/||h||^2) [dB]")
    mean_of_db_se: float | None
    sgcs: float | None = Field(description="mean |h_hat^H h|^2 / (||h_hat||^2 ||h||^2): beamforming gain, 0..1")
    sgcs_se: float | None
    rho: float | None = Field(description="mean |h_hat^H h| / (||h_hat|| ||h||), over subcarriers or subbands too")
    rho_se: float | None
    nmse_sf_db: float | None = Field(description="nmse_db in the full spatial-frequency domain [dB]")
    nmse_sf_se_db: float | None
    truncation_floor_db: float | None = Field(description="nmse_sf_db of a perfect estimate; null: nothing is cut off")


class SlotAverages(Averages):
    """Averages over one slot of the frame."""

    slot: int = Field(description="slot of the frame, 1..T")


class Latency(BaseModel):
    """From a chunk's arrival at the gNB to when it was decoded [ms]; without a window, over the last 600 s."""

    mean: float | None
    p50: float | None
    p99: float | None


class Queueing(BaseModel):
    """From a chunk's arrival at the gNB to when its turn to be decoded came [ms]; without a window, over the last
    600 s.
    """

    mean: float | None
    p50: float | None
    p99: float | None


class Age(BaseModel):
    """From when a UE measured a channel to when the gNB had its estimate [ms]: what the UE waited until it sent the
    report, by its clock, and the latency, by the gNB's; the time between, on the network, is not in it. Null where UEs
    do not say. Without a window, over the last 600 s.
    """

    mean: float | None
    p50: float | None
    p99: float | None


OFFERED = Field(
    description="what UEs that are attached are to send, those that say so; null: none does, or they send as fast as"
    " they can"
)

HELD = Field(
    description="whether offered_reports_per_s are served, by each of the fleets, over their last 10 s (10 slots if"
    " these are longer); null: not known (yet)"
)


class LengthClass(BaseModel):
    """Reports whose feedback bits are in [least, most]."""

    least: int
    most: int
    reports: int


class World(BaseModel):
    """What every NMSE of a UE is to be named with."""

    scheme: str = Field(description="checkpoint name")
    encoder_id: str = Field(description="of the encoder that made the reports, 16 hexadecimal digits")
    scenario: str
    seed: int
    delay_slots: int = Field(description="slots between a report and the channel that it is compared with")
    air: str | None = Field(default=None, description="what the simulated link does to reports; null: nothing")
    domain: str


class Figures(World, Averages):
    """Figures over all slots and by slot."""

    model_config = ConfigDict(extra="allow")

    average: str = Field(description="which average nmse_db is")
    frames: int = Field(description="complete frames")
    by_slot: list[SlotAverages]
    feedback_bits: float | None = Field(description="bits of one report, packed: their mean; null of no reports")
    feedback_bits_p5: int | None = Field(
        description="5 % of the reports have at most so many; of one UE: of those kept"
    )
    feedback_bits_p95: int | None
    feedback_bits_most: int | None
    feedback_bits_total: int
    feedback_bits_histogram: list[LengthClass]
    wire_bytes: float | None = Field(description="bytes of one report on the wire: message and gRPC prefix, shared")
    wire_bytes_total: float
    latency_ms: Latency


class SchemeFigures(Figures):
    """Figures of all UEs of a scheme."""

    version: int | None = Field(
        default=None,
        description="with by=version: that decoded the reports; null: UEs that have sent none yet, and dropped ones",
    )
    dropped: int = Field(description="reports that came too late and were not decoded")
    air_corrupted: int = Field(description="reports that were decoded with bits that the air had flipped")
    air_detected: int = Field(description="reports whose damage was seen: erased")
    air_lost: int = Field(description="reports that were lost on the air: erased")
    ues: int = Field(description="whose open or last frame is of the encoder (and version), or that have not begun")
    ues_attached: int
    reports_per_s: float = Field(description="served, over the window; without one, over the last 600 s")
    offered_reports_per_s: float | None = OFFERED
    rate_held: bool | None = HELD
    queue_ms: Queueing
    age_ms: Age
    aged_reports: int = Field(
        description="compared so: whose age and slot duration, 1 / rate, are known; of those that are a slot old or"
        " older, every 8th frame's, which stand for all"
    )
    aged_nmse_db: float | None = Field(
        description="nmse_db against the channel of the slot in which the estimate was ready [dB]: real time"
        " decides, so that it is a measurement"
    )
    aged_sgcs: float | None = Field(description="sgcs against that channel")
    saturated_scales: int = Field(
        description="reports decoded since the gNB started whose scale is at an end of its range"
    )
    decoder_versions: dict[str, int] = Field(description="reports by decoder version, since the start of the run")


class UeFigures(Figures):
    """Figures of one UE, in total or of its kept reports within a window."""

    ue: int
    status: str = Field(description="attached, idle (and silent), gone (its stream ended) or finished (it detached)")
    next_sequence: int
    decoder_version: int = Field(description="of the open or last frame; 0: none yet, or reports of it were dropped")
    dropped: int = Field(description="reports that came too late and were not decoded, since the start of the run")


class Overall(BaseModel):
    """Sums over all schemes shown. Their NMSEs are not averaged: they belong to different scenarios and bits."""

    ues: int
    ues_attached: int
    reports: int
    dropped: int
    air_corrupted: int
    air_detected: int
    air_lost: int
    reports_per_s: float
    offered_reports_per_s: float | None = OFFERED
    rate_held: bool | None = HELD
    feedback_bits_total: int
    wire_bytes_total: float
    latency_ms: Latency
    queue_ms: Queueing
    age_ms: Age


class NmseAnswer(BaseModel):
    """Answer of /v1/nmse."""

    cell: str = Field(description="name of the gNB's run (--run): a gNB has one cell")
    cells: list[str] = Field(description="whose reports these are the figures of: its own cell, or those asked for")
    at: float = Field(description="seconds since 1970")
    window_s: float | None = Field(description="sliding window [s]; null: all reports")
    schemes: list[SchemeFigures | UeFigures]
    overall: Overall | None = Field(description="null where one UE was asked for")


class UeListed(World):
    """A UE in /v1/ues."""

    ue: int
    status: str
    next_sequence: int
    decoder_version: int
    assigned_version: int | None = Field(description="that its frames are to begin on; null: any for its encoder")
    switch: str = Field(description="asked: it has not said yet whether it takes its encoder; else why it does not")
    reports: int
    dropped: int
    nmse_db: float | None = Field(
        description="of all reports of its encoder, mean of ratios [dB]; null of precoders, which have no scale"
    )
    sgcs: float | None
    offered_reports_per_s: float | None = Field(
        description="that this UE is to send; null: it does not say, or sends as fast as it can"
    )
    rate_held: bool | None = HELD


class UesAnswer(BaseModel):
    """Answer of /v1/ues."""

    ues: list[UeListed]
    total: int


class Report(BaseModel):
    """One decoded report."""

    sequence: int
    slot: int
    frame: int
    nmse: float | None = Field(description="||e||^2/||h||^2, linear; null for precoders, which have no scale")
    nmse_db: float | None = Field(description="the same [dB]")
    nmse_sf_db: float | None = Field(description="nmse_db in the full spatial-frequency domain [dB]")
    sgcs: float
    rho: float
    decoder_version: int
    feedback_bits: int
    air: str | None = Field(description="what the simulated link did to reports; null: nothing")
    fate: str | None = Field(
        description="what became of it there: received, corrupted (and decoded as it came), detected (damage that was"
        " seen) or lost, both of which are erased; null: not known, an earlier program stored it"
    )
    latency_ms: float
    received_at: float = Field(description="seconds since 1970")


class ReportsAnswer(World):
    """Answer of /v1/ues/{id}/reports."""

    ue: int
    reports: list[Report]


class ChannelReport(BaseModel):
    """Estimate and true channel of one report: magnitudes by row and column, in units of the truth's largest."""

    sequence: int
    decoder_version: int
    received_at: float = Field(description="seconds since 1970")
    rows: str = Field(description="what a row is: subcarrier, delay or subband")
    columns: str = Field(description="what a column is: angle (DFT over antennas) or antenna port")
    truth: list[list[float]]
    estimate: list[list[float]]


class ChannelAnswer(World):
    """Answer of /v1/ues/{id}/channel."""

    ue: int
    status: str
    report: ChannelReport | None = Field(description="null until a report is decoded since the UE was first asked for")


class Liveness(BaseModel):
    """Answer of /v2/health/live."""

    live: bool


class Readiness(BaseModel):
    """Answer of the ready calls."""

    ready: bool


class ServerAnswer(BaseModel):
    """Answer of /v2."""

    name: str
    version: str
    extensions: list[str] = Field(description="of the Open Inference Protocol")


class ModelAnswer(BaseModel):
    """Answer of /v2/models/{name}."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    parameters: dict[str, Any]


class IndexRow(BaseModel):
    """A version in the model repository."""

    name: str
    version: str
    state: str
    reason: str


class Strict(BaseModel):
    """Part of a request: names what it does not know."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _all_known(cls, found: Any) -> Any:
        unknown = sorted(map(str, found.keys() - cls.model_fields)) if isinstance(found, dict) else []
        if unknown:
            names = {"unknown": shorten(unknown[0]), "known": ", ".join(cls.model_fields)}
            raise PydanticCustomError("unknown", "'{unknown}' is unknown; known are {known}", names)
        return found


class IndexRequest(Strict):
    """Body of /v2/repository/index."""

    ready: bool = Field(False, description="only what is loaded")


class VersionParameters(Strict):
    """Parameters that load and unload have in common."""

    version: Annotated[int, Field(ge=1, lt=10**9)] | None = Field(
        default=None, description="default: the one loaded last"
    )


class LoadParameters(VersionParameters):
    """Parameters of load."""

    config: str | None = Field(
        default=None, description="of the protocol's clients; the checkpoint's card counts, which the answer says"
    )


class UnloadParameters(VersionParameters):
    """Parameters of unload."""

    unload_dependents: bool = Field(default=False, description="of the protocol; no model depends on another")


class LoadRequest(Strict):
    """Body of load."""

    parameters: LoadParameters = Field(default_factory=LoadParameters)


class UnloadRequest(Strict):
    """Body of unload."""

    parameters: UnloadParameters = Field(default_factory=UnloadParameters)


class RepositoryAnswer(BaseModel):
    """Answer of load and unload."""

    name: str
    version: str | None
    state: str
    reason: str | None = Field(default=None, description="what of the request was left out, if anything was")


class ErrorAnswer(BaseModel):
    """Every error."""

    error: str
