"""A small app behind the real gate, for the tests of the gate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Body, FastAPI, Request, UploadFile
from fastapi.responses import StreamingResponse
from starlette.testclient import TestClient

from tincture.errors import DataError
from tincture.server.http import errors as http_errors
from tincture.server.security.gate import protect
from tincture.settings.server import ServerSettings

URL = "http://127.0.0.1:7860"


def small_app(received: list[int] | None = None, **settings: Any) -> FastAPI:
    """Addresses that tell what reached them."""
    app = FastAPI()
    http_errors.register(app)

    @app.get("/")
    def page() -> str:
        return "page"

    @app.get("/health")
    def health(request: Request) -> dict[str, Any]:
        return {"allowed": request.scope["tincture.allowed"]}

    @app.get("/api/v1/things")
    def things() -> list[str]:
        return ["thing"]

    @app.post("/api/v1/things")
    def add(value: Any = Body()) -> dict[str, Any]:  # noqa: B008
        return {"value": value}

    @app.post("/api/v1/datasets/{name}")
    def upload(name: str, files: list[UploadFile]) -> dict[str, int]:
        return {file.filename or "": len(file.file.read()) for file in files}

    @app.get("/api/v1/stream")
    def stream() -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            for number in range(3):
                yield f"data: {number}\n\n"
                await asyncio.sleep(0)

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.get("/api/v1/cors")
    def cors() -> StreamingResponse:
        headers = {"Access-Control-Allow-Origin": "*", "Server": "Some/1.0"}
        return StreamingResponse(iter(["told"]), headers=headers)

    @app.get("/api/v1/fails/{kind}")
    def fails(kind: str) -> None:
        raise DataError("no picture") if kind == "data" else RuntimeError("the secret inside")

    note = (lambda count: None) if received is None else received.append
    protect(app, ServerSettings(**settings), received=note)
    return app


def client(app: FastAPI | None = None, address: str = "192.0.2.7", **settings: Any) -> TestClient:
    """A client of the small app, or of another."""
    return TestClient(app or small_app(**settings), base_url=URL, client=(address, 50000))
