"""Ctrl-C: the first asks the run to finish its step and save, the second ends the program at once.

A terminal that is closed asks once, however often the system says so, and the run saves without it. Under nohup, it
asks nothing.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
HANG_UP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # there is none on Windows


@contextmanager
def stop_on_interrupt(say: Callable[[str], None], finishing: str = "this step") -> Iterator[threading.Event]:
    """Give an event that the first SIGINT, SIGTERM or SIGHUP sets; the handlers from before stand again afterwards.

    `finishing` are words for what is still done then. A SIGHUP that is ignored, as nohup has it, stays ignored.
    """
    stop = threading.Event()
    terminals = [file for file in range(3) if os.isatty(file)]  # once it is closed, nobody can tell

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        _say_aside(say, f"stopping after {finishing} and saving; once more to stop at once")

    def hang_up(number: int, frame: FrameType | None) -> None:
        _leave(terminals)  # what is written to it from now on would fail
        if not stop.is_set():
            stop.set()
            _say_aside(say, f"the terminal was closed: stopping after {finishing} and saving")

    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = dict.fromkeys(SIGNALS, ask_to_stop)
    if HANG_UP is not None and signal.getsignal(HANG_UP) is not signal.SIG_IGN:
        handlers[HANG_UP] = hang_up
    before = {each: signal.signal(each, handler) for each, handler in handlers.items()}
    try:
        yield stop
    finally:
        for each, earlier in before.items():
            signal.signal(each, earlier)


def _say_aside(say: Callable[[str], None], text: str) -> None:
    """Says it from a thread of its own, and waits a second at most until it is said.

    The signal may have come in the midst of writing, with locks held of which another thread needs one to give back
    another. So no thread of `threading` either, which needs locks to begin.
    """
    done = _thread.allocate_lock()
    done.acquire()

    def write() -> None:
        try:
            say(text)
        finally:
            done.release()

    _thread.start_new_thread(write, ())
    done.acquire(timeout=1)


def _leave(terminals: list[int]) -> None:
    """Lets the standard streams that were the terminal's lead nowhere."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_RDWR)
        for file in terminals:
            os.dup2(nowhere, file)
        os.close(nowhere)
    terminals.clear()
