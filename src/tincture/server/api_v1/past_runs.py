"""Runs of the workspace, whoever began them: the list, and some beside each other."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from tincture.errors import UsageError, in_names
from tincture.run.past.comparing import compare
from tincture.run.past.past_run import MOST_COMPARED, PastRun, runs_in, summary
from tincture.server.api_v1.common import Patient, url
from tincture.server.api_v1.request_models import without_nulls
from tincture.server.api_v1.schemas import JobAnswer, JobTurn, Name
from tincture.server.errors import NotFoundError
from tincture.server.http.errors import documented
from tincture.server.queue.jobs import plain_job
from tincture.server.service import Service

_POINTS = 16
Ids = Annotated[
    list[Annotated[str, Field(max_length=400)]],
    Query(min_length=2, max_length=MOST_COMPARED, description="Ids of runs, as the list has them."),
]


class PastRunAnswer(BaseModel):
    """A run."""

    id: str = Field(description="DATE/NAME, the folder within the logs.")
    folder: str
    kind: str
    name: str = Field(description="Of the adapter.")
    model: str
    data: Any = Field(description="The folders of pictures.")
    state: str = Field(description="running, done, ended early, stopped or broken off.")
    global_step: int
    steps: int
    loss: float | None = Field(description="Mean over the last 100 steps.")
    best_step: int | None = Field(description="The step with the lowest validation loss.")
    best_loss: float | None
    written_at: float = Field(description="Seconds since 1970.")
    curve: list[float] = Field(default_factory=list, description="The loss over the run, in at most 16 means.")


class PastRuns(BaseModel):
    """Runs, the latest first."""

    runs: list[PastRunAnswer]
    more: int = Field(description="How many were left out by the limit.")


class CurveAnswer(BaseModel):
    """A line over the steps; both lists have one length."""

    step: list[float]
    value: list[float]


class PreviewRow(BaseModel):
    """Previews of one step and prompt."""

    step: int
    prompt: str = Field(description="With [name] in the place of the adapter's name.")
    pictures: list[str | None] = Field(description="By run, their files; null where a run has none.")


class ComparisonAnswer(BaseModel):
    """Runs beside each other; every list has them in the order that was asked for."""

    runs: list[PastRunAnswer]
    curves: dict[str, list[CurveAnswer]]
    settings: dict[str, list[Any]] = Field(description="Those that differ, by name.")
    previews: list[PreviewRow]


class AgainRequest(JobTurn):
    """A run that is to be made once more: by its id, or by an adapter's file that says how it was made."""

    run: str = Field("", max_length=400, description="Id of a run, as the list has it.")
    file: str = Field("", max_length=4000, description="Path of an adapter's file.")
    name: Name = Field("", description="Of the new adapter; empty: the first one's with -again behind it.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="That win over those of the run.", examples=[{"seed": 7}]
    )
    dry_run: bool = Field(False, description="Tell what it would be, and begin nothing.")


class AgainAnswer(BaseModel):
    """A run made once more."""

    source: str = Field(description="What of: a run's id, or a file's name.")
    name: str = Field(description="Of the new adapter.")
    settings: dict[str, Any]
    remarks: list[str] = Field(description="What differs by the new name.")
    changed_since: list[str] = Field(
        description="What is not as it was then: base model, pictures, captions, masks, template, versions, arithmetic."
    )
    job: JobAnswer | None = Field(description="The job; null with dry_run.")


class PastRunEndpoints:
    """Everything below /runs."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._patient = Patient()

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["runs"])
        router.add_api_route("/runs", self.runs, methods=["GET"], summary="List runs")
        one = documented(404)
        router.add_api_route("/runs/compare", self.compare, methods=["GET"], responses=one, summary="Compare runs")
        begun: dict[str, Any] = {"status_code": 202, "responses": documented(403, 404, 409, 507)}
        router.add_api_route("/runs/again", self.again, methods=["POST"], summary="Make a run once more", **begun)
        return router

    def runs(
        self,
        search: Annotated[str, Query(max_length=400, description="Words that all stand in id, name or model.")] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> PastRuns:
        """Runs of the workspace with how each stands, the latest first: also those that no job of this server made."""
        words = search.lower().split()
        found = [
            run for run in self._all() if all(word in f"{run.id} {run.name} {run.model}".lower() for word in words)
        ]
        shown = [PastRunAnswer(**summary(run, _POINTS)) for run in found[:limit]]
        return PastRuns(runs=shown, more=len(found) - len(shown))

    def compare(
        self,
        run: Ids,
        smoothing: Annotated[float, Query(ge=0, le=100, description="Of the training loss; 0 is every step.")] = 30.0,
    ) -> ComparisonAnswer:
        """Curves of losses and rate, the settings that differ, previews of the same steps: what the command does."""
        by_id = {each.id: each for each in self._all()}
        absent = next((each for each in run if each not in by_id), None)
        if absent is not None:
            raise NotFoundError(f"There is no run {absent!r}; GET /runs lists those that there are.")
        if len(set(run)) < len(run):
            raise UsageError("A run is given twice; give each once.")
        return ComparisonAnswer(**compare([by_id[each] for each in run], smoothing=smoothing).to_dict())

    async def again(self, request: AgainRequest, response: Response) -> AgainAnswer:
        """Submits a training from the adapter as it was before the run's first step, and says what changed since.

        Its new adapter is there at once. All pictures are read for it, so that it takes seconds, or more for many.
        """
        asked = request.model_dump(exclude={"dry_run", "settings"})
        settings = without_nulls(request.settings)
        made = await self._patient.call(
            lambda: self._service.repeating.repeat(**asked, settings=settings, dry_run=request.dry_run)
        )
        if made.job:
            response.headers["Location"] = url("jobs", made.job.id)
        return AgainAnswer(
            source=made.source,
            name=made.settings.name,
            settings=made.settings.to_dict(),
            remarks=[in_names(remark) for remark in made.remarks],
            changed_since=made.changed_since,
            job=JobAnswer(**plain_job(made.job)) if made.job else None,
        )

    def _all(self) -> list[PastRun]:
        return runs_in(self._service.workspace.logs)
