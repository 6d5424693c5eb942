"""Every address of the installed Gradio, and whether it is open: a new one is shut, and makes this test fail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.routing import Mount

from tests.served import quick_service
from tincture.server.app import build_app
from tincture.server.security.page_gate import OPEN, PageGate, is_open

SHUT = (
    "/gradio_api/api/{api_name}",
    "/gradio_api/call/v2/{api_name}",
    "/gradio_api/call/v2/{api_name}/{event_id}",
    "/gradio_api/call/{api_name}",
    "/gradio_api/call/{api_name}/{event_id}",
    "/gradio_api/component_server",
    "/gradio_api/custom_component/{id}/{environment}/{type}/{file_name}",
    "/gradio_api/deep_link",
    "/gradio_api/dev/reload",
    "/gradio_api/file/{path:path}",
    "/gradio_api/login_check",
    "/gradio_api/openapi.json",
    "/gradio_api/process_recording",
    "/gradio_api/proxy={url_path:path}",
    "/gradio_api/queue/status",
    "/gradio_api/runs",
    "/gradio_api/stream/{event_id}",
    "/gradio_api/stream/{event_id}/close",
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/playlist-file",
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/playlist.m3u8",
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext}",
    "/gradio_api/token",
    "/gradio_api/undo-vibe-edit",
    "/gradio_api/user",
    "/gradio_api/vibe-code",
    "/gradio_api/vibe-edit",
    "/gradio_api/vibe-starter-queries",
    "/login",
    "/logout",
    "/monitoring",
    "/monitoring/summary",
    "/monitoring/{key}",
    "/openapi.json",
    "/svelte/{path:path}",
)
"""What the page does not need."""


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Mount:
    pytest.importorskip("gradio")

    async def build() -> Any:  # Gradio takes the event loop that runs, else it leaves one behind
        return build_app(quick_service(tmp_path_factory.mktemp("page")))

    with pytest.MonkeyPatch.context() as patch:
        for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
            patch.setenv(name, "")  # set by what is tested, and put back afterwards
        found = asyncio.run(build()).router.routes[-1]
    assert isinstance(found, Mount) and isinstance(found.app, PageGate), "the gate stands before Gradio"
    return found


def addresses(routes: Any, prefix: str = "") -> Iterator[str]:
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from addresses(inner.routes, prefix + route.include_context.prefix)
        else:
            yield (prefix + route.path).rstrip("/") or "/"


def test_every_address_of_gradio_is_known(mounted: Mount) -> None:
    found = set(addresses(mounted.app._app._app.routes))  # type: ignore[attr-defined]
    new, gone = sorted(found - {*OPEN, *SHUT}), sorted({*OPEN, *SHUT} - found)
    assert not new, f"Gradio has new addresses, which are shut: {new}. Does the page need them? See page_gate.OPEN."
    assert not gone, f"Gradio has no {gone} any more; does the page need something else?"


@pytest.mark.parametrize("address", OPEN)
def test_what_the_page_needs_is_open(address: str) -> None:
    path = (
        address.replace("{path:path}", "a/b\nc").replace("{path_or_url:path}", "/a/b").replace("{", "").replace("}", "")
    )
    assert is_open(path) and is_open(path.rstrip("/") + "/")


@pytest.mark.parametrize("address", SHUT)
def test_what_it_does_not_need_is_shut(address: str) -> None:
    path = address.replace("{", "").replace("}", "")
    assert not is_open(path) and not is_open(path + "/")


@pytest.mark.parametrize(
    "path", ["/new", "/gradio_api/new", "/gradio_api/queue", "/gradio_api/run/a/b", "/configs", ""]
)
def test_what_nobody_knows_is_shut(path: str) -> None:
    assert is_open(path) is (path == "")  # the page, where its address has no slash
