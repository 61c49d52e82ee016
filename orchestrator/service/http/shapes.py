"""What goes in and comes out over HTTP, as OpenAPI shows it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.model import Placing


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PlacingShape(Strict):
    """Where it runs, for what its stages leave open."""

    site: str = Field(default="", description="A site's name, or `auto` for the best.")
    queue: str = Field(default="", description="A queue's name, or its use: realtime, demand, regular, debug.")
    account: str = Field(default="", description="Who pays.")
    reservation: str = ""
    mode: str = Field(default="", pattern="^(|pilot|batch)$", description="Warm workers, or a job for each task.")

    priority: str = Field(default="", pattern="^(|live|normal|backfill)$", description="Whose work goes first.")

    def placing(self) -> Placing:
        return Placing(**self.model_dump())


class PlanRequest(Strict):
    """A workflow by its name, or (role author) a definition, and its arguments."""

    workflow: str = Field(default="", description="Name of a workflow that the service has.")
    definition: dict[str, Any] | None = Field(default=None, description="One's own: a dict of stages.")
    arguments: dict[str, str] = {}
    directory: str = Field(default="", description="Relative paths begin here, at the service's host.")
    strict: bool = Field(default=False, description="Refuse a run without an input file specification, as DM does.")
    placing: PlacingShape = PlacingShape()


class RunRequest(PlanRequest):
    id: str = Field(default="", description="A UUID of one's own; asking twice begins one run.")


class Begun(BaseModel):
    id: str
    status: str = "pending"


class Changed(BaseModel):
    id: str


class LetterShape(BaseModel):
    """A run that failed for good and that nobody has dealt with."""

    run_id: str
    at: str | None = Field(description="When it failed.")
    workflow: str
    experiment: str
    site: str
    stage: str
    failure: str = Field(description="The class of the failure.")
    reason: str
    fixes: dict[str, str] = Field(description="Arguments that another run in its place is to have.")


class FixRequest(Strict):
    arguments: dict[str, str] = Field(min_length=1, description="Those at fault, with the values they should have.")


class Resumed(BaseModel):
    runs: list[str] = Field(description="Of these something that was on hold is tried.")


class CancelRequest(Strict):
    reason: str = "cancelled by the user"


class RetryRequest(Strict):
    stage: str = Field(default="", description="Run this stage and all after it again; empty: what did not pass.")


class Summary(BaseModel):
    """A line of the list of runs."""

    id: str
    workflow: str
    experiment: str | None
    owner: str
    status: str
    stage: str
    error: str
    created_at: str | None
    started_at: str | None
    ended_at: str | None
    parent: str | None


class Page(BaseModel):
    runs: list[Summary]
    before: str = Field(description="Give it as `before` for the next page; empty: there is none.")


class WhyShape(BaseModel):
    sentence: str
    since: str | None
    contact: str
    next: str
    details: list[str]


class EventShape(BaseModel):
    seq: int
    run_id: str
    at: str | None
    kind: str
    stage: str
    number: int = Field(description="The task; -1: not about one.")
    attempt: int
    text: str


class Shut(BaseModel):
    """A site to which nothing is sent."""

    site: str
    since: str | None
    why: str


class Status(BaseModel):
    version: str
    active: bool = Field(description="Has this service the engine? Else it stands by.")
    agents: list[str] = Field(description="Sites whose agent is connected.")
    shut: list[Shut] = Field(description="Sites to which nothing is sent at the moment.")
    unfinished: int
    runs: dict[str, int] = Field(description="How many are in each state.")
    site: str = Field(description="That of stages that name none.")


class SiteShape(BaseModel):
    name: str
    title: str
    contact: str
    scheduler: str
    connected: bool


class TokenRequest(Strict):
    name: str = Field(min_length=1, max_length=200, description="Whose it is.")
    role: str
    site: str = ""
    lasts_s: float = Field(default=90 * 86400.0, gt=0, description="Seconds until it is over.")


class TokenShape(BaseModel):
    id: str
    name: str
    role: str
    site: str
    created_at: str | None
    expires_at: str | None
    revoked_at: str | None


class TokenMade(TokenShape):
    token: str = Field(description="Shown this once.")
