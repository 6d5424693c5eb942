"""Which pictures of a run are trained, and which are for validation."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tincture.data.dataset import PictureDataset, Sample
from tincture.data.latent_files import LatentFiles
from tincture.data.listing import Source, list_pictures, name_some
from tincture.data.preprocessed import groups_of_sources, is_for_validation, sides_of
from tincture.errors import DataError, UsageError
from tincture.models.diffusion_model import DiffusionModel
from tincture.preprocessing.sides import choose_sides
from tincture.run.data import NONE_DESCRIBED, load_data
from tincture.settings.train import TrainSettings


@dataclass(frozen=True)
class Folders:
    """The folders of each side.

    Attributes:
        are_validated: whether there is anything for validation, be it a share of what lies in the training folders.
        remarks: sentences about how they were found.
    """

    training: tuple[Source, ...]
    validation: tuple[Source, ...]
    are_validated: bool
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sides:
    """The pictures of each side; ``validation``, without mirrored copies, is None for a run that measures nothing."""

    training: PictureDataset
    validation: PictureDataset | None


def find_folders(settings: TrainSettings) -> Folders:
    """Where the pictures of each side lie, by a glance at the folders.

    A folder in which preprocessing has set a part aside stands for its two folders.

    Raises:
        UsageError: naming all that contradicts itself.
    """
    sources = [Source.parse(text) for text in settings.folders]
    apart = {source.folder: sides for source in sources if (sides := sides_of(source.folder))}
    training = [source.trained(folder_repeats=settings.folder_repeats) for source in sources]
    named = [_for_validation(Source.parse(text).folder) for text in settings.validation_folders]
    found = named or [Source(validation) for _, validation in apart.values()]
    validation = found if settings.validation_every else []
    if faults := [*_contradictions(settings, list(apart), validation), *_on_both(training, found)]:
        raise UsageError(" ".join(faults))
    remarks = [*_remarks(settings, apart, named), *_odd(training)]
    return Folders(tuple(training), tuple(validation), bool(validation or settings.validation_share), tuple(remarks))


def count_listed(settings: TrainSettings) -> int:
    """How many pictures come in an epoch at most, by a glance at the folders; errors as of ``find_folders``."""
    options = {"recursive": settings.recursive, "folder_repeats": settings.folder_repeats}
    listed = (file for source in find_folders(settings).training for file in list_pictures(source, **options).files)
    return sum(file.repeats for file in listed) * (2 if settings.flip else 1)


def load_sides(
    settings: TrainSettings,
    model: DiffusionModel,
    files: LatentFiles | None = None,
    *,
    keep_pixels: int = 0,
    described: Mapping[str, str] = NONE_DESCRIBED,
) -> Sides:
    """The pictures of both sides, none of which is on both; see ``load_data``.

    Raises:
        DataError: a side has no picture that can be used.
        UsageError: as ``find_folders``, or a share leaves nothing to be trained or measured.
    """
    folders = find_folders(settings)
    every = [*folders.training, *folders.validation]
    named = list(map(str, every))
    dataset = load_data(settings, model, files, folders=named, keep_pixels=keep_pixels, described=described)
    remarks = [*folders.remarks, *dataset.remarks]
    if folders.validation:
        chosen = _in_folders(dataset, folders.validation)
        remarks += _twice(dataset, chosen)
    elif folders.are_validated:
        chosen = _drawn(settings, dataset)
    else:
        return Sides(dataset.part(dataset.samples, remarks), None)
    training = [sample for sample in dataset if _real(sample.path) not in chosen]
    validation = [sample for sample in dataset if _real(sample.path) in chosen and not sample.flip]
    if len(_paths(validation)) > settings.validation_pictures:
        remarks.append(
            f"Of {len(_paths(validation))} pictures for validation {settings.validation_pictures} are measured, always "
            "the same (--validation-pictures)."
        )
    if not training:
        raise DataError(f"There is no picture left to train in {_names(folders.training)}: all are for validation.")
    return Sides(dataset.part(training, remarks), dataset.part(_each_once(validation)))


def _for_validation(folder: Path) -> Source:
    """What a folder that is named for validation stands for."""
    sides = sides_of(folder)
    return Source(sides[1] if sides else folder)


# --- what is said of folders -----------------------------------------------------------------------------------------


def _contradictions(settings: TrainSettings, apart: Sequence[Path], validation: Sequence[Source]) -> Iterator[str]:
    if settings.validation_share and apart:
        yield (
            f"--validation-share is {settings.validation_share:g}, but preprocessing has set a part of {apart[0]} "
            "aside for validation already; leave the share out to measure on that part."
        )
    if settings.early_stopping_patience and not (validation or settings.validation_share):
        yield (
            f"--early-stopping-patience is {settings.early_stopping_patience}, but there are no pictures for "
            "validation; name some by --validation-data, set a part of the data aside by --validation-share, or leave "
            "the patience out."
        )


def _on_both(training: Sequence[Source], validation: Sequence[Source]) -> Iterator[str]:
    trained = {_real(source.folder) for source in training}
    for source in validation:
        if _real(source.folder) in trained:
            yield f"The folder {source.folder} is for training and for validation too; name it once."


def _remarks(
    settings: TrainSettings, apart: Mapping[Path, tuple[Path, Path]], named: Sequence[Source]
) -> Iterator[str]:
    for folder, (train, validation) in apart.items():
        if not settings.validation_every:
            use = f"{validation} is left out, since validation_every is 0"
        elif named:
            use = f"{validation} is left out, since {_names(named)} is measured"
        else:
            use = f"{validation} is for validation"
        yield f"Preprocessing has set a part of {folder} aside: {train} is trained, {use}."


def _odd(training: Sequence[Source]) -> Iterator[str]:
    for source in training:
        if is_for_validation(source.folder):
            yield f"{source.folder} is what preprocessing set aside for validation; it is trained, since it is named."


# --- pictures --------------------------------------------------------------------------------------------------------


def _in_folders(dataset: PictureDataset, validation: Sequence[Source]) -> set[str]:
    """Real paths of the pictures in these folders; DataError when there is none."""
    roots = {source.folder for source in validation}
    found = {_real(sample.path) for sample in dataset if sample.root in roots}
    if not found:
        raise DataError(
            f"There is no picture for validation in {_names(validation)} that can be used. Put some into it, or name "
            "another folder by --validation-data."
        )
    return found


def _twice(dataset: PictureDataset, chosen: Collection[str]) -> Iterator[str]:
    """Of pictures for validation that are trained all the same, from another file."""
    trained = {dataset.content(sample) for sample in dataset if _real(sample.path) not in chosen}
    there = {
        sample.path.name for sample in dataset if _real(sample.path) in chosen and dataset.content(sample) in trained
    }
    if there:
        yield f"For validation, but trained too, as files of the same content: {name_some(sorted(there))}."


def _drawn(settings: TrainSettings, dataset: PictureDataset) -> set[str]:
    """Real paths of the pictures that the share sets aside, all of a source or none; UsageError for too few sources."""
    contents = {Path(_real(sample.path)): dataset.content(sample) for sample in dataset}
    groups = [list(map(str, group)) for group in groups_of_sources(contents)]
    if len(groups) < 2:
        raise UsageError(
            f"--validation-share is {settings.validation_share:g}, but the pictures in {', '.join(settings.folders)} "
            "all come from one source, so that none could be set aside; add others, or leave the share out."
        )
    by_name = {str(path): content for path, content in contents.items()}
    sides = choose_sides(groups, by_name, settings.validation_share, settings.seed, {})
    return {name for name, side in sides.items() if side == "validation"}


def _each_once(samples: Sequence[Sample]) -> list[Sample]:
    """Without files that several folders show."""
    return list({_real(sample.path): sample for sample in reversed(samples)}.values())[::-1]


def _paths(dataset: Iterable[Sample]) -> set[str]:
    return {_real(sample.path) for sample in dataset}


def _real(path: Path) -> str:
    return os.path.realpath(path)


def _names(sources: Sequence[Source]) -> str:
    return ", ".join(str(source.folder) for source in sources)
