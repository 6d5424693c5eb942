"""`tincture train` and `tincture resume`. The flags are made from the fields of the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from tincture.cli.event_stream import STANDARD_OUTPUT, event_stream
from tincture.cli.flags import flag, given, typed_path
from tincture.cli.interrupt import stop_on_interrupt
from tincture.cli.runs import require_run_folder
from tincture.cli.session import Session, command, new_group, show_help, with_flags
from tincture.errors import AlreadyTrainedError, UsageError
from tincture.events import Callback
from tincture.kinds.registry import AdapterKind, any_of, kinds
from tincture.settings.fields import overridden, specs_of
from tincture.settings.groups.machine import MEMORY_SETTINGS
from tincture.settings.groups.tracking import TRACKING_SETTINGS
from tincture.settings.presets import NAMED, find_preset
from tincture.settings.toml import read_toml
from tincture.settings.train import FIELDS, TrainSettings
from tincture.workspace import Workspace

if TYPE_CHECKING:
    from tincture.run.result import RunResult

Config = Annotated[Path | None, typer.Option(help="Run file (TOML) with settings; flags win over it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the settings and the plan of the run, and stop.")]
NoTiming = Annotated[
    bool, typer.Option("--no-timing", help="With --dry-run: don't measure how long the run will take.")
]
Preset = Annotated[
    str,
    typer.Option(
        help=f"Settings to begin from: {any_of(list(NAMED))}, or training_presets/PRESET.toml in the workspace. "
        "A run file and flags win over it."
    ),
]
Events = Annotated[
    str,
    typer.Option(
        help="Write what happens as lines of JSON, for programs: to the end of a file, or to - for standard output."
    ),
]
Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of the adapter to train, made by create.")]


class RunFileGroup(TyperGroup):
    """Takes a run file as its first argument too: ``train run.toml`` is ``train --config run.toml``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_run_file = bool(args) and args[0].lower().endswith(".toml")
        return super().parse_args(ctx, ["--config", *args] if is_run_file else args)


def register(app: typer.Typer) -> None:
    group = new_group("train", RunFileGroup)
    fields = specs_of(TrainSettings)
    common = [flag(spec) for name, spec in fields.items() if name not in ("kind", "name")]
    hidden = [flag(spec, hidden=True) for spec in fields.values()]
    train.__doc__ = _train_help()
    command(group, "train", extra=hidden, group=True)(train)
    for kind in kinds():
        command(group, kind.name, extra=common)(_of_kind(kind))
    app.add_typer(group)
    memory = [flag(FIELDS[name]) for name in ("vram", *MEMORY_SETTINGS, "threads", "processes", *TRACKING_SETTINGS)]
    command(app, "resume", extra=memory)(resume)
    command(app, "preview")(preview)


def train(
    session: Session,
    context: typer.Context,
    config: Config = None,
    dry_run: DryRun = False,
    no_timing: NoTiming = False,
    preset: Preset = "",
    events: Events = "",
    **flags: Any,
) -> None:
    anything = config or dry_run or no_timing or preset or events or given(flags)
    if context.invoked_subcommand is None:
        _train(session, config, dry_run, no_timing, preset, events, flags) if anything else show_help(context)
    elif anything:
        raise UsageError(f"Put the options of train behind {context.invoked_subcommand!r}, not before it.")


def _train_help() -> str:
    first, named = kinds()[0].name, any_of([f"`{kind.name} NAME`" for kind in kinds()])
    return (
        f"Train {any_of([kind.one for kind in kinds()])}.\n\n"
        f"Give {named} and flags, or `--config RUN.toml` alone or with flags. The flags are those that "
        f"`tincture train {first} --help` shows; each is also a key of the run file, with _ for -."
    )


def likely_command(name: str, workspace: Workspace) -> str:
    """What somebody means who trains ``name`` without a kind; empty where nothing of that name is there."""
    near = [kind for kind in kinds() if name in {path.stem for path in workspace.list_adapters(kind.name)}]
    commands = " or ".join(f"tincture train {kind.name} {name!r}" for kind in near)
    return f"Did you mean {commands}?" if commands else ""


def _of_kind(kind: AdapterKind) -> Callable[..., None]:
    def train_kind(
        session: Session,
        name: Name = None,
        config: Config = None,
        dry_run: DryRun = False,
        no_timing: NoTiming = False,
        preset: Preset = "",
        events: Events = "",
        **flags: Any,
    ) -> None:
        _train(session, config, dry_run, no_timing, preset, events, {"kind": kind.name, "name": name, **flags})

    train_kind.__doc__ = f"Train a {kind.title}."
    return train_kind


def resume(
    session: Session,
    run_dir: Annotated[
        Path | None, typer.Argument(metavar="RUN_DIR", help="Folder of the run, as train showed it.")
    ] = None,
    events: Events = "",
    **flags: Any,
) -> None:
    """Go on with a stopped run exactly where it stopped, with all its settings.

    Only what saves memory can be changed, the number of threads and of processes, and the trackers; precision, weight
    storage, threads and processes change the result a little.
    """
    run_dir = require_run_folder(typed_path(run_dir) if run_dir else None, session.workspace())
    workspace = session.given_workspace()
    from tincture import recipe
    from tincture.cli.progress import progress
    from tincture.extensions import load_extensions

    with (
        event_stream(events) as stream,
        progress(silent=session.silent) as callback,
        stop_on_interrupt(session.say) as stop,
    ):
        root = (workspace or session.workspace()).root
        memory, watchers = given(flags), [callback, *stream.watchers, load_extensions(root=root).callback()]
        result = recipe.resume(run_dir, workspace=workspace, memory=memory, callbacks=watchers, stop=stop)
        stream.end(result.to_dict())
    finish(session, result, events)


def preview(
    session: Session,
    run_dir: Annotated[
        Path | None, typer.Argument(metavar="RUN_DIR", help="Folder of a run that goes on, here or in a server.")
    ] = None,
) -> None:
    """Let a run that goes on draw previews after its present step.

    The weights that it trains are the same, bit for bit, with and without.
    """
    run_dir = require_run_folder(typed_path(run_dir) if run_dir else None, session.workspace())
    from tincture import recipe

    recipe.preview(run_dir)
    images = run_dir / "images"
    session.show({"images": str(images)}, f"previews come after the present step, into {images}")


def _train(
    session: Session,
    config: Path | None,
    dry_run: bool,
    no_timing: bool,
    preset: str,
    events: str,
    flags: Mapping[str, Any],
) -> None:
    if no_timing and not dry_run:
        raise UsageError("--no-timing leaves something out of what --dry-run shows; give both, or neither.")
    from_flags = given(flags)
    from_file = read_toml(config) if config else {}
    kind = from_flags.get("kind")
    if kind and from_file.get("kind", kind) != kind:
        raise UsageError(f"The run file {str(config)!r} is for {from_file['kind']!r}, but {kind!r} was asked for.")
    asked = overridden(FIELDS, from_file, from_flags)
    begin = _preset_settings(preset, asked, session.workspace()) if preset else {}
    settings = TrainSettings.from_dict(overridden(FIELDS, begin, asked), source=str(config or ""))
    begin_training(session, settings, dry_run, no_timing, preset, events)


def begin_training(
    session: Session,
    settings: TrainSettings,
    dry_run: bool,
    no_timing: bool,
    preset: str,
    events: str,
    further: Sequence[Callback] = (),
) -> None:
    """Shows the plan of a training, or trains, watched by ``further`` too, and shows the result."""
    if dry_run and events:
        raise UsageError("--events says what happens in a run, and --dry-run begins none; give one of them.")
    workspace = session.workspace()
    from tincture import recipe

    if dry_run and session.silent:
        return  # one of the processes of a launcher shows it
    if dry_run:
        plan = recipe.plan(settings, workspace, timing="none" if no_timing else "measure", alone=True)
        show_plan(session, settings, {"preset": preset, **plan} if preset else plan)
        return
    from tincture.cli.progress import progress
    from tincture.extensions import load_extensions

    with (
        event_stream(events) as stream,
        progress(silent=session.silent) as callback,
        stop_on_interrupt(session.say) as stop,
    ):
        watchers = [callback, *stream.watchers, *further, load_extensions(root=workspace.root).callback()]
        try:
            result = recipe.train(settings, workspace, callbacks=watchers, stop=stop)
        except AlreadyTrainedError as error:
            shown = _nothing_to_do(recipe.find_adapter(settings, workspace), error)
            stream.end(shown)
            if events != STANDARD_OUTPUT:
                session.show(shown, shown["adapter_path"])
            session.say(f"nothing to do: {error.sentence}")
            return
        stream.end(result.to_dict())
    finish(session, result, events)


def _preset_settings(preset: str, asked: Mapping[str, Any], workspace: Workspace) -> dict[str, Any]:
    """What the preset says for the kind and the model that were asked for."""
    found = find_preset(preset, workspace)
    kind, name = str(asked.get("kind") or found.kind), str(asked.get("name") or "")
    if not kind:
        raise UsageError(
            f"--preset {preset} is not the same for each kind; name one, as in tincture train {kinds()[0].name}."
        )
    if found.kind:
        return found.settings(kind, "")
    from tincture.models.loading.default_model import default_model

    adapter = workspace.adapter_path(kind, name) if name else None
    return found.settings(kind, str(asked.get("model") or default_model(workspace, adapter=adapter).name))


def _nothing_to_do(path: Path, error: AlreadyTrainedError) -> dict[str, Any]:
    """How a run ended that did not begin, since the adapter has all its steps."""
    how = {"interrupted": False, "nothing_to_do": True, "ending": error.sentence}
    return {"adapter_path": str(path), "run_dir": None, "global_step": error.step, "loss": None, "seconds": 0.0, **how}


def show_plan(session: Session, settings: TrainSettings, plan: Mapping[str, Any]) -> None:
    """As text: a run file that can be used as it is, with the plan as comments."""
    resolved = settings.resolved().replace(**plan.get("settings", {}))
    shown = {"settings": resolved.to_dict(), **plan}
    lines = dict(plan)
    if "model" in plan:
        lines["model"] = _model(**plan["model"])
    if "buckets" in plan:
        lines["buckets"] = [_bucket(**bucket) for bucket in plan["buckets"]]
    if "duration" in plan:
        lines["duration"] = plan["duration"]["description"]
    if "remarks" in plan:
        lines["remarks"] = with_flags(" ".join(plan["remarks"])) or "none"
    remarks = [line for key, value in lines.items() if key != "settings" for line in _plan_lines(key, value)]
    session.show(shown, "\n".join([*remarks, "", resolved.to_toml().rstrip()]))


def _plan_lines(key: str, value: Any) -> list[str]:
    """Skipped pictures have a line each: reasons are sentences."""
    if key == "skipped" and value:
        return [f"# skipped {_plan_value(path)}: {_plan_value(reason)}" for path, reason in value.items()]
    return [f"# {key.replace('_', ' ')}: {_plan_value(value)}"]


def _model(name: str, family: str, predicts: str, hash: str = "", chosen: str = "", inpainting: bool = False) -> str:
    why = f" ({chosen})" if chosen else ""
    kind = f"{family} for inpainting" if inpainting else family
    return f"{name}{why}: {kind}, predicts {predicts}" + (f", hash {hash}" if hash else "")


def _bucket(size: str, pictures: int, cropped: float) -> str:
    return f"{size} {pictures}" + (f" ({cropped:.1%} cropped)" if cropped else "")


def _plan_value(value: Any) -> str:
    """On one line: a comment must not break off."""
    if isinstance(value, Mapping):
        value = [f"{key} {inner}" for key, inner in value.items()]
    if isinstance(value, list | tuple):
        value = ", ".join(str(item) for item in value) or "none"
    return " ".join(str(value).split())


def finish(session: Session, result: RunResult, events: str = "") -> None:
    """Shows how a run ended; on standard output, unless that is where its events went."""
    paths = [result.adapter_path, *(other.adapter_path for other in result.companions)]
    made = f"step {result.global_step}, loss {result.loss:.4f}, {result.seconds:.1f} s"
    text = "\n".join([*map(str, paths), made])
    rejected = f"\n{_rejected(result)}" if result.overflows or result.divergences else ""
    found = [path for path in (result.best_path, *(other.best_path for other in result.companions)) if path]
    best = "".join(f"\nbest by validation: {path}" for path in found)
    if events != STANDARD_OUTPUT:
        session.show(result.to_dict(), f"{text}{rejected}{best}\nrun folder: {result.run_dir}")
    if result.ending:
        session.say(f"ended early: {result.ending}")
    if result.interrupted:
        session.say(f"stopped and saved; go on with: tincture resume {str(result.run_dir)!r}")
        raise typer.Exit(130)


def _rejected(result: RunResult) -> str:
    return (
        f"{result.overflows} steps were made again, since their gradients overflowed; {result.divergences} diverged "
        "ones were skipped or gone back from"
    )
