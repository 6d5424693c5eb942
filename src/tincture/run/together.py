"""The processes of a run: this one alone, those that a launcher started, or this one with others that it starts.

All get the same order, a call of ``run.train``, and make sure that they are of the same mind before anything is made.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import tincture
from tincture.errors import DataError, UsageError, shortened
from tincture.events import Callback, Event, ModelLoaded
from tincture.formats.software import VERSION
from tincture.models.arithmetic import Arithmetic
from tincture.processes.launch import Launch, find_launch
from tincture.processes.ranks import ALONE, Processes
from tincture.settings.train import TrainSettings

if TYPE_CHECKING:
    from tincture.processes.group import Group

HELPER = "tincture.cli.helper"
"""The program of a process that computes with the one that started it."""
_SOURCES = Path(tincture.__file__).parent


class Order(NamedTuple):
    """What all processes shall do: ``train`` or ``resume``, and with what, as JSON has it."""

    what: str
    values: Mapping[str, Any]
    root: str

    @property
    def processes(self) -> str:
        """How many processes it asks for, as the setting has it."""
        return str(self.values.get("processes") or self.values.get("memory", {}).get("processes") or "")


@contextlib.contextmanager
def together(find_settings: Callable[[], TrainSettings], order: Order) -> Iterator[tuple[TrainSettings, Processes]]:
    """Inside, the processes of a run compute together: the run's settings, and the processes.

    Args:
        find_settings: gives the settings of the run, or refuses what cannot be run.
        order: what the others shall do, should this process start them.

    Raises:
        UsageError: so many processes cannot make the run, or are not of the same mind.
        LostProcessError: not all of them came.
    """
    launch = find_launch(asked=order.processes)
    if launch is not None:
        # Whatever one of them finds wrong is found where the others learn of it: else they would wait for it.
        with met(launch) as group:
            settings = find_settings()
            with group.joined(settings.device), _silent(group):
                _require_same_orders(group, order)
                _refuse_another_count(settings, launch)
                _refuse_idle(settings, launch.world_size)
                yield settings, group
        return
    settings = find_settings()
    count = own_processes(settings)
    if count == 1:
        yield settings, ALONE
        return
    with _with_helpers(count, settings.device, order) as processes:
        yield settings, processes


@contextlib.contextmanager
def met(launch: Launch) -> Iterator[Group]:
    """Inside, this process has met those that a launcher started with it, and tells them of its errors."""
    from tincture.processes.group import Group, meet

    group = Group(launch, meet(launch))
    with group.telling():
        yield group


@contextlib.contextmanager
def helping(launch: Launch, device: str) -> Iterator[tuple[Order, Processes]]:
    """Inside, this process computes with the one that started it: what it shall do, and the processes."""
    with met(launch) as group, group.joined(device), _silent(group):
        yield group.from_main(lambda: Order("", {}, "")), group


@contextlib.contextmanager
def _with_helpers(count: int, device: str, order: Order) -> Iterator[Processes]:
    from tincture.processes.helpers import Helpers, python_program

    helpers = Helpers(count - 1, [*python_program(HELPER), device])
    with contextlib.closing(helpers), helpers.group.telling(), helpers.group.joined(device):
        helpers.group.from_main(lambda: order)
        yield helpers.group


@contextlib.contextmanager
def _silent(processes: Processes) -> Iterator[None]:
    """What is to be said of a run, the process of rank 0 says."""
    with warnings.catch_warnings():
        if not processes.is_main:
            warnings.simplefilter("ignore", UserWarning)
        yield


class OfTheModel:
    """A watcher in a process that tells nobody of the run: it still gets the model, which it may change."""

    def __init__(self, watcher: Callback) -> None:
        self._watcher = watcher

    def on_event(self, event: Event) -> None:
        if isinstance(event, ModelLoaded):
            self._watcher.on_event(event)


def watchers(processes: Processes, callbacks: Sequence[Callback]) -> Sequence[Callback]:
    """Those of a run, as this process has them: see ``OfTheModel``."""
    return callbacks if processes.is_main else [OfTheModel(each) for each in callbacks]


# --- how many --------------------------------------------------------------------------------------------------------


def planned_processes(settings: TrainSettings) -> int:
    """How many processes would make the run; UsageError as from ``together``."""
    launch = find_launch(asked=settings.processes)
    if launch is None:
        return own_processes(settings)
    _refuse_another_count(settings, launch)
    _refuse_idle(settings, launch.world_size)
    return launch.world_size


def own_processes(settings: TrainSettings) -> int:
    """How many make a run without a launcher, this one among them; UsageError where there cannot be so many."""
    count = _automatic(settings) if settings.processes == "auto" else int(settings.processes or 1)
    if count > 1:
        _refuse_idle(settings, count)
        _require_devices(count, settings.device)
    return count


def _refuse_another_count(settings: TrainSettings, launch: Launch) -> None:
    if settings.processes not in ("", "auto", str(launch.world_size)):
        raise UsageError(
            f"--processes is {settings.processes}, but {launch.by} says that a launcher started {launch.world_size}; "
            "leave --processes out, or start one process without the launcher."
        )


def _refuse_idle(settings: TrainSettings, count: int) -> None:
    """UsageError where a process would have nothing to do in any step."""
    pictures = settings.batch_size * settings.gradient_accumulation_steps
    if count > pictures:
        raise UsageError(
            f"There are {count} processes, but a step has {pictures} picture{'s' if pictures > 1 else ''} "
            "(--batch-size times --gradient-accumulation-steps), and each process needs one; start fewer, or make the "
            "batch larger."
        )


def _automatic(settings: TrainSettings) -> int:
    """A process for each accelerator, as far as there is something to do; on a CPU one."""
    if settings.device == "cpu" or ":" in settings.device:
        return 1
    pictures = settings.batch_size * settings.gradient_accumulation_steps
    return max(1, min(_device_count(settings.device), pictures))


def _require_devices(count: int, device: str) -> None:
    available = _device_count(device)
    if available and count > available:
        raise UsageError(
            f"--processes is {count}, but there {'are' if available > 1 else 'is'} {available} "
            f"device{'s' if available > 1 else ''} for --device {device}; ask for at most that many, or for "
            "--device cpu."
        )


def _device_count(device: str) -> int:
    from tincture.processes.group import device_count  # loads torch and Accelerate

    return device_count(device)


# --- of the same mind ------------------------------------------------------------------------------------------------


def _require_same_orders(processes: Processes, order: Order) -> None:
    """UsageError on all of them where one was started with other settings, or runs other code."""
    own = {"version": VERSION, "code": code_digest(), "command": order.what, **order.values}
    (_, first), *others = processes.gathered((socket.gethostname(), own))
    for rank, (host, found) in enumerate(others, start=1):
        differing = [name for name in {**first, **found} if first.get(name) != found.get(name)]
        if {"version", "code"} & set(differing):
            raise UsageError(
                f"The process of rank {rank} ({host}) runs another tincture, {found['version']}, than that of rank 0, "
                f"{first['version']}; install the same on all machines."
            )
        if differing:
            shown = (f"{name} is {shortened(found.get(name))}, not {shortened(first.get(name))}" for name in differing)
            raise UsageError(
                f"The process of rank {rank} ({host}) was started with other settings than that of rank 0: "
                f"{'; '.join(shown)}. Start all with the same."
            )


def require_same_files(processes: Processes, facts: Mapping[str, str]) -> None:
    """DataError on all of the processes where one of them sees other files.

    Args:
        facts: by words for what it is of, a digest.
    """
    (_, first), *others = processes.gathered((socket.gethostname(), dict(facts)))
    for rank, (host, found) in enumerate(others, start=1):
        differing = [what for what in first if first[what] != found.get(what)]
        if differing:
            raise DataError(
                f"The process of rank {rank} ({host}) sees other files than that of rank 0: {', '.join(differing)} "
                "differ. Let all see the same ones, on a folder that their machines share."
            )


def arithmetic_remarks(processes: Processes, now: Arithmetic) -> list[str]:
    """A sentence where the processes do not compute alike."""
    (first, *others) = processes.gathered(now.to_dict())
    for rank, found in enumerate(others, start=1):
        differing = [
            f"{name}: {found[name]} instead of {value}" for name, value in first.items() if found[name] != value
        ]
        if differing:
            return [
                f"The process of rank {rank} computes under other arithmetic than that of rank 0 "
                f"({'; '.join(differing)}), so that its weights drift from those of rank 0, which count, in last bits."
            ]
    return []


def code_digest() -> str:
    """SHA-256 (hexadecimal) of the program's own sources."""
    total = hashlib.sha256()
    for path in sorted(_SOURCES.rglob("*.py")):
        total.update(str(path.relative_to(_SOURCES)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()
