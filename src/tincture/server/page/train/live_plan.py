"""The plan beside the form of a training, made anew as the form is filled in, without anybody waiting for it.

Each change is told in two requests. The first counts the changes and ends the plan at work, which is out of date. The
second makes the plan: at first with what is known of its time, then, where nothing is known, with what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from tincture.errors import TinctureError
from tincture.server.errors import StoppedError
from tincture.server.page.parts.components import panel, script
from tincture.server.page.parts.markup import muted
from tincture.server.page.parts.messages import failed
from tincture.server.page.parts.requests import STEP, TYPED
from tincture.server.page.train.plan_view import plan_html, summary_html

if TYPE_CHECKING:
    from tincture.server.page.train.form import TrainInputs
    from tincture.server.service import Service

SCRIPT = script(__file__, "live_plan.js")
FILLED = "() => { document.dispatchEvent(new Event('form-filled')); return []; }"
"""JavaScript after an answer that changed the form."""
Values = Callable[[Mapping[Component, Any]], dict[str, Any]]


def watcher() -> gr.HTML:
    """Hears of changes as long as it can be seen."""
    return panel(script=SCRIPT)


def watch(
    service: Service,
    changed: gr.HTML,
    form: TrainInputs,
    inputs: set[Component],
    shown: tuple[gr.HTML, gr.HTML],
    values: Values,
    labels: Callable[[str], Mapping[str, str]],
) -> None:
    """Keeps the plan true to the form.

    Args:
        changed: what ``watcher`` made, beside the form.
        inputs: all that ``values`` reads.
        shown: the plan, and its summary beside the button.
        values: the settings that stand in the form.
        labels: what the inputs are called, by the kind that is trained.
    """

    def note(given: dict[Component, Any], request: gr.Request) -> dict[Any, Any]:
        service.model_work.forget_plan(str(request.session_hash))
        return form.titles(given)

    def plan(given: dict[Component, Any], request: gr.Request) -> Iterator[tuple[Any, Any]]:
        if missing := form.missing(given):
            yield muted(missing), ""
            return
        names = labels(given[form.kind])
        try:
            settings, page = values(given), str(request.session_hash)
            found = service.model_work.plan_while_typed(page, settings, "known")
            yield plan_html(found, names), summary_html(found)
            if found["steps"] and found["duration"]["measured"] == "no":
                found = service.model_work.plan_while_typed(page, settings, "measure")
                yield plan_html(found, names), summary_html(found)
        except StoppedError:
            yield gr.skip(), gr.skip()  # the form was changed meanwhile
        except TinctureError as error:
            yield failed(error, names), ""

    changed.click(note, inputs, list(form.groups.values()), **STEP)
    changed.click(plan, inputs, list(shown), concurrency_limit=4, **TYPED)
