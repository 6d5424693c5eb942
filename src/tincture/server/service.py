"""What the server can do, in one place: the HTTP endpoints and the page are two ways of asking for it.

All methods may be called from any thread, and block for no longer than they say. Settings in requests are checked at
once, paths in them too; what takes long happens in processes of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import tincture
from tincture.data.captions import template_names
from tincture.errors import UsageError
from tincture.extensions import Extensions
from tincture.server.errors import ConflictError, NotFoundError, QueueFullError
from tincture.server.library import storage
from tincture.server.library.datasets import Datasets
from tincture.server.model_process.client import Calls
from tincture.server.queue.folder import JobFolder
from tincture.server.queue.jobs import FINISHED, Job, JobKind, JobState, Wanted, held_adapter
from tincture.server.queue.store import JobStore
from tincture.server.queue.supervisor import Supervisor
from tincture.server.requests.adapters import checked_conversion, checked_network
from tincture.server.requests.places import Places
from tincture.server.requests.sizes import check_sizes, shortened
from tincture.settings.server import ServerSettings
from tincture.workspace import TRAINABLE_SUFFIXES, Workspace, clean_name

STATE_FOLDER = "tincture-server"
JOB_KINDS: tuple[JobKind, ...] = ("train", "preprocess")
AUTO = "auto"
OVERWRITE = "overwrite"
"""What requests may give among the settings of a preprocessing besides them; as of ``preprocess``."""
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_PICTURE = re.compile(r"(grid-)?\d{5,}-\d+\.png", re.ASCII)


class Service:
    """The server's work: jobs, adapters, data sets, pictures.

    Attributes:
        workspace: where models and adapters lie, and what relative paths in requests start from.
        settings: of the server.
        state_dir: the server's own folder: ``jobs.sqlite3``, ``jobs/ID/``, ``pictures/``, ``uploads/``.
        places: which paths requests may name.
        datasets: folders of pictures, uploaded or made by preprocessing.
        extensions: what installed packages add.
        started_at: seconds since 1970.
        stopping: set when the server is about to end, so that streams to watchers end and nothing waits for them.
    """

    def __init__(self, workspace: Workspace, settings: ServerSettings, extensions: Extensions | None = None) -> None:
        self.workspace, self.settings = workspace, settings
        self.extensions = extensions or Extensions()
        self.state_dir = Path(settings.state_dir).resolve() if settings.state_dir else workspace.root / STATE_FOLDER
        self.places = Places(workspace, self.state_dir, settings.allow_dir, allow_hub=settings.allow_hub)
        self.datasets = Datasets(self.places, settings.max_upload_mb * 2**20, settings.max_upload_files)
        self.store = JobStore(self.state_dir / "jobs.sqlite3")
        hub, idle_s = settings.allow_hub, settings.idle_minutes * 60
        self.supervisor = Supervisor(
            self.store,
            self.state_dir / "jobs",
            workspace,
            settings.device,
            allow_hub=hub,
            make_room=self._make_room,
        )
        # Two processes: a dry run does not wait for a picture that is being drawn.
        self._desk = Calls(workspace, idle_s=idle_s, allow_hub=hub)
        self._easel = Calls(workspace, idle_s=idle_s, allow_hub=hub)
        self.started_at = time.time()
        self.stopping = threading.Event()

    def start(self) -> None:
        """Begins to work on the queue; jobs that a power cut left running go on where they stopped."""
        self.supervisor.start()
        storage.clear_uploads(self.state_dir)  # after that: there is no other server

    def close(self) -> None:
        """Stops running jobs, which save and will go on at the next start, and ends all processes; blocks for that."""
        self.stopping.set()
        self.supervisor.close()
        self._desk.close()
        self._easel.close()

    # --- jobs --------------------------------------------------------------------------------------------------------

    def submit(
        self,
        kind: JobKind,
        settings: Mapping[str, Any],
        *,
        priority: int = 0,
        timeout_s: float | None = None,
        device: str = "",
        source: str = "api",
    ) -> Job:
        """Puts a job at the end of the queue, behind those of the same priority.

        Args:
            kind: ``train`` or ``preprocess``.
            settings: fields of ``TrainSettings``, or of ``PreprocessSettings`` and ``overwrite`` as of ``preprocess``;
                relative paths start at the workspace.
            priority: -1000 to 1000; the higher, the sooner.
            timeout_s: seconds of running after which it is stopped, saved and failed; None: the server's.
            device: one of the server's; empty: that of the settings, or any, if they have none.
            source: who asks: ``api``, ``page`` or ``webui``.

        Raises:
            UsageError: a setting is not allowed, or the adapter to train does not exist, or a template, or a folder
                that no job which has not ended will make.
            ForbiddenPathError: a path leads out of what is allowed.
            QueueFullError: the queue is full; paused jobs count too.
        """
        checked, name = self._checked(kind, settings)
        if not -1000 <= priority <= 1000:
            raise UsageError(f"The priority is {priority}; allowed is -1000 to 1000.")
        if timeout_s is not None and not 0 < timeout_s <= 10**7:
            raise UsageError(f"The timeout is {timeout_s} s; allowed is more than 0 and at most 10,000,000 s.")
        device = self._device(device, checked["device"])
        self._refuse_full()
        job = Job(
            id=_new_id(),
            kind=kind,
            name=name,
            settings=checked,
            priority=priority,
            # Also when the clock was set back, behind those that wait.
            position=max(time.time(), self.store.last_position() + 1e-6),
            device=device,
            timeout_s=timeout_s if timeout_s is not None else (self.settings.job_timeout * 3600 or None),
            source=source,
            created_at=time.time(),
        )
        self.store.add(job)
        self.supervisor.wake()
        return job

    def jobs(self, states: Collection[JobState] = (), limit: int = 100, offset: int = 0) -> list[Job]:
        """Jobs in the given states, or all: running, then waiting in their order, then ended ones, latest first."""
        return self.store.list(states, limit, offset)

    def job(self, job_id: str) -> Job:
        """The job as it stands; NotFoundError."""
        return self.store.get(job_id)

    def folder(self, job_id: str) -> JobFolder:
        """Log and events of a job; NotFoundError."""
        self.store.get(job_id)
        return self.supervisor.folder(job_id)

    def events(self, job_id: str, since: int = 0) -> list[dict[str, Any]]:
        """What the job told, from number ``since`` on, oldest first; see ``worker`` for what events there are."""
        return self.folder(job_id).events(since)

    def metrics(
        self, job_id: str, since_step: int = 0, *, every: int = 1, most: int | None = None
    ) -> list[dict[str, Any]]:
        """Steps after ``since_step``: global_step, epoch, epoch_step, loss, learning_rate; see ``JobFolder``."""
        return self.folder(job_id).metrics(since_step, every=every, most=most)

    def log(self, job_id: str, since: int = 0) -> tuple[str, int]:
        """What the job wrote for people from byte ``since`` on, and where to go on reading."""
        return self.folder(job_id).log(since)

    def previews(self, job_id: str) -> list[Path]:
        """Preview pictures of a training, oldest first; each lies in the run's folder ``images``."""
        return self.folder(job_id).previews()

    def cancel(self, job_id: str) -> Job:
        """Ends a job: a waiting one at once, a running one after its step, saved. ConflictError when it has ended."""
        return self._stop(job_id, Wanted.CANCELLED, JobState.CANCELLED)

    def pause(self, job_id: str) -> Job:
        """As ``cancel``, but the job keeps its place, and ``resume`` lets it go on exactly where it stopped."""
        return self._stop(job_id, Wanted.PAUSED, JobState.PAUSED)

    def interrupt(self) -> list[Job]:
        """Every running job stops after its step, saves, and counts as done, as by the webui's button."""
        asked = []
        for job in self.jobs([JobState.RUNNING]):
            with contextlib.suppress(ConflictError, NotFoundError):  # it ended just now
                # One that is to be paused or cancelled stops anyway, as somebody else wants it.
                asked.append(job if job.wanted else self.supervisor.ask(job.id, Wanted.INTERRUPTED))
        return asked

    def resume(self, job_id: str) -> Job:
        """A paused job waits for its turn again; ConflictError for others."""
        return self._queue_again(job_id, {JobState.PAUSED})

    def retry(self, job_id: str) -> Job:
        """A failed or cancelled job waits for its turn again, and goes on where it stopped, if it saved anything."""
        self._refuse_full()
        return self._queue_again(job_id, {JobState.FAILED, JobState.CANCELLED})

    def move(self, job_id: str, *, priority: int | None = None, before: str | None = None) -> Job:
        """Changes a waiting job's turn: another priority, or right before another waiting job, with its priority."""
        return self.store.move(job_id, priority=priority, before=before)

    def delete(self, job_id: str) -> None:
        """Forgets a job that has ended, with its log; what it trained stays. ConflictError while it waits or runs."""
        self.store.delete(job_id, FINISHED | {JobState.PAUSED})
        self.supervisor.folder(job_id).remove()
        self.supervisor.wake()

    def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """Blocks until the job is done, failed, cancelled or paused, or the time is over; returns it as it stands."""
        return self.supervisor.wait(job_id, timeout_s)

    def same_adapter(self, job: Job) -> list[Job]:
        """Other trainings of the adapter that a training is for: those that run, wait or are paused."""
        return [other for other in self.store.holding(job.holds) if other.id != job.id and job.kind == "train"]

    def _checked(self, kind: JobKind, settings: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        if kind == "train":
            training = self.places.train_settings(settings, self._to_come)
            self.workspace.find_adapter(training.kind, training.name)
            return training.to_dict(), training.name
        if kind == "preprocess":
            rest = {name: value for name, value in settings.items() if name != OVERWRITE}
            made, overwrite = self.places.preprocess_settings(rest, self._to_come), settings.get(OVERWRITE, False)
            if not isinstance(overwrite, bool):
                raise UsageError(f"{OVERWRITE} is {shortened(overwrite)}, but must be true or false.")
            return {**made.to_dict(), **({OVERWRITE: True} if overwrite else {})}, Path(made.destination).name
        raise UsageError(f"There is no kind of job {kind!r}; there are {' and '.join(JOB_KINDS)}.")

    def _device(self, asked: str, setting: str) -> str:
        """Where a job must run; empty: anywhere. On a server that was given no device by name, the setting decides."""
        known = self.settings.device
        if asked and asked not in known:
            raise UsageError(f"This server has no device {asked!r}; it has {', '.join(known)}.")
        if setting == AUTO:
            return asked
        named = setting if setting in known else AUTO
        if named not in known:
            raise UsageError(
                f"The setting device is {setting!r}, but this server has {', '.join(known)}; leave it out."
            )
        if asked not in ("", named):
            raise UsageError(f"The job's device is {asked!r}, but its setting device is {setting!r}; leave one out.")
        return named

    def _to_come(self) -> list[Path]:
        """Folders that jobs which have not ended will make."""
        jobs = self.jobs([JobState.RUNNING, JobState.QUEUED, JobState.PAUSED], limit=10 * self.settings.max_jobs)
        return [Path(job.settings["destination"]) for job in jobs if job.kind == "preprocess"]

    def _stop(self, job_id: str, wanted: Wanted, state: JobState) -> Job:
        waiting = {JobState.QUEUED} if state is JobState.PAUSED else {JobState.QUEUED, JobState.PAUSED}
        while True:
            job = self.store.get(job_id)
            try:
                if job.state is JobState.RUNNING:
                    return self.supervisor.ask(job_id, wanted)
                stopped = self.store.update(job_id, waiting, state=state, wanted=None, stage="", ended_at=time.time())
                self.supervisor.wake()
                return stopped
            except ConflictError:
                if self.store.get(job_id).state is job.state:
                    raise
                # It was begun, or stopped, in this very moment, and can be asked for the same as it is now.

    def _make_room(self, job: Job) -> None:
        """The model that drew pictures need not stay where a job begins; it is loaded again for the next ones."""
        if job.device == self.settings.device[0]:
            self._desk.rest()
            self._easel.rest()

    def _refuse_full(self) -> None:
        counts = self.store.counts()
        if counts[JobState.QUEUED] + counts[JobState.PAUSED] >= self.settings.max_jobs:
            raise QueueFullError(f"{self.settings.max_jobs} jobs are waiting already; try again when some are done.")

    def _queue_again(self, job_id: str, states: Collection[JobState]) -> Job:
        job = self.store.update(job_id, states, state=JobState.QUEUED, wanted=None, error="", error_type="", result={})
        self.supervisor.wake()
        return job

    # --- what takes a model; in processes of their own, and these calls wait for them -------------------------------

    def plan(self, kind: JobKind, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What a training would do, with nothing written: see ``recipe.plan``. Takes seconds.

        Raises:
            UsageError: as ``submit``.
            DataError: the pictures cannot be used.
        """
        if kind != "train":
            raise UsageError("Only a training has a plan; preprocessing reports what it did.")
        checked, _ = self._checked(kind, settings)
        self._device("", checked["device"])
        if checked["device"] == AUTO:
            checked["device"] = self.settings.device[0]
        return cast(dict[str, Any], self._desk.call("plan", settings=checked))

    def create_embedding(
        self, name: str, *, model: str = "", num_vectors: int = 1, init_text: str = "*", overwrite: bool = False
    ) -> Path:
        """A new embedding; see ``recipe.create_embedding``. ``model`` empty: the workspace's first, or picto.

        Raises:
            ConflictError: there is one of that name and it is not to be overwritten, or a job that has not ended
                trains it.
        """
        arguments = {"num_vectors": num_vectors, "init_text": init_text, "overwrite": overwrite}
        check_sizes(arguments, {})
        self._refuse_taken("embedding", name, overwrite)
        chosen = self.places.model(model or self.default_model())
        return cast(Path, self._desk.call("create_embedding", name=clean_name(name), model=chosen, **arguments))

    def create_hypernetwork(self, name: str, *, model: str = "", **options: Any) -> Path:
        """A new hypernetwork; ``options`` as of ``recipe.create_hypernetwork``, errors as of ``create_embedding``."""
        checked = checked_network(options)
        self._refuse_taken("hypernetwork", name, bool(options.get("overwrite")))
        chosen = self.places.model(model or self.default_model())
        return cast(Path, self._desk.call("create_hypernetwork", name=clean_name(name), model=chosen, **checked))

    def embeddings(self, model: str = "") -> dict[str, list[dict[str, Any]]]:
        """``loaded``: those that ``model`` can use; ``skipped``: the others, each with its ``reason``.

        Each has name, path, step, sd_checkpoint, sd_checkpoint_name, shape (width) and vectors.
        """
        chosen = self.places.model(model or self.default_model())
        return cast(dict[str, list[dict[str, Any]]], self._desk.call("list_embeddings", model=chosen))

    def draw(self, request: Mapping[str, Any], remarks: list[str] | None = None, *, partly: bool = False) -> list[Path]:
        """Draws pictures into ``state_dir/pictures`` and returns their files; the model stays loaded for the next.

        Args:
            request: ``prompts`` (list), ``seeds`` (list; -1 for one by chance), ``model``, ``vae``, ``precision``,
                and the fields of ``Drawing``; with ``strengths`` (list) or ``checkpoints`` (adapter files), one sheet
                of the first prompt and seed as by ``generation.generate_grid``.
            remarks: gets what there was to say on the way, such as that an embedding was left out.
            partly: when somebody stops it, the pictures that are finished are returned, if there are any.

        Raises:
            UsageError: a value is not allowed, or an adapter that a prompt names is not there.
            StoppedError: somebody stopped it.
            QueueFullError: too many wait for a picture already.
            TooMuchError: more or larger pictures than this server draws.
        """
        checked = self.places.drawing(request, most=self.settings.max_pictures, side=self.settings.max_side)
        checked.setdefault("model", self.default_model())
        out = self.state_dir / "pictures" / time.strftime("%Y-%m-%d")
        arguments = {"request": checked, "out": out, "device": self.settings.device[0], "partly": partly}
        paths, told = self._easel.call_with_remarks("draw", **arguments)
        if remarks is not None:
            remarks += told
        return cast(list[Path], paths)

    def picture_file(self, day: str, name: str) -> Path:
        """The file of a picture that was drawn, by the day (YYYY-MM-DD) and its name; NotFoundError."""
        path = self.state_dir / "pictures" / day / name
        if not (_DAY.fullmatch(day) and _PICTURE.fullmatch(name) and path.is_file()):
            raise NotFoundError(f"There is no picture {name[:100]!r} of the day {day[:20]!r}.")
        return path

    def stop_drawing(self) -> None:
        """Ends the drawing at hand, if there is one, which then raises an error where it was asked for."""
        self._easel.interrupt()

    def drawing(self) -> dict[str, Any] | None:
        """How far the drawing at hand is; None while nothing is drawn.

        ``done`` and ``total`` sampling steps, ``preview``: the picture that was finished last; nothing of this yet,
        while the process begins.
        """
        return self._easel.progress()

    def inspect(self, path: str) -> dict[str, Any]:
        """What a file is; see ``inspection.inspect_file``."""
        return cast(dict[str, Any], self._desk.call("inspect", path=self.places.path(path)))

    def convert(self, path: str, out: str, **options: Any) -> dict[str, Any]:
        """Writes an adapter in another format to the path ``out``; see ``conversion.convert_file``.

        Raises:
            ConflictError: a job that has not ended trains an adapter of that name.
        """
        source, target = self.places.path(path), self.places.path(out, writing=True)
        checked = checked_conversion(options, self.places)
        self._refuse_trained_file(target)
        return cast(dict[str, Any], self._desk.call("convert", path=source, out=target, **checked))

    def file_steps(self, paths: Sequence[str]) -> dict[str, int | None]:
        """How far the adapter in each file was trained; None for a file that cannot be read."""
        places = {path: self.places.path(path) for path in paths}
        return cast(dict[str, int | None], self._desk.call("file_steps", paths=places))

    def add_adapter(self, path: Path, name: str) -> Path:
        """Copies a file that was uploaded into the workspace, once it turned out to be an adapter.

        Args:
            path: the uploaded file, wherever it lies.
            name: the file's name, from which the adapter gets its own.

        Raises:
            ConflictError: there is an adapter of that name.
            FileFormatError, UsageError: it is no embedding or hypernetwork.
        """
        return cast(Path, self._desk.call("add_adapter", path=path, name=name))

    def examine(self) -> dict[str, Any]:
        """What this machine can do; see ``doctor.examine``."""
        return cast(dict[str, Any], self._desk.call("examine"))

    # --- what lies in the workspace ----------------------------------------------------------------------------------

    def default_model(self) -> str:
        """The model that counts where none is named: the one that was chosen, else the workspace's first, or picto."""
        names, chosen = [model["name"] for model in self.models()], storage.chosen_model(self.state_dir)
        return chosen if chosen in names else self.workspace.default_model()

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
        return [*self._listed("embedding"), *self._listed("hypernetwork")]

    def adapter_file(self, kind: str, name: str) -> Path:
        """The file of an adapter by its name; NotFoundError."""
        try:
            return self.workspace.find_adapter(kind, name)
        except UsageError as error:
            raise NotFoundError(str(error)) from None

    def copies(self) -> list[dict[str, Any]]:
        """Copies of adapters that trainings kept: ``kind``, ``name``, ``step``, ``path``, ``run`` (DATE/NAME)."""
        return storage.list_copies(self.workspace)

    def delete_dataset(self, name: str) -> None:
        """Deletes a data set, with all that is in it.

        Raises:
            NotFoundError: there is none of this name.
            ConflictError: a job that has not ended needs it.
        """
        folder = self.datasets.info(name).path
        for job in self.jobs([JobState.RUNNING, JobState.QUEUED, JobState.PAUSED], limit=10 * self.settings.max_jobs):
            if _uses(job, folder):
                raise ConflictError(f"The job {job.id} ({job.name}) needs the data set {name!r}; cancel it first.")
        self.datasets.delete(name)

    def templates(self) -> list[str]:
        """Names of prompt templates: the workspace's own and those that are shipped."""
        return template_names(self.workspace.templates)

    def about(self) -> dict[str, Any]:
        """Version, workspace, devices, counts of jobs by state."""
        return {
            "version": tincture.version(),
            "root": str(self.workspace.root),
            "devices": list(self.settings.device),
            "jobs": {str(state): count for state, count in self.store.counts().items()},
            "extensions": self.extensions.names(),
            "uptime_s": round(time.time() - self.started_at, 1),
        }

    def files(self) -> list[dict[str, Any]]:
        """Files of adapters in every format: ``kind``, ``name``, ``path``, ``size``, ``mtime``; latest first."""
        return storage.list_files(self.workspace)

    def usage(self) -> dict[str, int]:
        """Bytes in the server's own folder: ``pictures``, ``jobs``, ``other``; and ``free`` on its disk."""
        return storage.usage(self.state_dir)

    def clear_pictures(self) -> int:
        """Deletes the pictures that were drawn, and returns how many there were."""
        return storage.clear_pictures(self.state_dir)

    def _refuse_taken(self, kind: str, name: str, overwrite: bool) -> None:
        if self.workspace.adapter_path(kind, name).exists() and not overwrite:
            raise ConflictError(
                f"There is a file of the {kind} {name.strip()!r} already; choose another name, or overwrite."
            )
        self._refuse_trained(kind, name)

    def _refuse_trained(self, kind: str, name: str) -> None:
        """What a training goes on with is not put in another's place: the next step would overwrite it."""
        for job in self.store.holding(held_adapter(kind, name))[:1]:
            raise ConflictError(
                f"The job {job.id}, which is {job.state}, trains the {kind} {name.strip()!r}; cancel it first, or "
                "choose another name."
            )

    def _refuse_trained_file(self, path: Path) -> None:
        """The same for a file that is to be written, if it is one that a name stands for."""
        for kind in ("embedding", "hypernetwork"):
            folder = Path(os.path.realpath(self.workspace.adapter_path(kind, "x").parent))
            if path.suffix.lower() in TRAINABLE_SUFFIXES and path.is_relative_to(folder):
                self._refuse_trained(kind, path.name)

    def _listed(self, kind: str) -> Iterator[dict[str, Any]]:
        for path in self.workspace.list_adapters(kind):
            try:
                found = path.stat()
            except OSError:
                continue  # deleted in between
            told = {"size": found.st_size, "mtime": found.st_mtime}
            yield {"kind": kind, "name": path.stem, "path": str(path), **told}


def plain_job(job: Job) -> dict[str, Any]:
    """A job as JSON has it, with its ``progress``."""
    return {**dataclasses.asdict(job), "progress": job.progress}


def _uses(job: Job, folder: Path) -> bool:
    """Whether one of a job's settings names the folder, or something in it."""
    values = [value if isinstance(value, list) else [value] for value in job.settings.values()]
    texts = [text for texts in values for text in texts if isinstance(text, str)]
    places = [Path(part) for text in texts for part in (text, re.sub(r":\d+$", "", text))]
    return any(place.is_absolute() and place.is_relative_to(folder) for place in places)


def _new_id() -> str:
    """Sorts by time; what follows the time cannot be guessed."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
