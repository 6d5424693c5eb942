"""The webui's HTTP API below /sdapi/v1, so that its clients work unchanged. See docs/api-webui.md."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from tincture.server.api_webui.catalogue import CatalogueEndpoints
from tincture.server.api_webui.creation import CreationEndpoints
from tincture.server.api_webui.pictures import PictureEndpoints
from tincture.server.api_webui.progress import ProgressEndpoints
from tincture.server.api_webui.session import Session
from tincture.server.api_webui.training import TrainingEndpoints
from tincture.server.http.errors import COMMON, documented
from tincture.server.service import Service

PREFIX = "/sdapi/v1"


def router(service: Service, session: Session | None = None) -> APIRouter:
    """Every endpoint below /sdapi/v1, and /internal/ping; errors as ``http_errors`` says, or ``webui_errors``.

    Args:
        service: what it asks for everything.
        session: what clients choose; None: nothing yet.
    """
    whole = APIRouter(responses=documented(*COMMON), tags=["as the webui"])
    session = session or Session(service)
    for group in (CreationEndpoints, TrainingEndpoints, ProgressEndpoints, PictureEndpoints, CatalogueEndpoints):
        whole.include_router(group(service, session).router(), prefix=PREFIX)
    whole.add_api_route("/internal/ping", ping, methods=["GET"])
    whole.add_api_route("/internal/ping", ping, methods=["HEAD"], include_in_schema=False)
    return whole


def ping() -> dict[str, Any]:
    """That the server is there."""
    return {}
