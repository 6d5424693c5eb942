"""A form that is half filled in survives a reload and a crash of the browser's tab.

What is typed stands in the tab's own storage as long as it is open, by workspace and by the inputs' ids, without any
request; another tab of the browser has its own. When the page is loaded again, the server says which of the values can
still be chosen, and ``drafts.js`` puts those in. What was submitted is not brought back, nor is what has no id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import FormComponent

from tincture.errors import shortened
from tincture.kinds.registry import kind_names
from tincture.server.page.parts import choices
from tincture.server.page.parts.components import script
from tincture.server.page.parts.requests import PRIVATE, STEP, form_of, hidden

if TYPE_CHECKING:
    from gradio.events import Dependency

    from tincture.server.service import Service

SCRIPT = f"<script>{script(__file__, 'drafts.js')}</script>"
"""For the page's head, behind that of ``requests``."""
LINE = '<p id="restored" class="quiet" role="status" hidden></p>'
"""Where it is said that something was brought back."""
FORMS = ("base", "tr", "pp", "ce", "ch", "c", "try", "ds", "file", "merge", "sweep")
"""What the ids of inputs begin with that are brought back."""
ELSEWHERE = (
    # what is looked at, what is saved by itself, and what belongs to something that is chosen first
    *("ds-folder", "ds-missing", "ds-caption", "tr-as-in-run"),
    *("ch-modules", "try-run", "try-copies", "file-search", "file-format", "file-name", "sweep-chosen"),
)
BEGIN = "() => { window.drafts.begin(CONFIG); return []; }"
SUBMITTED = """(message) => {
  window.drafts.submitted(FORMS, String(message).includes('class="done"'));
  return [];
}"""


def forget_when_done(event: Dependency, message: gr.HTML, *forms: str) -> None:
    """What stands in ``forms`` is not brought back any more when ``event`` says in ``message`` that it was done."""
    event.then(None, message, None, js=SUBMITTED.replace("FORMS", json.dumps(forms)), **PRIVATE)


def keep_drafts(page: gr.Blocks, service: Service) -> None:
    """Within ``page``, once all its inputs are there."""
    inputs = {str(block.elem_id): block for block in page.blocks.values() if _is_typed(block)}
    stored, answer = hidden(), hidden()
    fields = list(inputs.values())
    writer, check = (gr.Button(visible="hidden", elem_id=f"drafts-{name}") for name in ("write", "check"))
    writer.click(None, None, fields, js="() => window.drafts.written()", **PRIVATE)
    checked = check.click(
        lambda text: checked_values(text, inputs, service), stored, answer, js="() => [window.drafts.stored()]", **STEP
    )
    checked.then(None, answer, None, js="(answer) => { window.drafts.checked(answer); return []; }", **PRIVATE)
    heard = {number for event in page.fns.values() for number, kind in event.targets if kind == "change"}
    config = {
        "workspace": hashlib.sha256(str(service.workspace.root).encode()).hexdigest()[:16],
        "ids": list(inputs),
        "heard": [name for name, block in inputs.items() if block._id in heard],
        "typable": [name for name, block in inputs.items() if getattr(block, "allow_custom_value", False)],
    }
    page.load(None, js=BEGIN.replace("CONFIG", json.dumps(config)), **PRIVATE)


def checked_values(text: str, inputs: Mapping[str, FormComponent], service: Service) -> str:
    """Which of the stored values can be put in, and a sentence about those that are not there any more, as JSON.

    Args:
        text: values by the inputs' ids, as JSON; an older or newer page may have written it.
    """
    try:
        stored = json.loads(text)
    except ValueError:
        stored = {}
    lists = _lists(service)
    values, gone = {}, []
    for name, value in stored.items() if isinstance(stored, dict) else ():
        block = inputs.get(name)
        if block is None or not _is_of_its_type(block, value):
            continue
        allowed = lists[name]() if name in lists else _own_choices(block)
        missing = [] if allowed is None else [one for one in _chosen(value) if one not in allowed]
        if missing:
            gone.append(f"{block.label} {shortened(str(missing[0]))}")
        else:
            values[name] = value
    left_out = f"Left out, since it is not there any more: {'; '.join(gone)}." if gone else ""
    return json.dumps({"values": values, "left_out": left_out})


def _is_typed(block: object) -> bool:
    if not isinstance(block, FormComponent) or not block.elem_id or block.elem_id in ELSEWHERE:
        return False
    secret = getattr(block, "type", "") == "password"
    return form_of(block.elem_id) in FORMS and block.visible != "hidden" and not secret


def _lists(service: Service) -> Mapping[str, Callable[[], Sequence[Any]]]:
    """What can be chosen now in the lists that change."""

    def models() -> list[str]:
        return [name for _, name in choices.models(service)]

    return {
        "base-model": models,
        "try-base-model": models,
        "tr-preset": lambda: [name for _, name in choices.presets(service)],
        **{f"tr-{kind}": lambda kind=kind: choices.adapters(service, kind) for kind in kind_names()},  # type: ignore[misc]
    }


def _own_choices(block: FormComponent) -> Sequence[Any] | None:
    """None where anything may stand."""
    if getattr(block, "allow_custom_value", False) or not getattr(block, "choices", None):
        return None
    return [value for _, value in block.choices]


def _chosen(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _is_of_its_type(block: FormComponent, value: Any) -> bool:
    if isinstance(block, gr.Checkbox):
        return isinstance(value, bool)
    if isinstance(block, gr.Slider):
        return _is_number(value) and block.minimum <= value <= block.maximum
    if isinstance(block, gr.Number):
        return value is None or _is_number(value)
    if isinstance(block, gr.CheckboxGroup) or getattr(block, "multiselect", False):
        return isinstance(value, list)
    return value is None or isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
