"""A run once more, as a job: its adapters as they were before its first step, under new names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tincture.errors import UsageError
from tincture.run.past.again import Again, Renewed, of_file, of_run
from tincture.run.past.changes import changes
from tincture.run.past.past_run import runs_in
from tincture.server.errors import NotFoundError
from tincture.server.model_process.work import ModelWork
from tincture.server.queue.jobs import Job
from tincture.server.queue.queue import JobQueue
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace

ANY_DEVICE = "auto"


@dataclass(frozen=True)
class Repeated:
    """A run that is made again.

    Attributes:
        source: what of: a run's id, or a file's name.
        settings: of the new run.
        remarks: what differs by the new name, in sentences.
        changed_since: what is not as it was, in sentences.
        job: that makes it; None where it was only looked at.
    """

    source: str
    settings: TrainSettings
    remarks: list[str]
    changed_since: list[str]
    job: Job | None


class Repeating:
    """Makes runs again.

    Args:
        workspace: where their folders and adapters lie.
        queue: gets the jobs.
        work: looks into files and at pictures, and makes adapters.
    """

    def __init__(self, workspace: Workspace, queue: JobQueue, work: ModelWork) -> None:
        self._workspace, self._queue, self._work = workspace, queue, work

    def repeat(
        self,
        *,
        run: str = "",
        file: str = "",
        name: str = "",
        settings: Mapping[str, Any] | None = None,
        dry_run: bool = False,
        **turn: Any,
    ) -> Repeated:
        """Submits a training with the settings of a run, from the adapter as it was before the run's first step.

        All pictures are read, to tell whether they changed; it takes seconds, and more for many pictures.

        Args:
            run, file: one of them: the id of a run of the workspace, or the path of an adapter's file.
            name: of the new adapter; empty: that of the first one with -again behind it.
            settings: that win over those of the run.
            dry_run: nothing is submitted or stays.
            turn: ``priority``, ``device``, ``gpus`` and so on, as ``JobQueue.submit`` takes them.

        Raises:
            NotFoundError: there is no such run.
            UsageError: the file does not say how it was made, or something in its settings is not there or allowed.
        """
        again = self._find(run, file)
        asked = again.with_settings({"device": ANY_DEVICE, **(settings or {})})
        with Renewed(again, asked, self._workspace, name, False, self._create) as renewed:
            plan = self._work.plan("train", renewed.settings.to_dict(), "none", digests=True)
            since = changes(again.then, plan["facts"])
            job = None
            if not dry_run:
                job = self._queue.submit("train", renewed.settings.to_dict(), **turn)
                renewed.keep()
            return Repeated(again.source, renewed.settings, renewed.remarks, since, job)

    def _find(self, run: str, file: str) -> Again:
        if bool(run) == bool(file):
            raise UsageError("Give run, the id of one that GET /runs lists, or file, the path of an adapter's file.")
        if file:
            return of_file(self._workspace, self._work.inspect(file))
        found = next((each for each in runs_in(self._workspace.logs) if each.id == run), None)
        if found is None:
            raise NotFoundError(f"There is no run {run[:400]!r}; GET /runs lists those that there are.")
        return of_run(found)

    def _create(self, kind: str, name: str, *, workspace: Workspace, model: str, **options: Any) -> Path:
        return self._work.create_adapter(kind, name, model=model, **options)
