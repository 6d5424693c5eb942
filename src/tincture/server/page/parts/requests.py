"""What a person does while an answer is under way is never lost, nor taken back by that answer: on every tab.

Gradio drops or puts off what is done while the same is under way, sends what stood in the inputs when it was triggered,
and writes an answer over whatever was typed meanwhile. ``requests.js`` stands between the page and the server, and sees
to it that

- a request waits for those before it whose answers it reads or writes over, and is sent with what they wrote;
- an answer never changes an input that was changed since its request; where the request read that input, the whole
  answer is dropped and the request is made again with what stands there now;
- a command that is given again while it is under way counts once if it is the same one, else it waits its turn;
- no answer comes while a button is held down, since it might redraw the button; one that came just before, and stands
  in the page only then, does not make it another button.

``typing.js`` sees to it that Gradio, which writes an answer some time after it came, writes nothing over what was typed
by then, nor over a number that is not finished: an empty box, "-", "0.". ``feedback.js`` marks the button that was
pressed as busy from the moment in which its request is made until the answer stands in the page.

So every event is one of three. A command changes something on the server (``COMMAND``): it acts on what the page
showed, is made once, and its answer alone is taken. A step goes on from where the page is (``STEP``): it may be made
again, so whatever it goes on from stands in the page, if need be in an input that nobody sees (``hidden``), and not in
``gr.State``, which the server would have moved already. Typing (``TYPED``) is a step of which only the last value
counts while it waits.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import FormComponent

from tincture.server.page.parts.components import script

SCRIPT = "".join(f"<script>{script(__file__, name)}</script>" for name in ("typing.js", "feedback.js", "requests.js"))
"""For the page's head: it must be there before Gradio's own code."""
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""For every event: programs have the HTTP API; the page's own requests are no part of it."""
SILENT: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": []}
"""Beside ``COMMAND``, where an answer comes at once.

Though nothing shows it, Gradio writes into all outputs of whatever was asked before that an event begins, and that it
ends; hence it is given none.
"""
COMMAND: dict[str, Any] = {**PRIVATE, "trigger_mode": "once"}
STEP: dict[str, Any] = {**PRIVATE, "trigger_mode": "multiple", **SILENT}
TYPED: dict[str, Any] = {**PRIVATE, "trigger_mode": "always_last", **SILENT}
IS_OPEN = """() => ({
  __type__: "update",
  active: document.querySelector("#TABS [role=tab][aria-selected=true]")?.dataset.tabId === "TAB",
})"""
READER = "page-values-"
"""What the ids of the buttons begin with by which ``requests.js`` reads the inputs."""


def hidden(value: str = "") -> gr.Textbox:
    """An input that nobody sees, for what the page has to remember of its last answer."""
    return gr.Textbox(value, visible="hidden", show_label=False, container=False)


def tick_where_seen(timer: gr.Timer, inside: object) -> None:
    """Lets the timer tick as long as the tab ``inside`` is open, if it is one: nobody sees what changes in another."""
    if isinstance(inside, gr.Tab) and isinstance(inside.parent, gr.Tabs):
        script = IS_OPEN.replace("TABS", str(inside.parent.elem_id)).replace("TAB", str(inside.id))
        inside.parent.select(None, None, timer, js=script, **PRIVATE)


def watch_inputs(page: gr.Blocks) -> None:
    """Lets the browser's part read the page's inputs; within ``page``, once all else is there.

    It reads those of one form at a time: Gradio seeks each of them through the whole page.
    """
    forms: dict[str, list[Any]] = {}
    for _, block in sorted(page.blocks.items()):
        if isinstance(block, FormComponent | gr.File | gr.Image):
            forms.setdefault(f"{READER}{form_of(block.elem_id or '')}", []).append(block)
    for name, inputs in forms.items():
        pass_on = f"(...values) => {{ window.pageValues({name!r}, values); return []; }}"
        gr.Button(visible="hidden", elem_id=name).click(None, inputs, None, js=pass_on, **PRIVATE)


def form_of(elem_id: str) -> str:
    """What the ids of a form's inputs begin with."""
    return elem_id.split("-")[0]
