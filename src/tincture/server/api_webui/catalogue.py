"""What there is to choose from, and what the webui's clients ask for when they start."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body

from tincture.errors import FileFormatError, ModelError
from tincture.formats.hash_cache import remembered_sha256
from tincture.models.samplers import SAMPLERS
from tincture.server.api_v1.common import Patient
from tincture.server.api_webui.schemas import (
    EmbeddingAnswer,
    Embeddings,
    HypernetworkAnswer,
    Memory,
    ModelAnswer,
    OptionsSet,
    SamplerAnswer,
    SchedulerAnswer,
    Scripts,
    UpscalerAnswer,
    VaeAnswer,
)
from tincture.server.api_webui.session import Session
from tincture.server.api_webui.txt2img import SCHEDULERS
from tincture.server.http.errors import documented
from tincture.server.service import Service
from tincture.settings.server import is_loopback

HASH_DIGITS = 10


class CatalogueEndpoints:
    """Lists, options and flags."""

    def __init__(self, service: Service, session: Session) -> None:
        self._service, self._session = service, session
        self._patient = Patient()

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter()
        asked = {
            "/embeddings": self.embeddings,
            "/hypernetworks": self.hypernetworks,
            "/sd-models": self.sd_models,
            "/sd-vae": self.sd_vae,
            "/samplers": self.samplers,
            "/schedulers": self.schedulers,
            "/options": self.options,
            "/cmd-flags": self.cmd_flags,
            "/memory": self.memory,
            "/scripts": self.scripts,
            **dict.fromkeys(
                ("/upscalers", "/face-restorers", "/realesrgan-models", "/latent-upscale-modes"), self.none
            ),
            **dict.fromkeys(("/prompt-styles", "/loras", "/script-info", "/extensions", "/sd-modules"), self.none),
        }
        for path, endpoint in asked.items():
            name = path.strip("/").replace("-", "_")
            router.add_api_route(path, endpoint, methods=["GET"], name=name)
        router.add_api_route("/options", self.set_options, methods=["POST"])
        listed = ("/refresh-embeddings", "/refresh-checkpoints", "/refresh-vae", "/refresh-loras")
        acts = {
            **dict.fromkeys(listed, self.refresh),
            "/unload-checkpoint": self.unload,
            "/reload-checkpoint": self.reload,
        }
        for path, endpoint in acts.items():
            name = path.strip("/").replace("-", "_")
            router.add_api_route(path, endpoint, methods=["POST"], name=name, responses=documented(409))
        return router

    async def embeddings(self) -> Embeddings:
        """Embeddings that the model can use, and those of other models. Looks at the files anew."""
        work = self._service.model_work
        try:
            found = await self._patient.call(lambda: work.embeddings(self._session.model()))
        except (ModelError, FileFormatError):  # a model that cannot be used is no reason to list nothing
            found = await self._patient.call(lambda: work.embeddings("picto"))
            found = {"loaded": [], "skipped": [*found["loaded"], *found["skipped"]]}
        return Embeddings(loaded=_by_name(found["loaded"]), skipped=_by_name(found["skipped"]))

    def hypernetworks(self) -> list[HypernetworkAnswer]:
        """Hypernetworks in the workspace."""
        found = [each for each in self._service.adapters() if each["kind"] == "hypernetwork"]
        return [HypernetworkAnswer(name=each["name"], path=each["path"]) for each in found]

    def sd_models(self) -> list[ModelAnswer]:
        """Base models, with the hashes of those that were used before."""
        return [_model(**model) for model in self._service.models()]

    def sd_vae(self) -> list[VaeAnswer]:
        """VAEs in files of their own."""
        return [VaeAnswer(model_name=path.name, filename=str(path)) for path in self._service.workspace.list_vaes()]

    def samplers(self) -> list[SamplerAnswer]:
        """Samplers."""
        return [SamplerAnswer(name=name, aliases=[name.casefold()], options={}) for name in SAMPLERS]

    def schedulers(self) -> list[SchedulerAnswer]:
        """Ways of spreading a sampler's steps; each sampler has its own, and some know Karras' too."""
        return [SchedulerAnswer(name=name, label=label) for name, label in SCHEDULERS.items()]

    def none(self) -> list[UpscalerAnswer]:
        """This server has none of them."""
        return []

    def scripts(self) -> Scripts:
        """This server has no scripts."""
        return Scripts()

    def options(self) -> dict[str, Any]:
        """The options that there are. The model can be set, and two of trainings."""
        return self._session.options()

    def set_options(self, options: Annotated[dict[str, Any], Body()]) -> OptionsSet | None:
        """Chooses the model by sd_model_checkpoint, for all clients of /sdapi. Options given as they are do no harm."""
        remarks = self._session.set_options(options)
        return OptionsSet(remarks=remarks) if remarks else None

    async def unload(self) -> dict[str, Any]:
        """Frees the memory that the model takes which pictures were drawn with; the next drawing loads it again."""
        await self._patient.call(self._service.model_work.unload)
        return {}

    async def reload(self) -> dict[str, Any]:
        """Loads the model now, so that the next drawing begins at once."""
        await self._patient.call(lambda: self._service.model_work.load(self._session.model()))
        return {}

    def cmd_flags(self) -> dict[str, Any]:
        """How the server was started, as far as the webui has a flag for it; nothing that is secret."""
        settings, workspace = self._service.settings, self._service.workspace
        return {
            "api": True,
            "listen": not is_loopback(settings.host),
            "port": settings.port,
            "data_dir": str(workspace.root),
            "ckpt_dir": str(workspace.models),
            "vae_dir": str(workspace.vaes),
            "embeddings_dir": str(workspace.embeddings),
            "hypernetwork_dir": str(workspace.hypernetworks),
            "textual_inversion_templates_dir": str(workspace.templates),
        }

    def memory(self) -> Memory:
        """The machine's memory. Jobs, and what draws, have processes of their own, whose GPU this one does not ask."""
        return Memory(ram=_ram(), cuda={"error": "unavailable"})

    def refresh(self) -> None:
        """Does nothing: files are looked at whenever they are asked for."""


def _by_name(entries: Sequence[Mapping[str, Any]]) -> dict[str, EmbeddingAnswer]:
    """Files that cannot be read have no vectors to tell of, and are left out, as in the webui."""
    return {entry["name"]: EmbeddingAnswer.model_validate(dict(entry)) for entry in entries if entry["shape"]}


def _model(name: str, title: str, path: str) -> ModelAnswer:
    sha256 = remembered_sha256(Path(path)) if path else None
    short = sha256[:HASH_DIGITS] if sha256 else None
    return ModelAnswer(title=name, model_name=title, hash=short, sha256=sha256, filename=path or name)


def _ram() -> dict[str, Any]:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    except (AttributeError, ValueError, OSError):
        return {"error": "unavailable"}
    return {"free": free, "used": total - free, "total": total}
