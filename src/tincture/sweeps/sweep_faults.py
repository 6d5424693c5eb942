"""What is wrong with a sweep and its runs: found before anything is written, each fault once, with its points."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.data.listing import Source
from tincture.data.preprocessed import sides_of
from tincture.errors import TinctureError, UsageError, shortened
from tincture.kinds.registry import Option, find_kind
from tincture.models.loading.default_model import default_model
from tincture.models.picto import world
from tincture.run import presence
from tincture.settings.train import FIELDS, TrainSettings
from tincture.sweeps import ranges as drawing
from tincture.sweeps.points import (
    PICTURES,
    Trial,
    adapters_of,
    count_of,
    expanded,
    learns,
    made_anew,
    options_of,
    ranges_of,
    trials_of,
    varied,
)
from tincture.sweeps.sweep_file import CREATE, MOST_RUNS, Fields, faults_of_form, points_of, table_of
from tincture.workspace import Workspace

_FIXED = ("kind", "name", "companions", "with")
"""What is the same for all runs of a sweep, or each run's own."""
Place = Callable[[Mapping[str, Any]], TrainSettings]
"""Makes settings of what is given, with paths as they are from here, and refuses places that are not allowed."""
ModelOf = Callable[[Path | None], str]
"""The base model that counts where none is named, by the file of the adapter, if there is one."""
_MOST_NAMED = 5


def checked(
    given: Mapping[str, Any],
    workspace: Workspace,
    place: Place = TrainSettings.from_dict,
    cwd: Path | None = None,
    model_of: ModelOf | None = None,
) -> tuple[Fields, list[Trial], list[str]]:
    """A sweep that names its base model, its runs, and everything that is wrong with it; with a fault, no runs.

    Args:
        given: as ``normalized`` gives it.
        place: see ``Place``.
        cwd: where relative paths start; None: the current folder.
        model_of: see ``ModelOf``; None: as at the command line.
    """
    source, faults = dict(given), faults_of_form(given)
    of_keys = list(_faults_of_keys(source)) if isinstance(source.get("run"), Mapping) else []
    if not faults and (count := count_of(source)) > MOST_RUNS:
        faults = [f"it has {count:,} runs, but at most {MOST_RUNS:,} are allowed; leave some values or seeds out"]
    if faults:
        return source, [], [*of_keys, *faults]
    if of_keys:  # what is wrong with the values of all others is named with them
        return source, [], [*of_keys, *_faults_of_others(source)]
    try:
        source = _with_model(
            source, workspace, model_of or (lambda adapter: str(default_model(workspace, adapter=adapter)))
        )
        points = expanded(source)
    except TinctureError as error:
        return source, [], [error.sentence]
    of_ends = list(drawing.corners(source["random"]["ranges"])) if learns(source) else points
    trials = trials_of(source, of_ends)
    if faults := _faults_of_runs(trials):
        return source, [], faults
    measured = all(_is_validated(trial.train_settings(), cwd or Path()) for trial in trials)
    source = {"metric": "validation_loss" if measured else "train_loss", **source}
    if source["metric"] == "validation_loss" and not measured:
        faults.append(
            "metric is validation_loss, but nothing is measured: give pictures for it by validation_data or "
            "validation_share, and a validation_every above 0"
        )
    faults += [*_faults_between(source, trials), *_missing(source, trials, workspace, place)]
    return source, [] if faults else trials_of(source, points), faults


def _faults_of_others(source: Fields) -> list[str]:
    """What is wrong with the values of a sweep some of whose keys are none, those left out."""
    known = {key for key in varied(source) if key in _known_keys() and key not in _FIXED}

    def known_ones(table: Mapping[str, Any]) -> Fields:
        return {key: value for key, value in table.items() if key in known}

    points = [known_ones(point) for point in source.get("points", [])]
    ends = list(drawing.corners(known_ones(ranges_of(source)))) or [{}]
    grid = [{key: value} for key, values in known_ones(source.get("grid", {})).items() for value in values]
    return _faults_of_runs(trials_of({**source, "create": {}}, [*points, *ends, *grid]))


def _is_validated(settings: TrainSettings, cwd: Path) -> bool:
    """Whether a run measures the loss on pictures that are not trained."""
    given = settings.validation_folders or settings.validation_share
    return bool(
        settings.validation_every
        and (given or any(sides_of(cwd / Source.parse(folder).folder) for folder in settings.folders))
    )


def _faults_of_keys(source: Mapping[str, Any]) -> Iterator[str]:
    """Of keys that vary: those that are none, and those that are given twice."""
    options = options_of(source)
    for key in varied(source):
        if key.startswith(CREATE):
            if options and key.removeprefix(CREATE) not in options:
                yield f"there is no option {key!r}; known are {', '.join(CREATE + name for name in options)}"
        elif key in _FIXED:
            yield f"{key} cannot vary; each run has adapters of its own, all of the same kinds"
        elif key not in _known_keys():
            yield TrainSettings.faults_in({key: 0})[0]
    yield from (
        f"there is no option {name!r} in [create]; known are {', '.join(options)}"
        for name in table_of(source, "create")
        if options and name not in options
    )
    listed = [*dict.fromkeys(key for point in points_of(source) for key in point)]
    twice = set(table_of(source, "grid")) & {*listed, *ranges_of(source)}
    yield from (
        f"{key} stands in [grid] and in {'[[points]]' if key in listed else '[random.ranges]'}" for key in sorted(twice)
    )
    for key, given in ranges_of(source).items():
        if isinstance(given, Mapping) and drawing.is_whole(key, given, options):
            broken = [given[end] for end in ("low", "high", "step") if isinstance(given.get(end), float)]
            yield from (f"[random.ranges] {key} has {end:g}, but must have whole numbers" for end in broken if end % 1)
    if source.get("seeds") and "seed" in varied(source):
        yield "seed varies and seeds are given; leave one out"


def _known_keys() -> set[str]:
    return {*FIELDS, *(spec.alias for spec in FIELDS.values() if spec.alias)}


def _faults_of_runs(trials: Sequence[Trial]) -> list[str]:
    """What settings refuse, each fault once, with the points that it concerns."""
    found: dict[str, list[int]] = {}
    for trial in trials:
        for fault in TrainSettings.faults_in(trial.settings):
            found.setdefault(fault.replace(repr(trial.name), "the name of a run"), []).append(trial.point)
    return [f"{fault}{_at(points, trials)}" for fault, points in found.items()]


def _at(points: Sequence[int], trials: Sequence[Trial]) -> str:
    """Which points, where it is not all of them."""
    each = list(dict.fromkeys(points))
    if len(each) == len({trial.point for trial in trials}):
        return ""
    named = ", ".join(map(str, each[:_MOST_NAMED])) + (
        f" and {len(each) - _MOST_NAMED} more" if len(each) > _MOST_NAMED else ""
    )
    return f" (point{'s' if len(each) > 1 else ''} {named})"


def _faults_between(source: Mapping[str, Any], trials: Sequence[Trial]) -> Iterator[str]:
    """Of settings and the sweep's own keys together."""
    made = [trial.train_settings() for trial in trials]
    rungs, metric = source.get("halving", {}).get("rungs", []), source.get("metric")
    shortest = min(settings.last_step for settings in made)
    if rungs and rungs[-1] >= shortest:
        yield f"[halving] has the rung {rungs[-1]}, but a run ends at step {shortest}; rungs lie before the end"
    every = {settings.validation_every for settings in made}
    if rungs and metric == "validation_loss":
        off = [rung for rung in rungs if any(rung % each for each in every if each)]
        if off:
            yield (
                f"metric is validation_loss, but nothing is measured at the rung {off[0]}: validation_every is "
                f"{', '.join(map(str, sorted(every)))}; give rungs that are multiples of it"
            )
    yield from _faults_of_oracle(source, made)
    yield from _faults_of_options(source, trials)


def _faults_of_oracle(source: Mapping[str, Any], made: Sequence[TrainSettings]) -> Iterator[str]:
    given, metric = source.get("oracle", {}), source.get("metric")
    judged = {"subject": "fidelity", "style": "style"}
    for key, name in judged.items():
        if metric == name and not given.get(key):
            yield f"metric is {name}, for which [oracle] must have a {key}"
    if not given:
        return
    if bool(given.get("subject")) == bool(given.get("style")):
        yield "[oracle] must have a subject, such as 'small cyan dotted moon', or a style, and not both"
    elif given.get("style"):
        if given["style"] not in world.STYLES[1:]:
            yield f"[oracle] style is {shortened(given['style'])}, but must be one of {', '.join(world.STYLES[1:])}"
    else:
        try:
            world.parse_subject(str(given["subject"]))
        except ValueError as error:
            yield f"[oracle] {error}".rstrip(".")
        if not any(find_kind(kind).has_word for kind, _ in made[0].adapters):
            yield "[oracle] has a subject, but nothing is trained that a prompt could name it by; give a style"
    pictures = given.get("pictures", PICTURES)
    if not isinstance(pictures, int) or isinstance(pictures, bool) or not 1 <= pictures <= 1000:
        yield f"[oracle] pictures is {shortened(pictures)}, but must be a whole number from 1 to 1000"
    if others := sorted({settings.model for settings in made if settings.model not in ("", "picto")}):
        yield f"[oracle] reads pictures of picto alone, but model is {others[0]!r}"


def _faults_of_options(source: Mapping[str, Any], trials: Sequence[Trial]) -> Iterator[str]:
    """What is wrong with the options that adapters are made with: as far as their descriptions say."""
    known = options_of(source)
    found = {
        f"create.{name} is {shortened(value)}, but must be {fault}"
        for trial in trials
        for name, value in trial.options(source).items()
        if (fault := _option_fault(known[name], value))
    }
    yield from sorted(found)
    if found or not made_anew(source):
        return
    if len(adapters_of(source)) > 1:
        yield "[create] makes one adapter, but the run file trains several together; make them, and leave [create] out"


def _option_fault(option: Option, value: Any) -> str:
    """What it must be where it is not; empty where nothing is wrong."""
    if option.several:
        is_word = option.or_word and isinstance(value, str)
        sound = isinstance(value, list) and all(isinstance(item, int | float) for item in value)
        return "" if is_word or sound else "a list of numbers"
    words = {bool: "true or false", int: "a whole number", str: "a text"}
    kind = type(option.default)
    if kind in words and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        return words[kind]
    bounds = option.request_bounds
    if kind is int and not bounds.get("ge", value) <= value <= bounds.get("le", value):
        return f"from {bounds.get('ge', 0)} to {bounds.get('le', 'any number')}"
    return ""


def _missing(source: Mapping[str, Any], trials: Sequence[Trial], workspace: Workspace, place: Place) -> Iterator[str]:
    """What runs name that is not there, and names of theirs that are taken."""
    checks: list[Callable[[], object]] = []
    named = [] if made_anew(source) else adapters_of(source)
    if any(not name for _, name in named):
        yield "run names no adapter; give it a name, or let each run make its own by a table [create]"
    checks += [functools.partial(presence.find_named, kind, name, workspace) for kind, name in named if name]
    seen: dict[str, TrainSettings] = {}
    for trial in trials:
        settings = trial.train_settings()
        checks += [functools.partial(_refuse_taken, kind, name, workspace) for kind, name in settings.adapters]
        paths = [getattr(settings, name) for name, spec in FIELDS.items() if spec.path]
        seen.setdefault(str((paths, settings.model, settings.caption_missing, settings.fixed)), settings)
    checks += [functools.partial(_require_surroundings, settings, workspace, place) for settings in seen.values()]
    yield from _failed(checks)


def _require_surroundings(settings: TrainSettings, workspace: Workspace, place: Place) -> None:
    placed = place(settings.to_dict())
    checks: list[Callable[[], object]] = [
        functools.partial(presence.require_surroundings, placed, workspace),
        functools.partial(presence.find_fixed, placed, workspace),
    ]
    presence.refuse_together(checks)


def _failed(checks: Iterable[Callable[[], object]]) -> Iterator[str]:
    found: dict[str, None] = {}
    for check in checks:
        try:
            check()
        except TinctureError as error:
            found[error.sentence.rstrip(".")] = None
    yield from found


def _refuse_taken(kind: str, name: str, workspace: Workspace) -> None:
    path = workspace.adapter_path(kind, name)
    if any(path.with_suffix(suffix).exists() for suffix in (path.suffix, ".safetensors")):
        raise UsageError(f"There is {find_kind(kind).one} {name!r} already; give the sweep another --name")


def _with_model(source: Fields, workspace: Workspace, model_of: ModelOf) -> Fields:
    """A sweep whose run file names its base model, be it the one that counts where none is named; UsageError."""
    run = source["run"]
    if run.get("model") or "model" in varied(source):
        return source
    adapter: Path | None = None
    if not made_anew(source):
        with contextlib.suppress(UsageError):  # one that is not there is named among all such
            adapter = workspace.find_adapter(str(run.get("kind")), str(run.get("name")))
    return {**source, "run": {**run, "model": model_of(adapter)}}
