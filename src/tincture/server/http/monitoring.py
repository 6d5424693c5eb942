"""`GET /health` for whoever watches over the process, and `GET /metrics` for Prometheus."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tincture.formats.software import VERSION
from tincture.server.http.asgi import ALLOWED, API_PATHS
from tincture.server.queue.jobs import FINISHED, Job, JobState

if TYPE_CHECKING:
    from tincture.server.service import Service

TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
JOB_SECONDS = (1, 10, 60, 300, 900, 1800, 3600, 7200, 14400, 43200, 86400)
ANSWER_SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60)
READY_WITHIN_S = 5.0


class Monitor:
    """Counts what happens, in a registry of its own.

    Requests, uploads and what becomes of jobs are counted as they come; the rest is read when it is asked for.
    """

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "tincture_http_requests", "Requests by route and status.", ["method", "route", "status"], registry=registry
        )
        self.answers = Histogram(
            "tincture_http_answer_seconds",
            "Time until an answer begins.",
            ["route"],
            buckets=ANSWER_SECONDS,
            registry=registry,
        )
        self.uploaded = Counter("tincture_upload_bytes", "Bytes of uploads that came in.", registry=registry)
        service.queue.store.on_change.append(_JobCounts(registry).count)
        registry.register(_State(service))
        ProcessCollector(registry=registry)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)


class CountRequests:
    """Middleware: counts every answer, refusals too."""

    def __init__(self, app: ASGIApp, monitor: Monitor) -> None:
        self._app, self._monitor = app, monitor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in METHODS else "other"
                route = _route(scope)
                self._monitor.requests.labels(method, route, str(message["status"])).inc()
                self._monitor.answers.labels(route).observe(time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, counted)


def router(service: Service, monitor: Monitor) -> APIRouter:
    """The addresses ``/health`` and ``/metrics``."""
    routes = APIRouter(tags=["monitoring"])

    @routes.get("/health", summary="Whether the server lives and is ready", responses={503: {"model": dict[str, Any]}})
    async def health(request: Request) -> JSONResponse:
        """Without credentials, where they are needed, no more than ``status``."""
        faults = await _faults(service)
        answer: dict[str, Any] = {"status": "failed" if faults else "ok"}
        if request.scope.get(ALLOWED, True):
            answer |= {"live": True, "ready": not faults, "faults": faults, "version": VERSION}
        return JSONResponse(answer, 503 if faults else 200)

    @routes.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    def metrics() -> Response:
        return Response(monitor.text(), media_type=TEXT_FORMAT)

    return routes


async def _faults(service: Service) -> list[str]:
    """Why the server is not ready."""
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            await run_in_threadpool(service.queue.store.counts)
    except TimeoutError:
        return [f"The queue did not answer within {READY_WITHIN_S:g} s."]
    except Exception as error:
        return [f"The queue cannot be read: {error}"]
    return []


class _State(Collector):
    """What is read when it is asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        service = self._service
        yield InfoMetricFamily("tincture", "Version.", {"version": VERSION})
        jobs = GaugeMetricFamily("tincture_jobs", "Jobs by state.", labels=["state"])
        counts = service.queue.store.counts()
        for state in JobState:
            jobs.add_metric([str(state)], counts.get(state, 0))
        yield jobs
        disks = GaugeMetricFamily("tincture_disk_free_bytes", "Free space where it writes.", labels=["place"])
        for place, folder in (("workspace", service.workspace.root), ("state", service.state_dir)):
            disks.add_metric([place], shutil.disk_usage(folder).free)
        yield disks
        yield GaugeMetricFamily("tincture_uptime_seconds", "Since it began.", value=time.time() - service.started_at)


class _JobCounts:
    """Counts what jobs do, as the queue's changes say it. What they did before this server began is not counted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._known: dict[str, Job] = {}  # those that have begun and not ended, as they last stood
        self._ended = Counter("tincture_jobs_ended", "Jobs that ended, by how.", ["kind", "state"], registry=registry)
        self._seconds = Histogram(
            "tincture_job_seconds",
            "How long the last run of a job took.",
            ["kind", "state"],
            buckets=JOB_SECONDS,
            registry=registry,
        )
        self._waited = Histogram(
            "tincture_job_wait_seconds",
            "From submission to the first start.",
            ["kind"],
            buckets=JOB_SECONDS,
            registry=registry,
        )
        self._steps = Counter("tincture_train_steps", "Steps that trainings made.", registry=registry)

    def count(self, job: Job) -> None:
        """Takes a job as it stands after a change; the queue calls it once for each change, one at a time."""
        before, began = self._known.pop(job.id, None), job.started_at
        if began is None:
            return
        done = before.global_step if before else job.global_step  # what it did before counts no more
        if job.state is JobState.RUNNING and job.attempts == 1 and before is None:
            self._waited.labels(job.kind).observe(max(0.0, began - job.created_at))
            done = 0
        if job.kind == "train":
            self._steps.inc(max(0, job.global_step - done))
        if job.state not in FINISHED:
            self._known[job.id] = job
            return
        self._ended.labels(job.kind, str(job.state)).inc()
        if before is not None:
            stopped = before.ended_at or job.ended_at  # what was paused, or waited to go on, had stopped before
            self._seconds.labels(job.kind, str(job.state)).observe(max(0.0, (stopped or began) - began))


def _route(scope: Scope) -> str:
    """The route's pattern: there are no more labels than routes. What was refused before a route was found is other."""
    route, path = scope.get("route"), str(scope["path"])
    if route is None:
        return "page" if "endpoint" in scope and not path.startswith(API_PATHS) else "other"
    try:
        inner = str(route.path_format.format(**scope["path_params"]))  # without the prefix of the routers around it
    except (AttributeError, KeyError):
        return "other"
    return path.removesuffix(inner) + str(route.path) if path.endswith(inner) else "other"
