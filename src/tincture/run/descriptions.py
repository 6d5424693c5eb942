"""Captions that a model writes for pictures without any, before the base model of a run is loaded."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tincture.data.caption_files import place_for_caption
from tincture.data.captions import FILEWORDS, encoded_caption, joined_lines
from tincture.data.dataset import PictureDataset
from tincture.data.folders import has_caption
from tincture.data.listing import PictureFile, Source, list_pictures, name_some
from tincture.data.picture_files import UnreadablePictureError, read_picture
from tincture.errors import TinctureError, UsageError
from tincture.events import Emit, Stage
from tincture.formats.files import sha256_file, write_new
from tincture.models.devices import release_memory
from tincture.preprocessing.captioning import DEFAULT_BATCH_SIZE, Captioner
from tincture.preprocessing.describer_kinds import ROLES
from tincture.preprocessing.describing import load_models
from tincture.run.prior_pictures import PriorPictures
from tincture.run.split import Sides, find_folders
from tincture.settings.preprocess import PreprocessSettings
from tincture.settings.train import TrainSettings

DESCRIBED = "described"
"""In the record of a run: what was written, by the sha256 of the pictures' files."""
LOADING, DESCRIBING = "loading what describes pictures", "describing pictures"


def descriptions_in(record: Mapping[str, Any]) -> dict[str, str]:
    """Those that the record of a run has; none in runs of before them."""
    noted = record.get(DESCRIBED)
    return {str(digest): str(text) for digest, text in noted.items()} if isinstance(noted, dict) else {}


def find_undescribed(settings: TrainSettings, lines: Sequence[str], prior_lines: Sequence[str]) -> list[PictureFile]:
    """The pictures that are to be described: those without a caption, where prompts have captions in them.

    Args:
        lines: of the prompt template.
        prior_lines: of that of regularisation pictures.

    Raises:
        DataError: a folder cannot be read.
        UsageError: their captions are to be written, and the folder of one cannot be.
    """
    if settings.caption_missing == "none":
        return []
    folders = find_folders(settings)
    sources = [*folders.training, *folders.validation] if _use_captions(lines) else []
    sources += map(Source.parse, settings.given_prior_folders) if _use_captions(prior_lines) else []
    options = {"recursive": settings.recursive, "folder_repeats": settings.folder_repeats}
    listed = (file for source in sources for file in list_pictures(source, **options).files)
    found = {file.path: file for file in listed if not has_caption(file, settings.word_regex)}
    if settings.write_captions:
        _require_writable(found.values())
    return list(found.values())


def describe_missing(settings: TrainSettings, files: Sequence[PictureFile], emit: Emit) -> dict[str, str]:
    """What the settings' model says of pictures, by the sha256 of their files; written beside them where that is asked.

    Pictures that cannot be read are left out: nothing is trained of them. When this returns, the model is gone.

    Args:
        files: as ``find_undescribed`` gives them.
        emit: is told how far it is.

    Raises:
        ModelError, UsageError: the model cannot be had.
    """
    if not files:
        return {}
    texts: dict[str, str] = {}
    silent: list[str] = []
    with Stage(emit, LOADING):
        model = _load(settings)
    with Stage(emit, DESCRIBING, len(files)) as stage:
        for start in range(0, len(files), DEFAULT_BATCH_SIZE):
            batch = files[start : start + DEFAULT_BATCH_SIZE]
            named = [(file, digest) for file in batch if (digest := _digest(file.path))]
            texts |= _describe(model, {digest: file.path for file, digest in named if digest not in texts})
            silent += [file.path.name for file, digest in named if texts.get(digest) == ""]
            if settings.write_captions:
                _write([(file, texts[digest]) for file, digest in named if digest in texts], settings.caption_encoding)
            stage.advance(start + len(batch))
    del model
    release_memory()
    if silent:
        warnings.warn(
            f"{settings.caption_missing} has nothing to say of {name_some(silent)}: the caption is empty.", stacklevel=3
        )
    return texts


def _load(settings: TrainSettings) -> Captioner:
    kind, model = settings.caption_missing, settings.caption_model
    # Where onnxruntime is made for the CPU, it serves a run on a GPU all the same.
    device = "auto" if kind == "wd" and settings.device != "cpu" else settings.device
    role: dict[str, Any] = {ROLES[kind]: model}  # type: ignore[index]
    return load_models(PreprocessSettings(source="-", destination="-", device=device, **role))[0]


def _describe(model: Captioner, paths: Mapping[str, Path]) -> dict[str, str]:
    pictures: dict[str, Image.Image] = {}
    for digest, path in paths.items():
        try:
            pictures[digest], _ = read_picture(path)
        except UnreadablePictureError:
            continue
    texts = model(list(pictures.values())) if pictures else []
    return {digest: joined_lines(text) for digest, text in zip(pictures, texts, strict=True)}


def _digest(path: Path) -> str:
    """Empty where the file cannot be read."""
    try:
        return sha256_file(path)
    except TinctureError:
        return ""


# --- beside the pictures ---------------------------------------------------------------------------------------------


def _require_writable(files: Iterable[PictureFile]) -> None:
    folders = dict.fromkeys(str(file.path.parent) for file in files if _is_inside(file))
    closed = [folder for folder in folders if not os.access(folder, os.W_OK | os.X_OK)]
    if closed:
        raise UsageError(
            f"--write-captions is on, but nothing can be written into {name_some(closed)}; change its permissions, or "
            "leave that out: the captions are kept with the run all the same."
        )


def _write(captions: Sequence[tuple[PictureFile, str]], encoding: str) -> None:
    """Writes captions beside their pictures; what cannot be written is told. An empty one is not."""
    for file, text in captions:
        if not text:
            continue
        fault = "" if _is_inside(file) else "its folder is a link that leads out of the pictures' own"
        try:
            written = not fault and write_new(place_for_caption(file.path), encoded_caption(text, encoding))
            fault = fault or ("" if written else "such a file has come meanwhile")
        except (OSError, TinctureError) as error:
            fault = str(error).rstrip(".")
        if fault:
            warnings.warn(
                f"The caption of {file.path} is not written beside it: {fault}. The run has it all the same.",
                stacklevel=2,
            )


def _is_inside(file: PictureFile) -> bool:
    """Whether a picture's folder lies in the one that was given, links followed: in no other is anything written."""
    return Path(os.path.realpath(file.path.parent)).is_relative_to(os.path.realpath(file.root))


# --- what a plan says of them ----------------------------------------------------------------------------------------


def _use_captions(lines: Sequence[str]) -> bool:
    return any(FILEWORDS in line for line in lines)


def needless_remarks(
    settings: TrainSettings, lines: Sequence[str], prior_lines: Sequence[str], undescribed: int
) -> Iterator[str]:
    """A sentence for when captions are to be made, and none is needed.

    Args:
        undescribed: how many pictures have none.
    """
    if settings.caption_missing == "none" or undescribed:
        return
    if _use_captions([*lines, *prior_lines]):
        yield f"caption_missing is {settings.caption_missing}, but all pictures have captions; none is described."
    else:
        yield (
            f"caption_missing is {settings.caption_missing}, but no line of the template {settings.template!r} has "
            f"{FILEWORDS}, so that captions count for nothing; none is described."
        )


def caption_remarks(
    settings: TrainSettings, sides: Sides, lines: Sequence[str], prior: PriorPictures | None
) -> Iterator[str]:
    """Sentences about pictures without a caption, and with an empty one, where prompts have captions in them."""
    read = [("pictures", sides.training, lines), ("pictures for validation", sides.validation, lines)]
    read += [("pictures of prior_data", prior.dataset, prior.lines)] if prior else []
    for what, dataset, of_template in read:
        if dataset is not None and _use_captions(of_template):
            yield from _caption_remarks(settings, what, dataset)


def _caption_remarks(settings: TrainSettings, what: str, dataset: PictureDataset) -> Iterator[str]:
    pictures = [sample for sample in dataset if not sample.flip]
    without = [sample for sample in pictures if not sample.is_captioned]
    if without:
        count = f"{len(without)} of {len(pictures)} {what} {'has' if len(without) == 1 else 'have'} no caption"
        if settings.caption_missing == "none":
            yield (
                f"{count}: the name of the file is used, such as {without[0].caption!r}; `caption_missing` describes "
                "them instead."
            )
        else:
            beside = ", and the text written beside them" if settings.write_captions else ""
            yield f"{count}: described by {settings.caption_missing}{beside}."
    empty = [sample.path.name for sample in pictures if sample.is_captioned and not sample.caption.strip()]
    if empty:
        yield f"The caption is empty of {name_some(empty)}."
