"""``--events``: what happens in a run as lines of JSON, in a file or on standard output."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.cli.flags import typed_path
from tincture.errors import TinctureError, UsageError, foreign
from tincture.events import Callback
from tincture.run.event_records import EventLines

STANDARD_OUTPUT = "-"


class EventStream:
    """Where records go, if anywhere.

    Attributes:
        watchers: of the run, which write them.
    """

    def __init__(self, lines: EventLines | None = None) -> None:
        self._lines = lines
        self.watchers: Sequence[Callback] = [] if lines is None else [lines]

    def end(self, result: Mapping[str, Any]) -> None:
        """Writes how the run ended, as ``RunResult.to_dict`` says it."""
        self._add({"type": "ended", "state": "stopped" if result["interrupted"] else "done", "result": dict(result)})

    def fail(self, error: Exception) -> None:
        """Writes that it failed."""
        sentence = str(error) if isinstance(error, TinctureError) else f"{type(error).__name__}: {foreign(error, 2000)}"
        self._add({"type": "ended", "state": "failed", "error": sentence, "error_type": type(error).__name__})

    def remark(self, text: str) -> None:
        """Writes a warning."""
        self._add({"type": "remark", "text": text})

    def _add(self, record: dict[str, Any]) -> None:
        if self._lines is not None:
            self._lines.add(record)


@contextlib.contextmanager
def event_stream(where: str) -> Iterator[EventStream]:
    """A stream to a file, or to ``-``; nothing is written where ``where`` is empty.

    Raises:
        UsageError: the file cannot be written; nothing has begun then.
    """
    if not where:
        yield EventStream()
        return
    with _opened(where) as file:

        def write(line: str) -> None:
            with contextlib.suppress(OSError, ValueError):  # a full disk, a reader that left: the run goes on
                file.write(line)
                file.flush()

        stream = EventStream(EventLines(write))
        show = warnings.showwarning

        def remark(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            stream.remark(str(message))
            show(message, *args, **kwargs)

        warnings.showwarning = remark
        try:
            yield stream
        except Exception as error:
            stream.fail(error)
            raise
        finally:
            warnings.showwarning = show


def _opened(where: str) -> contextlib.AbstractContextManager[Any]:
    if where == STANDARD_OUTPUT:
        return contextlib.nullcontext(sys.stdout)
    path: Path = typed_path(where)
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--events is {where!r}, which cannot be written: {error.strerror or error}; give a file in a folder "
            f"that is there, or {STANDARD_OUTPUT} for standard output."
        ) from None
