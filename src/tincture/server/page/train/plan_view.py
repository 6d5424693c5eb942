"""What a training would do, as it stands on the page before the training begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tincture.run.duration import about
from tincture.server.page.parts.fields import in_labels, label_of
from tincture.server.page.parts.markup import escape, facts, muted, warning

_MANY = 8
NONE: Mapping[str, str] = MappingProxyType({})


def plan_html(plan: Mapping[str, Any], labels: Mapping[str, str] = NONE) -> str:
    """The answer of ``Service.plan`` as tables; all texts in it are escaped.

    Args:
        labels: by setting, what its input is called.
    """
    parts = [
        f"<h3>{escape(_title(plan))}</h3>",
        _remarks(plan, labels),
        _memory(plan),
        facts(_rows(plan)),
        _buckets(plan["buckets"]),
        _skipped(plan["skipped"]),
    ]
    return f'<div class="plan">{"".join(parts)}</div>'


def _title(plan: Mapping[str, Any]) -> str:
    return f"{plan['settings']['kind'].capitalize()} {plan['settings']['name']}: {_count(plan['steps'], 'step')} to go"


def _rows(plan: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    settings, model = plan["settings"], plan["model"]
    batch, accumulated = settings["batch_size"], settings["gradient_accumulation_steps"]
    if "duration" in plan:
        yield "Takes", plan["duration"]["description"]
    why = f" ({model['chosen']})" if model.get("chosen") else ""
    yield "Base model", f"{model['name']}{why}: {model['family']}, predicts {model['predicts']}"
    yield "Pictures", f"{plan['pictures']:,}, {_count(plan['samples_per_epoch'], 'sample')} an epoch"
    if prior := plan.get("prior"):
        drawn = f", {prior['to_draw']:,} of them to be drawn" if prior.get("to_draw") else ""
        yield "Prior preservation", f"{_count(prior['pictures'], 'picture')}{drawn}, weight {prior['weight']}"
    yield from _validation(plan.get("validation"))
    yield "Epochs", f"{plan['epochs']:,g}"
    yield "A step", f"{batch} × {accumulated} pictures" if accumulated > 1 else _count(batch, "picture")
    yield from ((label_of(name), values) for name, values in _schedules(plan).items())
    yield "Prompt template", settings["template"]
    for path, weights in plan.get("averages", {}).items():
        yield (
            f"Weights in {Path(path).name}",
            {"average": f"averages, decay {settings['ema']}", "raw": "as trained"}[weights],
        )
    yield "Optimizer", plan["optimizer"]
    yield "Loss", plan["loss"]
    for encoder, norm in plan.get("token_norms", {}).items():
        yield f"Mean norm of tokens, {encoder}", f"{norm:g}"
    yield "Guard", plan["on_divergence"]
    yield "Trained numbers", f"{plan['trained_numbers']:,}"
    for name, reason in (plan.get("chosen_by_default") or {}).items():
        yield label_of(name), reason
    for name, value in plan.get("chosen_for_memory", {}).items():
        yield f"{label_of(name)}, chosen", str(value)


def _schedules(plan: Mapping[str, Any]) -> dict[str, str]:
    """What changes from step to step, and the learning rate always."""
    return {"learning_rate": plan["settings"]["learning_rate"], **plan.get("schedules", {})}


def _validation(validation: Mapping[str, Any] | None) -> Iterable[tuple[str, str]]:
    if validation:
        measured = f"{validation['measured_pictures']:,} measured beside {validation['measured_training_pictures']:,}"
        times = _count(validation["measurements"], "time")
        yield "Validation", f"{_count(validation['pictures'], 'picture')}, {measured} that are trained, {times}"
        yield "Best by validation", Path(validation["best_path"]).name


def _remarks(plan: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    items = "".join(f"<li>{escape(in_labels(remark, labels))}</li>" for remark in plan["remarks"])
    return f'<ul class="remarks">{items}</ul>' if items else ""


def _buckets(buckets: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        f"<tr><td>{escape(bucket['size'].replace('x', ' × '))}</td><td>{bucket['pictures']:,}</td>"
        f"<td>{bucket['cropped']:.1%}</td></tr>"
        for bucket in buckets
    ]
    head = "<tr><th>Size in pixels</th><th>Pictures</th><th>Cut off</th></tr>"
    return f'<table class="buckets"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'


def summary_html(plan: Mapping[str, Any]) -> str:
    """The plan in a line, to stand beside the button."""
    seconds = (plan.get("duration") or {}).get("seconds")
    parts = [_count(plan["steps"], "step"), f"about {about(seconds)}" if seconds else "", _memory_words(plan)]
    return muted(" · ".join(part for part in parts if part))


def _memory_words(plan: Mapping[str, Any]) -> str:
    device, peak = plan.get("device") or {}, plan["memory_mib"]["peak"]
    whole = device.get("memory_mib")
    return f"{_mib(peak)} of {_mib(whole)}, {device['name']}" if whole else f"at most {_mib(peak)}"


def _memory(plan: Mapping[str, Any]) -> str:
    """How full the device becomes, and what fills it."""
    sizes = dict(plan["memory_mib"])
    peak, whole = sizes.pop("peak"), (plan.get("device") or {}).get("memory_mib")
    most = max(peak, *sizes.values(), 1e-9)
    rows = "".join(
        f'<tr><th>{escape(name.capitalize())}</th><td class="bar"><span style="width:{100 * size / most:.1f}%"></span>'
        f"</td><td>{_mib(size)}</td></tr>"
        for name, size in sizes.items()
    )
    words, fills = _memory_words(plan), 100 * peak / whole if whole else 0.0
    bar = (
        f'<div class="fill{" over" if fills > 100 else ""}" role="meter" aria-label="Memory" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{min(fills, 100):.0f}"><i style="width:{min(fills, 100):.1f}%"></i></div>'
        if whole
        else ""
    )
    over = warning("It does not fit; see VRAM under Precision and device.") if fills > 100 else ""
    summary = f"Memory of the device: at most {_mib(peak)}" if not whole else f"Memory: {words}"
    return f'{bar}{over}<details><summary>{escape(summary)}</summary><table class="memory">{rows}</table></details>'


def _skipped(skipped: Mapping[str, str]) -> str:
    if not skipped:
        return ""
    rows = "".join(f"<li>{escape(path)}: {escape(reason)}</li>" for path, reason in skipped.items())
    opened = " open" if len(skipped) <= _MANY else ""
    summary = f"{_count(len(skipped), 'picture')} left out"
    return f'<details class="fault"{opened}><summary>{summary}</summary><ul>{rows}</ul></details>'


def _mib(size: float) -> str:
    return f"{size / 1024:.2f} GiB" if size >= 1024 else f"{size:.3g} MiB"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
