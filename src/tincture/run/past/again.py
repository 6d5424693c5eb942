"""A run made once more: from a run's folder, or from what an adapter's file says of how it was made."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tincture.errors import FileFormatError, UsageError
from tincture.events import Event, RunPrepared
from tincture.formats.files import write_atomically
from tincture.kinds.registry import PLACEHOLDER, find_kind
from tincture.run.folder import RunFolder, noted_of_each, read_record
from tincture.run.past.changes import Facts, changes, facts_of_file, facts_of_record
from tincture.run.past.finding import FILES, Inspect, RunFinder
from tincture.run.past.origin import run_origin, settings_again
from tincture.run.past.past_run import PastRun
from tincture.run.presence import refuse_existing
from tincture.settings.companions import Companion
from tincture.settings.run_file import checked_part
from tincture.settings.train import EARLIER_DEFAULTS, FIELDS, TrainSettings
from tincture.workspace import ADAPTER_SUFFIX, Workspace, clean_name

CREATED, CONTINUED = "created", "continued"
"""In a file's provenance: the options that it was created with, and whether it had been trained before its last run."""
Create = Callable[..., object]
"""``recipe.create``."""


@dataclass(frozen=True)
class Again:
    """What is made once more.

    Attributes:
        source: what it is called: a run's id, or a file's name.
        settings: fields of ``TrainSettings``.
        then: what was known when it was made.
        starts: files of the adapters as they were before the first step; without any, they are created anew.
        created: the options by which the adapter was created, where ``starts`` are not known.
        absent: settings that name what is not in the workspace.
        names_adapter: whether its prompts have the adapter's name in them, as far as that is known.
    """

    source: str
    settings: Mapping[str, Any]
    then: Facts
    starts: Sequence[Path] = ()
    created: Mapping[str, Any] | None = None
    absent: Sequence[str] = ()
    names_adapter: bool = True

    def with_settings(self, asked: Mapping[str, Any]) -> TrainSettings:
        """Its settings with others that win over them.

        Raises:
            UsageError: one is not allowed, or names what is not in the workspace and is not among ``asked``.
        """
        if missing := [name for name in self.absent if name not in asked]:
            listed = ", ".join(f"{name} ({_listed(self.settings[name])})" for name in missing)
            flags = ", ".join(f"`{name}`" for name in missing)
            raise UsageError(f"{self.source} names what is not in this workspace: {listed}; give {flags}.")
        return TrainSettings.from_dict({**self.settings, **asked}, source=self.source)


def find_again(text: str, workspace: Workspace, inspect: Inspect, remark: Callable[[str], object]) -> Again:
    """What a run, or a file, is made of; ``text`` as ``RunFinder.find`` takes it.

    Raises:
        UsageError: there is no such run, or the file does not say how it was made.
    """
    path = Path(text).expanduser()
    within = next((above for above in path.absolute().parents if (above / "run.json").is_file()), None)
    if text and "\0" not in text and path.is_file() and path.suffix.lower() in FILES and within is None:
        return of_file(workspace, inspect(path))
    return of_run(RunFinder(workspace, inspect, remark).find(text))


def of_run(run: PastRun) -> Again:
    """A run, as its folder has it."""
    record = read_record(run.folder)
    values = {**EARLIER_DEFAULTS, **record["settings"]}
    settings = checked_part({name: value for name, value in values.items() if name in FIELDS}, run.id)
    starts = []
    for number, noted in enumerate(noted_of_each(record)):
        suffix = Path(str(noted.get("adapter_path", ""))).suffix or ADAPTER_SUFFIX
        start = RunFolder(run.folder, run.kind, suffix, number).start
        if not start.is_file():
            raise FileFormatError(
                f"{start} is not there, so that the adapter cannot begin as it did; give another run."
            )
        starts.append(start)
    names_adapter = any(PLACEHOLDER in line for line in record["template_lines"])
    return Again(run.id, settings, facts_of_record(record), starts, names_adapter=names_adapter)


def of_file(workspace: Workspace, found: Mapping[str, Any]) -> Again:
    """An adapter's file by what ``inspect_file`` says of it; its run, where that is in the workspace.

    Raises:
        UsageError: it does not say how it was made.
    """
    path = Path(found["path"])
    settings, absent = settings_again(workspace, found)
    if origin := run_origin(workspace, found):
        folder = origin.folder
        again = of_run(PastRun(folder, path.name, read_record(folder)))
        return replace(again, then={**again.then, **facts_of_file(found)})
    made = found["provenance"]
    created = made.get(CREATED)
    if not isinstance(created, Mapping) or made.get(CONTINUED) or settings.get("companions"):
        why = (
            "was trained together with others"
            if settings.get("companions")
            else "was trained in several runs"
            if made.get(CONTINUED)
            else "does not say with which options it was created"
        )
        raise UsageError(
            f"{path.name} {why}, and its run is not in {workspace.logs}, so that it cannot begin as it did; create an "
            "adapter, and train it with the settings that tincture inspect shows."
        )
    return Again(path.name, settings, facts_of_file(found), (), created, absent)


class Renewed:
    """The adapters of a run as they were before its first step, under names that are free.

    A context; unless the run that trains them begins within it, or ``keep`` is called, all is as it was before.

    Args:
        name: of the first; empty: a free one.
        overwrite: they take the names of those that were trained, or ``name``, and what is there is lost.

    Attributes:
        settings: those of the run, with these names.
        remarks: sentences on what differs by the names.
    """

    def __init__(
        self, again: Again, settings: TrainSettings, workspace: Workspace, name: str, overwrite: bool, create: Create
    ) -> None:
        self._again, self._workspace, self._create = again, workspace, create
        self.remarks: list[str] = []
        old = settings.adapters
        given = [name, *[""] * (len(old) - 1)]
        names = [self._new_name(*one, new, overwrite) for one, new in zip(old, given, strict=True)]
        suffixes = [start.suffix for start in again.starts] or [ADAPTER_SUFFIX] * len(old)
        self.paths = [
            workspace.adapter_path(kind, each).with_suffix(suffix)
            for (kind, _), each, suffix in zip(old, names, suffixes, strict=True)
        ]
        for path in self.paths:
            refuse_existing(path, overwrite)
        self.settings = self._renamed(settings, dict(zip([was for _, was in old], names, strict=True)))
        self._began = False

    def on_event(self, event: Event) -> None:
        if isinstance(event, RunPrepared):
            self.keep()

    def keep(self) -> None:
        """They stay, also where their run begins later."""
        self._began = True

    def __enter__(self) -> Renewed:
        self._moved = [(path, path.with_name(f".{path.name}.before")) for path in self.paths if path.exists()]
        for path, aside in self._moved:
            os.replace(path, aside)
        try:
            self._write()
        except BaseException:
            self._put_back()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if not self._began:
            self._put_back()
        for _path, aside in self._moved:
            aside.unlink(missing_ok=True)

    def _put_back(self) -> None:
        for path in self.paths:
            path.unlink(missing_ok=True)
        for path, aside in self._moved:
            with contextlib.suppress(OSError):
                os.replace(aside, path)

    def _write(self) -> None:
        for path, start in zip(self.paths, self._again.starts, strict=False):
            content = start.read_bytes()
            write_atomically(path, lambda file, content=content: _write_all(file, content))  # type: ignore[misc]
        if not self._again.starts:
            options = {key: value for key, value in (self._again.created or {}).items() if key != "kind"}
            settings = self.settings
            self._create(settings.kind, settings.name, workspace=self._workspace, model=settings.model, **options)

    def _new_name(self, kind: str, was: str, given: str, overwrite: bool) -> str:
        if given or overwrite:
            return clean_name(given or was)
        taken = {path.stem for path in self._workspace.list_adapters(kind)}
        free = (f"{was}-again{number if number > 1 else ''}" for number in itertools.count(1))
        return next(name for name in free if name not in taken)

    def _renamed(self, settings: TrainSettings, names: Mapping[str, str]) -> TrainSettings:
        others = map(Companion.parse, settings.companions)
        companions = tuple(str(replace(each, name=names[each.name])) for each in others)
        words = {was: new for (kind, was), new in zip(settings.adapters, names.values(), strict=True) if was != new}
        prompts = settings.preview_prompts
        if any(find_kind(kind).has_word for kind, _ in settings.adapters):
            for was, new in words.items():
                own = re.compile(rf"(?<!\w){re.escape(was)}(?!\w)")
                prompts = tuple(own.sub(new, prompt) for prompt in prompts)
        if words and self._again.names_adapter and not find_kind(settings.kind).has_word:
            self.remarks.append(
                f"The prompt template has [name], which is {names[settings.name]} now, so that the prompts are "
                "others, and so is the result; `overwrite` keeps the name."
            )
        return settings.replace(name=names[settings.name], companions=companions, preview_prompts=prompts)


class ChangesSince:
    """A watcher that says what changed since, as soon as the run knows its model and pictures.

    Args:
        then: what was known.
        remark: gets a sentence.
    """

    def __init__(self, then: Facts, remark: Callable[[str], object]) -> None:
        self._then, self._remark = then, remark

    def on_event(self, event: Event) -> None:
        if isinstance(event, RunPrepared):
            for change in changes(self._then, facts_of_record(read_record(event.run_dir))):
                self._remark(change)


def _write_all(file: Any, content: bytes) -> None:
    file.write(content)


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
