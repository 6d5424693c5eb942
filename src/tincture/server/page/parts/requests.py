"""What a person does while an answer is under way is never lost, nor taken back by that answer: on every tab.

Gradio drops or puts off what is done while the same is under way, sends what stood in the inputs when it was triggered,
and writes an answer over whatever was typed meanwhile. ``requests.js`` stands between the page and the server, and sees
to it that

- a request waits for those before it whose answers it reads or writes over, and is sent with what they wrote;
- an answer never changes an input that was changed since its request; where the request read that input, the whole
  answer is dropped and the request is made again with what stands there now;
- a command that is given again while it is under way counts once if it is the same one, else it waits its turn;
- no answer comes while a button is held down, since it might redraw the button.

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
COMMAND: dict[str, Any] = {**PRIVATE, "trigger_mode": "once"}
STEP: dict[str, Any] = {**PRIVATE, "trigger_mode": "multiple", "show_progress": "hidden"}
TYPED: dict[str, Any] = {**PRIVATE, "trigger_mode": "always_last", "show_progress": "hidden"}
SILENT: dict[str, Any] = {"show_progress": "hidden"}
"""Beside ``COMMAND``, where an answer comes at once."""


def hidden(value: str = "") -> gr.Textbox:
    """An input that nobody sees, for what the page has to remember of its last answer."""
    return gr.Textbox(value, visible="hidden", show_label=False, container=False)


def watch_inputs(page: gr.Blocks) -> None:
    """Lets the browser's part read the inputs that answers may write into; within ``page``, once all else is there."""
    answers = [event for event in page.fns.values() if event.fn is not None]  # others write what the browser says
    written = {block._id: block for event in answers for block in event.outputs}
    inputs = [block for _, block in sorted(written.items()) if isinstance(block, FormComponent | gr.File | gr.Image)]
    button = gr.Button(visible="hidden", elem_id="page-values")
    button.click(None, inputs, None, js="(...values) => { window.pageValues(values); return []; }", **PRIVATE)
