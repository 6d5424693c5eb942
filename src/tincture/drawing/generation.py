"""From prompts to picture files: finds the adapters that prompts name, attaches them, draws, saves.

A prompt names a hypernetwork by ``<hypernet:NAME:0.8>`` and an embedding by its name, anywhere.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tincture.adapters.adapter import adapter_class
from tincture.adapters.embedding import Embedding
from tincture.adapters.embedding_database import EmbeddingDatabase
from tincture.drawing.model_cache import ModelCache
from tincture.drawing.sheets import save_sheet
from tincture.errors import UsageError
from tincture.formats.picture_text import parameters_text, save_png
from tincture.kinds.registry import tagged_kinds
from tincture.models.devices import PRECISIONS, resolve_device
from tincture.models.diffusion_model import DiffusionModel
from tincture.models.prompt import ExtraNetwork, parse_extra_networks, require_networks
from tincture.models.sampling import complete, generate
from tincture.randomness import require_seeds
from tincture.settings.drawing import CompleteDrawing, Drawing
from tincture.settings.model_overrides import ModelOverrides
from tincture.workspace import Workspace, adapter_of_copy

BATCH_SIZE = 16


class Studio:
    """What stays from one drawing to the next in a workspace: the model, and the embeddings that were read.

    Args:
        loaded: called with each model that is loaded whole, and with what gives the embeddings that it can use.
    """

    def __init__(
        self, workspace: Workspace, loaded: Callable[[DiffusionModel, Callable[[], object]], object] | None = None
    ) -> None:
        self.workspace, self._loaded = workspace, loaded
        self.model_cache = ModelCache()
        self._embeddings = EmbeddingDatabase([workspace.embeddings])

    def model(
        self, name: str, overrides: ModelOverrides | None, device: str, precision: str, *, text_only: bool = False
    ) -> DiffusionModel:
        """The model, loaded if it is not the one that was asked for last; see ``load_model``."""
        loads = self.model_cache.loads
        model = self.model_cache.load(
            name,
            workspace=self.workspace,
            device=resolve_device(device),
            dtype=PRECISIONS[precision],
            text_only=text_only,
            **dataclasses.asdict(overrides or ModelOverrides()),
        )
        if self._loaded and self.model_cache.loads > loads and not text_only:
            self._loaded(model, lambda: self.embeddings(model))
        return model

    def embeddings(self, model: DiffusionModel) -> EmbeddingDatabase:
        """Those of the workspace as they are now, sorted by what ``model`` can use."""
        self._embeddings.refresh(model)
        return self._embeddings


Watch = Callable[[float, int, Path | None], object]
"""Told after every sampling step how many are done, of how many, and the picture that was finished last.

What it raises ends the work.
"""


class _Progress:
    """Counts sampling steps over all batches, for a ``Watch``."""

    def __init__(self, watch: Watch | None, batches: int, steps: int) -> None:
        self._watch, self._steps, self._total = watch, steps, batches * steps
        self._batches = 0
        self.latest: Path | None = None

    def on_step(self, done: int, of: int) -> None:
        # Some samplers walk through more timesteps than were asked for.
        self._batches += done == of
        steps = self._batches + (done / of if done < of else 0)
        if self._watch is not None:
            self._watch(round(steps * self._steps, 3), self._total, self.latest)


def generate_pictures(
    prompts: Sequence[str],
    *,
    workspace: Workspace,
    out: Path,
    seeds: Sequence[int],
    model: str = "",
    overrides: ModelOverrides | None = None,
    device: str = "auto",
    precision: str = "fp32",
    drawing: Drawing | None = None,
    batch_size: int = BATCH_SIZE,
    studio: Studio | None = None,
    watch: Watch | None = None,
    finished: list[Path] | None = None,
) -> list[Path]:
    """Draws every prompt with every seed into ``out/NNNNN-SEED.png``, settings in the PNG text; returns the paths.

    Numbers go on behind those that are there; nothing is overwritten.

    Args:
        overrides: what counts instead of what the model's files say.
        device: see ``resolve_device``.
        precision: ``fp32``, ``bf16`` or ``fp16``, of U-Net and text encoder.
        batch_size: pictures at a time.
        studio: of this workspace; keeps the model for the next drawing.
        watch: told how far the work is.
        finished: gets each path once its file is there, for those who end the work before it is done.

    Raises:
        UsageError: a hypernetwork is not in the workspace, or a value or seed is not allowed.
    """
    require_seeds(seeds)  # before anything is loaded
    require_networks(prompts, workspace)
    studio = studio or Studio(workspace)
    base = studio.model(model, overrides, device, precision)
    drawing = complete(drawing or Drawing(), base)
    database = studio.embeddings(base)
    numbers = _free_numbers(out)
    paths: list[Path] = [] if finished is None else finished
    parsed = [parse_extra_networks(prompt) for prompt in prompts]
    batches = [seeds[first : first + batch_size] for first in range(0, len(seeds), batch_size)]
    progress = _Progress(watch, len(prompts) * len(batches), drawing.steps)
    for prompt, (text, networks) in zip(prompts, parsed, strict=True):
        with _acting(base, workspace, database, networks, [text, drawing.negative_prompt]):
            for batch in batches:
                pictures = generate(base, [text] * len(batch), drawing, seeds=batch, on_step=progress.on_step).numpy()
                for seed, picture in zip(batch, pictures, strict=True):
                    path = out / f"{next(numbers):05}-{seed}.png"
                    save_png(picture, path, _text(base, prompt, seed, drawing, _shown(networks)))
                    paths.append(path)
                progress.latest = paths[-1]
    return paths


def generate_grid(
    prompt: str,
    *,
    workspace: Workspace,
    out: Path,
    seed: int,
    strengths: Sequence[float],
    checkpoints: Sequence[Path] = (),
    model: str = "",
    overrides: ModelOverrides | None = None,
    device: str = "auto",
    precision: str = "fp32",
    drawing: Drawing | None = None,
    studio: Studio | None = None,
    watch: Watch | None = None,
) -> Path:
    """Draws one prompt as a sheet: a column per strength of its hypernetwork, a row per checkpoint of one adapter.

    The PNG text has the settings, the strengths of the columns and the checkpoints of the rows.

    Args:
        strengths: for every ``<hypernet:…>`` of the prompt; a prompt without one has a single column.
        checkpoints: adapter files such as ``NAME-500.pt``; each stands in for the adapter NAME. None: one row as it is.
        studio: of this workspace; keeps the model for the next drawing.
        watch: told how far the work is.

    Raises:
        UsageError: a hypernetwork is not in the workspace, or a checkpoint is not of anything the prompt names.
    """
    studio = studio or Studio(workspace)
    base = studio.model(model, overrides, device, precision)
    drawing = complete(drawing or Drawing(), base)
    database = studio.embeddings(base)
    text, networks = parse_extra_networks(prompt)
    columns = list(strengths) if networks else [1.0]
    rows: dict[str, Sequence[NDArray[Any]]] = {}
    listed: Sequence[Path | None] = checkpoints or [None]
    progress = _Progress(watch, len(listed) * len(columns), drawing.steps)
    for checkpoint in listed:
        instead = {} if checkpoint is None else {adapter_of_copy(checkpoint): checkpoint}
        _check_named(instead, text, networks)
        pictures = []
        for strength in columns:
            scaled = [network._replace(multiplier=strength) for network in networks]
            with _acting(base, workspace, database, scaled, [text, drawing.negative_prompt], instead):
                pictures += list(generate(base, [text], drawing, seeds=[seed], on_step=progress.on_step).numpy())
        rows[checkpoint.stem if checkpoint else "now"] = pictures
    path = out / f"grid-{next(_free_numbers(out)):05}-{seed}.png"
    labels = [f"{strength:g}" for strength in columns] if networks else []
    labelled = {"Sheet columns": ", ".join(labels), "Sheet rows": ", ".join(rows) if checkpoints else ""}
    extra = {**_shown(networks, strength=False), **labelled}
    save_sheet(path, rows, labels, parameters=_text(base, prompt, seed, drawing, extra))
    return path


def _check_named(instead: Mapping[str, Path], text: str, networks: Sequence[ExtraNetwork]) -> None:
    for name, path in instead.items():
        if name.casefold() not in text.casefold() and name not in {network.name for network in networks}:
            raise UsageError(
                f"The prompt names no adapter {name!r}, which the checkpoint {path} is of; name it, or leave it out."
            )


@contextmanager
def _acting(
    model: DiffusionModel,
    workspace: Workspace,
    database: EmbeddingDatabase,
    networks: Sequence[ExtraNetwork],
    texts: Sequence[str],
    instead: Mapping[str, Path] | None = None,
) -> Iterator[None]:
    """Attaches the adapters of tags and every embedding of the workspace whose name stands in ``texts``."""
    replaced = dict(instead or {})
    for entry in database.left_out_in(texts):
        warnings.warn(f"{entry.reason} It is left out.", stacklevel=3)
    with ExitStack() as stack:
        for network in networks:
            kind = tagged_kinds()[network.tag]
            path = replaced.get(network.name) or workspace.find_adapter(kind.name, network.name)
            stack.enter_context(adapter_class(kind).load(path).train(False).attach(model, network.multiplier))
        for network in networks:
            replaced.pop(network.name, None)
        named = {entry.name: entry.embedding for entry in database.named_in(texts)}
        named |= {name: _load_embedding(name, path) for name, path in replaced.items()}
        for embedding in named.values():
            stack.enter_context(embedding.attach(model))
        yield


def _load_embedding(name: str, path: Path) -> Embedding:
    embedding = Embedding.load(path)
    embedding.name = name
    return embedding


def _free_numbers(out: Path) -> Iterator[int]:
    used = [int(match[1]) for path in out.glob("*.png") if (match := re.match(r"(?:grid-)?(\d+)-", path.name))]
    number = max(used, default=0)
    while True:
        number += 1
        yield number


def _shown(networks: Sequence[ExtraNetwork], *, strength: bool = True) -> dict[str, object]:
    """What a picture's text says of the first adapter that it has a word for."""
    keys = {kind.tag: kind.picture_key for kind in tagged_kinds().values() if kind.picture_key}
    first = next((network for network in networks if network.tag in keys), None)
    if first is None:
        return {}
    key = keys[first.tag]
    return {key: first.name, **({f"{key} strength": first.multiplier} if strength else {})}


def _text(model: DiffusionModel, prompt: str, seed: int, drawing: CompleteDrawing, extra: Mapping[str, object]) -> str:
    """What is empty of ``extra`` is left out."""
    settings = {name: value for name, value in extra.items() if value != ""}
    return parameters_text(prompt, drawing, seed=seed, model_name=model.name, model_hash=model.hash, extra=settings)
