"""Work that takes a model: plans, new adapters, pictures, files in every format; done by processes of their own.

The calls wait for those processes, and may be made from any thread. Paths in what is asked for are checked here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from tincture.errors import UsageError
from tincture.kinds.registry import find_kind, kind_names
from tincture.run.duration import Timing
from tincture.server.errors import ConflictError
from tincture.server.model_process.client import ModelProcess
from tincture.server.queue.jobs import JobKind, JobState, held_adapter
from tincture.server.queue.queue import AUTO, JobQueue
from tincture.server.requests.adapters import checked_options
from tincture.server.requests.conversion import checked_conversion, checked_inspection, checked_merge
from tincture.server.requests.places import Places
from tincture.settings.server import ServerSettings
from tincture.workspace import TRAINABLE_SUFFIXES, clean_name


class ModelWork:
    """What the server does with models, besides its jobs.

    Args:
        places: which paths requests may name, and the workspace.
        settings: of the server.
        pictures: the folder that pictures are drawn into.
        queue: whose jobs' adapters are not overwritten.
        default_model: gives the model that counts where none is named.

    Attributes:
        file_process, drawing_process: two, so that a dry run does not wait for a picture that is being drawn.
    """

    def __init__(
        self,
        places: Places,
        settings: ServerSettings,
        pictures: Path,
        queue: JobQueue,
        default_model: Callable[[], str],
    ) -> None:
        self._places, self._workspace, self._settings = places, places.workspace, settings
        self._pictures, self._queue, self._default_model = pictures, queue, default_model
        self.file_process, self.drawing_process = (
            ModelProcess(self._workspace, idle_s=settings.idle_minutes * 60, allow_hub=settings.allow_hub)
            for _ in range(2)
        )

    def rest(self) -> None:
        """Lets the processes that do nothing end, so that their memory is free; the next calls get new ones."""
        self.file_process.rest()
        self.drawing_process.rest()

    def unload(self) -> None:
        """Frees the memory of the model that drew last; ConflictError while something is done with it."""
        if not self.drawing_process.rest():
            raise ConflictError("The model is at work on a picture; wait for it, or stop it by /sdapi/v1/interrupt.")

    def load(self, model: str = "") -> None:
        """Loads the model that draws, as the next drawing needs it; blocks for that. ModelError as for a drawing."""
        chosen = self._places.model(model or self._default_model())
        self.drawing_process.call("load", model=chosen, device=self._settings.device[0])

    def describe(self, picture: bytes, *, captioner: str = "", tagger: str = "") -> str:
        """What is on a picture, by one of the two models.

        Args:
            picture: a file.

        Raises:
            DataError: it is no picture, or of no format that is taken.
            ForbiddenPathError, ModelError: the model cannot be had.
        """
        models = {"captioner": captioner, "tagger": tagger}
        named = {what: self._places.helper_model(name) for what, name in models.items()}
        device = self._settings.device[0]
        return cast(str, self.file_process.call("describe", picture=picture, device=device, **named))

    def close(self) -> None:
        """Ends the processes, with the calls at work; blocks for that."""
        self.file_process.close()
        self.drawing_process.close()

    def plan(
        self, kind: JobKind, settings: Mapping[str, Any], timing: Timing = "measure", *, digests: bool = False
    ) -> dict[str, Any]:
        """What a training would do, with nothing written: see ``recipe.plan``. Takes seconds.

        While a job runs, no times are measured: they would be wrong, and disturb it.

        Raises:
            UsageError: as ``submit``.
            DataError: the pictures cannot be used.
        """
        if kind != "train":
            raise UsageError("Only a training has a plan; preprocessing reports what it did.")
        arguments = {**self._plan_arguments(kind, settings, timing), **({"digests": True} if digests else {})}
        return cast(dict[str, Any], self.file_process.call("plan", **arguments))

    def plan_while_typed(self, page: str, settings: Mapping[str, Any], timing: Timing) -> dict[str, Any]:
        """The same of a training, for a form that is being filled in: it gives way to all else that is asked for.

        Args:
            page: names the form; a newer request for it, or ``forget_plan``, ends this one.

        Raises:
            StoppedError: that happened.
        """
        arguments = self._plan_arguments("train", settings, timing)
        return cast(dict[str, Any], self.file_process.call_while_latest(page, "plan", **arguments))

    def forget_plan(self, page: str) -> None:
        """The form changed: what ``plan_while_typed`` does for it counts no more."""
        self.file_process.forget(page)

    def _plan_arguments(self, kind: JobKind, settings: Mapping[str, Any], timing: Timing) -> dict[str, Any]:
        checked, _, _ = self._queue.checked(kind, settings)
        if checked["device"] == AUTO:
            checked["device"] = self._settings.device[0]
        if timing == "measure" and self._queue.jobs([JobState.RUNNING], limit=1):
            timing = "known"
        return {"settings": checked, "timing": timing}

    def create_adapter(self, kind: str, name: str, *, model: str = "", **options: Any) -> Path:
        """A new adapter; see ``recipe.create``. ``model`` empty: the default one.

        Raises:
            UsageError: there is no such kind, or an option is not allowed.
            ConflictError: there is one of that name and it is not to be overwritten, or a job that has not ended
                trains it.
            TooMuchError: it would be larger than memory should be filled with.
        """
        checked = checked_options(find_kind(kind), options)
        self._refuse_taken(kind, name, bool(options.get("overwrite")))
        chosen = self._places.model(model or self._default_model())
        return cast(Path, self.file_process.call("create", kind=kind, name=clean_name(name), model=chosen, **checked))

    def model_fit(self, model: str = "", text: str = "") -> dict[str, Any]:
        """What fits a model, for new adapters: of it, only the text encoders are loaded.

        Returns:
            ``name``, ``family``; ``context_widths`` of its attentions, and which of them is the text's
            (``text_width``); ``most_vectors`` of an embedding; ``tokens`` of ``text``, as words.
        """
        chosen = self._places.model(model or self._default_model())
        return cast(dict[str, Any], self.file_process.call("model_fit", model=chosen, text=text))

    def embeddings(self, model: str = "") -> dict[str, list[dict[str, Any]]]:
        """``loaded``: those that ``model`` can use; ``skipped``: the others, each with its ``reason``.

        Each has name, path, step, sd_checkpoint, sd_checkpoint_name, shape (width) and vectors.
        """
        chosen = self._places.model(model or self._default_model())
        return cast(dict[str, list[dict[str, Any]]], self.file_process.call("list_embeddings", model=chosen))

    def draw(self, request: Mapping[str, Any], remarks: list[str] | None = None, *, partly: bool = False) -> list[Path]:
        """Draws pictures into ``pictures`` and returns their files; the model stays loaded for the next.

        Args:
            request: fields of ``DrawingRequest``; a model that is left out is the default model.
            remarks: gets what there was to say on the way, such as that an embedding was left out.
            partly: when somebody stops it, the pictures that are finished are returned, if there are any.

        Raises:
            UsageError: a value is not allowed, or an adapter that a prompt names is not there.
            StoppedError: somebody stopped it.
            QueueFullError: too many wait for a picture already.
            TooMuchError: more or larger pictures than this server draws.
        """
        named = {**request, "model": request.get("model") or self._default_model()}
        checked = self._places.drawing(named, most=self._settings.max_pictures, side=self._settings.max_side)
        out = self._pictures / time.strftime("%Y-%m-%d")
        arguments = {"request": checked.to_dict(), "out": out, "device": self._settings.device[0], "partly": partly}
        paths, warned = self.drawing_process.call_with_remarks("draw", **arguments)
        if remarks is not None:
            remarks += warned
        return cast(list[Path], paths)

    def stop_drawing(self) -> None:
        """Ends the drawing at hand, if there is one, which then raises an error where it was asked for."""
        self.drawing_process.interrupt()

    def drawing(self) -> dict[str, Any] | None:
        """How far the drawing at hand is; None while nothing is drawn.

        ``done`` and ``total`` sampling steps, ``preview``: the picture that was finished last; nothing of this yet,
        while the process begins.
        """
        return self.drawing_process.progress()

    def inspect(self, path: str) -> dict[str, Any]:
        """What a file is; see ``inspection.inspect_file``."""
        return cast(
            dict[str, Any], self.file_process.call("inspect", path=checked_inspection({"path": path}, self._places))
        )

    def convert(self, path: str, out: str, **options: Any) -> dict[str, Any]:
        """Writes an adapter in another format to the path ``out``; see ``conversion.convert_file``.

        Args:
            path, out: the file that is there, and the one to write.
            options: further fields of ``ConversionRequest``.

        Raises:
            ConflictError: a job that has not ended trains an adapter of that name.
        """
        checked = checked_conversion({"path": path, "out": out, **options}, self._places)
        self._refuse_trained_file(checked["out"])
        return cast(dict[str, Any], self.file_process.call("convert", **checked))

    def merge(self, sources: Sequence[str], out: str, **options: Any) -> dict[str, Any]:
        """Writes a file made of several adapters; see ``merged_files.plan_merge``.

        Args:
            sources, out: the files that are there, with their weights, and the one to write, or its name.
            options: further fields of ``MergeRequest``.

        Raises:
            ConflictError: a job that has not ended trains an adapter of that name.
        """
        checked = checked_merge({"sources": sources, "out": out, **options}, self._places)
        if isinstance(checked["out"], Path):
            self._refuse_trained_file(checked["out"])
        else:
            for kind in kind_names():
                self._refuse_trained(kind, checked["out"])
        return cast(dict[str, Any], self.file_process.call("merge", **checked))

    def file_steps(self, paths: Sequence[str]) -> dict[str, int | None]:
        """How far the adapter in each file was trained; None for a file that cannot be read."""
        places = {path: self._places.path(path) for path in paths}
        return cast(dict[str, int | None], self.file_process.call("file_steps", paths=places))

    def add_adapter(self, path: Path, name: str) -> Path:
        """Copies a file that was uploaded into the workspace, once it turned out to be an adapter.

        Args:
            path: the uploaded file, wherever it lies.
            name: the file's name, from which the adapter gets its own.

        Raises:
            ConflictError: there is an adapter of that name.
            FileFormatError, UsageError: it is of no kind of adapters.
        """
        return cast(Path, self.file_process.call("add_adapter", path=path, name=name))

    def examine(self) -> dict[str, Any]:
        """What this machine can do; see ``doctor.examine``."""
        return cast(dict[str, Any], self.file_process.call("examine"))

    def _refuse_taken(self, kind: str, name: str, overwrite: bool) -> None:
        if self._workspace.adapter_path(kind, name).exists() and not overwrite:
            raise ConflictError(
                f"There is a file of the {kind} {name.strip()!r} already; choose another name, or overwrite."
            )
        self._refuse_trained(kind, name)

    def _refuse_trained(self, kind: str, name: str) -> None:
        """What a training goes on with is not put in another's place: the next step would overwrite it."""
        for job in self._queue.store.holding(held_adapter(kind, name))[:1]:
            raise ConflictError(
                f"The job {job.id}, which is {job.state}, trains the {kind} {name.strip()!r}; cancel it first, or "
                "choose another name."
            )

    def _refuse_trained_file(self, path: Path) -> None:
        """The same for a file that is to be written, if it is one that a name stands for."""
        for kind in kind_names():
            folder = Path(os.path.realpath(self._workspace.adapter_folder(kind)))
            if path.suffix.lower() in TRAINABLE_SUFFIXES and path.is_relative_to(folder):
                self._refuse_trained(kind, path.name)
