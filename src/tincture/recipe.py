"""The library's entry: make an adapter, plan, train, resume."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.adapters import embedding, hypernetwork
from tincture.adapters.adapter import Adapter
from tincture.components import Components, check, check_steps, fit_memory, load_adapter, load_base, prepare
from tincture.data.batches import BatchPlan
from tincture.data.dataset import PictureDataset
from tincture.devices import resolve_device
from tincture.errors import AlreadyTrainedError, UsageError
from tincture.events import Callback, RunEnded, RunPrepared
from tincture.memory import MemoryEstimate, MemoryEstimator
from tincture.memory_fit import shortage_explained
from tincture.models.families import FAMILIES
from tincture.models.loading import load_model
from tincture.optimizer_file import load_optimizer, save_optimizer
from tincture.preview import EmbeddingCards, Previewer
from tincture.run_data import load_data, load_template, mask_remarks, open_latents, preview_prompts
from tincture.run_folder import Checkpointer, RunFolder, read_record, write_json
from tincture.run_records import preview_drawing, provenance, software, write_records
from tincture.run_resume import noted, refuse_foreign, relocated
from tincture.run_trainer import make_optimizer
from tincture.settings import MEMORY_SETTINGS, TrainSettings
from tincture.training import checkpoint
from tincture.training.metrics import CsvLog, TensorBoardLog
from tincture.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class RunResult:
    """How a run ended. ``loss`` is the mean over the window, NaN when no step was made."""

    adapter_path: Path
    run_dir: Path
    global_step: int
    loss: float
    interrupted: bool
    seconds: float


# --- create ----------------------------------------------------------------------------------------------------------


def create_embedding(
    name: str,
    *,
    workspace: Workspace,
    model: str = "picto",
    num_vectors: int = 1,
    init_text: str = "*",
    overwrite: bool = False,
) -> Path:
    """Writes a new embedding into the workspace and returns its path.

    Raises:
        UsageError: the name is not allowed or taken, or ``num_vectors`` is not in 1..75.
    """
    path = workspace.adapter_path("embedding", name)
    _refuse_existing(path, overwrite)
    base = load_model(model, workspace=workspace, text_only=True)
    made = embedding.create_embedding(path.stem, base, num_vectors, init_text)
    if len(made.vectors) > 1:  # the webui's format has no place for a second text encoder
        path = path.with_suffix(".safetensors")
        _refuse_existing(path, overwrite)
    made.save(path, model_name=base.name, model_hash=base.hash, provenance=software())
    return path


def create_hypernetwork(
    name: str,
    *,
    workspace: Workspace,
    model: str = "picto",
    sizes: Sequence[int] | str | None = None,
    layer_structure: Sequence[float] = (1, 2, 1),
    activation_func: str = "linear",
    weight_init: str = "Normal",
    add_layer_norm: bool = False,
    activate_output: bool = False,
    dropout_structure: Sequence[float] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Writes a new hypernetwork into the workspace and returns its path.

    Args:
        sizes: context widths to have a pair for, or the name of a family for all of its widths; then no model is
            loaded. None takes every width of ``model``.

    Raises:
        UsageError: the name is not allowed or taken, there is no such family, or the structure makes no sense.
    """
    path = workspace.adapter_path("hypernetwork", name)
    _refuse_existing(path, overwrite)
    base = None if sizes else load_model(model, workspace=workspace, text_only=True)
    made = hypernetwork.create_hypernetwork(
        path.stem,
        base.context_widths() if base else _widths(sizes or ()),
        layer_structure=layer_structure,
        activation_func=activation_func,
        weight_init=weight_init,
        add_layer_norm=add_layer_norm,
        activate_output=activate_output,
        dropout_structure=dropout_structure,
        seed=seed,
    )
    told = {"model_name": base.name, "model_hash": base.hash} if base else {}
    made.save(path, **told, provenance=software())
    return path


def _widths(sizes: Sequence[int] | str) -> Sequence[int]:
    if not isinstance(sizes, str):
        return sizes
    if sizes not in FAMILIES:
        raise UsageError(f"There is no family {sizes!r} to take the sizes of; known are {', '.join(FAMILIES)}.")
    return FAMILIES[sizes].context_widths


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already; choose another name, or give --overwrite to replace it.")


# --- train -----------------------------------------------------------------------------------------------------------


def train(
    settings: TrainSettings,
    workspace: Workspace,
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
) -> RunResult:
    """Trains an adapter that exists in the workspace; returns when it is done or ``stop`` is set.

    Raises:
        UsageError: a setting does not fit model, data or adapter.
        DataError: the pictures cannot be used.
        TrainingError: nothing is left to do, the run diverged, or memory ran out.
    """
    settings = settings.resolved()
    path = find_adapter(settings, workspace)
    adapter = load_adapter(settings.kind, path, path.stem)
    check_steps(settings, adapter)
    lines = load_template(settings, workspace)
    with shortage_explained(settings, resolve_device(settings.device), lambda: None):
        run = prepare(settings, workspace, adapter, lines, callbacks)
    load_optimizer(run.trainer.optimizer, adapter, path)
    folder = RunFolder.create(_logs(settings, workspace), settings.kind, adapter.name, path.suffix)
    write_records(run, folder, path, workspace)
    _tell_prepared(run, folder, callbacks)
    return _run(run, folder, path, callbacks, stop)


def resume(
    run_dir: Path,
    *,
    workspace: Workspace | None = None,
    memory: Mapping[str, Any] | None = None,
    device: str = "",
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
) -> RunResult:
    """Goes on with the run in ``run_dir`` exactly where its newest state stands.

    On a CPU the weights that result equal, bit for bit, those of the run that was never stopped.

    Args:
        workspace: where model and adapter lie; None takes the run's own. A run whose folder lies in it goes on there,
            should it have begun in another: the whole workspace was moved.
        memory: of ``settings.MEMORY_SETTINGS`` and ``vram``, those to change from now on. ``vram`` chooses the others
            anew, except for precision and weight storage, on which the result depends.
        device: where to go on, if not where the run began; another kind of device computes a little differently.

    Raises:
        FileFormatError: the folder holds no run, or no readable state.
        DataError: the pictures or captions are not those that the run began with.
        UsageError: the adapter's file was trained further, or made anew, since.
    """
    run_dir = Path(run_dir).resolve()
    began = read_record(run_dir)
    workspace = workspace or Workspace.open(began["root"])
    record = relocated(began, run_dir, workspace)
    values = {**record["settings"], **_changed_memory(memory or {}), **({"device": device} if device else {})}
    settings = TrainSettings.from_dict(values, source=str(run_dir / "run.json")).resolved()
    path = Path(record["adapter_path"])
    folder = RunFolder(run_dir, settings.kind, path.suffix)
    adapter = load_adapter(settings.kind, folder.start, path.stem)
    states = checkpoint.list_states(folder.states)
    # A run that was killed before it wrote its first state stands at its start.
    state = checkpoint.newest_state(folder.states) if states else None
    saved = states[0][0] if states else adapter.step
    if path.exists():
        _refuse_newer(load_adapter(settings.kind, path, path.stem), path, saved, record, run_dir)
    with shortage_explained(settings, resolve_device(settings.device), lambda: None, str(run_dir)):
        run = prepare(settings, workspace, adapter, record["template_lines"], callbacks, record)
    if state is None:
        load_optimizer(run.trainer.optimizer, adapter, path)
    else:
        checkpoint.restore_state(run.trainer, state)
    if memory:
        record["settings"] = run.settings.to_dict()
    if record != began:
        write_json(folder.record, record)
    _tell_prepared(run, folder, callbacks)
    return _run(run, folder, path, callbacks, stop)


def _refuse_newer(there: Adapter, path: Path, saved: int, record: Mapping[str, Any], run_dir: Path) -> None:
    if there.step > saved:
        raise UsageError(
            f"{path} has {there.step} steps, but the newest state in {run_dir} has {saved}: the file was trained "
            "further since, and resuming would overwrite it. Move it away to resume all the same."
        )
    refuse_foreign(there, path, record, run_dir)


def _changed_memory(memory: Mapping[str, Any]) -> dict[str, Any]:
    wrong = set(memory) - {*MEMORY_SETTINGS, "vram"}
    if wrong:
        raise UsageError(
            f"A run cannot go on with another {', '.join(sorted(wrong))}; what can change is "
            f"{', '.join(MEMORY_SETTINGS)} and vram. For all else, begin a new run."
        )
    chooses = memory.get("vram", "off") != "off"
    open_again = {"offload": None, "slicing": None, "gradient_checkpointing": None} if chooses else {}
    return {**open_again, **memory}


def plan(settings: TrainSettings, workspace: Workspace) -> dict[str, Any]:
    """What ``train`` would do, with nothing written: settings, pictures, sizes, epochs, trained numbers, memory.

    The memory is that of the device, in MiB: the most at a time, the most of each phase, and what of it lies there.

    Raises:
        OutOfMemoryError: the run does not fit into what ``vram`` says.
    """
    settings = settings.resolved()
    path = find_adapter(settings, workspace)
    adapter = load_adapter(settings.kind, path, path.stem)
    make_optimizer(settings, adapter)  # refuses what train would refuse
    device = resolve_device(settings.device)
    model = load_base(settings, workspace, stay=True)
    dataset = load_data(settings, model, open_latents(settings, model, device))
    lines = load_template(settings, workspace)
    check(settings, model, adapter, lines, dataset)
    batches = BatchPlan(dataset.sizes(), settings.batch_size, settings.seed, dataset.repeats())
    estimator = MemoryEstimator(model, adapter, dataset, lines, device.type)
    settings, fitted = fit_memory(settings, estimator, device)
    trained = sum(parameter.numel() for parameter in adapter.parameters())
    remaining = max(0, settings.last_step - adapter.step)
    return {
        "settings": settings.to_dict(),
        "model": {
            "name": model.name,
            "hash": model.hash,
            "family": model.family.title,
            "inpainting": model.is_inpainting,
            "predicts": model.predicts,
        },
        "pictures": dataset.pictures(),
        "samples_per_epoch": sum(dataset.repeats()),
        "skipped": {str(path): reason for path, reason in dataset.skipped},
        "remarks": [*dataset.remarks, *mask_remarks(settings, dataset), *_end_remarks(settings, adapter)],
        "buckets": _buckets(dataset),
        "micro_batches_per_epoch": batches.micro_batches_per_epoch,
        "steps": remaining,
        "epochs": round(remaining * settings.gradient_accumulation_steps / batches.micro_batches_per_epoch, 2),
        "trained_numbers": trained,
        "memory_mib": _mib(estimator.estimate(settings)),
        **({"chosen_for_memory": dict(fitted.chosen)} if fitted else {}),
    }


def _end_remarks(settings: TrainSettings, adapter: Adapter) -> Iterator[str]:
    if settings.last_step < settings.steps:
        yield (
            f"The learning rate's schedule ends at step {settings.last_step}, and the run with it, though steps is "
            f"{settings.steps}."
        )
    try:
        check_steps(settings, adapter)
    except AlreadyTrainedError as error:
        yield str(error)


def _mib(estimate: MemoryEstimate) -> dict[str, float]:
    weights = {f"weights of {part.replace('_', ' ')}": size for part, size in estimate.weights.items()}
    sizes = {
        "peak": estimate.peak,
        **estimate.phases,
        **weights,
        "trained numbers and optimizer": estimate.trained,
        "latents and prompts": estimate.data,
    }
    return {name: round(size / 2**20, 3 if size < 2**20 else 1) for name, size in sizes.items()}


def _buckets(dataset: PictureDataset) -> list[dict[str, Any]]:
    """For each size in pixels: how many pictures have it, and what share of them is cut off on average."""
    samples = sorted((sample for sample in dataset if not sample.flip), key=lambda sample: sample.fit.size)
    grouped = [(size, list(group)) for size, group in itertools.groupby(samples, lambda sample: sample.fit.size)]
    return [
        {
            "size": f"{width}x{height}",
            "pictures": len(group),
            "cropped": round(sum(sample.fit.cropped for sample in group) / len(group), 4),
        }
        for (width, height), group in grouped
    ]


def find_adapter(settings: TrainSettings, workspace: Workspace) -> Path:
    """The file of the adapter to train; UsageError says how to create one."""
    try:
        return workspace.find_adapter(settings.kind, settings.name)
    except UsageError as error:
        raise UsageError(f"{error} Create it first: tincture create {settings.kind} {settings.name!r}.") from None


# --- running ---------------------------------------------------------------------------------------------------------


def _run(
    run: Components, folder: RunFolder, path: Path, callbacks: Sequence[Callback], stop: threading.Event | None
) -> RunResult:
    settings, trainer = run.settings, run.trainer
    seconds = _Seconds()
    watchers: list[Callback] = [seconds, CsvLog(folder.csv, trainer.global_step)]
    if settings.tensorboard:
        watchers.append(TensorBoardLog(folder.tensorboard, trainer.global_step))
    watchers.append(Checkpointer(trainer, folder, path, settings.save_every, lambda to: _save(run, folder, to, path)))
    if settings.preview_every:
        watchers.append(_previewer(run, folder.images))
    if settings.preview_with_embedding and isinstance(run.adapter, embedding.Embedding):
        watchers.append(EmbeddingCards(run.model, run.adapter, folder.image_embeddings))
    watchers.extend(callbacks)
    with shortage_explained(settings, run.model.device, lambda: run.estimator, str(folder.path)):
        interrupted = trainer.run(watchers, stop)
    loss, _ = trainer.window.window()
    return RunResult(path, folder.path, trainer.global_step, loss, interrupted, seconds.value)


def _tell_prepared(run: Components, folder: RunFolder, callbacks: Sequence[Callback]) -> None:
    for callback in callbacks:
        callback.on_event(RunPrepared(folder.path, run.settings.to_dict()))


class _Seconds:
    """How long the loop took."""

    value = math.nan

    def on_event(self, event: object) -> None:
        if isinstance(event, RunEnded):
            self.value = event.seconds


def _save(run: Components, folder: RunFolder, path: Path, adapter_path: Path) -> None:
    final = path == adapter_path
    with noted(folder, run.adapter) if final else contextlib.nullcontext():
        run.adapter.save(path, model_name=run.model.name, model_hash=run.model.hash, provenance=provenance(run))
    if run.settings.save_optimizer_state and final:
        save_optimizer(run.trainer.optimizer, run.adapter, path)


def _previewer(run: Components, folder: Path) -> Previewer:
    settings, data = run.settings, run.trainer.data
    prompts = preview_prompts(settings, run.dataset, data.prompt)
    seed, every, emit = settings.preview_seed, settings.preview_every, run.trainer.emit
    return Previewer(run.model, run.adapter, prompts, preview_drawing(settings), seed, folder, every, emit)


def _logs(settings: TrainSettings, workspace: Workspace) -> Path:
    return Path(settings.log_dir).resolve() if settings.log_dir else workspace.logs
