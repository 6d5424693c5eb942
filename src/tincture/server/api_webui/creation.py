"""New embeddings and hypernetworks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body

from tincture.errors import TinctureError
from tincture.server.api_v1.common import Patient
from tincture.server.api_webui.schemas import InfoAnswer, body_of
from tincture.server.api_webui.session import Session
from tincture.server.http.errors import documented
from tincture.server.requests.sizes import check_sizes
from tincture.server.service import Service
from tincture.webui.arguments import CreateEmbedding, CreateHypernetwork
from tincture.webui.translation import embedding_options, hypernetwork_options, reference_name, refuse_existing

Arguments = Annotated[dict[str, Any], Body()]


class CreationEndpoints:
    """Everything below /create."""

    def __init__(self, service: Service, session: Session) -> None:
        self._service, self._session = service, session
        self._patient = Patient()

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter()
        for path, endpoint, arguments in (
            ("/create/embedding", self.create_embedding, CreateEmbedding),
            ("/create/hypernetwork", self.create_hypernetwork, CreateHypernetwork),
        ):
            router.add_api_route(
                path, endpoint, methods=["POST"], responses=documented(409, 507), openapi_extra=body_of(arguments)
            )
        return router

    async def create_embedding(self, body: Arguments) -> InfoAnswer:
        """Makes a new embedding, and answers with its path."""
        return await self._create("embedding", lambda: self._embedding(body))

    async def create_hypernetwork(self, body: Arguments) -> InfoAnswer:
        """Makes a new hypernetwork, and answers with its path."""
        return await self._create("hypernetwork", lambda: self._hypernetwork(body))

    async def _create(self, kind: str, make: Callable[[], tuple[Path, list[str]]]) -> InfoAnswer:
        try:
            path, remarks = await self._patient.call(make)
        except TinctureError as error:
            if not self._service.settings.webui_errors:
                raise
            return InfoAnswer(info=f"create {kind} error: {error}")
        return InfoAnswer(info=f"create {kind} filename: {path}", remarks=remarks)

    def _embedding(self, body: Mapping[str, Any]) -> tuple[Path, list[str]]:
        check_sizes(body)
        arguments = CreateEmbedding.of(body)
        name, remarks = reference_name(arguments.name)
        refuse_existing(self._service.workspace.adapter_path("embedding", name), arguments.overwrite_old)
        options = embedding_options(arguments)
        return self._service.model_work.create_adapter(
            "embedding", name, model=self._session.model(), **options
        ), remarks

    def _hypernetwork(self, body: Mapping[str, Any]) -> tuple[Path, list[str]]:
        check_sizes(body)
        arguments = CreateHypernetwork.of(body)
        name, remarks = reference_name(arguments.name)
        refuse_existing(self._service.workspace.adapter_path("hypernetwork", name), arguments.overwrite_old)
        options = hypernetwork_options(arguments)
        return self._service.model_work.create_adapter(
            "hypernetwork", name, model=self._session.model(), **options
        ), remarks
