"""Jobs: submit, watch, steer."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from tincture.server.api_v1.common import Patient, file_answers, send_file, url
from tincture.server.api_v1.request_models import without_nulls
from tincture.server.api_v1.schemas import (
    Interrupted,
    JobAnswer,
    JobList,
    JobMove,
    JobRequest,
    LogPart,
    Measurement,
    Measurements,
    Metric,
    Metrics,
    Plan,
    PlanRequest,
    Preview,
    Previews,
)
from tincture.server.errors import NotFoundError
from tincture.server.http.errors import documented
from tincture.server.http.event_streams import EventStream, Streams, parse_position
from tincture.server.queue.jobs import FINISHED, Job, JobState, plain_job
from tincture.server.service import Service

MOST_METRICS = 10_000
LATEST = "latest"
CONTACT_SHEET = "contact-sheet.png"
PNG = "image/png"
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Events as they come."},
}

Since = Annotated[int, Query(ge=0, lt=2**53)]
LastEventId = Annotated[str | None, Header(max_length=40, description="Id of the last event that was received.")]


class JobEndpoints:
    """Everything below /jobs, and what concerns all of them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._streams = Streams(service)
        self._patient = Patient()

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["jobs"])
        self._add_jobs(router)
        self._add_watching(router)
        return router

    def _add_jobs(self, router: APIRouter) -> None:
        add = router.add_api_route
        location = {"description": "The job.", "schema": {"type": "string"}}
        answers: dict[int | str, dict[str, Any]] = {202: {"headers": {"Location": location}}, **documented(404, 507)}
        add("/jobs", self.submit, methods=["POST"], status_code=202, responses=answers, summary="Submit a job")
        add("/jobs", self.list_jobs, methods=["GET"], summary="List jobs")
        one = documented(404)
        add("/jobs/{job_id}", self.show, methods=["GET"], responses=one, summary="Show a job")
        change = documented(404, 409, 507)
        add("/jobs/{job_id}", self.move, methods=["PATCH"], responses=change, summary="Change a waiting job's turn")
        add(
            "/jobs/{job_id}", self.delete, methods=["DELETE"], status_code=204, responses=change, summary="Forget a job"
        )
        for name, endpoint, summary in (
            ("cancel", self.cancel, "Cancel a job"),
            ("pause", self.pause, "Pause a job"),
            ("resume", self.resume, "Go on with a paused job"),
            ("retry", self.retry, "Try a job again"),
            ("preview", self.preview_now, "Draw previews now"),
        ):
            add(f"/jobs/{{job_id}}/{name}", endpoint, methods=["POST"], responses=change, summary=summary)
        add("/plan", self.plan, methods=["POST"], responses=documented(404), summary="Look at a training beforehand")
        add("/interrupt", self.interrupt, methods=["POST"], summary="Stop all that runs, saved, as done")

    def _add_watching(self, router: APIRouter) -> None:
        add = router.add_api_route
        one = documented(404)
        add("/jobs/{job_id}/log", self.log, methods=["GET"], responses=one, summary="Read a job's log")
        add("/jobs/{job_id}/metrics", self.metrics, methods=["GET"], responses=one, summary="Read a training's losses")
        add("/jobs/{job_id}/validations", self.validations, methods=["GET"], responses=one, summary="Read validations")
        add(
            "/jobs/{job_id}/events",
            self.events,
            methods=["GET"],
            response_class=EventStream,
            responses={**_EVENTS, 204: {"description": "Last-Event-ID is the end: nothing follows."}, **one},
            summary="Watch a job",
        )
        add(
            "/events",
            self.all_events,
            methods=["GET"],
            response_class=EventStream,
            responses=_EVENTS,
            summary="Watch all jobs",
        )
        add("/jobs/{job_id}/previews", self.previews, methods=["GET"], responses=one, summary="List previews")
        picture: dict[str, Any] = {"response_class": Response, "responses": file_answers(PNG, 404)}
        add("/jobs/{job_id}/previews/{name}", self.preview, methods=["GET"], summary="Get a preview", **picture)
        add(
            f"/jobs/{{job_id}}/{CONTACT_SHEET}", self.sheet, methods=["GET"], summary="Get the contact sheet", **picture
        )

    # --- the queue ---------------------------------------------------------------------------------------------------

    def submit(self, request: JobRequest, response: Response) -> JobAnswer:
        """Puts a job at the end of the queue, behind those of its priority, and answers at once.

        The adapter to train must exist; see /adapters.
        """
        asked = request.model_dump(exclude={"kind", "settings"})
        job = self._service.queue.submit(request.kind, without_nulls(request.settings), source="api", **asked)
        response.headers["Location"] = url("jobs", job.id)
        return _answer(job)

    def list_jobs(
        self,
        state: Annotated[list[JobState], Query(max_length=10, description="Only jobs in these states.")] = [],  # noqa: B006
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        offset: Annotated[int, Query(ge=0, lt=2**53)] = 0,
        search: Annotated[
            str, Query(max_length=300, description="Words of name, id, kind, base model or pictures; all must fit.")
        ] = "",
    ) -> JobList:
        """Running jobs, waiting ones in the order of their turns, then those that have ended, the latest first."""
        queue = self._service.queue
        listed = [_answer(job) for job in queue.jobs(state, limit, offset, search)]
        return JobList(jobs=listed, total=queue.store.count(set(state), search))

    def show(self, job_id: str) -> JobAnswer:
        """The job as it stands."""
        return _answer(self._service.queue.job(job_id))

    def move(self, job_id: str, request: JobMove) -> JobAnswer:
        """Gives a waiting job another priority, or the turn right before another waiting job, with its priority."""
        return _answer(self._service.queue.move(job_id, priority=request.priority, before=request.before))

    def delete(self, job_id: str) -> None:
        """Forgets a job that is paused or has ended, with its log; what it trained stays."""
        self._service.queue.delete(job_id)

    def cancel(self, job_id: str) -> JobAnswer:
        """Ends a job: a waiting one at once; a running one finishes its step and saves first, so look at it again."""
        return _answer(self._service.queue.cancel(job_id))

    def pause(self, job_id: str) -> JobAnswer:
        """As cancel, but the job keeps its place, and can go on exactly where it stopped."""
        return _answer(self._service.queue.pause(job_id))

    def resume(self, job_id: str) -> JobAnswer:
        """A paused job waits for its turn again."""
        return _answer(self._service.queue.resume(job_id))

    def retry(self, job_id: str) -> JobAnswer:
        """A failed or cancelled job waits for its turn again, and goes on where it stopped, if it saved anything."""
        return _answer(self._service.queue.retry(job_id))

    def preview_now(self, job_id: str) -> JobAnswer:
        """A running training draws previews after its present step; the weights that it trains stay the same."""
        return _answer(self._service.queue.preview(job_id))

    async def plan(self, request: PlanRequest) -> Plan:
        """What a training would do: pictures, sizes, steps, memory, time. Nothing is written; it takes seconds."""
        settings = without_nulls(request.settings)
        plan = await self._patient.call(lambda: self._service.model_work.plan(request.kind, settings, request.timing))
        return Plan(**plan)

    def interrupt(self) -> Interrupted:
        """Running jobs finish their step, save, and count as done; a drawing at hand ends with an error."""
        self._service.model_work.stop_drawing()
        return Interrupted(jobs=[_answer(job) for job in self._service.queue.interrupt()])

    # --- watching ----------------------------------------------------------------------------------------------------

    def log(self, job_id: str, since: Since = 0) -> LogPart:
        """What the job printed from byte `since` on, a megabyte at most."""
        text, after = self._service.queue.folder(job_id).log(since)
        return LogPart(text=text, next=after)

    def metrics(
        self,
        job_id: str,
        since_step: Since = 0,
        every: Annotated[int, Query(ge=1, lt=2**53)] = 1,
        limit: Annotated[int, Query(ge=1, le=MOST_METRICS, description="Entries in this answer.")] = MOST_METRICS,
    ) -> Metrics:
        """Loss and rate of the steps after `since_step`: of each `every` steps the last, and the latest of all."""
        found = self._service.queue.folder(job_id).metrics(since_step, every=every, most=limit + 1)
        metrics = [Metric(**entry) for entry in found[:limit]]
        return Metrics(metrics=metrics, next=metrics[-1].global_step if len(found) > limit else None)

    def validations(self, job_id: str) -> Measurements:
        """The loss on pictures that are not trained, beside that of some that are, each time it was measured."""
        found = self._service.queue.folder(job_id).validations()
        return Measurements(validations=[Measurement(**dataclasses.asdict(each)) for each in found])

    async def events(self, job_id: str, since: Since = 0, last_event_id: LastEventId = None) -> Response:
        """Server-sent events until the job has ended: those behind number `since`, or behind Last-Event-ID.

        `state` tells how the job stands: at first, whenever it changed, and as the last event. All others are
        numbered: model, memory, stage, prepared, started, progress, steps, measured, validated, saved, preview, remark,
        ended.
        """
        self._streams.check()
        job = await asyncio.to_thread(self._service.queue.job, job_id)
        if last_event_id is not None:
            since, saw_end = parse_position(last_event_id)
            # Browsers connect again when a stream has ended, unless they are told that there is nothing.
            if saw_end and job.state in FINISHED and await asyncio.to_thread(self._last, job_id) <= since:
                return Response(status_code=204)
        return EventStream(self._streams.job(job_id, since))

    def _last(self, job_id: str) -> int:
        """The number of a job's last event."""
        return self._service.queue.folder(job_id).last()[0]

    async def all_events(self) -> Response:
        """Server-sent events without end: `state` of every job that waits or runs, then of every job that changes.

        `deleted` tells of jobs that were deleted.
        """
        self._streams.check()
        return EventStream(self._streams.all_jobs())

    def previews(
        self, job_id: str, latest: Annotated[bool, Query(description="Only those of the latest step.")] = False
    ) -> Previews:
        """Preview pictures of a training, oldest first."""
        paths = self._service.queue.folder(job_id).previews()
        prompts = self._service.queue.folder(job_id).trace().prompts
        listed = [
            Preview(name=p.name, step=_step(p), prompt=_prompt(p, prompts), url=url("jobs", job_id, "previews", p.name))
            for p in paths
        ]
        if latest and listed:
            listed = [preview for preview in listed if preview.step == listed[-1].step]
        sheet = url("jobs", job_id, CONTACT_SHEET) if paths and _sheet(paths).is_file() else None
        return Previews(previews=listed, contact_sheet=sheet)

    def preview(self, job_id: str, name: str, request: Request) -> Response:
        """A preview as PNG; the name `latest` stands for the first one of the latest step."""
        paths = self._service.queue.folder(job_id).previews()
        if name == LATEST and paths:
            found = [path for path in paths if _step(path) == _step(paths[-1])]
        else:
            found = [path for path in paths if path.name == name]
        if not found:
            raise NotFoundError(f"The job {job_id} has no preview {name[:200]!r}.")
        return _send(request, found[0])

    def sheet(self, job_id: str, request: Request) -> Response:
        """All previews in one picture, a row for each step."""
        paths = self._service.queue.folder(job_id).previews()
        if not paths:
            raise NotFoundError(f"The job {job_id} has no previews yet.")
        return _send(request, _sheet(paths))


def _answer(job: Job) -> JobAnswer:
    return JobAnswer(**plain_job(job))


def _send(request: Request, path: Path) -> Response:
    try:
        return send_file(request, path, PNG)
    except FileNotFoundError:
        raise NotFoundError(f"The picture {path.name} is no longer there.") from None


def _sheet(paths: list[Path]) -> Path:
    return paths[-1].with_name(CONTACT_SHEET)


def _prompt(path: Path, prompts: Sequence[str]) -> str:
    """That of ``NAME-STEP-N.png``; empty where it is not known."""
    with contextlib.suppress(ValueError, IndexError):
        return prompts[int(path.stem.split("-")[-1])]
    return ""


def _step(path: Path) -> int:
    """N of ``NAME-N-INDEX.png``."""
    with contextlib.suppress(ValueError, IndexError):
        return int(path.stem.split("-")[-2])
    return 0
