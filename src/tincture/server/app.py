"""Everything in one process: the gate, the HTTP API, what watches over it, and the page."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount, Route
from starlette.types import Scope

from tincture.formats.pictures import forget_other_formats
from tincture.formats.software import VERSION
from tincture.server import api_v1, api_webui
from tincture.server.http import errors as http_errors
from tincture.server.http import monitoring
from tincture.server.http.asgi import API_PATHS
from tincture.server.http.ending import EndWithServer
from tincture.server.http.monitoring import CountRequests, Monitor
from tincture.server.http.proxy import BELOW, RoutesBelow
from tincture.server.security.gate import protect
from tincture.server.security.page_gate import PageGate
from tincture.server.service import Service

DESCRIPTION = """Teach a frozen Stable Diffusion model a new subject or style, kept in one small file.

`/api/v1` is Tincture's own interface; `/sdapi/v1` answers as the webui does, so that its clients work unchanged."""
PAGE_FILES = "page-files"
UNKNOWN = "unknown"
ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def has_page() -> bool:
    """Whether what the page needs is installed."""
    return importlib.util.find_spec("gradio") is not None


def build_app(service: Service, *, page: bool = True) -> FastAPI:
    """The whole server as an ASGI app; the service starts and ends with it.

    Args:
        service: what it asks for everything. Its settings say who may ask, and how much.
        page: with the web page at ``/``, where Gradio is installed; else ``/`` leads to the API's description.
    """
    monitor = Monitor(service)
    app = FastAPIOffline(
        title="Tincture",
        version=VERSION,
        description=DESCRIPTION,
        docs_url="/docs",
        redoc_url=None,
        swagger_ui_parameters={"validatorUrl": None},  # else it asks another machine
        lifespan=_lifespan(service),
    )
    http_errors.register(app)
    for router in (api_webui.router(service), api_v1.router(service), monitoring.router(service, monitor)):
        app.include_router(router)
    app.router.routes.extend(_unknown(app))
    if page and has_page():
        _mount_page(app, service)
    else:
        app.add_api_route("/", lambda: RedirectResponse(f"{BELOW.get()}/docs"), include_in_schema=False)
    app.add_middleware(RoutesBelow)  # what is added first stands last before the routes
    protect(app, service.settings, received=monitor.uploaded.inc)
    app.add_middleware(CountRequests, monitor=monitor)
    return app


def _lifespan(service: Service) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await run_in_threadpool(service.start)
        except Exception as error:
            app.state.start_error = error  # what runs the app reports it as a sentence
            raise
        try:
            yield
        finally:
            await run_in_threadpool(service.close)

    return lifespan


def _mount_page(app: FastAPI, service: Service) -> None:
    # Gradio reads them when it is imported, or when a component is made.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(service.state_dir / PAGE_FILES)
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(service.state_dir / PAGE_FILES / "examples")
    forget_other_formats()  # Gradio opens pictures that it is given by itself
    from tincture.server.page import mount_page

    mount_page(app, service, "/")
    mounted = app.router.routes[-1]
    assert isinstance(mounted, Mount)
    gradio: Any = mounted.app
    events = gradio.get_blocks().fns
    mounted.app = PageGate(
        EndWithServer(gradio, service.stopping),
        place=service.places.path,
        uploads=service.state_dir / PAGE_FILES,
        events=events,
    )


def _unknown(app: FastAPI) -> list[Route]:
    """What the API does not know must not be taken for an address of the page, which lies behind."""

    def unknown(request: Request) -> Response:
        scope = request.scope
        shorter = {**scope, "path": scope["path"].rstrip("/")}
        if shorter["path"] != scope["path"] and _is_known(app, shorter, scope["method"]):
            return RedirectResponse(f"{shorter['path']}{request.url.query and '?' + request.url.query}", 307)
        known = [method for method in ALL_METHODS if method != scope["method"] and _is_known(app, scope, method)]
        if known:
            allowed = ", ".join(known)
            sentence = f"This address does not know the method {scope['method']}; it knows {allowed}."
            raise HTTPException(405, sentence, {"Allow": allowed})
        raise HTTPException(404, "There is nothing at this address; /docs says what there is.")

    return [Route(prefix + "{rest:path}", unknown, methods=ALL_METHODS, name=UNKNOWN) for prefix in API_PATHS]


def _is_known(app: FastAPI, scope: Scope, method: str) -> bool:
    """Whether a route other than that for what is unknown takes the method."""
    routes = (route for route in app.router.routes if route.matches({**scope, "method": method})[0] is Match.FULL)
    route = next(routes, None)
    return route is not None and getattr(route, "name", "") != UNKNOWN
