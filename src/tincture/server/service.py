"""What the server can do, in one place: the HTTP endpoints and the page are two ways of asking for it.

All methods may be called from any thread, and block for no longer than they say. What takes long happens in processes
of its own: jobs in those of ``Service.queue``, what takes a model in those of ``Service.model_work``.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tincture.data.captions import template_names, written_caption
from tincture.errors import TinctureError, UsageError
from tincture.extensions import Extensions
from tincture.formats.software import VERSION
from tincture.kinds.registry import kind_names
from tincture.models.loading.default_model import default_model
from tincture.preprocessing.describer_kinds import find_describers, missing_describer
from tincture.run.past.changes import PICTURE_FACTS, changes, facts_here, facts_of_file
from tincture.run.past.origin import RunOrigin, run_origin, settings_again
from tincture.server.errors import ConflictError, NotFoundError
from tincture.server.library import storage
from tincture.server.library.datasets import Datasets
from tincture.server.library.saved_presets import Presets
from tincture.server.model_process.repeating import Repeating
from tincture.server.model_process.work import ModelWork
from tincture.server.queue.jobs import Job
from tincture.server.queue.queue import JobQueue
from tincture.server.requests.places import Places
from tincture.server.sweeps.managed import Sweeps
from tincture.server.sweeps.queued import RUNS_ON_A_CLUSTER
from tincture.settings.server import ServerSettings
from tincture.workspace import Workspace

STATE_FOLDER = "tincture-server"
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_PICTURE = re.compile(r"(grid-)?\d{5,}-\d+\.png", re.ASCII)


class Service:
    """The server's work: jobs, what takes a model, and what lies in the workspace.

    Attributes:
        queue: jobs.
        sweeps: one training over many settings, whose runs are jobs.
        model_work: what takes a model besides jobs: plans, new adapters, pictures, files in other formats.
        repeating: runs made once more, as jobs.
        workspace: where models and adapters lie, and what relative paths in requests start from.
        settings: of the server.
        state_dir: the server's own folder: ``jobs.sqlite3``, ``jobs/ID/``, ``pictures/``, ``uploads/``.
        places: which paths requests may name.
        datasets: folders of pictures, uploaded or made by preprocessing.
        presets: settings to begin a training from.
        extensions: what installed packages add.
        started_at: seconds since 1970.
        stopping: set when the server is about to end, so that streams to watchers end and nothing waits for them.
        submit, jobs: the queue's; extensions were promised to find them here, and ``metrics``.
    """

    def __init__(self, workspace: Workspace, settings: ServerSettings, extensions: Extensions | None = None) -> None:
        self.workspace, self.settings = workspace, settings
        self.extensions = extensions or Extensions()
        self.state_dir = Path(settings.state_dir).resolve() if settings.state_dir else workspace.root / STATE_FOLDER
        self.places = Places(workspace, self.state_dir, settings.allow_dir, allow_hub=settings.allow_hub)
        self.datasets = Datasets(self.places, settings.max_upload_mb * 2**20, settings.max_upload_files)
        self.presets = Presets(self.places)
        self.queue = JobQueue(self.places, settings, self.state_dir, self._make_room, self.default_model)
        at_once = RUNS_ON_A_CLUSTER if settings.ray else len(settings.device)
        self.sweeps = Sweeps(self.queue, self.places, at_once, self.default_model)
        pictures = self.state_dir / storage.PICTURES
        self.model_work = ModelWork(self.places, settings, pictures, self.queue, self.default_model)
        self.repeating = Repeating(workspace, self.queue, self.model_work)
        self.submit, self.jobs = self.queue.submit, self.queue.jobs
        self.started_at = time.time()
        self.stopping = threading.Event()

    def metrics(self, job_id: str, since_step: int = 0) -> list[dict[str, Any]]:
        """Steps after ``since_step``; see ``JobFolder.metrics``."""
        return self.queue.folder(job_id).metrics(since_step)

    def start(self) -> None:
        """Begins to work on the queue; jobs that a power cut left running go on where they stopped."""
        self.queue.supervisor.start()
        self.sweeps.start()
        storage.clear_uploads(self.state_dir)  # after that: there is no other server
        storage.sweep_half_written(self.workspace, self.state_dir)

    def close(self) -> None:
        """Stops running jobs, which save and will go on at the next start, and ends all processes; blocks for that."""
        self.stopping.set()
        self.sweeps.close()
        self.queue.supervisor.close()
        self.model_work.close()

    def _make_room(self, job: Job) -> None:
        """The model that drew pictures need not stay where a job begins; it is loaded again for the next ones."""
        if job.lane == "training" and job.device == self.settings.device[0]:
            self.model_work.rest()

    def default_model(self, adapter: Path | None = None) -> str:
        """The name of the model that counts where none is named, see ``models.loading.default_model``.

        Args:
            adapter: the file of the adapter that it is for, whose own model goes before the one that was chosen.
        """
        chosen = storage.chosen_model(self.state_dir)
        return default_model(self.workspace, adapter=adapter, chosen=chosen, or_first=True).name

    def choose_model(self, name: str) -> None:
        """Lets a model count where none is named, from now on; NotFoundError."""
        if name not in [model["name"] for model in self.models()]:
            raise NotFoundError(f"There is no model {name!r} in the workspace; choose one of its list.")
        storage.choose_model(self.state_dir, name)

    def models(self) -> list[dict[str, Any]]:
        """Base models: ``name`` (to name it by), ``title``, ``path``; picto stands last."""
        listed = [
            {"name": path.relative_to(self.workspace.models).as_posix(), "title": path.stem, "path": str(path)}
            for path in self.workspace.list_models()
        ]
        return [*listed, {"name": "picto", "title": "picto", "path": ""}]

    def adapters(self) -> list[dict[str, Any]]:
        """Files of adapters that can be trained: ``kind``, ``name``, ``path``, ``size`` in bytes, ``mtime``."""
        return [adapter for kind in kind_names() for adapter in self._listed(kind)]

    def adapter_file(self, kind: str, name: str) -> Path:
        """The file of an adapter by its name; NotFoundError."""
        try:
            return self.workspace.find_adapter(kind, name)
        except UsageError as error:
            raise NotFoundError(str(error)) from None

    def copies(self) -> list[dict[str, Any]]:
        """Copies of adapters that trainings saved: ``kind``, ``name``, ``step``, ``path``, ``run`` (DATE/NAME)."""
        return storage.list_copies(self.workspace)

    def delete_dataset(self, name: str) -> None:
        """Deletes a data set, with all that is in it.

        Raises:
            NotFoundError: there is none of this name.
            ConflictError: a job that has not ended needs it.
        """
        folder = self.datasets.info(name).path
        for job in self.queue.unfinished():
            if _uses(job, folder):
                raise ConflictError(f"The job {job.id} ({job.name}) needs the data set {name!r}; cancel it first.")
        self.datasets.delete(name)

    def describe_picture(
        self, folder: str, file: str, *, captioner: str = "", tagger: str = "", only_missing: bool = True
    ) -> str:
        """Lets a captioner, a tagger, or both write the caption of a picture; returns the caption as it is then.

        Args:
            folder, file: as of ``PictureFolders.picture``.
            captioner, tagger: models, as preprocessing takes them; neither: the captioner that is found by itself.
            only_missing: a caption that is there stays, unless it is empty.

        Raises:
            UsageError: there is no such model; NotFoundError: no such picture; DataError: it cannot be read.
        """
        path = self.datasets.picture(folder, file, writing=True)
        if only_missing and (there := written_caption(path)):
            return there
        if not captioner and not tagger:
            captioner = find_describers(self.workspace).get("captioner", "")
            if not captioner:
                raise UsageError(missing_describer("captioner", "Captions are to be written"))
        content, models = path.read_bytes(), {"captioner": captioner, "tagger": tagger}
        texts = [self.model_work.describe(content, **{what: model}) for what, model in models.items() if model]
        text = ", ".join(part for part in texts if part)
        if only_missing and (there := written_caption(path)):
            return there  # somebody wrote one meanwhile
        self.datasets.set_caption(folder, file, text)
        return text

    def picture_file(self, day: str, name: str) -> Path:
        """The file of a picture that was drawn, by the day (YYYY-MM-DD) and its name; NotFoundError."""
        path = self.state_dir / "pictures" / day / name
        if not (_DAY.fullmatch(day) and _PICTURE.fullmatch(name) and path.is_file()):
            raise NotFoundError(f"There is no picture {name[:100]!r} of the day {day[:20]!r}.")
        return path

    def templates(self) -> list[str]:
        """Names of prompt templates: the workspace's own and those that are shipped."""
        return template_names(self.workspace.templates)

    def about(self) -> dict[str, Any]:
        """Version, workspace, devices, counts of jobs by state."""
        return {
            "version": VERSION,
            "root": str(self.workspace.root),
            "devices": list(self.settings.device),
            "jobs": {str(state): count for state, count in self.queue.store.counts().items()},
            "extensions": self.extensions.names(),
            "uptime_s": round(time.time() - self.started_at, 1),
        }

    def files(self) -> list[dict[str, Any]]:
        """Files of adapters in every format: ``kind``, ``name``, ``path``, ``size``, ``mtime``; latest first."""
        return storage.list_files(self.workspace)

    def run_origin(self, found: Mapping[str, Any]) -> RunOrigin | None:
        """The run that a file came of, by what ``ModelWork.inspect`` says of it; None where it is not known here."""
        return run_origin(self.workspace, found)

    def settings_again(self, found: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The settings with which a file was trained, see ``run_origin.settings_again``."""
        return settings_again(self.workspace, found)

    def changes_since(self, found: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
        """What is not as it was when a file was trained, in sentences; pictures are looked at by the training itself.

        Args:
            found: what ``ModelWork.inspect`` says of the file.
            settings: those of ``settings_again``.
        """
        return changes(facts_of_file(found), facts_here(settings, self.workspace))

    def pictures_changed(self, found: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
        """The same of the pictures, all of which are read; nothing where the training could not begin.

        Args:
            found, settings: as ``changes_since`` takes them.
        """
        try:
            plan = self.model_work.plan("train", settings, "none", digests=True)
        except TinctureError:
            return []  # the plan of the form says why
        here = {name: plan["facts"][name] for name in PICTURE_FACTS if name in plan["facts"]}
        return changes(facts_of_file(found), here)

    def usage(self) -> dict[str, int]:
        """Bytes in the server's own folder: ``pictures``, ``jobs``, ``other``; and ``free`` on its disk."""
        return storage.usage(self.state_dir)

    def clear_pictures(self) -> int:
        """Deletes the pictures that were drawn, and returns how many there were."""
        return storage.clear_pictures(self.state_dir)

    def _listed(self, kind: str) -> Iterator[dict[str, Any]]:
        for path in self.workspace.list_adapters(kind):
            try:
                found = path.stat()
            except OSError:
                continue  # deleted in between
            size, mtime = found.st_size, found.st_mtime
            yield {"kind": kind, "name": path.stem, "path": str(path), "size": size, "mtime": mtime}


def _uses(job: Job, folder: Path) -> bool:
    """Whether one of a job's settings names the folder, or something in it."""
    values = [value if isinstance(value, list) else [value] for value in job.settings.values()]
    texts = [text for texts in values for text in texts if isinstance(text, str)]
    places = [Path(part) for text in texts for part in (text, re.sub(r":\d+$", "", text))]
    return any(place.is_absolute() and place.is_relative_to(folder) for place in places)
