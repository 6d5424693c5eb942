"""`tincture sweep`: a run file over many settings."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tincture.cli.flags import typed_path
from tincture.cli.interrupt import stop_on_interrupt
from tincture.cli.session import Session, command
from tincture.errors import UsageError

if TYPE_CHECKING:
    from tincture.sweeps.executor import Executor
    from tincture.sweeps.points import Trial
    from tincture.sweeps.standings import Row
    from tincture.sweeps.sweep_folder import SweepFolder

INTERRUPTED = 130
MOST_JOBS = 64
_FINAL = ("done", "failed", "stopped")
_WIDEST = 40


def register(app: typer.Typer) -> None:
    command(app, "sweep")(sweep)


def sweep(
    session: Session,
    sweep_file: Annotated[
        str, typer.Argument(metavar="SWEEP.toml", help="The sweep's file; or the name of one that was begun.")
    ],
    name: Annotated[str, typer.Option(help="What it is called; else the file's key name, or the file's name.")] = "",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_JOBS, help="Runs at a time; else one for each GPU, and one on a CPU."),
    ] = None,
    ray: Annotated[
        str,
        typer.Option(help="Have the runs done on a Ray cluster: auto, HOST:PORT or ray://HOST:PORT, as of serve."),
    ] = "",
    database: Annotated[
        Path | None,
        typer.Option(help="With --ray: file of its queue, where the workspace lies on a folder of the network."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs that there will be, and stop.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try runs that failed once more.")] = False,
) -> None:
    """Run a run file over a grid, a list of points, or points drawn at random, and compare what comes of them.

    The same command again goes on where it stopped, was killed or was interrupted, and does nothing twice. See
    docs/sweeps.md for what SWEEP.toml holds.
    """
    workspace = session.workspace()
    _require_cluster(ray, database)
    if dry_run:
        _show_runs(session, *_checked(sweep_file, name, workspace))
        return
    made = _given_sweep(sweep_file, name, workspace)
    if retry:
        for trial in made.trials():
            made.trial(trial.name).forget_failure()
    with made.held():
        whole = _run(session, made, _executor(made, jobs, ray, database))
    _finish(session, made, whole)


def _given_sweep(given: str, name: str, workspace: Any) -> SweepFolder:
    """The sweep of a file, made now or before; or one that is called so."""
    from tincture.sweeps.sweep_file import read_sweep, sweep_name

    path = typed_path(given)
    is_file = path.is_file() or path.suffix.lower() == ".toml"
    found = read_sweep(path) if is_file else {}
    from tincture.sweeps.sweep_folder import find_sweep, make_sweep  # loads numpy

    if not is_file:
        return find_sweep(workspace, given)
    if name:
        found["name"] = name
    return make_sweep(found, workspace, sweep_name(str(path)), str(path))


def _checked(given: str, name: str, workspace: Any) -> tuple[list[Trial], Mapping[str, Any]]:
    """The runs that a file asks for, with nothing written."""
    from tincture.sweeps.sweep_file import normalized, read_sweep, refuse, sweep_name

    found = read_sweep(typed_path(given))
    from tincture.sweeps.sweep_faults import checked  # loads numpy

    source, trials, faults = checked(
        normalized({**found, **({"name": name} if name else {})}, sweep_name(given)), workspace
    )
    refuse(faults, given)
    return trials, source


def _show_runs(session: Session, trials: Sequence[Trial], source: Mapping[str, Any]) -> None:
    from tincture.sweeps.points import count_of

    listed = [
        {"run": trial.name, **trial.values, **({} if trial.seed is None else {"seed": trial.seed})} for trial in trials
    ]
    count = count_of(source) if not trials else len(trials)
    heads = list(dict.fromkeys(key for row in listed for key in row))
    rows = [[str(row.get(key, "")) for key in heads] for row in listed]
    how = f"{count} runs, ranked by {source['metric'].replace('_', ' ')}"
    session.show(
        {"name": source["name"], "metric": source["metric"], "count": count, "runs": listed},
        "\n".join([how, *_aligned(heads, rows)] if rows else [f"{how}; each is chosen by those before"]),
    )


def _require_cluster(ray: str, database: Path | None) -> None:
    """UsageError for an address that is none, or that nothing answers at, before anything is written."""
    if database and not ray:
        raise UsageError("--database is the file of the queue on a cluster; give --ray too, or leave it out.")
    if ray:
        from tincture.server.queue.cluster.watched import require_cluster
        from tincture.settings.server import ServerSettings

        ServerSettings(ray=ray)
        require_cluster(ray)


def _executor(
    made: SweepFolder, jobs: int | None, ray: str, database: Path | None
) -> contextlib.AbstractContextManager[Executor]:
    if ray:
        from tincture.server.sweeps.on_cluster import runs_on_cluster

        return runs_on_cluster(made, ray, jobs, typed_path(database) if database else None)
    from tincture.sweeps.executor import Processes

    return contextlib.closing(Processes(made, devices(made, jobs)))


def _run(session: Session, made: SweepFolder, executor: contextlib.AbstractContextManager[Executor]) -> bool:
    """Does what is left to do; False where it was interrupted before the end."""
    from tincture.sweeps.search import Search

    with (
        stop_on_interrupt(session.say, "the steps at hand") as stop,
        _shown(session, made) as watch,
        executor as runs,
    ):
        return Search(made, runs, watch, stop).run()


def devices(made: SweepFolder, jobs: int | None) -> list[str]:
    """A place for each run at a time: names of devices, empty where the settings say it or there is no choice."""
    asked = {str(trial.settings.get("device", "auto")) for trial in made.trials()} or {"auto"}
    if asked != {"auto"}:
        return [""] * (jobs or 1)
    from tincture.models.devices import accelerators

    found = accelerators()
    if len(found) < 2:
        return [""] * (jobs or 1)
    return [found[number % len(found)] for number in range(jobs or len(found))]


def _finish(session: Session, made: SweepFolder, whole: bool) -> None:
    from tincture.sweeps.standings import rows_of
    from tincture.sweeps.sweep_report import described, shown_table, write_reports

    rows = rows_of(made, running=())
    paths = {kind: str(path) for kind, path in write_reports(made, rows).items()}
    if session.json:
        ended = {"event": "ended", "interrupted": not whole, **described(made, rows), "reports": paths}
        print(json.dumps(ended, ensure_ascii=False, default=str))
    else:
        heads, texts, states = shown_table(made, rows)
        marked = [
            [f"* {cells[0]}" if state == "best" else cells[0], *cells[1:]]
            for cells, state in zip(texts, states, strict=True)
        ]
        lines = [*_aligned(heads, marked), "", *paths.values()]
        if any(state == "best" for state in states):
            lines.insert(-len(paths) - 1, f"* best by {made.metric.replace('_', ' ')}")
        print("\n".join(lines))
    if not whole:
        session.say("interrupted: the same command goes on")
        raise typer.Exit(INTERRUPTED)
    if failed := sum(row.state == "failed" for row in rows):
        session.say(f"{failed} of {len(rows)} runs failed; --retry tries them once more")
        raise typer.Exit(1)


# --- while it goes on ------------------------------------------------------------------------------------------------


@contextmanager
def _shown(session: Session, made: SweepFolder) -> Iterator[Callable[[Sequence[str]], None]]:
    """What is called while a sweep goes on: lines of JSON, bars on a terminal, or a line when a run has ended."""
    from rich.console import Console

    console = Console(file=sys.stderr)
    watch = _Watch(made)
    if session.json:
        yield functools.partial(watch.lines, lambda row: print(json.dumps(_event(row), ensure_ascii=False), flush=True))
    elif console.is_terminal:
        with _Bars(made, console) as bars:
            yield functools.partial(watch.bars, bars)
    else:
        yield functools.partial(watch.lines, lambda row: session.say(_sentence(row)))


class _Watch:
    """Asks how the runs stand when those at work change, and gives on what is new."""

    def __init__(self, made: SweepFolder) -> None:
        self._made = made
        self._running: list[str] | None = None
        self._known: dict[str, tuple[str, int]] = {}

    def lines(self, give: Callable[[Row], object], running: Sequence[str]) -> None:
        if list(running) == self._running:
            return
        for row in self._rows(running):
            now = row.state, int(row.result.get("global_step") or 0)
            before, self._known[row.trial.name] = self._known.get(row.trial.name), now
            if before != now and not (before is None and row.state == "waiting"):
                give(row)

    def bars(self, bars: _Bars, running: Sequence[str]) -> None:
        if list(running) != self._running:
            bars.show(self._rows(running))
        bars.move(running)

    def _rows(self, running: Sequence[str]) -> list[Row]:
        from tincture.sweeps.standings import rows_of

        self._running = list(running)
        return rows_of(self._made, running)


class _Bars:
    """A bar for all runs, and one for each at work; a line above them for each that has ended."""

    def __init__(self, made: SweepFolder, console: Any) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
        )
        self._made, self._shown = made, Progress(*columns, console=console)
        self._whole = self._shown.add_task(made.name, numbers="")
        self._tasks: dict[str, Any] = {}
        self._over: set[str] | None = None

    def __enter__(self) -> _Bars:
        self._shown.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._shown.stop()

    def show(self, rows: Sequence[Row]) -> None:
        over = {row.trial.name for row in rows if row.state in _FINAL}
        for row in rows:
            if self._over is not None and row.trial.name in over - self._over:
                self._shown.console.print(_sentence(row), highlight=False, markup=False, soft_wrap=True)
        self._over = over
        self._shown.update(
            self._whole,
            completed=len(over),
            total=len(rows),
            numbers=f"{len(over)} of {len(rows)} runs{_at_rung(rows)}",
        )

    def move(self, running: Sequence[str]) -> None:
        for name in [name for name in self._tasks if name not in running]:
            self._shown.remove_task(self._tasks.pop(name))
        for name in running:
            found = self._made.trial(name).progress()
            if name not in self._tasks:
                self._tasks[name] = self._shown.add_task(f"  {name}", total=None, numbers="")
            steps, loss = found.get("steps") or None, found.get("loss")
            numbers = f"{found.get('global_step', 0)}/{steps or '?'}" + (
                f"  loss {loss:.4f}" if loss is not None else ""
            )
            self._shown.update(self._tasks[name], total=steps, completed=found.get("global_step", 0), numbers=numbers)


def _at_rung(rows: Sequence[Row]) -> str:
    """How many wait at a rung for the others; empty where none does."""
    there = [row.global_step for row in rows if row.state == "waiting" and row.result]
    return f", {len(there)} at step {max(there)}" if there else ""


def _event(row: Row) -> dict[str, Any]:
    from tincture.sweeps.standings import cells_of

    return {"event": "run", **cells_of(row)}


def _sentence(row: Row) -> str:
    """One run in a line."""
    from tincture.sweeps.sweep_report import label_of

    numbers = "".join(
        f", {name.replace('_', ' ')} {value:.4g}"
        for name in ("train_loss", "validation_loss", "fidelity", "style")
        if isinstance(value := row.result.get(name), float)
    )
    step = f" at step {row.global_step}" if row.global_step else ""
    return f"{row.state}{step}: {label_of(row)}{numbers}{f': {row.error}' if row.error else ''}"


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of texts with their columns below each other; the last column is not cut."""
    cut = [
        [cell if place == len(row) - 1 else cell[:_WIDEST] for place, cell in enumerate(row)] for row in [heads, *rows]
    ]
    widths = [max(len(row[place]) for row in cut) for place in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cut]
