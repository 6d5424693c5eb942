"""The web page: the webui's Train tab for today, runs, a place to try what was trained, files and settings.

It asks the service for everything, as the HTTP API does, and nothing that it shows is fetched from another machine.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tincture.errors import UsageError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tincture.server.service import Service

# Gradio reads it when it is imported: else it tells its makers of every start.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Else it sorts its last ten thousand events into a table after each one, and an open page has an event a second.
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**12))


def mount_page(app: FastAPI, service: Service, path: str = "/") -> FastAPI:
    """Puts the page into ``app`` at ``path``, behind the routes that are there already; returns the app."""
    _require_gradio()
    from tincture.server.page.shell import mount

    return mount(app, service, path)


def _require_gradio() -> None:
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise UsageError("The page needs Gradio, which is not installed: pip install 'tincture[ui]'.") from None
