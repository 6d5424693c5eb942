"""Presets of trainings: list, read, save, delete."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from tincture.errors import UsageError
from tincture.kinds.registry import kind_names
from tincture.server.api_v1.common import url
from tincture.server.api_v1.schemas import Request
from tincture.server.errors import NotFoundError
from tincture.server.http.errors import documented
from tincture.server.service import Service
from tincture.settings.presets import NAMED


class PresetAnswer(BaseModel):
    """Settings to begin a training from."""

    name: str = Field(description="As tincture train --preset takes it.")
    title: str = Field(description="What people read.")
    help: str = Field(description="What it is for; empty where nobody has described it.")
    built_in: bool


class PresetList(BaseModel):
    """The built-in presets, then the workspace's own."""

    presets: list[PresetAnswer]


class PresetSettings(BaseModel):
    """What a preset says."""

    name: str
    kind: str = Field(description="What it is for.")
    settings: dict[str, Any] = Field(description="What /settings/train lists, by name.")


class PresetRequest(Request):
    """A preset to be saved."""

    settings: dict[str, Any] = Field(
        description="What /settings/train lists, by name, with kind. Name, data, model and device are left out.",
        examples=[{"kind": kind_names()[0], "steps": 500, "learning_rate": "0.005"}],
    )
    overwrite: bool = Field(False, description="Replace one of the same name.")


class PresetEndpoints:
    """What trainings can begin from."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["presets"])
        add = router.add_api_route
        one = "/presets/{name}"
        add("/presets", self.list_presets, methods=["GET"], summary="List presets")
        add(one, self.preset, methods=["GET"], summary="Read a preset", responses=documented(404))
        saved: dict[str, Any] = {"status_code": 201, "responses": documented(403, 409, 507)}
        add(one, self.save, methods=["PUT"], summary="Save a preset", **saved)
        gone: dict[str, Any] = {"status_code": 204, "responses": documented(404, 507)}
        add(one, self.delete, methods=["DELETE"], summary="Delete a preset", **gone)
        return router

    def list_presets(self) -> PresetList:
        """The built-in presets, then those that were saved."""
        own = [PresetAnswer(name=name, title=name, help="", built_in=False) for name in self._service.presets.own()]
        built_in = (
            PresetAnswer(name=each.name, title=each.title, help=each.help, built_in=True) for each in NAMED.values()
        )
        return PresetList(presets=[*built_in, *own])

    def preset(
        self,
        name: str,
        kind: Annotated[str, Query(max_length=200, description="Of the adapter; empty: what the preset is for.")] = "",
        model: Annotated[str, Query(max_length=4000, description="Base model; empty: the default one.")] = "",
    ) -> PresetSettings:
        """What a preset says for a kind of adapter and a base model."""
        if name not in [*NAMED, *self._service.presets.own()]:
            raise NotFoundError(f"There is no preset {name[:100]!r}; GET /presets lists those that there are.")
        found = self._service.presets.find(name)
        chosen = kind or found.kind
        if not chosen:
            raise UsageError(f"The preset {name!r} is not the same for each kind; give kind, {_kinds()}.")
        settings = found.settings(chosen, model or self._service.default_model())
        return PresetSettings(name=name, kind=chosen, settings={**settings, "kind": chosen})

    def save(self, name: str, body: PresetRequest, response: Response) -> PresetSettings:
        """Saves settings, checked, as a preset of the workspace."""
        saved = self._service.presets.save(name, body.settings, overwrite=body.overwrite)
        response.headers["Location"] = url("presets", saved)
        return self.preset(saved)

    def delete(self, name: str) -> None:
        """Deletes a preset that was saved."""
        self._service.presets.delete(name)


def _kinds() -> str:
    return " or ".join(kind_names())
