"""Adapter files from one format to another; what does not fit is said before anything is written."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from tincture.adapters.files.programs import comfyui_differences
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.adapters.lora import LoraReport, export_lora
from tincture.errors import DataError, UsageError
from tincture.formats.contents import read_contents
from tincture.formats.embedding_content import EmbeddingFile, only_vectors
from tincture.formats.embedding_file import EMBEDDING_WRITERS, read_embedding_file
from tincture.formats.embedding_picture import write_embedding_png, write_embedding_webp
from tincture.formats.files import refuse_taken
from tincture.formats.hypernetwork_file import HYPERNETWORK_WRITERS, HypernetworkFile, read_hypernetwork_file
from tincture.formats.pictures import open_picture
from tincture.models.loading.load import load_model
from tincture.models.loading.sources import find_in_workspace
from tincture.settings.conversion import format_of
from tincture.workspace import Workspace, clean_name

EMBEDDING_FORMATS = tuple(EMBEDDING_WRITERS)
HYPERNETWORK_FORMATS = (*HYPERNETWORK_WRITERS, "lora")
USUAL_RANK = 64
_FORMATS = {"embedding": EMBEDDING_FORMATS, "hypernetwork": HYPERNETWORK_FORMATS}
_PICTURE_WRITERS = {"png": write_embedding_png, "webp": write_embedding_webp}
File = TypeVar("File", EmbeddingFile, HypernetworkFile)


@dataclass(frozen=True)
class LoraOptions:
    """What a LoRA is made for and how; see ``tincture.adapters.lora.export_lora``.

    Attributes:
        model: the base model, see ``load_model``; "" for the one that the hypernetwork was trained on.
        rank: None for the usual 64.
        captions: texts like those that the hypernetwork was trained on.
        multiplier: the strength that is worked in.
        output_bias: keep what is added to all values alike as biases, which diffusers refuses.
    """

    model: str = ""
    rank: int | None = None
    captions: Sequence[str] = ()
    multiplier: float = 1.0
    output_bias: bool = False


@dataclass(frozen=True)
class Conversion:
    """A conversion that is possible, before it is made.

    Attributes:
        target: the file to write.
        kind: ``embedding`` or ``hypernetwork``.
        format: of the target, see ``EMBEDDING_FORMATS`` and ``HYPERNETWORK_FORMATS``.
        name: of the adapter.
        lost: what the target will not hold, as sentences.
        write: writes the target, whole or not at all, and returns what was found out on the way: plain values.
    """

    target: Path
    kind: str
    format: str
    name: str
    lost: tuple[str, ...]
    write: Callable[[], dict[str, Any]]


def convert_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    to: str | None = None,
    *,
    name: str = "",
    author: str = "",
    license: str = "",
    picture: str | os.PathLike[str] | None = None,
    lora: LoraOptions | None = None,
    overwrite: bool = False,
    workspace: Workspace | None = None,
) -> dict[str, Any]:
    """Writes the adapter in ``source`` to ``target`` in another format; see ``plan_conversion`` for the rest.

    Returns:
        plain values for JSON: ``path``, ``kind``, ``format``, ``name``, ``lost``, and for a LoRA ``lora``, the fields
        of ``LoraReport``.
    """
    options: dict[str, Any] = {"name": name, "author": author, "license": license, "picture": picture}
    plan = plan_conversion(source, target, to, **options, lora=lora, overwrite=overwrite, workspace=workspace)
    return make_conversion(plan)


def make_conversion(plan: Conversion) -> dict[str, Any]:
    """Writes what was planned; see ``convert_file`` for what comes back.

    Raises:
        UsageError, FileFormatError, ModelError, StorageError: see ``plan_conversion``.
    """
    found = plan.write()
    shown = {"path": str(plan.target), "kind": plan.kind, "format": plan.format, "name": plan.name}
    return {**shown, "lost": list(plan.lost), **found}


def plan_conversion(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    to: str | None = None,
    *,
    name: str = "",
    author: str = "",
    license: str = "",
    picture: str | os.PathLike[str] | None = None,
    lora: LoraOptions | None = None,
    overwrite: bool = False,
    workspace: Workspace | None = None,
) -> Conversion:
    """Reads ``source`` and finds out what ``target`` can hold of it. Nothing is written.

    Args:
        source: an embedding or hypernetwork file of any format.
        target: the file to write.
        to: its format; None goes by its suffix.
        name: what the adapter shall be called; empty: as it is.
        author: to be told by the file; empty: as it is.
        license: likewise, such as ``CC-BY-4.0``.
        picture: what a PNG or WebP is drawn on; None for a pattern.
        lora: for a LoRA only.
        overwrite: whether a file ``target`` may be replaced.
        workspace: where the base model of a LoRA is looked up.

    Raises:
        UsageError: ``target`` is there already, a format that cannot hold the content, or an option that is not for it.
        FileFormatError: ``source`` cannot be read or is no embedding or hypernetwork.
        DataError: ``picture`` cannot be read.
        ModelError, StorageError: see ``export_lora`` and the writers.
    """
    target = Path(target)
    refuse_taken(target, overwrite)
    kind = read_contents(source).kind
    if kind not in _FORMATS:
        raise UsageError(
            f"{os.fspath(source)} holds {'a LoRA' if kind == 'lora' else 'the state of an optimizer'}, which no other "
            f"format can hold; embeddings and hypernetworks can be converted."
        )
    left = _left_behind(Path(source))
    if kind == "embedding":
        if lora:
            raise UsageError("An embedding cannot become a LoRA, which changes the U-Net and not words.")
        words = _named(read_embedding_file(source), name, author, license)
        return plan_embedding(words, target, to, picture=picture, lost=left)
    if picture:
        raise UsageError("A hypernetwork has no picture card; leave the picture out.")
    network = _named(read_hypernetwork_file(source), name, author, license)
    chosen = _format("hypernetwork", target, to)
    if lora and chosen != "lora":
        raise UsageError(f"Model, rank, captions and strength are for the format lora, not for {chosen}.")
    if chosen == "lora":
        return _lora(network, Path(source), target, lora or LoraOptions(), workspace, left)
    return plan_hypernetwork(network, target, to, lost=left)


def _named(file: File, name: str, author: str, license: str) -> File:
    """The same with another name and what else is given."""
    stated = {key: text for key, text in (("author", author), ("license", license)) if text}
    called = clean_name(name) if name else file.name
    return dataclasses.replace(file, name=called, provenance={**file.provenance, **stated})


def _format(kind: str, target: Path, to: str | None) -> str:
    found = format_of(target, to, _FORMATS[kind])
    if found not in _FORMATS[kind]:
        article, allowed = "An" if kind == "embedding" else "A", ", ".join(_FORMATS[kind])
        raise UsageError(f"{article} {kind} cannot be written as {found!r}; its formats are {allowed}.")
    return found


# --- embeddings -------------------------------------------------------------------------------------------------------


def plan_embedding(
    file: EmbeddingFile,
    target: Path,
    to: str | None = None,
    *,
    picture: str | os.PathLike[str] | None = None,
    lost: Sequence[str] = (),
) -> Conversion:
    """How ``file`` can be written to ``target``; arguments and errors as of ``plan_conversion``.

    Args:
        lost: what is lost already, as sentences.
    """
    chosen = _format("embedding", target, to)
    if chosen == "safetensors" and to is None and len(file.vectors) > 1:
        chosen = "sdxl"
    if chosen != "sdxl":
        only_vectors(file, f"files of the format {chosen}")  # refuses several text encoders
    if chosen in _PICTURE_WRITERS and target.stem.lower().endswith(".preview"):
        raise UsageError(f"{target} would be taken for the preview of an embedding; choose another name.")
    if picture and chosen not in _PICTURE_WRITERS:
        raise UsageError(f"The format {chosen} holds no picture; leave the picture out, or choose png or webp.")
    drawn_on = _opened(picture) if picture else None

    def write() -> dict[str, Any]:
        if chosen in _PICTURE_WRITERS:
            _PICTURE_WRITERS[chosen](target, file, drawn_on)
        else:
            EMBEDDING_WRITERS[chosen](target, file)
        return {}

    every = (*file.lost, *_lost_in_bin(file, chosen), *lost)
    return Conversion(target, "embedding", chosen, file.name, every, write)


def _opened(picture: str | os.PathLike[str]) -> Image.Image:
    try:
        with open_picture(picture) as opened:
            return opened.convert("RGB")
    # Pillow's decoders raise whatever comes up in a damaged file.
    except Exception as error:
        raise DataError(f"The picture {os.fspath(picture)} cannot be read ({error}); choose another one.") from error


def _lost_in_bin(file: EmbeddingFile, chosen: str) -> list[str]:
    if chosen != "bin":
        return []
    traits = {"step": file.step, "model's name": file.model_name, "model's hash": file.model_hash}
    lost = [name for name, value in [*traits.items(), ("provenance", file.provenance)] if value]
    return [f"The format bin has no place for: {', '.join(lost)}."] if lost else []


def _left_behind(source: Path) -> list[str]:
    optimizer = Path(f"{source}.optim")
    return [f"{optimizer}, the optimizer's state, is not taken along."] if optimizer.is_file() else []


# --- hypernetworks ----------------------------------------------------------------------------------------------------


def plan_hypernetwork(
    file: HypernetworkFile, target: Path, to: str | None = None, *, lost: Sequence[str] = ()
) -> Conversion:
    """How ``file`` can be written to ``target`` as a hypernetwork; see ``plan_embedding``."""
    chosen = _format("hypernetwork", target, to)

    def write() -> dict[str, Any]:
        HYPERNETWORK_WRITERS[chosen](target, file)
        return {}

    elsewhere = comfyui_differences(file) if chosen == "pt" else ()
    return Conversion(target, "hypernetwork", chosen, file.name, (*elsewhere, *lost), write)


def _lora(
    file: HypernetworkFile,
    source: Path,
    target: Path,
    lora: LoraOptions,
    workspace: Workspace | None,
    left: Sequence[str],
) -> Conversion:
    options = _checked(lora, target, file, workspace)
    network = Hypernetwork.load(source)
    network.name, network.provenance = file.name, file.provenance
    lost = (
        f"The LoRA acts only with the model {options.model}, whose weights it is multiplied with, and has no dropout.",
        *left,
    )

    def write_lora() -> dict[str, Any]:
        return {"lora": _export(network, target, options, workspace)}

    return Conversion(target, "hypernetwork", "lora", file.name, lost, write_lora)


def _checked(options: LoraOptions, target: Path, file: HypernetworkFile, workspace: Workspace | None) -> LoraOptions:
    if target.suffix.lower() != ".safetensors":
        raise UsageError(f"A LoRA is a safetensors file, but {target} is not called so; end its name in .safetensors.")
    model = options.model or _model_of(file, workspace)
    return dataclasses.replace(options, model=model, rank=USUAL_RANK if options.rank is None else options.rank)


def _model_of(file: HypernetworkFile, workspace: Workspace | None) -> str:
    """The base model that the hypernetwork was trained on, where it is picto or in the workspace.

    A name in a file that may come from anywhere is looked up nowhere else: no other path, nothing of a hub.
    """
    if file.model_name == "picto":
        return "picto"
    why = "the file does not say which it was trained on"
    if file.model_name:
        why = f"the file says {reprlib.repr(file.model_name)}, which is not in the workspace"
        title = f"{file.model_name} [{file.model_hash}]" if file.model_hash else file.model_name
        with contextlib.suppress(UsageError):
            if workspace is not None:
                return str(find_in_workspace(title, workspace))
    raise UsageError(
        f"A LoRA is made for one base model; give the base model by --model ({why}). Its rank is {USUAL_RANK} where "
        f"--rank gives no other."
    )


def _export(network: Hypernetwork, target: Path, options: LoraOptions, workspace: Workspace | None) -> dict[str, Any]:
    assert options.rank is not None
    report: LoraReport = export_lora(
        network,
        load_model(options.model, workspace=workspace),
        target,
        rank=options.rank,
        multiplier=options.multiplier,
        captions=options.captions,
        output_bias=options.output_bias,
    )
    return {key: value for key, value in dataclasses.asdict(report).items() if key != "path"}


def read_captions(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a text file that are not empty, one caption in each.

    Raises:
        DataError: it cannot be read, or has none.
    """
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The captions {os.fspath(path)} cannot be read ({error}).") from error
    if not any(lines):
        raise DataError(f"{os.fspath(path)} holds no captions; write one in each line.")
    return [line for line in lines if line]
