"""Ways on: buttons that lead from what was done to what comes next, wherever on the page they stand.

A button is HTML within any panel. It opens its tab at once, in the browser; where it also has a name, the listener of
that name, which the tab it leads to gave its work, hears what it carries.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import gradio as gr

from tincture.server.page.parts.components import panel, script
from tincture.server.page.parts.markup import escape

if TYPE_CHECKING:
    from gradio.events import Dependency

SCRIPT = f"<script>{script(__file__, 'way_on.js')}</script>"
"""For the page's head."""
TABS: Mapping[str, str] = MappingProxyType(
    {
        "data": "train/train",
        "settings": "train/train",
        "file": "train/train",
        "dataset": "train/datasets",
        "run": "runs",
        "compare": "runs",
        "try": "try-it",
    }
)
"""The tab that a way opens, and behind the stroke the one within it, by the way's name."""
FOLLOW = """(carried) => { window.followWay({ way: "NAME", carried, tab: "TAB" }); return []; }"""
HEAR = """document.addEventListener("way", ({ detail }) => {
  if (detail.way === "NAME") trigger("click", { carried: detail.carried });
});"""


class Ways:
    """The listeners, made where the page is never without them, outside of all tabs.

    ``ways["run"].click`` is the event of a button that leads to a run; ``carried`` reads what it carries.
    """

    def __init__(self) -> None:
        self._listeners = {name: panel(script=HEAR.replace("NAME", name)) for name in TABS}

    def __getitem__(self, name: str) -> gr.HTML:
        return self._listeners[name]


def carried(event: gr.EventData) -> str:
    """What the button that was pressed carries: a job's id, a folder. It comes from a browser, and may be anything."""
    return str(event._data.get("carried") or "")


def follow_by_itself(event: Dependency, name: str, carried: gr.Textbox) -> None:
    """After ``event`` the way ``name`` is gone without a button, with what then stands in ``carried``, unless empty.

    Who went on to type meanwhile stays there.
    """
    event.then(None, carried, None, js=FOLLOW.replace("NAME", name).replace("TAB", TABS[name]))


def way(label: str, name: str, carried: str = "", *, strong: bool = False) -> str:
    """A button for the way ``name``, one of ``TABS``; a ``strong`` one stands out."""
    style = "way strong" if strong else "way"
    return (
        f'<button type="button" class="{style}" data-way="{escape(name)}" data-carried="{escape(carried)}" '
        f'data-tab="{TABS[name]}">{escape(label)}</button>'
    )


def opening(label: str, tab: str) -> str:
    """A button that opens a tab and does no more: ``runs``, or ``train/datasets`` for one within Train."""
    return f'<button type="button" class="way strong" data-tab="{escape(tab)}">{escape(label)}</button>'


def download(url: str, name: str, label: str = "") -> str:
    """A link that looks like a button and fetches a file."""
    return f'<a class="way" href="{escape(url)}" download="{escape(name)}">{escape(label or f"Download {name}")}</a>'


def path_to_copy(path: str) -> str:
    """A path, and a button that puts it onto the clipboard."""
    return (
        f'<span class="path"><code>{escape(path)}</code>'
        f'<button type="button" class="way" data-copy="{escape(path)}" aria-live="polite">Copy path</button></span>'
    )


def ways(*parts: str) -> str:
    """Buttons, links and paths in a row; those that are empty are left out."""
    shown = "".join(parts)
    return f'<div class="ways">{shown}</div>' if shown else ""
