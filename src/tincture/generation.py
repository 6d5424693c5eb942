"""From prompts to picture files: finds the adapters that prompts name, attaches them, draws, saves.

A prompt names a hypernetwork by ``<hypernet:NAME:0.8>`` and an embedding by its name, anywhere.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tincture.adapters.embedding import Embedding
from tincture.adapters.embedding_database import EmbeddingDatabase
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.devices import PRECISIONS, resolve_device
from tincture.drawing import CompleteDrawing, Drawing
from tincture.errors import UsageError
from tincture.formats.picture_text import parameters_text, save_png
from tincture.model_overrides import ModelOverrides
from tincture.models.loading import load_model
from tincture.models.prompt import ExtraNetwork, parse_extra_networks
from tincture.models.sampling import complete, generate
from tincture.models.stable_diffusion import StableDiffusion
from tincture.preview import save_sheet
from tincture.workspace import Workspace

_COPY = re.compile(r"(.+)-\d+")


def generate_pictures(
    prompts: Sequence[str],
    *,
    workspace: Workspace,
    out: Path,
    seeds: Sequence[int],
    model: str = "picto",
    overrides: ModelOverrides | None = None,
    device: str = "auto",
    precision: str = "fp32",
    drawing: Drawing | None = None,
) -> list[Path]:
    """Draws every prompt with every seed into ``out/NNNNN-SEED.png``, settings in the PNG text; returns the paths.

    Numbers go on behind those that are there; nothing is overwritten.

    Args:
        overrides: what counts instead of what the model's files say.
        device: see ``resolve_device``.
        precision: ``fp32``, ``bf16`` or ``fp16``, of U-Net and text encoder.

    Raises:
        UsageError: a hypernetwork is not in the workspace, or a value is not allowed.
    """
    base = _load_base(model, overrides, workspace, device, precision)
    drawing = complete(drawing or Drawing(), base)
    database = _embeddings(base, workspace)
    numbers = _free_numbers(out)
    paths = []
    parsed = [parse_extra_networks(prompt) for prompt in prompts]
    for network in (network for _, networks in parsed for network in networks):
        workspace.find_hypernetwork(network.name)  # before anything is drawn
    for prompt, (text, networks) in zip(prompts, parsed, strict=True):
        with _acting(base, workspace, database, networks, [text, drawing.negative_prompt]):
            pictures = generate(base, [text] * len(seeds), drawing, seeds=seeds).numpy()
            for seed, picture in zip(seeds, pictures, strict=True):
                path = out / f"{next(numbers):05}-{seed}.png"
                save_png(picture, path, _text(base, prompt, seed, drawing, networks))
                paths.append(path)
    return paths


def generate_grid(
    prompt: str,
    *,
    workspace: Workspace,
    out: Path,
    seed: int,
    strengths: Sequence[float],
    checkpoints: Sequence[Path] = (),
    model: str = "picto",
    overrides: ModelOverrides | None = None,
    device: str = "auto",
    precision: str = "fp32",
    drawing: Drawing | None = None,
) -> Path:
    """Draws one prompt as a sheet: a column per strength of its hypernetwork, a row per checkpoint of one adapter.

    Args:
        strengths: for every ``<hypernet:…>`` of the prompt; a prompt without one has a single column.
        checkpoints: adapter files such as ``NAME-500.pt``; each stands in for the adapter NAME. None: one row as it is.

    Raises:
        UsageError: a hypernetwork is not in the workspace, or a checkpoint is not of anything the prompt names.
    """
    base = _load_base(model, overrides, workspace, device, precision)
    drawing = complete(drawing or Drawing(), base)
    database = _embeddings(base, workspace)
    text, networks = parse_extra_networks(prompt)
    columns = list(strengths) if networks else [1.0]
    rows: dict[str, Sequence[NDArray[Any]]] = {}
    listed: Sequence[Path | None] = checkpoints or [None]
    for checkpoint in listed:
        instead = {} if checkpoint is None else {_base_name(checkpoint): checkpoint}
        _check_named(instead, text, networks)
        pictures = []
        for strength in columns:
            scaled = [network._replace(multiplier=strength) for network in networks]
            with _acting(base, workspace, database, scaled, [text, drawing.negative_prompt], instead):
                pictures += list(generate(base, [text], drawing, seeds=[seed]).numpy())
        rows[checkpoint.stem if checkpoint else "now"] = pictures
    path = out / f"grid-{next(_free_numbers(out)):05}-{seed}.png"
    save_sheet(path, rows, columns=[f"{strength:g}" for strength in columns] if networks else ())
    return path


def _load_base(
    model: str, overrides: ModelOverrides | None, workspace: Workspace, device: str, precision: str
) -> StableDiffusion:
    chosen = dataclasses.asdict(overrides or ModelOverrides())
    return load_model(model, workspace=workspace, device=resolve_device(device), dtype=PRECISIONS[precision], **chosen)


def _check_named(instead: Mapping[str, Path], text: str, networks: Sequence[ExtraNetwork]) -> None:
    for name, path in instead.items():
        if name.casefold() not in text.casefold() and name not in {network.name for network in networks}:
            raise UsageError(
                f"The prompt names no adapter {name!r}, which the checkpoint {path} is of; name it, or leave it out."
            )


def _embeddings(model: StableDiffusion, workspace: Workspace) -> EmbeddingDatabase:
    database = EmbeddingDatabase([workspace.embeddings])
    database.refresh(model)
    return database


@contextmanager
def _acting(
    model: StableDiffusion,
    workspace: Workspace,
    database: EmbeddingDatabase,
    networks: Sequence[ExtraNetwork],
    texts: Sequence[str],
    instead: Mapping[str, Path] | None = None,
) -> Iterator[None]:
    """Attaches the hypernetworks and every embedding of the workspace whose name stands in ``texts``."""
    replaced = dict(instead or {})
    for entry in database.left_out_in(texts):
        warnings.warn(f"{entry.reason} It is left out.", stacklevel=3)
    with ExitStack() as stack:
        for network in networks:
            path = replaced.get(network.name) or workspace.find_hypernetwork(network.name)
            stack.enter_context(Hypernetwork.load(path).train(False).attach(model, network.multiplier))
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


def _base_name(checkpoint: Path) -> str:
    """NAME of ``NAME-500.pt``."""
    match = _COPY.fullmatch(checkpoint.stem)
    return match[1] if match else checkpoint.stem


def _free_numbers(out: Path) -> Iterator[int]:
    used = [int(match[1]) for path in out.glob("*.png") if (match := re.match(r"(?:grid-)?(\d+)-", path.name))]
    number = max(used, default=0)
    while True:
        number += 1
        yield number


def _text(
    model: StableDiffusion, prompt: str, seed: int, drawing: CompleteDrawing, networks: Sequence[ExtraNetwork]
) -> str:
    extra = {"Hypernet": networks[0].name, "Hypernet strength": networks[0].multiplier} if networks else None
    return parameters_text(prompt, drawing, seed=seed, model_name=model.name, model_hash=model.hash, extra=extra)
