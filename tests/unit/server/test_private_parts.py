"""The parts of uvicorn and Gradio that we use without their promise; what a new version changed is named here.

Their minor versions are fixed in ``pyproject.toml`` for these. To take a new one: change the bounds, run this module,
``security/test_page_gate.py`` and ``tests/browser``, and mend what they name.
"""

from __future__ import annotations

import asyncio
import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from tests.served import quick_service

ROOT = Path(__file__).parents[3]
gr = pytest.importorskip("gradio")


def bounds(name: str) -> str:
    """The versions that ``pyproject.toml`` allows."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = [one for group in groups.values() for one in group if one.startswith(f"{name}>=")]
    assert len(found) == 1, f"{name} must be bounded once: {found}"
    return str(found[0]).removeprefix(name)


@pytest.mark.parametrize("name", ["uvicorn", "gradio"])
def test_the_minor_version_is_fixed_to_the_one_that_is_installed(name: str) -> None:
    major, minor = version(name).split(".")[:2]
    fixed = f">={major}.{minor},<{major}.{int(minor) + 1}"
    assert bounds(name) == fixed, f"{name} {version(name)} is installed; its private parts want {fixed}"
    assert f"{name}=={version(name)}" in (ROOT / "constraints.txt").read_text().splitlines()


# --- uvicorn: http/protocol.py and serving.py ------------------------------------------------------------------------


def source_of(function: Any) -> str:
    return inspect.getsource(function)


def test_uvicorns_protocol_has_what_the_clock_of_headers_reads() -> None:
    made = source_of(H11Protocol.__init__)
    for name in ("cycle", "loop", "transport"):
        assert f"self.{name}" in made, f"H11Protocol has no {name} any more: PatientProtocol reads it"
    assert "self.response_complete" in source_of(RequestResponseCycle.__init__), "a cycle does not say that it ended"
    for name in ("connection_made", "data_received", "connection_lost"):
        assert name in vars(H11Protocol), f"H11Protocol.{name} is gone: PatientProtocol calls it"


def test_uvicorns_server_and_config_have_what_serving_uses() -> None:
    for name in ("run", "startup", "handle_exit"):
        assert callable(getattr(uvicorn.Server, name, None)), f"uvicorn.Server.{name} is gone"
    assert "self.should_exit" in source_of(uvicorn.Server.__init__), "uvicorn.Server.should_exit is gone"
    known = inspect.signature(uvicorn.Config).parameters
    used = {"http", "ws", "lifespan", "log_config", "limit_concurrency", "h11_max_incomplete_event_size"}
    assert used <= known.keys(), f"uvicorn.Config has no {used - known.keys()} any more"


# --- Gradio: the page's modules --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    async def build() -> Any:  # Gradio takes the event loop that runs, else it leaves one behind
        from tincture.server.page.shell import build as build_page

        return build_page(quick_service(tmp_path_factory.mktemp("workspace")))

    return asyncio.run(build())


def test_gradio_knows_the_page_and_the_tab_in_which_a_component_is_made() -> None:
    from gradio.context import Context

    async def build() -> Any:
        with gr.Blocks() as blocks, gr.Tabs() as tabs, gr.Tab("One") as tab:
            assert Context.root_block is blocks, "Context.root_block is not the page any more"
            assert Context.block is tab and tab.parent is tabs, "Context.block is not the tab any more"
        return Context.root_block

    assert asyncio.run(build()) is None


def test_gradios_components_take_what_the_page_gives_them() -> None:
    wanted = {
        gr.HTML: {"html_template", "js_on_load", "apply_default_css", "padding", "min_width"},
        gr.Blocks: {"delete_cache", "analytics_enabled", "fill_width"},
        gr.Gallery: {"selected_index", "buttons", "allow_preview"},
        gr.mount_gradio_app: {"theme", "css_paths", "head", "footer_links", "run_history", "ssr_mode", "allowed_paths"},
        gr.Blocks.queue: {"max_size", "api_open"},
        gr.on: {"trigger_mode", "api_visibility", "show_progress", "js"},
    }
    for made, names in wanted.items():
        missing = names - inspect.signature(made).parameters.keys()
        assert not missing, f"{made} has no {missing} any more"
    assert "_data" in source_of(gr.EventData.__init__), "what a click brings is not in EventData._data any more"


def test_gradios_page_has_the_events_and_switches_that_are_set(page: Any) -> None:
    assert page.fns and all(hasattr(event, "outputs") for event in page.fns.values()), (
        "Blocks.fns is not there any more"
    )
    assert all(block._id == number for number, block in page.blocks.items())
    for name in ("has_launched", "state_session_capacity"):
        assert name in vars(page) or hasattr(type(page), name), f"Blocks.{name} is gone"


def test_gradios_theme_has_every_variable_that_is_set() -> None:
    from tincture.server.page.parts import theme

    known = inspect.signature(gr.themes.Base.set).parameters
    source = source_of(theme.calm_theme)
    used = {line.split("=")[0].strip() for line in source.splitlines() if line.startswith("        ") and "=" in line}
    used -= {"primary_hue", "radius_size", "font"}
    missing = {name for name in used if name.isidentifier() and name not in known}
    assert len(used) > 50 and not missing, f"themes have no {missing} any more"


def test_the_browser_gets_the_configuration_that_requests_js_reads(page: Any) -> None:
    config = page.get_config_file()
    event = next(one for one in config["dependencies"] if one["inputs"] and one["outputs"])
    for name in ("id", "targets", "inputs", "outputs", "trigger_mode", "trigger_after"):
        assert name in event, f"an event's configuration has no {name} any more"
    assert {one["trigger_mode"] for one in config["dependencies"]} == {"once", "multiple", "always_last"}
    buttons = [one for one in config["components"] if str(one["props"].get("elem_id")).startswith("page-values-")]
    assert buttons and all(one["props"]["visible"] == "hidden" and isinstance(one["id"], int) for one in buttons)
    assert gr.update(value=1)["__type__"] == "update", "an update is not marked by __type__ any more"


def test_the_browser_speaks_with_the_queue_as_requests_js_reads_it() -> None:
    """The page's own part of Gradio is minified, but keeps these words."""
    scripts = Path(gr.__file__).parent / "templates" / "frontend" / "assets"
    client = next(text for file in scripts.glob("index-*.js") if "queue/join" in (text := file.read_text()))
    for word in ("queue/data", "process_completed", "close_stream", "event_id", "text/event-stream", "gradio_config"):
        assert word in client, f"Gradio's client does not know {word} any more"
    assert any("always_last" in file.read_text() for file in scripts.glob("Blocks-*.js")), "trigger modes are gone"


def test_the_servers_messages_are_those_that_requests_js_reads() -> None:
    from gradio import server_messages
    from gradio.data_classes import PredictBody

    completed = server_messages.ProcessCompletedMessage.model_fields
    assert {"msg", "event_id", "output", "success"} <= completed.keys()
    assert {"fn_index", "data", "event_data", "trigger_id", "session_hash"} <= PredictBody.model_fields.keys()
