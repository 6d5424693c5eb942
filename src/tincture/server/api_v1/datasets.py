"""Data sets: upload, list, delete."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from tincture.server.api_v1.common import Patient, url
from tincture.server.api_v1.dataset_schemas import DatasetAnswer, DatasetList
from tincture.server.api_v1.form_files import received_files
from tincture.server.http.errors import documented
from tincture.server.library.datasets import DatasetInfo
from tincture.server.library.storage import UPLOADS
from tincture.server.service import Service

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                            "description": "Pictures, captions, metadata.jsonl or .csv, masks in mask/, or a .zip.",
                        }
                    },
                }
            }
        },
    }
}


class DatasetEndpoints:
    """The data sets as a whole; see ``dataset_pictures`` for what is in them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._patient = Patient()  # to read many or vast pictures takes long

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["data sets"])
        add = router.add_api_route
        one = "/datasets/{name}"
        upload: dict[str, Any] = {"status_code": 201, "responses": documented(409, 507), "openapi_extra": _FORM}
        add("/datasets", self.list_datasets, methods=["GET"], summary="List data sets")
        add(one, self.upload, methods=["POST"], summary="Upload pictures", **upload)
        gone: dict[str, Any] = {"status_code": 204, "responses": documented(404, 409, 507)}
        add(one, self.delete_dataset, methods=["DELETE"], summary="Delete a data set", **gone)
        return router

    async def upload(
        self,
        name: str,
        request: Request,
        response: Response,
        add: Annotated[bool, Query(description="Add to a data set that is there.")] = False,
    ) -> DatasetAnswer:
        """Makes a data set of many files, or of one zip. It is taken whole or not at all."""
        settings, folder = self._service.settings, self._service.state_dir / UPLOADS
        most = settings.max_upload_mb * 2**20
        async with received_files(request, folder, max_bytes=most, max_files=settings.max_upload_files) as files:
            info = await run_in_threadpool(self._service.datasets.upload, name, files, add=add)
        response.headers["Location"] = url("datasets", info.name)
        return self._answer(info)

    async def list_datasets(self) -> DatasetList:
        """Data sets that were uploaded, or made by preprocessing."""
        infos = await self._patient.call(self._service.datasets.list)
        return DatasetList(datasets=[self._answer(info) for info in infos])

    def delete_dataset(self, name: str) -> None:
        """Deletes a data set with its pictures."""
        self._service.delete_dataset(name)

    def _answer(self, info: DatasetInfo) -> DatasetAnswer:
        return DatasetAnswer(**{**dataclasses.asdict(info), "path": self._service.places.shown(info.path)})
