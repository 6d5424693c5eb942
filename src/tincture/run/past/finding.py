"""Which run somebody means: by its folder, its id or the beginning of that, or the adapter that it trained."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.errors import UsageError
from tincture.run.folder import RECORD
from tincture.run.past.origin import run_origin
from tincture.run.past.past_run import PastRun, read_run, run_folders, runs_in
from tincture.workspace import TRAINABLE_SUFFIXES, Workspace

MOST_NAMED = 5
FILES = TRAINABLE_SUFFIXES | {".png", ".webp", ".bin"}
"""What an adapter's file may be called."""
Inspect = Callable[[Path], Mapping[str, Any]]
"""Says what a file is, as ``inspect_file`` does, which loads torch."""


class RunFinder:
    """Finds runs in a workspace.

    Args:
        workspace: whose logs are looked through, once.
        inspect: asked of an adapter's file.
        remark: gets a sentence where one of several was chosen.
    """

    def __init__(self, workspace: Workspace, inspect: Inspect, remark: Callable[[str], object]) -> None:
        self._workspace, self._inspect, self._remark = workspace, inspect, remark
        self._runs: list[PastRun] | None = None

    def find(self, text: str) -> PastRun:
        """The run that ``text`` means.

        Raises:
            UsageError: none, or several; those that come near are named.
            FileFormatError: it is a file that cannot be read.
        """
        path = Path(text).expanduser()
        if text and "\0" not in text and len(text) < 4096 and path.exists():
            return self._at(path)
        runs = self.runs
        for matches in (
            [run for run in runs if text == run.id],
            [run for run in runs if text == run.folder.name],
        ):
            if matches:
                return self._only(text, matches)
        if matches := [run for run in runs if _stem(text) == run.name]:
            if len(matches) > 1:
                self._remark(f"{len(matches)} runs trained {text!r}; {matches[0].id} is the latest of them.")
            return matches[0]
        if matches := [run for run in runs if text and text in (run.id[: len(text)], run.folder.name[: len(text)])]:
            return self._only(text, matches)
        what = f"file {text!r}, nor a run of its name" if path.suffix.lower() in FILES else f"run {text!r}"
        raise UsageError(f"There is no {what} in {self._workspace.logs}; {self._hint(text)}")

    @property
    def runs(self) -> Sequence[PastRun]:
        """All of the workspace, the latest first."""
        if self._runs is None:
            self._runs = runs_in(self._workspace.logs)
        return self._runs

    def _at(self, path: Path) -> PastRun:
        place = path.resolve()
        above = next((each for each in (place, *place.parents) if (each / RECORD).is_file()), None)
        if above is not None:
            if run := read_run(above, self._workspace.logs):
                return run
            raise UsageError(
                f"{above / RECORD} cannot be read, so that nothing is known of this run; give another one."
            )
        if place.is_file() and place.suffix.lower() in FILES:
            return self._of_file(place)
        if place.is_dir() and (inner := [str(run) for run in run_folders(place)]):
            raise UsageError(f"{path} holds {len(inner)} runs; give one of them: {_named(inner)}.")
        raise UsageError(f"{path} is no run, nor an adapter's file; tincture runs lists the runs that there are.")

    def _of_file(self, path: Path) -> PastRun:
        origin = run_origin(self._workspace, self._inspect(path))
        run = read_run(origin.folder, self._workspace.logs) if origin else None
        if run is None:
            raise UsageError(
                f"{path.name} does not say which run made it, or that run is not in {self._workspace.logs}; give the "
                "folder of a run."
            )
        return run

    def _only(self, text: str, runs: Sequence[PastRun]) -> PastRun:
        if len(runs) > 1:
            raise UsageError(f"{text!r} may be {len(runs)} runs; give one of them: {_named([run.id for run in runs])}.")
        return runs[0]

    def _hint(self, text: str) -> str:
        names = {name: run for run in reversed(self.runs) for name in (run.name, run.folder.name, run.id)}
        if not names:
            return "there is none yet."
        near = list(dict.fromkeys(names[each].id for each in difflib.get_close_matches(text, names, n=3, cutoff=0.5)))
        return f"did you mean {' or '.join(near)}?" if near else "tincture runs lists those that there are."


def _stem(text: str) -> str:
    path = Path(text)
    return path.stem if path.suffix.lower() in TRAINABLE_SUFFIXES else text


def _named(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - MOST_NAMED} more" if len(texts) > MOST_NAMED else ""
    return ", ".join(texts[:MOST_NAMED]) + more
