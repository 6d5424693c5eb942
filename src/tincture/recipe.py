"""From settings to a finished adapter file: the library's entry.

Settings become components here, and only here; below this module everything takes flat parameters.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tincture import randomness, version
from tincture.adapters import embedding, hypernetwork
from tincture.adapters.adapter import Adapter
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.data import captions
from tincture.data.batches import BatchPlan
from tincture.data.dataset import PictureDataset, load_dataset
from tincture.data.latents import LatentCache, alpha_weights
from tincture.drawing import Drawing
from tincture.errors import DataError, ModelError, UsageError
from tincture.events import Callback, Progressed, RunEnded
from tincture.models.loading import find_folder, load_model
from tincture.models.sampling import SAMPLERS, complete
from tincture.models.stable_diffusion import StableDiffusion
from tincture.preview import Previewer
from tincture.run_folder import Checkpointer, RunFolder, read_record, write_json
from tincture.settings import TrainSettings
from tincture.training import checkpoint
from tincture.training.conditioning import Conditioning
from tincture.training.lr_schedule import Schedule
from tincture.training.metrics import CsvLog, TensorBoardLog
from tincture.training.optimizer import create_optimizer
from tincture.training.trainer import PRECISIONS, Clipping, PromptDraw, Trainer, TrainingData
from tincture.workspace import Workspace

MAX_PREVIEWS = 4
"""Prompts drawn at each preview when the settings name none."""


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
    path = workspace.embedding_path(name)
    _refuse_existing(path, overwrite)
    base = load_model(model, workspace=workspace)
    made = embedding.create_embedding(path.stem if path.suffix else name, base, num_vectors, init_text)
    made.save(path, model_name=base.name, model_hash=base.hash)
    return path


def create_hypernetwork(
    name: str,
    *,
    workspace: Workspace,
    model: str = "picto",
    sizes: Sequence[int] | None = None,
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
        sizes: context widths to have a pair for; None takes every width of ``model``.

    Raises:
        UsageError: the name is not allowed or taken, or the structure makes no sense.
    """
    path = workspace.hypernetwork_path(name)
    _refuse_existing(path, overwrite)
    base = load_model(model, workspace=workspace)
    made = hypernetwork.create_hypernetwork(
        path.stem,
        sizes or base.context_widths(),
        layer_structure=layer_structure,
        activation_func=activation_func,
        weight_init=weight_init,
        add_layer_norm=add_layer_norm,
        activate_output=activate_output,
        dropout_structure=dropout_structure,
        seed=seed,
    )
    made.save(path, model_name=base.name, model_hash=base.hash)
    return path


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
        TrainingError: nothing is left to do, or the run diverged.
    """
    settings = settings.resolved()
    path = find_adapter(settings, workspace)
    adapter = _load_adapter(settings.kind, path, path.stem)
    _check_steps(settings, adapter)
    run = _prepare(settings, workspace, adapter, _template(settings, workspace), callbacks)
    folder = RunFolder.create(_logs(settings, workspace), settings.kind, adapter.name)
    _write_records(run, folder, path, workspace)
    return _run(run, folder, path, callbacks, stop)


def resume(
    run_dir: Path,
    *,
    workspace: Workspace | None = None,
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
) -> RunResult:
    """Goes on with the run in ``run_dir`` exactly where its newest state stands.

    On a CPU the weights that result equal, bit for bit, those of the run that was never stopped.

    Args:
        workspace: where model and adapter lie; None takes the run's own.

    Raises:
        FileFormatError: the folder holds no run, or no readable state.
        DataError: the pictures or captions are not those that the run began with.
        UsageError: the adapter's file was trained further since.
    """
    run_dir = Path(run_dir).resolve()
    record = read_record(run_dir)
    settings = TrainSettings.from_dict(record["settings"], source=str(run_dir / "run.json"))
    workspace = workspace or Workspace.open(record["root"])
    folder = RunFolder(run_dir, settings.kind)
    path = Path(record["adapter_path"])
    adapter = _load_adapter(settings.kind, folder.start, path.stem)
    states = checkpoint.list_states(folder.states)
    # A run that was killed before it wrote its first state stands at its start.
    state = checkpoint.newest_state(folder.states) if states else None
    saved = states[0][0] if states else adapter.step
    if path.exists() and (done := _load_adapter(settings.kind, path, path.stem).step) > saved:
        raise UsageError(
            f"{path} has {done} steps, but the newest state in {run_dir} has {saved}: the file was trained further "
            "since, and resuming would overwrite it. Move it away to resume all the same."
        )
    run = _prepare(settings, workspace, adapter, record["template_lines"], callbacks, record)
    if state is not None:
        checkpoint.restore_state(run.trainer, state)
    return _run(run, folder, path, callbacks, stop)


def plan(settings: TrainSettings, workspace: Workspace) -> dict[str, Any]:
    """What ``train`` would do, with nothing written: settings, pictures, epochs, trained numbers, memory in MiB."""
    settings = settings.resolved()
    path = find_adapter(settings, workspace)
    adapter = _load_adapter(settings.kind, path, path.stem)
    model = _load_base(settings, workspace)
    dataset = _load_data(settings, model)
    batches = BatchPlan(dataset.sizes(), settings.batch_size, settings.seed)
    _check(settings, model, adapter, _template(settings, workspace), dataset)
    trained = sum(parameter.numel() for parameter in adapter.parameters())
    remaining = max(0, settings.steps - adapter.step)
    sizes: dict[str, int] = {}
    for sample in dataset:
        sizes[f"{sample.width}x{sample.height}"] = sizes.get(f"{sample.width}x{sample.height}", 0) + 1
    frozen = sum(_bytes(part) for part in (model.unet, model.text_encoder, model.vae))
    cells = sum(sample.width * sample.height for sample in dataset) // model.vae_scale_factor**2
    return {
        "settings": settings.to_dict(),
        "model": {"name": model.name, "hash": model.hash, "family": model.family},
        "pictures": len(dataset),
        "skipped": {str(path): reason for path, reason in dataset.skipped},
        "sizes": sizes,
        "micro_batches_per_epoch": batches.micro_batches_per_epoch,
        "steps": remaining,
        "epochs": round(remaining * settings.gradient_accumulation_steps / batches.micro_batches_per_epoch, 2),
        "trained_numbers": trained,
        # Weights, gradients and Adam's two moments in float32; latents as mean and spread. Activations come on top.
        "memory_mib": {
            "frozen_model": round(frozen / 2**20, 1),
            "trained_state": round(trained * 16 / 2**20, 3),
            "latents": round(cells * 2 * 4 * 4 / 2**20, 3),
        },
    }


def find_adapter(settings: TrainSettings, workspace: Workspace) -> Path:
    """The file of the adapter to train; UsageError says how to create one."""
    find = workspace.find_embedding if settings.kind == "embedding" else workspace.find_hypernetwork
    try:
        return find(settings.name)
    except UsageError as error:
        raise UsageError(f"{error} Create it first: tincture create {settings.kind} {settings.name!r}.") from None


# --- from settings to components -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Run:
    settings: TrainSettings
    model: StableDiffusion
    adapter: Adapter
    dataset: PictureDataset
    lines: list[str]
    trainer: Trainer


def _prepare(
    settings: TrainSettings,
    workspace: Workspace,
    adapter: Adapter,
    lines: list[str],
    callbacks: Sequence[Callback],
    record: Mapping[str, Any] | None = None,
) -> _Run:
    """Everything that a run is made of, checked before the slow parts begin.

    Args:
        lines: of the prompt template.
        record: of the run that goes on; model and data must be those it began with.
    """
    learning_rate = Schedule.parse(settings.learning_rate, settings.steps)
    clipping = None
    if settings.clip_grad_mode != "none":
        clipping = Clipping(settings.clip_grad_mode, Schedule.parse(settings.clip_grad_value, settings.steps))
    optimizer = create_optimizer(
        settings.optimizer, adapter.parameters(), learning_rate.at(adapter.step), settings.weight_decay
    )
    model = _load_base(settings, workspace)
    dataset = _load_data(settings, model)
    if record is not None:
        _check_unchanged(settings, model, dataset, record)
    _check(settings, model, adapter, lines, dataset)
    for path, reason in dataset.skipped:
        warnings.warn(f"{path} is skipped: {reason}", stacklevel=2)
    adapter.to(model.device)
    trainer = Trainer(
        model,
        adapter,
        _training_data(settings, model, adapter.name, dataset, lines, callbacks),
        Conditioning(model, trains_text=adapter.trains_text, clip_skip=settings.clip_skip),
        optimizer,
        learning_rate=learning_rate,
        # As in the webui, a schedule that ends earlier ends the run.
        steps=min(settings.steps, learning_rate.end_step),
        global_step=adapter.step,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        clipping=clipping,
        precision=settings.precision,
        seed=settings.seed,
        log_every=settings.log_every,
    )
    return _Run(settings, model, adapter, dataset, lines, trainer)


def resolve_device(name: str) -> torch.device:
    """``auto`` is the first accelerator there is, else the CPU; UsageError for a device that is not there."""
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    device = torch.device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"Device {name!r} cannot be used here: {reason} Try --device auto; tincture doctor lists what is there."
        ) from error
    return device


def _load_base(settings: TrainSettings, workspace: Workspace) -> StableDiffusion:
    device = resolve_device(settings.device)
    model = load_model(settings.model, workspace=workspace, device=device, dtype=PRECISIONS[settings.precision])
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    return model


def _load_data(settings: TrainSettings, model: StableDiffusion) -> PictureDataset:
    return load_dataset(
        Path(settings.data),
        width=settings.width or model.default_size,
        height=settings.height or model.default_size,
        varsize=settings.varsize,
        stride=model.vae_scale_factor,
        word_regex=settings.word_regex,
        join_string=settings.join_string,
    )


def _load_adapter(kind: str, path: Path, name: str) -> Adapter:
    """The adapter in ``path``, called ``name``: as in the webui its file's name counts, not what stands in the file."""
    adapter: Adapter = Embedding.load(path) if kind == "embedding" else Hypernetwork.load(path)
    adapter.name = name
    return adapter


def _template(settings: TrainSettings, workspace: Workspace) -> list[str]:
    return captions.load_template(settings.template, workspace.templates)


def _check_steps(settings: TrainSettings, adapter: Adapter) -> None:
    end = min(settings.steps, Schedule.parse(settings.learning_rate, settings.steps).end_step)
    if adapter.step >= end:
        what = "--steps is" if end == settings.steps else "the learning rate's schedule ends at"
        raise UsageError(
            f"The {settings.kind} {settings.name!r} has {adapter.step} steps already, and {what} {end}: "
            "nothing is left to do. Give a larger one to train it further."
        )


def _check_unchanged(
    settings: TrainSettings, model: StableDiffusion, dataset: PictureDataset, record: Mapping[str, Any]
) -> None:
    if dataset.digest() != record["data_hash"]:
        raise DataError(
            f"The pictures or captions in {settings.data} have changed since the run began; put them back to resume."
        )
    if model.hash != record["model_hash"]:
        raise ModelError(
            f"The model {settings.model!r} is not the one that the run began with; put that one back to resume."
        )


def _check(
    settings: TrainSettings, model: StableDiffusion, adapter: Adapter, lines: list[str], dataset: PictureDataset
) -> None:
    """What can be wrong only between settings, model, adapter and data."""
    if settings.preview_sampler not in SAMPLERS:
        raise UsageError(f"There is no sampler {settings.preview_sampler!r}; known are {', '.join(SAMPLERS)}.")
    if settings.batch_size > len(dataset):
        raise UsageError(
            f"--batch-size is {settings.batch_size}, but {settings.data} has {len(dataset)} usable pictures; give at "
            "most that many, or use --gradient-accumulation-steps for a larger batch."
        )
    layers = model.text_encoder.config.num_hidden_layers
    if settings.clip_skip > layers:
        raise UsageError(f"--clip-skip is {settings.clip_skip}, but the text encoder has {layers} layers.")
    _check_adapter(settings, model, adapter, lines)


def _check_adapter(settings: TrainSettings, model: StableDiffusion, adapter: Adapter, lines: list[str]) -> None:
    if isinstance(adapter, Embedding):
        widths = {encoder: vectors.shape[-1] for encoder, vectors in adapter.vectors.items()}
        if widths.get(model.text_encoder_name) != model.text_width:
            raise ModelError(
                f"The embedding {adapter.name!r} is {widths}, but {model.name} needs {model.text_encoder_name} vectors "
                f"of width {model.text_width}; create one for this model."
            )
        unnamed = [line for line in lines if "[name]" not in line]
        if unnamed:
            raise UsageError(
                f"The template {settings.template!r} has a line without [name] ({unnamed[0]!r}): nothing in it can be "
                "trained. Use subject, subject_filewords, style, style_filewords or a template of your own with [name]."
            )
    elif isinstance(adapter, Hypernetwork) and not set(adapter.sizes) & set(model.context_widths()):
        raise ModelError(
            f"The hypernetwork {adapter.name!r} has layers for widths {sorted(adapter.sizes)}, none of which "
            f"{model.name} has ({', '.join(map(str, model.context_widths()))}); create one for this model."
        )


def _training_data(
    settings: TrainSettings,
    model: StableDiffusion,
    name: str,
    dataset: PictureDataset,
    lines: list[str],
    callbacks: Sequence[Callback],
) -> TrainingData:
    def told(done: int, total: int) -> None:
        for callback in callbacks:
            callback.on_event(Progressed("latents", done, total))

    latents = LatentCache.encode(model, dataset, seed=settings.seed, on_progress=told)
    return TrainingData(
        plan=BatchPlan(dataset.sizes(), settings.batch_size, settings.seed),
        latents=latents,
        prompt=_prompt_draw(settings, name, dataset, lines),
        latent_sampling_method=settings.latent_sampling_method,
        weights=_loss_weights(model, dataset, latents) if settings.use_weight else None,
    )


def _prompt_draw(settings: TrainSettings, name: str, dataset: PictureDataset, lines: list[str]) -> PromptDraw:
    def draw(index: int, global_step: int, slot: int) -> str:
        return captions.prompt_for(
            dataset[index].caption,
            lines,
            name,
            randomness.generator(settings.seed, "prompt", global_step, slot),
            shuffle_tags=settings.shuffle_tags,
            tag_drop_out=settings.tag_drop_out,
        )

    return draw


def _loss_weights(model: StableDiffusion, dataset: PictureDataset, latents: LatentCache) -> list[Tensor]:
    weights = []
    for index in range(len(dataset)):
        _, height, width = latents.shape(index)
        weights.append(alpha_weights(dataset.alpha(index), height, width).to(model.device))
    return weights


# --- running ---------------------------------------------------------------------------------------------------------


def _run(
    run: _Run, folder: RunFolder, path: Path, callbacks: Sequence[Callback], stop: threading.Event | None
) -> RunResult:
    settings, trainer = run.settings, run.trainer
    seconds = _Seconds()
    watchers: list[Callback] = [seconds, CsvLog(folder.csv, trainer.global_step)]
    if settings.tensorboard:
        watchers.append(TensorBoardLog(folder.tensorboard, trainer.global_step))
    watchers.append(Checkpointer(trainer, folder, path, settings.save_every, lambda to: _save(run, to)))
    if settings.preview_every:
        watchers.append(_previewer(run, folder.images))
    watchers.extend(callbacks)
    interrupted = trainer.run(watchers, stop)
    loss, _ = trainer.window.window()
    return RunResult(path, folder.path, trainer.global_step, loss, interrupted, seconds.value)


class _Seconds:
    """How long the loop took."""

    value = math.nan

    def on_event(self, event: object) -> None:
        if isinstance(event, RunEnded):
            self.value = event.seconds


def _save(run: _Run, path: Path) -> None:
    run.adapter.save(path, model_name=run.model.name, model_hash=run.model.hash, provenance=_provenance(run))


def _provenance(run: _Run) -> dict[str, Any]:
    return {"software": f"tincture {version()}", "settings": run.settings.to_dict(), "data_hash": run.dataset.digest()}


def _previewer(run: _Run, folder: Path) -> Previewer:
    settings, data = run.settings, run.trainer.data
    prompts = settings.preview_prompts or tuple(
        dict.fromkeys(data.prompt(index, 0, index) for index in range(min(MAX_PREVIEWS, len(run.dataset))))
    )
    seed, every, emit = settings.preview_seed, settings.preview_every, run.trainer.emit
    return Previewer(run.model, run.adapter, prompts, _drawing(settings), seed, folder, every, emit)


def _drawing(settings: TrainSettings) -> Drawing:
    return Drawing(
        negative_prompt=settings.preview_negative_prompt,
        steps=settings.preview_steps,
        sampler=settings.preview_sampler,
        guidance_scale=settings.preview_guidance_scale,
        width=settings.width or None,
        height=settings.height or None,
        clip_skip=settings.clip_skip,
    )


def _logs(settings: TrainSettings, workspace: Workspace) -> Path:
    return Path(settings.log_dir).resolve() if settings.log_dir else workspace.logs


def _write_records(run: _Run, folder: RunFolder, path: Path, workspace: Workspace) -> None:
    """Writes what a resume needs, and the webui's settings file."""
    settings = run.settings.replace(
        data=str(Path(run.settings.data).resolve()), model=_anywhere(run.settings.model, workspace)
    )
    run.adapter.save(folder.start, model_name=run.model.name, model_hash=run.model.hash)
    record = {
        "settings": settings.to_dict(),
        "root": str(workspace.root.resolve()),
        "adapter_path": str(path.resolve()),
        "model_name": run.model.name,
        "model_hash": run.model.hash,
        "data_hash": run.dataset.digest(),
        # The lines themselves: a template that is edited later does not change this run.
        "template_lines": run.lines,
        "software": f"tincture {version()}",
    }
    now = datetime.datetime.now()
    write_json(folder.path / f"settings-{now:%Y-%m-%d-%H-%M-%S}.json", _webui_settings(run, folder, now))
    write_json(folder.record, record)


def _anywhere(model: str, workspace: Workspace) -> str:
    """A model's name or path so that it is found from any current directory."""
    return model if model == "picto" else str(find_folder(model, workspace))


def _webui_settings(run: _Run, folder: RunFolder, now: datetime.datetime) -> dict[str, Any]:
    """The reference's settings file, in its own key names."""
    settings, adapter, model = run.settings, run.adapter, run.model
    kind = settings.kind
    own: dict[str, Any] = {}
    if isinstance(adapter, Embedding):
        own = {"num_vectors_per_token": adapter.num_vectors}
    elif isinstance(adapter, Hypernetwork):
        own = {
            "layer_structure": list(adapter.layer_structure),
            "activation_func": adapter.activation_func,
            "weight_init": adapter.weight_init,
            "add_layer_norm": adapter.add_layer_norm,
            "use_dropout": any(adapter.dropout_structure),
        }
    previews = settings.preview_prompts and {
        "preview_prompt": settings.preview_prompts[0],
        "preview_negative_prompt": settings.preview_negative_prompt,
        "preview_steps": settings.preview_steps,
        "preview_sampler_name": settings.preview_sampler,
        "preview_cfg_scale": complete(_drawing(settings), model).guidance_scale,
        "preview_seed": settings.preview_seed,
    }
    return {
        "datetime": f"{now:%Y-%m-%d %H:%M:%S}",
        "model_name": model.name,
        "model_hash": model.hash,
        "num_of_dataset_images": len(run.dataset),
        **own,
        f"{kind}_name": adapter.name,
        "learn_rate": settings.learning_rate,
        "batch_size": settings.batch_size,
        "gradient_step": settings.gradient_accumulation_steps,
        "data_root": settings.data,
        "log_directory": str(folder.path),
        "training_width": settings.width or model.default_size,
        "training_height": settings.height or model.default_size,
        "steps": settings.steps,
        "clip_grad_mode": settings.clip_grad_mode,
        "clip_grad_value": settings.clip_grad_value,
        "latent_sampling_method": settings.latent_sampling_method,
        "create_image_every": settings.preview_every,
        f"save_{kind}_every": settings.save_every,
        "save_image_with_stored_embedding": False,
        "template_file": settings.template,
        "initial_step": adapter.step,
        **(previews or {}),
    }


def _bytes(module: torch.nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
