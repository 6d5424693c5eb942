"""Ctrl-C: the first asks the run to finish its step and save, the second ends the program at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_interrupt(say: Callable[[str], None], finishing: str = "this step") -> Iterator[threading.Event]:
    """Give an event that the first SIGINT or SIGTERM sets; the handlers from before stand again afterwards.

    `finishing` are words for what is still done then.
    """
    stop = threading.Event()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        say(f"stopping after {finishing} and saving; once more to stop at once")

    before = [signal.signal(each, ask_to_stop) for each in SIGNALS]
    try:
        yield stop
    finally:
        for each, handler in zip(SIGNALS, before, strict=True):
            signal.signal(each, handler)
