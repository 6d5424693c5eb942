"""What the server has done in child processes, since it takes torch or a model; see ``client``.

Every target is called as ``function(resources, **arguments)``. Paths in arguments were checked by the server.
"""

from __future__ import annotations

import shutil
import tempfile
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture import recipe
from tincture.adapters.embedding import Embedding
from tincture.adapters.files import conversion
from tincture.adapters.files.inspection import inspect_file
from tincture.adapters.merging.merged_files import make_merge, plan_merge
from tincture.data.picture_files import UnreadablePictureError, read_picture
from tincture.drawing.generation import BATCH_SIZE, Studio, generate_grid, generate_pictures
from tincture.errors import DataError, OutOfMemoryError, TinctureError, UsageError
from tincture.extensions import load_extensions
from tincture.formats.file_state import FileState, state_of
from tincture.formats.files import write_atomically
from tincture.kinds.registry import kind_names, kinds
from tincture.models.devices import resolve_device
from tincture.preprocessing.captioning import Captioner
from tincture.preprocessing.describing import load_models
from tincture.run import doctor
from tincture.run.duration import Timing
from tincture.run.memory.fit import is_shortage
from tincture.server.errors import ConflictError, StoppedError
from tincture.server.requests.pictures import facts_of
from tincture.settings.drawing import DrawingRequest
from tincture.settings.preprocess import PreprocessSettings
from tincture.settings.train import TrainSettings
from tincture.workspace import ADAPTER_SUFFIX, TRAINABLE_SUFFIXES, Workspace, clean_name

PIXELS_AT_ONCE = 2**20
"""Pictures of so many pixels in all are drawn together, where the request does not say how many."""
Report = Callable[..., None]


class Resources:
    """What stays between calls: the model that was used last, and the embeddings that were read."""

    def __init__(self, workspace: Workspace, report: Report) -> None:
        self.workspace, self.report = workspace, report
        self.studio = Studio(workspace, load_extensions(root=workspace.root).model_loaded)
        self._described_by: tuple[PreprocessSettings, Captioner] | None = None
        self._steps: dict[tuple[Path, FileState], int | None] = {}

    def describer(self, settings: PreprocessSettings) -> Captioner:
        """The captioner or tagger that the settings name, loaded if it is not the one that was asked for last."""
        if self._described_by is None or self._described_by[0] != settings:
            self._described_by = settings, load_models(settings)[0]
        return self._described_by[1]

    def step_of(self, path: Path) -> int | None:
        """The step that the adapter in a file is at, read once as long as the file stays as it is."""
        try:
            known = (path, state_of(path.stat()))
            if known not in self._steps:
                step = inspect_file(path).get("step")
                self._steps[known] = step if isinstance(step, int) else None
        except (OSError, TinctureError):
            return None
        return self._steps[known]


def open_resources(workspace: Workspace, report: Report) -> Resources:
    """Called once in a process.

    Args:
        workspace: where models and adapters lie.
        report: called with how far a call is; raises when it shall end.
    """
    return Resources(workspace, report)


def plan(
    resources: Resources, *, settings: Mapping[str, Any], timing: Timing = "measure", digests: bool = False
) -> dict[str, Any]:
    """See ``recipe.plan``."""
    given = TrainSettings.from_dict(settings)
    return recipe.plan(given, resources.workspace, timing, resources.report, digests=digests)


def create(resources: Resources, *, kind: str, name: str, **options: Any) -> Path:
    """See ``recipe.create``."""
    return recipe.create(kind, name, workspace=resources.workspace, **options)


def list_embeddings(resources: Resources, *, model: str) -> dict[str, list[dict[str, Any]]]:
    """See ``Service.embeddings``."""
    base = resources.studio.model(model, None, "cpu", "fp32", text_only=True)
    database = resources.studio.embeddings(base)
    loaded = [_described(name, entry.path, entry.embedding) for name, entry in sorted(database.loaded.items())]
    left_out = sorted([*database.skipped, *database.unreadable], key=lambda entry: entry.path)
    skipped = [{**_described(each.name, each.path, each.embedding), "reason": each.reason} for each in left_out]
    return {"loaded": loaded, "skipped": skipped}


def model_fit(resources: Resources, *, model: str, text: str) -> dict[str, Any]:
    """See ``ModelWork.model_fit``."""
    base = resources.studio.model(model, None, "cpu", "fp32", text_only=True)
    return {
        "name": base.name,
        "family": base.family.title,
        "context_widths": base.context_widths(),
        "text_width": sum(base.text.widths.values()),
        "most_vectors": base.text.max_vectors,
        "tokens": base.text.tokens_of(text),
    }


def _described(name: str, path: Path, embedding: Embedding | None) -> dict[str, Any]:
    if embedding is None:
        unknown = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": 0, "vectors": 0}
        return {"name": name, "path": str(path), **unknown}
    return {
        "name": name,
        "path": str(path),
        "step": embedding.step,
        "sd_checkpoint": embedding.model_hash or None,
        "sd_checkpoint_name": embedding.model_name or None,
        # of SDXL's two text encoders, both: as the webui counts them
        "shape": sum(vectors.shape[1] for vectors in embedding.vectors.values()),
        "vectors": embedding.num_vectors,
    }


def draw(
    resources: Resources, *, request: Mapping[str, Any], out: Path, device: str, partly: bool = False
) -> list[Path]:
    """Pictures, or a sheet where the request has strengths or checkpoints.

    Args:
        request: fields of ``DrawingRequest``, their paths resolved.
        out: the folder they go to.
        device: where they are drawn.
        partly: when it is stopped, the pictures that are finished are returned, with a warning, if there are any.

    Raises:
        OutOfMemoryError: memory ran out.
        StoppedError: it was stopped.
        UsageError: a value is not allowed, or an adapter that a prompt names is not there.
    """
    finished: list[Path] = []
    settings = DrawingRequest.from_dict(request)
    resources.report(done=0, total=0, preview=None)
    shared: dict[str, Any] = {
        "workspace": resources.workspace,
        "studio": resources.studio,
        "out": out,
        "model": settings.model,
        "overrides": settings.overrides(),
        "device": device,
        "precision": settings.precision,
        "drawing": settings.drawing(),
        "watch": lambda done, total, latest: resources.report(done=done, total=total, preview=latest),
    }
    try:
        return _drawn(settings, shared, finished)
    except StoppedError:
        if not (partly and finished):
            raise
        count = settings.picture_count
        warnings.warn(f"It was stopped when {len(finished)} of {count} pictures were finished.", stacklevel=1)
        return finished
    except Exception as error:
        if not isinstance(error, TinctureError):
            # Whatever it left behind, the next drawing begins with the model's files.
            resources.studio.model_cache.forget()
        if not is_shortage(error):
            raise
    raise OutOfMemoryError(
        f"The memory of {resolve_device(device)} does not hold these pictures; draw smaller ones, fewer at a time "
        "(batch_size), or in another precision (bf16)."
    )


def load(resources: Resources, *, model: str, device: str) -> None:
    """Loads the model as a drawing does that leaves all else open."""
    resources.studio.model(model, None, device, DrawingRequest(prompts=("",)).precision)


def describe(resources: Resources, *, picture: bytes, device: str, **models: str) -> str:
    """What is on a picture; ``models`` names a captioner or a tagger."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        path.write_bytes(picture)
        try:
            facts_of(path)
            pixels, _ = read_picture(path)
        except UnreadablePictureError as error:
            raise DataError(f"The image {error}; send another one.") from None
    settings = PreprocessSettings.from_dict({"source": "-", "destination": "-", "device": device, **models})
    return resources.describer(settings)([pixels])[0]


def _drawn(settings: DrawingRequest, shared: Mapping[str, Any], finished: list[Path]) -> list[Path]:
    seeds = settings.drawn_seeds()
    if settings.is_sheet:
        rows = [Path(path) for path in settings.checkpoints]
        return [
            generate_grid(settings.prompts[0], seed=seeds[0], strengths=settings.columns, checkpoints=rows, **shared)
        ]
    pixels = (settings.width or 512) * (settings.height or 512)
    together = settings.batch_size or max(1, min(BATCH_SIZE, PIXELS_AT_ONCE // pixels))
    return generate_pictures(settings.prompts, seeds=seeds, batch_size=together, finished=finished, **shared)


def inspect(resources: Resources, *, path: Path) -> dict[str, Any]:
    """See ``inspection.inspect_file``."""
    return inspect_file(path)


def convert(
    resources: Resources, *, path: Path, out: Path, lora: Mapping[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    """See ``conversion.convert_file``; ``lora`` has the fields of ``LoraOptions``, captions as texts or their file."""
    given = dict(lora or {})
    if isinstance(given.get("captions"), Path):
        given["captions"] = conversion.read_captions(given["captions"])
    chosen = conversion.LoraOptions(**given) if given else None
    return conversion.convert_file(path, out, lora=chosen, workspace=resources.workspace, **options)


def merge(
    resources: Resources, *, sources: Sequence[tuple[Path, float]], out: Path | str, **options: Any
) -> dict[str, Any]:
    """See ``merged_files.plan_merge``."""
    return make_merge(plan_merge(sources, out, workspace=resources.workspace, **options))


def file_steps(resources: Resources, *, paths: Mapping[str, Path]) -> dict[str, int | None]:
    """See ``Service.file_steps``."""
    return {name: resources.step_of(path) for name, path in paths.items()}


def add_adapter(resources: Resources, *, path: Path, name: str) -> Path:
    """See ``Service.add_adapter``. A format that cannot be trained on is converted."""
    kind = inspect_file(path)["kind"]
    if kind not in kind_names():
        known = " and ".join(each.plural for each in kinds())
        raise UsageError(f"{name} holds {kind}, but only {known} can be added.")
    stem, suffix = clean_name(Path(name).stem), Path(name).suffix.lower()
    as_is = suffix in TRAINABLE_SUFFIXES
    target = resources.workspace.adapter_folder(kind) / f"{stem}{suffix if as_is else ADAPTER_SUFFIX}"
    if target.exists():
        raise ConflictError(f"There is a file {target.name} already; rename the new one, and add it again.")
    if not as_is:
        conversion.convert_file(path, target)
        return target
    with path.open("rb") as source:
        write_atomically(target, lambda file: shutil.copyfileobj(source, file))
    return target


def examine(resources: Resources) -> dict[str, Any]:
    """See ``doctor.examine``."""
    return doctor.examine(resources.workspace)


TARGETS: Mapping[str, Callable[..., Any]] = types.MappingProxyType(
    {
        "plan": plan,
        "create": create,
        "list_embeddings": list_embeddings,
        "model_fit": model_fit,
        "draw": draw,
        "load": load,
        "describe": describe,
        "inspect": inspect,
        "convert": convert,
        "merge": merge,
        "file_steps": file_steps,
        "add_adapter": add_adapter,
        "examine": examine,
    }
)
