"""The reference's own calls, by its names and in its order of arguments, over Tincture's recipe."""

from __future__ import annotations

import functools
import inspect
import threading
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tincture.errors import AlreadyTrainedError
from tincture.models.loading.default_model import default_model
from tincture.preprocessing.describer_kinds import find_describers
from tincture.settings.fields import specs_of
from tincture.settings.train import TrainSettings
from tincture.webui.arguments import (
    CreateEmbedding,
    CreateHypernetwork,
    Preprocess,
    TrainArguments,
    TrainEmbedding,
    TrainHypernetwork,
    WebuiArguments,
)
from tincture.webui.translation import (
    at_root,
    clamped,
    count_pictures,
    embedding_options,
    hypernetwork_options,
    preprocess_settings,
    reference_name,
    refuse_existing,
    train_settings,
)
from tincture.workspace import Workspace

if TYPE_CHECKING:
    from tincture.events import Callback
    from tincture.preprocessing.pipeline import PreprocessResult
    from tincture.webui.networks import Embedding, Hypernetwork

Result = TypeVar("Result")


class ReferenceCall(Generic[Result]):
    """A function of checked arguments that is called like the reference's: by position, by name, or both.

    Signature and annotations are those that callers see. Types that take torch to be known are loaded only when
    somebody asks for the annotations.
    """

    def __init__(self, arguments: type[WebuiArguments], function: Callable[..., Result]) -> None:
        functools.update_wrapper(self, function, ("__module__", "__name__", "__qualname__", "__doc__"))
        self._arguments, self._function = arguments, function
        _, *own = inspect.signature(function).parameters.values()
        self._own = [option.name for option in own]
        returned = function.__annotations__["return"]
        self.__signature__ = inspect.Signature([*_parameters(arguments), *own], return_annotation=returned)

    def __call__(self, *positional: Any, **named: Any) -> Result:
        keywords = {name: named.pop(name) for name in self._own if name in named}
        return self._function(self._arguments.of_call(positional, named), **keywords)

    @property
    def __annotations__(self) -> dict[str, Any]:  # type: ignore[override]
        hints = typing.get_type_hints(self._function, localns=_late_types())
        taken = typing.get_type_hints(self._arguments)
        own = {name: hints[name] for name in (*self._own, "return")}
        return {**{name: taken[name] for name in self._arguments.ORDER}, **own}

    def __reduce__(self) -> str:
        """Pickled by its name, as a function is: schedulers of jobs hand calls to other processes."""
        return str(self._function.__name__)


def _called_as(arguments: type[WebuiArguments]) -> Callable[[Callable[..., Result]], ReferenceCall[Result]]:
    return lambda function: ReferenceCall(arguments, function)


def _late_types() -> dict[str, Any]:
    """What annotations here name and only type checkers import."""
    from tincture.events import Callback
    from tincture.preprocessing.pipeline import PreprocessResult
    from tincture.webui.networks import Embedding, Hypernetwork

    return {kind.__name__: kind for kind in (Callback, PreprocessResult, Embedding, Hypernetwork)}


def _parameters(arguments: type[WebuiArguments]) -> list[inspect.Parameter]:
    """As Python's signatures want it, none without a default behind one that has it."""
    specs, hints = specs_of(arguments), typing.get_type_hints(arguments)
    last = max(place for place, name in enumerate(arguments.ORDER) if specs[name].required)
    kind, empty = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    return [
        inspect.Parameter(name, kind, default=empty if place <= last else specs[name].default, annotation=hints[name])
        for place, name in enumerate(arguments.ORDER)
    ]


@_called_as(CreateEmbedding)
def create_embedding(
    arguments: CreateEmbedding, *, workspace: Workspace | str | Path | None = None, model: str = ""
) -> str:
    """Makes a new embedding and returns its file's path. The arguments are those of ``arguments.CreateEmbedding``.

    Args:
        workspace: the folder laid out like a webui's; None: TINCTURE_ROOT, or the current folder.
        model: whose tokens it starts from; empty: the last used or the first of the workspace, or picto.

    Raises:
        UsageError: an argument is not allowed, or the name is taken and ``overwrite_old`` is off.
    """
    place, name = _open(workspace), _cleaned(arguments.name)
    refuse_existing(place.adapter_path("embedding", name), arguments.overwrite_old)
    from tincture import recipe

    options = embedding_options(arguments)
    return str(
        recipe.create_embedding(
            name, workspace=place, model=model or str(default_model(place, or_first=True)), **options
        )
    )


@_called_as(CreateHypernetwork)
def create_hypernetwork(
    arguments: CreateHypernetwork, *, workspace: Workspace | str | Path | None = None, model: str = ""
) -> str:
    """Makes a new hypernetwork and returns its file's path; its arguments: ``arguments.CreateHypernetwork``.

    Args:
        workspace: see ``create_embedding``.
        model: whose widths it gets without ``enable_sizes``; empty: as of ``create_embedding``.

    Raises:
        UsageError: see ``create_embedding``.
    """
    place, name = _open(workspace), _cleaned(arguments.name)
    refuse_existing(place.adapter_path("hypernetwork", name), arguments.overwrite_old)
    from tincture import recipe

    options = hypernetwork_options(arguments)
    return str(
        recipe.create_hypernetwork(
            name, workspace=place, model=model or str(default_model(place, or_first=True)), **options
        )
    )


@_called_as(TrainEmbedding)
def train_embedding(
    arguments: TrainEmbedding,
    *,
    workspace: Workspace | str | Path | None = None,
    model: str = "",
    settings: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
) -> tuple[Embedding, str]:
    """Trains an embedding and returns it with its file's path. The arguments are those of ``arguments.TrainEmbedding``.

    One that has all the steps already is returned as it is, with a warning.

    Args:
        workspace: see ``create_embedding``; relative paths start there.
        model: what is trained on; empty: the last used or the first of the workspace, or picto.
        settings: further fields of ``TrainSettings``, which the reference has no names for.
        callbacks: told of the progress.
        stop: set from elsewhere, it ends the training after its step, saved.

    Raises:
        UsageError: an argument is not allowed, or there is no such embedding.
        DataError: the pictures cannot be used.
        TrainingError: the run diverged, or memory ran out.
    """
    from tincture.webui.networks import Embedding

    path = _train(arguments, _open(workspace), model, settings, callbacks, stop)
    embedding = Embedding.load(path)
    embedding.name = path.stem
    return embedding, str(path)


@_called_as(TrainHypernetwork)
def train_hypernetwork(
    arguments: TrainHypernetwork,
    *,
    workspace: Workspace | str | Path | None = None,
    model: str = "",
    settings: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
) -> tuple[Hypernetwork, str]:
    """Trains a hypernetwork and returns it with its file's path; its arguments: ``arguments.TrainHypernetwork``.

    Args and Raises: see ``train_embedding``.
    """
    from tincture.webui.networks import Hypernetwork

    path = _train(arguments, _open(workspace), model, settings, callbacks, stop)
    hypernetwork = Hypernetwork.load(path)
    hypernetwork.name = path.stem
    return hypernetwork, str(path)


@_called_as(Preprocess)
def preprocess(
    arguments: Preprocess,
    *,
    workspace: Workspace | str | Path | None = None,
    captioner: str = "",
    tagger: str = "",
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
) -> PreprocessResult:
    """Crops a folder of pictures for training. The arguments are those of ``arguments.Preprocess``.

    Args:
        workspace: see ``create_embedding``; relative paths start there.
        captioner: BLIP model for ``process_caption``; empty: TINCTURE_CAPTIONER, or ``models/BLIP`` in the workspace.
        tagger: for ``process_caption_deepbooru``; empty: TINCTURE_TAGGER, or ``models/torch_deepdanbooru``.
        overwrite: make everything anew, also where other files are in the destination.
        callbacks: told of the progress.
        stop: set from elsewhere, it ends after the pictures at hand.

    Raises:
        UsageError: an argument is not allowed, or the captioner that is asked for is not known.
        DataError: there is no picture that can be used.
    """
    place = _open(workspace)
    given = {name: value for name, value in {"captioner": captioner, "tagger": tagger}.items() if value}
    settings = at_root(preprocess_settings(arguments, **{**find_describers(place), **given}), place.root)
    from tincture.preprocessing import pipeline

    return pipeline.preprocess(**settings, overwrite=overwrite, callbacks=callbacks, stop=stop)


def _open(workspace: Workspace | str | Path | None) -> Workspace:
    return workspace if isinstance(workspace, Workspace) else Workspace.open(workspace)


def _cleaned(name: str) -> str:
    cleaned, remarks = reference_name(name)
    for remark in remarks:
        warnings.warn(remark, stacklevel=4)
    return cleaned


def _train(
    arguments: TrainArguments,
    workspace: Workspace,
    model: str,
    further: Mapping[str, Any] | None,
    callbacks: Sequence[Callback],
    stop: threading.Event | None,
) -> Path:
    values = at_root(train_settings(arguments), workspace.root)
    values, remarks = clamped(values, count_pictures(values["data"]))
    values |= {"model": model or str(default_model(workspace, or_first=True)), **(further or {})}
    settings = TrainSettings.from_dict(values, source=arguments.CALL)
    for remark in remarks:
        warnings.warn(remark, stacklevel=4)
    from tincture import recipe

    try:
        return recipe.train(settings, workspace, callbacks, stop).adapter_path
    except AlreadyTrainedError as error:
        warnings.warn(str(error), stacklevel=4)
        return recipe.find_adapter(settings, workspace)
