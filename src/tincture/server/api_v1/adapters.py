"""Adapters: create, list, look into, download."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from tincture.kinds.registry import AdapterKind, kinds
from tincture.server.api_v1.common import Patient, file_answers, send_file, url
from tincture.server.api_v1.schemas import (
    Adapter,
    AdapterDetails,
    Adapters,
    KindName,
    adapter_request,
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
        for kind in kinds():
            name = f"create_{kind.name.replace('-', '_')}"
            add(f"/adapters/{kind.name}", self._maker(kind), name=name, summary=f"Create {kind.one}", **made)
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

    def _maker(self, kind: AdapterKind) -> Callable[..., Awaitable[Adapter]]:
        async def create(request: Any, response: Response) -> Adapter:
            make = functools.partial(self._service.model_work.create_adapter, kind.name, **request.model_dump())
            return self._made(kind.name, await self._patient.call(make), response)

        create.__doc__ = f"Writes a new {kind.name} that can be trained then."
        create.__annotations__["request"] = adapter_request(kind)
        return create

    def list_adapters(self) -> Adapters:
        """Embeddings and hypernetworks of the workspace."""
        return Adapters(adapters=[self._adapter(each["kind"], Path(each["path"])) for each in self._service.adapters()])

    async def show_adapter(self, kind: KindName, name: str) -> AdapterDetails:
        """What the file of an adapter says: format, step, model, vectors or layers, provenance, oddities."""
        path = self._service.adapter_file(kind, name)
        file = await self._patient.call(lambda: self._service.model_work.inspect(str(path)))
        return AdapterDetails(adapter=self._adapter(kind, path), file=file)

    def download(self, kind: KindName, name: str, request: Request) -> Response:
        """The file as it lies in the workspace."""
        try:
            return send_file(request, self._service.adapter_file(kind, name), ANY_FILE, download=True)
        except FileNotFoundError:
            raise NotFoundError(f"The {kind} {name!r} is no longer there.") from None

    def _made(self, kind: KindName, path: Path, response: Response) -> Adapter:
        adapter = self._adapter(kind, path)
        response.headers["Location"] = adapter.url
        return adapter

    def _adapter(self, kind: KindName, path: Path) -> Adapter:
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
