"""How far the server is, and how to stop it."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

from fastapi import APIRouter

from tincture.server.api_webui.schemas import Progress, State
from tincture.server.api_webui.session import Session
from tincture.server.queue.jobs import Job, JobState
from tincture.server.service import Service

LEAST = 0.01
"""What is going on has this progress at least: 0 tells clients that nothing is."""


class ProgressEndpoints:
    """/progress, /interrupt and /skip."""

    def __init__(self, service: Service, session: Session) -> None:
        self._service, self._session = service, session

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter()
        router.add_api_route("/progress", self.progress, methods=["GET"])
        router.add_api_route("/interrupt", self.interrupt, methods=["POST"])
        router.add_api_route("/skip", self.skip, methods=["POST"])
        return router

    def progress(self, skip_current_image: bool = False) -> Progress:
        """Of the training or preprocessing that runs, else of the drawing."""
        running = self._service.queue.jobs([JobState.RUNNING])
        if running:
            return self._of_job(max(running, key=lambda job: job.started_at or 0), not skip_current_image)
        drawing = self._service.model_work.drawing()
        if drawing is not None:
            return self._of_drawing(drawing, not skip_current_image)
        return Progress(progress=0.0, eta_relative=0.0, state=State())

    def interrupt(self) -> dict[str, Any]:
        """Running jobs stop after their step, save and count as done; a drawing stops."""
        self._service.queue.interrupt()
        self._service.model_work.stop_drawing()
        return {}

    def skip(self) -> None:
        """The drawing at hand stops; jobs go on."""
        self._service.model_work.stop_drawing()

    def _of_job(self, job: Job, with_image: bool) -> Progress:
        previews = self._service.queue.folder(job.id).previews() if with_image else []
        state = State(
            interrupted=job.wanted is not None,
            job=f"{job.kind} {job.name}",
            job_count=max(job.steps, 1),
            job_no=job.global_step,
            job_timestamp=_timestamp(job.started_at),
        )
        return Progress(
            progress=min(1.0, max(LEAST, job.progress)),
            eta_relative=max(0.0, job.eta_s or 0.0),
            state=state,
            current_image=_base64(previews[-1]) if previews else None,
            textinfo=_text(job),
        )

    def _of_drawing(self, drawing: dict[str, Any], with_image: bool) -> Progress:
        done, total = int(drawing.get("done", 0)), max(1, int(drawing.get("total", 0)))
        share, began = min(1.0, max(LEAST, done / total)), self._session.drawing_since
        preview = drawing.get("preview") if with_image else None
        return Progress(
            progress=share,
            eta_relative=(time.monotonic() - self._session.drawing_mark) * (1 - share) / share
            if began and done
            else 0.0,
            state=State(
                job="txt2img",
                job_count=1,
                job_timestamp=_timestamp(began),
                sampling_step=done,
                sampling_steps=total,
            ),
            current_image=_base64(Path(preview)) if preview else None,
            textinfo=f"step {done} of {total}" if done else "loading the model",
        )


def _text(job: Job) -> str:
    facts = [f"step {job.global_step} of {job.steps}"] if job.steps else []
    facts += [job.stage] if job.stage else []
    facts += [f"loss {job.loss:.4f}"] if job.loss is not None else []
    facts += [f"learning rate {job.learning_rate:g}"] if job.learning_rate is not None else []
    return f"{job.name}: {', '.join(facts) or 'starting'}"


def _timestamp(seconds: float | None) -> str:
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(seconds)) if seconds else "0"


def _base64(path: Path) -> str | None:
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError:
        return None  # deleted in between
