"""What holds the page together: its tabs, its looks, and how it is put into the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import gradio as gr
from gradio.components import Component

from tincture.formats.software import VERSION
from tincture.server.library.storage import served_folders
from tincture.server.page.files import tab as files
from tincture.server.page.parts.components import leave_empty
from tincture.server.page.parts.drafts import LINE, keep_drafts
from tincture.server.page.parts.drafts import SCRIPT as DRAFTS_SCRIPT
from tincture.server.page.parts.requests import SCRIPT, watch_inputs
from tincture.server.page.parts.theme import CSS_FILES, HEAD, calm_theme
from tincture.server.page.parts.way_on import SCRIPT as WAYS_SCRIPT
from tincture.server.page.parts.way_on import Ways
from tincture.server.page.runs import tab as runs
from tincture.server.page.settings import tab as settings_tab
from tincture.server.page.sweeps.part import SweepPart
from tincture.server.page.train.tab import TrainTab
from tincture.server.page.try_it import tab as try_it

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tincture.server.service import Service

# label, id, and what fills the tab; they stand behind Train, Runs and Try it
TABS: tuple[tuple[str, str, Callable[[Service], None]], ...] = (
    ("Files", "files", files.build),
    ("Settings", "settings", settings_tab.build),
)


# The tab that is open stands in the page's address, so that a page that is loaded again opens it again.
KEEP_TAB = """() => {
  const open = document.querySelector("#tabs [role=tab][aria-selected=true]");
  if (open) history.replaceState(null, "", "#" + open.dataset.tabId);
}"""
OPEN_TAB = """() => {
  const tabs = [...document.querySelectorAll("#tabs [role=tab]")];
  tabs.find((tab) => "#" + tab.dataset.tabId === location.hash)?.click();
}"""
MOST_WAITING = 500
"""Events of all open pages that may wait for their turn; each holds what its page sent."""
MOST_VISITS = 200
"""Visits whose state is kept, such as the captions of the data set that is looked at; the oldest is forgotten first."""


def build(service: Service) -> gr.Blocks:
    """All tabs in one page. Files of a visit are deleted a day later."""
    added = service.extensions.build_train_tabs(service)  # each is a page of its own until it is rendered
    with gr.Blocks(title="Tincture", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)) as page:
        gr.HTML(_header(service), elem_id="header", padding=False)
        ways = Ways()
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
            with gr.Tab("Train", id="train", elem_id="tab-train"):
                training = TrainTab(service, added, ways)
            with gr.Tab("Runs", id="runs", elem_id="tab-runs"):
                runs.build(service, ways)
                sweeps = SweepPart(service)
            with gr.Tab("Try it", id="try-it", elem_id="tab-try-it"):
                try_it.build(service, ways)
            for label, name, fill in TABS:
                with gr.Tab(label, id=name, elem_id=f"tab-{name}"):
                    fill(service)
        training.connect(_by_id(page))
        sweeps.connect({*training.inputs.components, training.model}, training.typed)
        tabs.select(None, js=KEEP_TAB)
        page.load(None, js=OPEN_TAB)
        leave_empty(page)
        keep_drafts(page, service)
        watch_inputs(page)
    page.state_session_capacity = MOST_VISITS
    page.queue(max_size=MOST_WAITING, api_open=False)  # no way around the queue
    return page


def mount(app: FastAPI, service: Service, path: str) -> FastAPI:
    """The page in ``app`` at ``path``; only pictures and finished files may be fetched by their path."""
    page = build(service)
    page.has_launched = True  # else Gradio looks at no path of a page that is mounted
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        page,
        path=path,
        theme=calm_theme(),
        css_paths=list(CSS_FILES),
        head=HEAD + SCRIPT + DRAFTS_SCRIPT + WAYS_SCRIPT,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=True,
        allowed_paths=[str(folder) for folder in served_folders(service.workspace, service.state_dir)],
        max_file_size=service.settings.max_upload_mb * 2**20,
    )
    return mounted


def _by_id(page: gr.Blocks) -> dict[str, Component]:
    """What the tabs made, by the ids that they gave it."""
    named = {getattr(block, "elem_id", None): block for block in page.blocks.values() if isinstance(block, Component)}
    return {name: block for name, block in named.items() if name}


def _header(service: Service) -> str:
    version = VERSION
    return (
        '<div class="brand"><span class="drop" aria-hidden="true"></span><h1>Tincture</h1>'
        f'<span class="quiet">{version}</span><button type="button" id="theme">Theme</button></div>{LINE}'
    )
