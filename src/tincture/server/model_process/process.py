"""The child process of ``ModelProcess``: ``python -m tincture.server.model_process.process TARGETS ROOT FILE``.

TARGETS is a module with ``open_resources(workspace, report)``, which makes what stays between calls, and ``TARGETS``,
functions by name that are called as ``function(resources, **arguments)``. FILE is the number of the open connection to
the parent, apart from stdout and stderr, so that nothing that is printed can disturb it. The process ends when its
parent does.
"""

from __future__ import annotations

import importlib
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from typing import Any

from tincture.errors import TinctureError, in_names
from tincture.server.errors import StoppedError
from tincture.server.model_process.channel import Channel
from tincture.workspace import Workspace

OFTEN_S = 0.2
"""Seconds between two reports of progress, at least."""


class ProgressReporter:
    """Sends the parent how far a call is, and learns from it that the call shall end."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._stop = threading.Event()
        self._reported_at = 0.0

    def begin(self) -> None:
        self._stop.clear()
        self._reported_at = 0.0

    def stop(self) -> None:
        self._stop.set()

    def __call__(self, **progress: Any) -> None:
        """Sends ``progress`` if that was not done just now; StoppedError when the call shall end."""
        if self._stop.is_set():
            raise StoppedError("It was stopped.")
        if time.monotonic() - self._reported_at >= OFTEN_S:
            self._reported_at = time.monotonic()
            self._channel.send("progress", progress)


def main(arguments: list[str]) -> None:
    """Serves calls until the parent ends."""
    module, root, file = arguments
    # Ctrl-C, and a terminal that is closed, reach the whole group; the parent says when to end.
    for number in {signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)}:
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(int(file), False)
    channel = Channel(Connection(int(file)))
    report = ProgressReporter(channel)
    calls: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
    threading.Thread(target=_listen, args=(channel, report, calls), daemon=True).start()
    _send_warnings(channel)
    targets: Any = None
    resources: Any = None
    while True:
        name, given = calls.get()
        try:
            if targets is None:
                targets = importlib.import_module(module)
                resources = targets.open_resources(Workspace.open(root), report)
            answer: tuple[Any, ...] = ("result", targets.TARGETS[name](resources, **given))
        except TinctureError as error:
            answer = ("error", error.with_traceback(None))
        except Exception as error:
            answer = ("fault", type(error).__name__, str(error), traceback.format_exc())
        _answer(channel, answer)


def _answer(channel: Channel, answer: tuple[Any, ...]) -> None:
    try:
        channel.send(*answer)
    except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
        channel.send("fault", type(error).__name__, str(error), traceback.format_exc())


def _send_warnings(channel: Channel) -> None:
    """Ours are for those who made the call; what libraries warn their programmers of goes to stderr."""
    shown = warnings.showwarning

    def show(message: Any, category: Any, *where: Any, **more: Any) -> None:
        if category is UserWarning:
            channel.send("remark", in_names(str(message)))
        else:
            shown(message, category, *where, **more)

    warnings.showwarning = show
    warnings.simplefilter("always", UserWarning)


def _listen(channel: Channel, report: ProgressReporter, calls: queue.Queue[tuple[str, dict[str, Any]]]) -> None:
    try:
        while True:
            kind, *rest = channel.receive()
            if kind == "call":
                report.begin()  # here, so that a request to stop that follows at once is not lost
                calls.put((rest[0], rest[1]))
            elif kind == "stop":
                report.stop()
    finally:
        # The parent is gone. Files are written whole or not at all, so nothing is lost by ending at once.
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
