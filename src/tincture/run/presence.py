"""What a command names must be there: found out before torch is loaded, which takes seconds.

What is wrong inside of files shows later. Nothing here loads torch.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from tincture.data.captions import load_template
from tincture.data.listing import Source, require_folder
from tincture.data.mask_files import MaskFinder
from tincture.errors import FileFormatError, ModelError, TinctureError, UsageError
from tincture.formats.file_lock import FileLock
from tincture.formats.files import first_bytes
from tincture.kinds.registry import find_kind
from tincture.models.loading.default_model import default_model
from tincture.models.loading.sources import find_source, find_vae
from tincture.models.prompt import require_networks
from tincture.models.samplers import require_sampler, require_samplers
from tincture.preprocessing.describer_kinds import ROLES, Kind, fault_of, find_describer, kind_of, missing_kind
from tincture.run.folder import RUN_LOCK, read_record
from tincture.run.past.going_on import settings_again
from tincture.settings.drawing import DrawingRequest
from tincture.settings.groups.tracking import SERVERS, TENSORBOARD, TRACKERS
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace, adapter_of_copy

_PORTS = {"http": 80, "https": 443}
_ANSWER_S = 5.0
"""Seconds within which the server of a tracker must answer."""


def find_adapter(settings: TrainSettings, workspace: Workspace) -> Path:
    """The file of the adapter to train; UsageError says how to create one."""
    return find_named(settings.kind, settings.name, workspace)


def find_adapters(settings: TrainSettings, workspace: Workspace) -> list[Path]:
    """The same of all that are trained together, the run's own first; UsageError names every one that is not there.

    Those that act beside them must be there too.
    """
    fixed = [(one.kind, one.name) for one in settings.fixed]
    return _find_all([*settings.adapters, *fixed], workspace)[: len(settings.adapters)]


def find_fixed(settings: TrainSettings, workspace: Workspace) -> list[Path]:
    """The files of those that act beside what is trained; UsageError names every one that is not there."""
    return _find_all([(one.kind, one.name) for one in settings.fixed], workspace)


def _find_all(adapters: Sequence[tuple[str, str]], workspace: Workspace) -> list[Path]:
    paths, faults = [], []
    for kind, name in adapters:
        try:
            paths.append(find_named(kind, name, workspace))
        except UsageError as error:
            faults.append(error.sentence)
    if faults:
        raise UsageError(" ".join(faults))
    return paths


def find_named(kind: str, name: str, workspace: Workspace) -> Path:
    """The file of the adapter called ``name``; UsageError says how to create one."""
    try:
        return workspace.find_adapter(kind, name)
    except UsageError as error:
        raise UsageError(f"{error} Create it first: tincture create {kind} {name!r}.") from None


def with_model(settings: TrainSettings, workspace: Workspace) -> tuple[TrainSettings, str]:
    """Settings that name their base model, and why it is that one: empty where they named it already.

    Raises:
        UsageError: there is no such adapter, or none is named and there are several, see ``default_model``.
    """
    adapters = find_adapters(settings, workspace)
    if settings.model:
        return settings, ""
    found = default_model(workspace, adapter=adapters[0])
    return settings.replace(model=str(found)), found.reason


def with_describer(settings: TrainSettings, workspace: Workspace) -> tuple[TrainSettings, str]:
    """Settings that name what describes pictures without a caption, and why it is that: empty where that was named.

    Raises:
        UsageError: there is none of the kind that is asked for.
        ModelError: it cannot be used. One of the hub is taken to be there.
    """
    if settings.caption_missing == "none":
        return settings, ""
    kind: Kind = settings.caption_missing
    model = settings.caption_model or find_describer(kind, workspace)
    asked = f"--caption-missing is {kind}"
    if not model:
        raise UsageError(missing_kind(kind, asked, "--caption-model"))
    if fault := fault_of(ROLES[kind], model):
        raise ModelError(f"{asked}, for which {model} cannot be used: {fault}")
    if (other := kind_of(ROLES[kind], model)) != kind:
        raise ModelError(f"{asked}, but {model} is a model for --caption-missing {other}; give that, or another model.")
    named = settings.replace(caption_model=model)
    return named, "" if settings.caption_model else f"{model}, which is found by itself"


def require_training(settings: TrainSettings, workspace: Workspace) -> None:
    """Refuses settings that name an adapter, model, folder or template which is not there, all of them together.

    Raises:
        UsageError, ModelError, DataError: as the training itself.
    """
    refuse_together([functools.partial(find_adapters, settings, workspace), *_surroundings(settings, workspace)])


def require_surroundings(settings: TrainSettings, workspace: Workspace) -> None:
    """The same for adapters that are made later: all but them must be there."""
    refuse_together(_surroundings(settings, workspace))


def _surroundings(settings: TrainSettings, workspace: Workspace) -> list[Callable[[], object]]:
    """Checks of model, folders, templates and what describes pictures."""
    folders = (*settings.folders, *settings.validation_folders, *settings.given_prior_folders)
    own = (settings.template, settings.prior_template)
    templates = [template for template in (*own, *(other.template for other in settings.others)) if template]
    prior = [settings.prior_sampler] if settings.prior_prompt else []
    return [
        functools.partial(_require_base, settings, workspace),
        *(functools.partial(_require_source, folder) for folder in folders),
        *(functools.partial(load_template, template, workspace.templates) for template in templates),
        functools.partial(require_samplers, settings.preview_sampler, *prior),
        functools.partial(with_describer, settings, workspace),
        functools.partial(require_trackers, settings.trackers),
        *([functools.partial(MaskFinder, settings.masks)] if settings.masks else []),
    ]


def require_trackers(names: Sequence[str]) -> None:
    """UsageError for a tracker that is not installed, or whose server does not answer; no tracker is loaded."""
    for name in names:
        if name == TENSORBOARD and not _is_installed(TENSORBOARD):
            raise UsageError(
                "TensorBoard logs were asked for, but it is not installed: pip install 'tincture[tensorboard]'."
            )
        needed = () if name == TENSORBOARD else (TRACKERS[name], "accelerate")
        absent = [module for module in needed if not _is_installed(module)]
        if absent:
            raise UsageError(
                f"--log-with is {name}, but {' and '.join(absent)} is not installed: pip install {' '.join(absent)}; "
                "or leave it out."
            )
        _require_server(name)


def _require_server(name: str) -> None:
    """UsageError where nothing listens at the address that a variable gives for the server of a tracker."""
    variable = SERVERS.get(name, "")
    parts = urlsplit(os.environ.get(variable, ""))
    is_offline = os.environ.get("WANDB_MODE", "online") != "online" and name == "wandb"
    if parts.scheme not in _PORTS or not (host := parts.hostname) or is_offline:
        return
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return  # it is the proxy that reaches it
    try:
        port = parts.port or _PORTS[parts.scheme]
        socket.create_connection((host, port), timeout=_ANSWER_S).close()
    except ValueError:
        return  # no address; what is wrong with it, the tracker says
    except OSError as error:
        raise UsageError(
            f"--log-with is {name}, but nothing answers at {parts.scheme}://{host}:{port}, which {variable} names "
            f"({error.strerror or error}); start that server, name another one, or leave the tracker out."
        ) from None


def _is_installed(module: str) -> bool:
    return module in sys.modules or importlib.util.find_spec(module) is not None


def _require_base(settings: TrainSettings, workspace: Workspace) -> None:
    """See ``require_model``; one that is not named goes by the adapter, which must be there for that."""
    require_model(settings.model or with_model(settings, workspace)[0].model, settings.vae, workspace)


def _require_source(text: str) -> None:
    require_folder(Source.parse(text).folder)


def refuse_together(checks: Iterable[Callable[[], object]]) -> None:
    """Makes every check, and raises what they raise: an error as it is, several as one of the first one's class."""
    faults: list[TinctureError] = []
    for check in checks:
        try:
            check()
        except TinctureError as error:
            faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise type(faults[0])(" ".join(dict.fromkeys(fault.sentence for fault in faults)))


def require_model(model: str, vae: str, workspace: Workspace) -> None:
    """ModelError for a base model or VAE that is not there."""
    find_source(model, workspace)
    if vae:
        find_vae(vae, workspace)


def require_creation(
    kind: str, path: Path, options: Mapping[str, Any], model: str, workspace: Workspace, overwrite: bool
) -> None:
    """Refuses a new adapter whose place is taken, which cannot be made so, or whose model is not there.

    Args:
        options: with ``sizes`` among them, no model is asked.
    """
    refuse_existing(path, overwrite)
    find_kind(kind).check_options(options)
    if not options.get("sizes"):
        require_model(model, "", workspace)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """UsageError where there is such a file already, unless it may be replaced."""
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already; choose another name, or give --overwrite to replace it.")


def require_drawing(request: DrawingRequest, workspace: Workspace) -> None:
    """Refuses a drawing whose model, VAE, sampler, copies or adapters are not there."""
    require_model(request.model, request.vae, workspace)
    require_sampler(request.sampler)
    copies = [Path(checkpoint) for checkpoint in request.checkpoints]
    require_files(copies)
    require_networks(request.prompts, workspace, {adapter_of_copy(copy) for copy in copies})


def require_files(paths: Sequence[Path]) -> None:
    """FileFormatError for a path at which nothing is."""
    for path in paths:
        if not os.path.isdir(path):
            first_bytes(path, 1)


def require_resume(run_dir: Path, memory: Mapping[str, Any], device: str = "") -> None:
    """Refuses to go on with what is no run, with settings that cannot change, and with a tracker that is not there.

    Raises:
        FileFormatError, UsageError: as the resume itself.
    """
    run_dir = run_dir.resolve()
    require_trackers(settings_again(run_dir, read_record(run_dir), memory, device).trackers)


def require_run(run_dir: Path) -> None:
    """FileFormatError for a folder that is not one of a run."""
    if not (run_dir / "run.json").is_file():
        raise FileFormatError(
            f"{run_dir} is not the folder of a run: it has no run.json. "
            "The folder of a run looks like textual_inversion/DATE/NAME."
        )


def require_going_on(run_dir: Path) -> None:
    """UsageError for a run at which no process works; FileFormatError for a folder that is not one of a run."""
    require_run(run_dir)
    lock = FileLock(run_dir / RUN_LOCK)
    if not lock.path.exists() or lock.take():
        lock.free()
        raise UsageError(f"The run in {run_dir} is not going on; tincture resume goes on with it.")
