"""Processes that this one starts on its own machine to compute a run with it, by torch's own launcher."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import torch.distributed
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, PContext, start_processes

from tincture.processes.group import LEAVING_S, Group, meeting
from tincture.processes.launch import Launch

_HOST = "127.0.0.1"
_ALL_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
"""Those that torch's launcher takes for itself where it runs in the main thread."""


class Helpers:
    """``count`` processes of ``command``, which join this one's group with the ranks from 1 on.

    Args:
        count: at least 1.
        command: the program and its arguments; the group stands in the variables of its environment.
    """

    def __init__(self, count: int, command: Sequence[str]) -> None:
        # Bound to the loopback before anybody knows of it: no other machine reaches it.
        listener = socket.create_server((_HOST, 0))
        port = listener.getsockname()[1]
        distributed: Any = torch.distributed  # not all that it documents is declared
        self._store = distributed.TCPStore(
            _HOST, port, count + 1, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
        )
        launches = [Launch(rank, count + 1, rank, count + 1, _HOST, port, "--processes") for rank in range(count + 1)]
        program, *arguments = command
        environments = {launch.rank - 1: launch.environment() for launch in launches[1:]}
        self._logger = logging.getLogger("torch.distributed.elastic.multiprocessing.api")
        self._level = self._logger.level
        self._logger.setLevel(logging.CRITICAL)  # it tells of what ``exits`` and ``close`` are for
        self._logs = tempfile.TemporaryDirectory(prefix="tincture-processes-", ignore_cleanup_errors=True)
        with _signals_unchanged():
            self._context: PContext = start_processes(
                name="tincture",
                entrypoint=program,
                args=dict.fromkeys(range(count), tuple(arguments)),
                envs=environments,
                logs_specs=DefaultLogsSpecs(self._logs.name),
            )
        self.group = Group(launches[0], meeting(self._store, 0), self.exits)

    def exits(self) -> dict[int, str]:
        """How those of them ended that failed, by rank."""
        result: Any = self._context.wait(timeout=0)
        failures = result.failures if result else {}
        return {number + 1: _how(failure.exitcode) for number, failure in failures.items()}

    def close(self) -> None:
        """Waits a while until they have ended, and ends those that have not."""
        with contextlib.suppress(Exception):
            self._context.wait(timeout=LEAVING_S, period=0.05)
        with contextlib.suppress(ProcessLookupError):
            self._context.close()
        self._logs.cleanup()
        self._logger.setLevel(self._level)


def python_program(module: str) -> list[str]:
    """The command that runs a module by this Python; no file in the current folder is taken for a module."""
    return [sys.executable, "-P", "-m", module]


def _how(exit_code: int) -> str:
    if exit_code < 0:
        with contextlib.suppress(ValueError):
            return f"{signal.Signals(-exit_code).name} ended it"
    return f"its exit status is {exit_code}"


@contextlib.contextmanager
def _signals_unchanged() -> Iterator[None]:
    """What stood for the signals before stands again afterwards: torch's launcher takes them where it can."""
    before = {name: signal.getsignal(getattr(signal, name)) for name in _known_signals()}
    try:
        yield
    finally:
        for name, handler in before.items():
            if signal.getsignal(getattr(signal, name)) is not handler:
                signal.signal(getattr(signal, name), handler)


def _known_signals() -> list[str]:
    return [name for name in _ALL_SIGNALS if hasattr(signal, name)] if os.name == "posix" else ["SIGTERM", "SIGINT"]
