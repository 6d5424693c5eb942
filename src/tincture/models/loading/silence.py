"""Silence for libraries that report to the screen what our own errors say better."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from transformers.utils import logging as transformers_logging


@contextlib.contextmanager
def silenced_libraries() -> Iterator[None]:
    """Holds back the reports and progress bars of diffusers and transformers; afterwards all is as before."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    shows_progress = transformers_logging.is_progress_bar_enabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        transformers_logging.disable_progress_bar()
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shows_progress:
            transformers_logging.enable_progress_bar()
