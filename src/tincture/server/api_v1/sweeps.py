"""Sweeps: begin, list, watch, stop, go on, read the report."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from tincture.errors import UsageError
from tincture.kinds.registry import kind_names
from tincture.server.api_v1.common import Patient, url
from tincture.server.api_v1.schemas import Name, Request
from tincture.server.http.errors import documented
from tincture.server.service import Service
from tincture.settings.toml import parse_toml

LONGEST_FILE = 100_000
Table = dict[str, Any]


class SweepRequest(Request):
    """A sweep, by the keys of its file; or the file itself as a text."""

    name: Name = Field("", description="What it is called; its runs' adapters begin with it.")
    toml: str = Field("", max_length=LONGEST_FILE, description="The file of a sweep, in which run is a table.")
    run: Table | None = Field(
        None,
        description="Settings that all runs have, as /settings/train lists them.",
        examples=[{"kind": kind_names()[0], "name": "rex", "data": "datasets/rex", "steps": 500}],
    )
    grid: Table | None = Field(None, description="By setting, a list of values: each with every other.")
    points: list[Table] | None = Field(None, max_length=1000, description="A table of settings for each point.")
    random: Table | None = Field(None, description="trials, seed, sampler and ranges: points that Optuna draws.")
    halving: Table | None = Field(None, description="rungs (steps) and factor: at each rung the better part goes on.")
    seeds: list[int] | None = Field(None, max_length=1000, description="Each point is trained with each of them.")
    metric: str | None = Field(None, max_length=100, description="validation_loss, train_loss, fidelity or style.")
    create: Table | None = Field(None, description="Options with which each run's adapter is made anew.")
    oracle: Table | None = Field(None, description="Of picto: subject or style, and pictures.")


class SweepSummary(BaseModel):
    """A sweep as it stands."""

    name: str
    state: Literal["running", "stopping", "stopped", "done"]
    metric: str = Field(description="What its runs are ranked by.")
    folder: str
    varied: list[str] = Field(description="Keys that are not the same in all runs.")
    states: dict[str, int] = Field(description="How many runs are done, failed, stopped by a rung, running, waiting.")
    best: str | None = Field(description="The name of the best run so far.")
    error: str = Field(description="Why it could not go on, a sentence; else empty.")


class SweepAnswer(SweepSummary):
    """The same with its table."""

    columns: list[str]
    runs: list[dict[str, Any]] = Field(description="A row for each run, by column.")


class SweepList(BaseModel):
    """All sweeps, the latest first."""

    sweeps: list[SweepSummary]


class SweepEndpoints:
    """Everything below /sweeps."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._patient = Patient()

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["sweeps"])
        add = router.add_api_route
        one = "/sweeps/{name}"
        begun: dict[str, Any] = {"status_code": 202, "responses": documented(403, 409, 507)}
        add("/sweeps", self.create, methods=["POST"], summary="Begin a sweep", **begun)
        add("/sweeps", self.list_sweeps, methods=["GET"], summary="List sweeps")
        add(one, self.show, methods=["GET"], summary="Show a sweep", responses=documented(404))
        change = documented(404, 409, 507)
        add(f"{one}/stop", self.stop, methods=["POST"], summary="Stop a sweep", responses=change)
        add(f"{one}/resume", self.resume, methods=["POST"], summary="Go on with a sweep", responses=change)
        report: dict[str, Any] = {"response_class": HTMLResponse, "responses": documented(404)}
        add(f"{one}/report", self.report, methods=["GET"], summary="Read a sweep's report", **report)
        return router

    async def create(self, request: SweepRequest, response: Response) -> SweepAnswer:
        """Checks all its runs, and begins: each is a job of the queue. Relative paths start at the workspace."""
        given = request.model_dump(exclude_none=True, exclude={"toml"})
        if request.toml:
            if len(given.keys() - {"name"}):
                raise UsageError("Give toml, or the keys of a sweep, and not both.")
            given = {**parse_toml(request.toml, "The sweep"), **({"name": request.name} if request.name else {})}
        made = await self._patient.call(lambda: self._service.sweeps.create(given))
        response.headers["Location"] = url("sweeps", made["name"])
        return SweepAnswer(**made)

    def list_sweeps(self) -> SweepList:
        """All sweeps of the workspace, those of the command line among them."""
        return SweepList(sweeps=[SweepSummary(**each) for each in self._service.sweeps.listed()])

    def show(self, name: str) -> SweepAnswer:
        """How its runs stand."""
        return SweepAnswer(**self._service.sweeps.shown(name))

    def stop(self, name: str) -> SweepAnswer:
        """Its runs save and end, and no other begins; it can go on later."""
        return SweepAnswer(**self._service.sweeps.stop(name))

    def resume(
        self, name: str, retry: Annotated[bool, Query(description="With runs that failed, too.")] = False
    ) -> SweepAnswer:
        """Goes on where it was stopped; nothing is done twice."""
        return SweepAnswer(**self._service.sweeps.resume(name, retry=retry))

    async def report(self, name: str) -> HTMLResponse:
        """Table, curves and previews in one HTML file, as they stand now."""
        return HTMLResponse(await self._patient.call(lambda: self._service.sweeps.report(name)))
