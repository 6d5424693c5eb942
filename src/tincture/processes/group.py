"""Several processes as one run sees them, by Accelerate and torch.distributed: gloo for all that lies on a CPU."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed
from accelerate import PartialState
from accelerate.utils import patch_environment
from torch import Tensor, nn

from tincture.errors import LostProcessError, TinctureError, UsageError, foreign
from tincture.models.threads import available_cores, given_threads
from tincture.processes.launch import Launch
from tincture.processes.ranks import Processes

TIMEOUT_VARIABLE = "TINCTURE_PROCESSES_TIMEOUT"
USUAL_TIMEOUT_S = 1800
"""Seconds that a process waits for another that lives and does nothing; one that dies is noticed at once."""
MEETING_S = 300
"""Seconds within which all processes must have begun."""
LEAVING_S = 10.0
"""Seconds for which the process at which all meet waits for the others to have read why one failed."""
_ANSWER_S = 30
"""Seconds after which the process at which all meet has not answered."""
_REPORTED_S = 1.5
"""Seconds after which a lost process has not reported why; one that can does so before it is lost."""
_DISTRIBUTED: Any = torch.distributed  # not all that it documents is declared

T = TypeVar("T")


class Group(Processes):
    """The processes of a launcher, or those that this one started.

    Args:
        launch: which this one is.
        store: where they met; it holds why one of them failed.
        exits: what is known of how processes ended, by rank, as words that follow "it".
    """

    def __init__(self, launch: Launch, store: Any, exits: Callable[[], Mapping[int, str]] = dict) -> None:
        self.launch, self.store, self._exits = launch, store, exits
        self.rank, self.world_size = launch.rank, launch.world_size
        # Values and flags go by way of the CPU, so that nothing waits for an accelerator.
        self._values: Any = None
        self._has_lost = self._is_cut_off = False

    def threads(self, asked: int) -> int:
        from_user = asked or given_threads()
        return from_user or max(1, available_cores() // self.launch.local_world_size)

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        marks = torch.tensor([float(one.grad is not None) for one in parameters])
        lacking = not bool(marks.all())
        parts = [*(gradient.flatten() for gradient in gradients), marks.to(loss.device), loss.detach().reshape(1)]
        flat = torch.cat([part.float() for part in parts])
        self._exchange(lambda: torch.distributed.all_reduce(flat))
        *summed, marks, total = torch.split(flat, [part.numel() for part in parts])
        # Read only where it matters: on an accelerator reading waits for it.
        present = marks.tolist() if lacking else [1.0] * len(gradients)
        for parameter, gradient, mark in zip(parameters, summed, present, strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if mark else None
        return total[0]

    def any(self, flag: bool) -> bool:
        flags = torch.tensor([int(flag)])
        self._exchange(lambda: torch.distributed.all_reduce(flags, group=self._values))
        return bool(flags.item())

    def from_main(self, make: Callable[[], T]) -> T:
        values: list[Any] = [make() if self.is_main else None]
        self._exchange(lambda: torch.distributed.broadcast_object_list(values, src=0, group=self._values))
        made: T = values[0]
        return made

    def gathered(self, value: T) -> list[T]:
        found: list[Any] = [None] * self.world_size
        self._exchange(lambda: torch.distributed.all_gather_object(found, value, group=self._values))
        return found

    # --- beginning and ending ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """On leaving by an error, the others learn which; that of rank 0, at which all meet, waits until they have."""
        try:
            yield
        except BaseException as error:
            self._report(error)
            raise
        finally:
            if not self._is_cut_off:
                with contextlib.suppress(Exception):  # the store may be gone
                    self.store.set(f"left/{self.rank}", "")
                    if self.is_main:
                        self._await("left", _REPORTED_S if self._has_lost else LEAVING_S)

    @contextlib.contextmanager
    def joined(self, device: str) -> Iterator[None]:
        """Inside, the processes can exchange something.

        Args:
            device: that the settings name; on accelerators each process of a machine has its own.

        Raises:
            LostProcessError: not all of them came.
            UsageError: there are not enough devices.
        """
        kind = _device_type(device)
        self._await_all()
        with patch_environment(**self.launch.environment()), _own_device(kind, self.launch):
            owns = not torch.distributed.is_initialized()
            try:
                with _gloo_on_this_machine(self.launch):
                    self._begin(kind == "cpu")
                self._refuse_one_device(kind)
                yield
            finally:
                if owns:
                    with contextlib.suppress(Exception):
                        torch.distributed.destroy_process_group()
                    PartialState._reset_state()

    def _await_all(self) -> None:
        """Waits until all are at this point, so that what is wrong with one of them is known by then."""
        self.store.set(f"here/{self.rank}", "")
        failure = self._await("here", MEETING_S, self._failure)
        if failure or not self._all("here"):
            late = [rank for rank in range(self.world_size) if not self.store.check([f"here/{rank}"])]
            raise LostProcessError(
                failure
                or f"Of {self.world_size} processes, that of rank {', '.join(map(str, late))} did not begin "
                f"within {MEETING_S} seconds."
            )

    def _await(self, mark: str, seconds: float, failure: Callable[[], str] = lambda: "") -> str:
        """Waits until all have set a mark, or so long, or until there is a ``failure``, which it gives."""
        deadline = time.monotonic() + seconds
        while not self._all(mark) and time.monotonic() < deadline:
            if found := failure():
                return found
            time.sleep(0.02)
        return ""

    def _all(self, mark: str) -> bool:
        return bool(self.store.check([f"{mark}/{rank}" for rank in range(self.world_size)]))

    def _begin(self, on_cpu: bool) -> None:
        limit = _seconds(timeout_s())
        known = {"store": self.store, "rank": self.rank, "world_size": self.world_size, "timeout": limit}
        if not torch.distributed.is_initialized():
            PartialState._reset_state()  # one that a tracker left, say, knows of no others
        try:
            PartialState(cpu=on_cpu, **known)
            self._values = None if on_cpu else torch.distributed.new_group(backend="gloo", timeout=limit)
        except (RuntimeError, ValueError) as error:
            raise self._loss(error) from error

    def _refuse_one_device(self, device_type: str) -> None:
        """UsageError where two processes would compute on the same accelerator."""
        own = (socket.gethostname(), _device_mark(device_type)) if device_type != "cpu" else None
        marks = self.gathered(own)
        for rank, mark in enumerate(marks):
            if mark and (first := marks.index(mark)) != rank:
                raise UsageError(
                    f"The processes of rank {first} and {rank} were given the same {device_type} device of {mark[0]}; "
                    "give each a device of its own, start fewer processes, or use --device cpu."
                )

    # --- failures ----------------------------------------------------------------------------------------------------

    def _exchange(self, act: Callable[[], object]) -> None:
        """Raises LostProcessError where another process cannot take part any more."""
        try:
            act()
        except RuntimeError as error:
            raise self._loss(error) from error

    def _report(self, error: BaseException) -> None:
        """The others learn why this one ends, unless it does because another one ended."""
        if isinstance(error, LostProcessError):
            return
        sentence = (
            error.sentence if isinstance(error, TinctureError) else f"{type(error).__name__}: {foreign(error, 2000)}"
        )
        note = {"host": socket.gethostname(), "sentence": sentence, "kind": type(error).__name__}
        with contextlib.suppress(Exception):
            self.store.set(f"failed/{self.rank}", json.dumps(note))

    def _loss(self, error: Exception) -> LostProcessError:
        """Which process is lost, and why, as far as anybody knows.

        The machine of rank 0, which knows, may be out of reach, so that it is not waited for without end.
        """
        self._has_lost, found = True, list[LostProcessError]()
        asking = threading.Thread(target=lambda: found.append(self._found_loss(error)), daemon=True)
        asking.start()
        asking.join(LEAVING_S)
        self._is_cut_off = not found
        return found[0] if found else self._gone((0,))

    def _gone(self, ranks: tuple[int, ...]) -> LostProcessError:
        shown = ", ".join(map(str, ranks))
        return LostProcessError(
            f"Of {self.world_size} processes, that of rank {shown} is gone; it may have been killed, or its machine is "
            "out of reach. The run was stopped.",
            ranks,
        )

    def _found_loss(self, error: Exception) -> LostProcessError:
        self._mark_alive()
        deadline = time.monotonic() + _REPORTED_S
        while time.monotonic() < deadline:
            if failure := self._failure():
                return LostProcessError(f"{failure} The run was stopped.")
            time.sleep(0.1)
        if missing := self._silent():
            return self._gone(missing)
        return LostProcessError(f"{_words(error)} The run was stopped.")

    def _mark_alive(self) -> None:
        with contextlib.suppress(Exception):
            self.store.set(f"alive/{self.rank}", "")

    def _failure(self) -> str:
        """The sentence of the process that failed first, as far as known; empty while nothing is."""
        for rank, how in self._exits().items():
            if not (reported := self._reported(rank)):
                return f"The process of rank {rank} of {self.world_size} ended: {how}."
            return reported
        others = (rank for rank in range(self.world_size) if rank != self.rank)
        return next((reported for rank in others if (reported := self._reported(rank))), "")

    def _reported(self, rank: int) -> str:
        try:
            if not self.store.check([f"failed/{rank}"]):
                return ""
            note = json.loads(self.store.get(f"failed/{rank}"))
        except Exception:  # the store went with its process
            return ""
        return f"The process of rank {rank} of {self.world_size} ({note['host']}) failed: {note['sentence'].rstrip()}"

    def _silent(self) -> tuple[int, ...]:
        """The ranks of those that did not mark that they live."""
        try:
            return tuple(rank for rank in range(self.world_size) if not self.store.check([f"alive/{rank}"]))
        except Exception:  # it went with the process of rank 0
            return (0,)


def timeout_s() -> float:
    """Seconds that a process waits for another that lives and does nothing."""
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    return float(text) if text.isascii() and text.isdigit() and 0 < int(text) < 10**7 else USUAL_TIMEOUT_S


def meet(launch: Launch) -> Any:
    """The store at which the processes of a launcher meet, for one run.

    Raises:
        LostProcessError: they did not, within five minutes.
    """
    try:
        return meeting(_store_of(launch), launch.rank)
    except (RuntimeError, OSError) as error:
        raise LostProcessError(
            f"The {launch.world_size} processes that {launch.by} says of did not meet at {launch.address}, port "
            f"{launch.port}: {_words(error)} See that all of them were started, that each can reach that machine, and "
            "that MASTER_ADDR and MASTER_PORT are the same for all."
        ) from error


def meeting(store: Any, rank: int) -> Any:
    """What processes keep in ``store`` for their next run: those of one launch may make several, one after another."""
    found = _DISTRIBUTED.PrefixStore(f"tincture/{store.add(f'tincture/meetings/{rank}', 1)}", store)
    found.set_timeout(_seconds(_ANSWER_S))
    return found


@functools.cache  # that of rank 0 holds it for the others for as long as it lives
def _store_of(launch: Launch) -> Any:
    with patch_environment(**launch.environment()):
        meeting = _DISTRIBUTED.rendezvous("env://", launch.rank, launch.world_size, timeout=_seconds(MEETING_S))
        store, _, _ = next(iter(meeting))
    return store


def _words(error: BaseException) -> str:
    """The first line of a library's message as a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{foreign(lines[0].split('. This is', 1)[0])}."


def _seconds(number: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=number)


def _device_type(device: str) -> str:
    """``cpu``, or the kind of accelerator that ``auto`` or a name means; UsageError for one by number."""
    kind, _, number = device.partition(":")
    if number:
        raise UsageError(
            f"--device is {device!r}, one device for several processes; give --device {kind}, and each process takes "
            "one of its own."
        )
    if kind != "auto":
        return kind
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found.type if found else "cpu"


def device_count(device: str) -> int:
    """How many devices there are of the kind that a setting names; 0: as many processes as wanted, on a CPU.

    Raises:
        UsageError: the setting names one by its number.
    """
    kind = _device_type(device)
    return 0 if kind == "cpu" else int(getattr(torch, kind).device_count())


@contextlib.contextmanager
def _own_device(kind: str, launch: Launch) -> Iterator[None]:
    """Inside, the accelerator of this process is the one that its local rank has; UsageError where there is none."""
    if kind == "cpu":
        yield
        return
    module, count = getattr(torch, kind), device_count(kind)
    # Slurm, for one, may show each process nothing but its own.
    if launch.local_rank >= count and count != 1:
        raise UsageError(
            f"There are {launch.local_world_size} processes on {socket.gethostname()}, but it has {count} {kind} "
            "devices; start at most that many, or use --device cpu."
        )
    before = module.current_device()
    module.set_device(launch.local_rank % count)
    try:
        yield
    finally:
        module.set_device(before)


def _device_mark(kind: str) -> str:
    """What tells the present accelerator from the others of its machine."""
    module = getattr(torch, kind)
    number = module.current_device()
    return str(getattr(module.get_device_properties(number), "uuid", number))


@contextlib.contextmanager
def _gloo_on_this_machine(launch: Launch) -> Iterator[None]:
    """Inside, gloo goes by the loopback where all processes are on this machine: its name may lead elsewhere."""
    is_local = launch.address in ("127.0.0.1", "localhost") and launch.local_world_size == launch.world_size
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), "")
    if not is_local or not loopback or os.environ.get("GLOO_SOCKET_IFNAME"):
        yield
        return
    with patch_environment(GLOO_SOCKET_IFNAME=loopback):
        yield
