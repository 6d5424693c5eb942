"""Adapters: create, list, look into, download."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from tincture.server.api_v1.common import Patient, file_answers, send_file, url
from tincture.server.api_v1.schemas import (
    Adapter,
    AdapterDetails,
    AdapterKind,
    Adapters,
    EmbeddingRequest,
    HypernetworkRequest,
)
from tincture.server.errors import NotFoundError
from tincture.server.http.errors import documented
from tincture.server.service import Service

ANY_FILE = "application/octet-stream"


class AdapterEndpoints:
    """Everything below /adapters."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._patient = Patient()

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["adapters"])
        add = router.add_api_route
        made: dict[str, Any] = {"methods": ["POST"], "status_code": 201, "responses": documented(409, 507)}
        add("/adapters/embedding", self.create_embedding, summary="Create an embedding", **made)
        add("/adapters/hypernetwork", self.create_hypernetwork, summary="Create a hypernetwork", **made)
        add("/adapters", self.list_adapters, methods=["GET"], summary="List adapters")
        one = "/adapters/{kind}/{name}"
        add(one, self.show_adapter, methods=["GET"], responses=documented(404, 507), summary="Look into an adapter")
        add(
            f"{one}/download",
            self.download,
            methods=["GET"],
            response_class=Response,
            responses=file_answers(ANY_FILE, 404),
            summary="Download an adapter",
        )
        return router

    async def create_embedding(self, request: EmbeddingRequest, response: Response) -> Adapter:
        """Writes a new embedding that can be trained then."""
        options = request.model_dump(exclude={"name"})
        make = functools.partial(self._service.model_work.create_embedding, request.name, **options)
        return self._made("embedding", await self._patient.call(make), response)

    async def create_hypernetwork(self, request: HypernetworkRequest, response: Response) -> Adapter:
        """Writes a new hypernetwork that can be trained then."""
        options = request.model_dump(exclude={"name"})
        make = functools.partial(self._service.model_work.create_hypernetwork, request.name, **options)
        return self._made("hypernetwork", await self._patient.call(make), response)

    def list_adapters(self) -> Adapters:
        """Embeddings and hypernetworks of the workspace."""
        return Adapters(adapters=[self._adapter(each["kind"], Path(each["path"])) for each in self._service.adapters()])

    async def show_adapter(self, kind: AdapterKind, name: str) -> AdapterDetails:
        """What the file of an adapter says: format, step, model, vectors or layers, provenance, oddities."""
        path = self._service.adapter_file(kind, name)
        told = await self._patient.call(lambda: self._service.model_work.inspect(str(path)))
        return AdapterDetails(adapter=self._adapter(kind, path), file=told)

    def download(self, kind: AdapterKind, name: str, request: Request) -> Response:
        """The file as it lies in the workspace."""
        try:
            return send_file(request, self._service.adapter_file(kind, name), ANY_FILE, download=True)
        except FileNotFoundError:
            raise NotFoundError(f"The {kind} {name!r} is no longer there.") from None

    def _made(self, kind: AdapterKind, path: Path, response: Response) -> Adapter:
        adapter = self._adapter(kind, path)
        response.headers["Location"] = adapter.url
        return adapter

    def _adapter(self, kind: AdapterKind, path: Path) -> Adapter:
        try:
            found = path.stat()
        except FileNotFoundError:
            raise NotFoundError(f"The {kind} {path.stem!r} is no longer there.") from None
        return Adapter(
            kind=kind,
            name=path.stem,
            path=self._service.places.shown(path),
            size=found.st_size,
            mtime=found.st_mtime,
            url=url("adapters", kind, path.stem),
        )
