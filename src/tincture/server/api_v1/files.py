"""Files of adapters in every format: look into them, convert them, merge them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter

from tincture.server.api_v1.common import Patient
from tincture.server.api_v1.schemas import ConversionBody, Converted, FileReport, InspectionBody, MergeBody, Merged
from tincture.server.http.errors import documented
from tincture.server.service import Service


class FileEndpoints:
    """Everything below /files."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._patient = Patient()

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["files"])
        add = router.add_api_route
        add("/files/inspect", self.inspect, methods=["POST"], responses=documented(507), summary="Look into a file")
        add(
            "/files/convert",
            self.convert,
            methods=["POST"],
            responses=documented(409, 507),
            summary="Write an adapter in another format",
        )
        add(
            "/files/merge",
            self.merge,
            methods=["POST"],
            responses=documented(409, 507),
            summary="Make one adapter of several",
        )
        return router

    async def inspect(self, request: InspectionBody) -> FileReport:
        """What a file of the workspace is: kind, format, traits, hashes, which programs read it."""
        asked: dict[str, Any] = request.model_dump()
        return FileReport(file=await self._patient.call(lambda: self._service.model_work.inspect(**asked)))

    async def convert(self, request: ConversionBody) -> Converted:
        """Answers when the new file is there, with what it could not hold."""
        asked = request.model_dump(exclude_none=True)
        written = await self._patient.call(lambda: self._service.model_work.convert(**asked))
        shown = self._service.places.shown(Path(written["path"]))
        return Converted(**{**written, "path": shown})

    async def merge(self, request: MergeBody) -> Merged:
        """Answers when the new file is there, with how far its effect is off what was asked for."""
        asked = request.model_dump(exclude_none=True)
        written = await self._patient.call(lambda: self._service.model_work.merge(**asked))
        shown = self._service.places.shown(Path(written["path"]))
        return Merged(**{**written, "path": shown})
