"""Trainings and preprocessing, which the webui's clients wait for until they are done."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from tincture import errors
from tincture.errors import AlreadyTrainedError, TinctureError, TrainingError
from tincture.preprocessing.describer_kinds import find_describers
from tincture.server.api_webui.schemas import InfoAnswer, body_of
from tincture.server.api_webui.session import Session
from tincture.server.errors import ConflictError
from tincture.server.http.errors import documented
from tincture.server.queue.jobs import FINISHED, Job, JobState
from tincture.server.requests.sizes import check_sizes
from tincture.server.service import Service
from tincture.settings.fields import specs_of
from tincture.webui.arguments import Preprocess, TrainArguments, TrainEmbedding, TrainHypernetwork
from tincture.webui.translation import (
    clamped,
    count_pictures,
    preprocess_settings,
    train_settings,
)

SOURCE = "webui"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0

Arguments = Annotated[dict[str, Any], Body()]


class TrainingEndpoints:
    """/train/embedding, /train/hypernetwork and /preprocess."""

    def __init__(self, service: Service, session: Session) -> None:
        self._service, self._session = service, session

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter()
        for path, endpoint, arguments in (
            ("/train/embedding", self.train_embedding, TrainEmbedding),
            ("/train/hypernetwork", self.train_hypernetwork, TrainHypernetwork),
            ("/preprocess", self.preprocess, Preprocess),
        ):
            router.add_api_route(
                path,
                endpoint,
                methods=["POST"],
                responses=documented(404, 409, 503, 507),
                openapi_extra=body_of(arguments),
            )
        return router

    async def train_embedding(self, body: Arguments) -> InfoAnswer:
        """Trains an embedding, and answers when that is done. It waits for its turn behind other jobs."""
        return await self._train(TrainEmbedding, body)

    async def train_hypernetwork(self, body: Arguments) -> InfoAnswer:
        """Trains a hypernetwork, and answers when that is done. It waits for its turn behind other jobs."""
        return await self._train(TrainHypernetwork, body)

    async def preprocess(self, body: Arguments) -> InfoAnswer:
        """Crops a folder of pictures, and answers when that is done. It waits for its turn behind other jobs."""
        try:
            submitted = await run_in_threadpool(self._submit_preprocessing, body)
            _finished(await self._ended(submitted.id))
        except TinctureError as error:
            if not self._service.settings.webui_errors:
                raise
            return InfoAnswer(info=f"preprocess error: {error}")
        return InfoAnswer(info="preprocess complete")

    async def _train(self, kind: type[TrainArguments], body: Mapping[str, Any]) -> InfoAnswer:
        try:
            submitted, remarks = await run_in_threadpool(self._submit_training, kind, body)
        except TinctureError as error:
            if not self._service.settings.webui_errors:
                raise
            return InfoAnswer(info=f"train {kind.KIND} error: {error}")
        try:
            job = _finished(await self._ended(submitted.id))
            path, remarks = job.result["adapter_path"], [*remarks, *filter(None, [job.ending])]
        except AlreadyTrainedError as error:
            path, remarks = self._service.adapter_file(kind.KIND, submitted.name), [*remarks, str(error)]
        except TinctureError as error:
            if not self._service.settings.webui_errors:
                raise
            return InfoAnswer(info=f"train {kind.KIND} complete: filename: None error: {error}", remarks=remarks)
        return InfoAnswer(info=f"train {kind.KIND} complete: filename: {path} error: None", remarks=remarks)

    def _submit_training(self, kind: type[TrainArguments], body: Mapping[str, Any]) -> tuple[Job, list[str]]:
        check_sizes(kind.in_names_of_today(body), specs_of(kind))
        settings = train_settings(kind.of(body))
        folders = self._service.places.train_settings(settings).folders
        settings, remarks = clamped(settings, sum(map(count_pictures, folders)))
        job = self._service.queue.submit(
            "train", {**settings, **self._session.training, "model": self._session.model()}, source=SOURCE
        )
        return job, remarks

    def _submit_preprocessing(self, body: Mapping[str, Any]) -> Job:
        check_sizes(Preprocess.in_names_of_today(body), specs_of(Preprocess))
        settings = preprocess_settings(Preprocess.of(body), **find_describers(self._service.workspace))
        return self._service.queue.submit("preprocess", settings, source=SOURCE)

    async def _ended(self, job_id: str) -> Job:
        """Waits without holding a thread: a training may take hours."""
        pause = FIRST_PAUSE_S
        while True:
            job = await run_in_threadpool(self._service.queue.job, job_id)
            if job.state in FINISHED:
                return job
            if self._service.stopping.is_set():
                raise HTTPException(503, f"The server is being stopped; the job {job_id} goes on when it is back.")
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_S, pause * 1.2)


def _finished(job: Job) -> Job:
    """The job, if it is done; otherwise the error that ended it."""
    if job.state is JobState.DONE:
        return job
    if job.state is JobState.CANCELLED:
        raise ConflictError(f"The job {job.id} was cancelled; what it had learned is in its run folder.")
    kind = getattr(errors, job.error_type, TrainingError)
    if not (isinstance(kind, type) and issubclass(kind, TinctureError)):
        kind = TrainingError
    raise kind(job.error or f"The job {job.id} failed; its log says more.")
