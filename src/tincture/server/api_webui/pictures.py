"""Drawing pictures, and reading what pictures say of themselves."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter

from tincture.errors import DataError, UsageError, shortened
from tincture.formats.picture_text import CHUNK, parse_parameters, picture_texts
from tincture.formats.pictures import open_picture
from tincture.preprocessing.describer_kinds import find_describers, missing_describer
from tincture.server.api_v1.common import Patient
from tincture.server.api_webui.schemas import (
    Caption,
    Drawn,
    InterrogateRequest,
    PngInfo,
    PngInfoRequest,
    Txt2ImgRequest,
)
from tincture.server.api_webui.session import Session
from tincture.server.api_webui.txt2img import SAVED, drawing_of, info_of
from tincture.server.errors import NotFoundError
from tincture.server.http.errors import documented
from tincture.server.service import Service


class PictureEndpoints:
    """/txt2img, /png-info and /interrogate."""

    def __init__(self, service: Service, session: Session) -> None:
        self._service, self._session = service, session
        self._patient = Patient()

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter()
        router.add_api_route("/txt2img", self.txt2img, methods=["POST"], responses=documented(404, 507))
        router.add_api_route("/png-info", self.png_info, methods=["POST"])
        router.add_api_route("/interrogate", self.interrogate, methods=["POST"], responses=documented(404))
        return router

    async def txt2img(self, request: Txt2ImgRequest) -> Drawn:
        """Draws pictures, and answers when all are there, or with those that are when it is stopped.

        What was trained acts where the prompt names it.
        """
        return await self._patient.call(lambda: self._draw(request))

    def png_info(self, request: PngInfoRequest) -> PngInfo:
        """What the webui, or this server, wrote into a picture about how it was made."""
        texts = picture_texts(_decoded(request.image))
        text = texts.get(CHUNK, "")
        return PngInfo(info=text, items=texts, parameters=_parameters(text) if text.strip() else {})

    async def interrogate(self, request: InterrogateRequest) -> Caption:
        """Says what is on a picture, by the captioner or tagger that lies in the workspace."""
        return await self._patient.call(lambda: self._described(request))

    def _described(self, request: InterrogateRequest) -> Caption:
        what, models = describer_of(request.model), find_describers(self._service.workspace)
        if what not in models:
            raise UsageError(missing_describer(what, f"The model {request.model} was asked for"))
        picture = _decoded(request.image)
        return Caption(caption=self._service.model_work.describe(picture, **{what: models[what]}))

    def _draw(self, request: Txt2ImgRequest) -> Drawn:
        remarks: list[str] = []
        present = self._session.options()
        drawing = drawing_of(request, most=self._service.settings.max_pictures, present=present, remarks=remarks)
        drawing["model"] = self._session.named(drawing["model"]) if "model" in drawing else self._session.model()
        self._session.begin_drawing()
        try:
            paths = self._service.model_work.draw(drawing, remarks, partly=True)
        finally:
            self._session.end_drawing()
        if request.override_settings_restore_afterwards is False:
            self._session.choose(drawing["model"])
        answer = _answer(request, drawing["seeds"][: len(paths)], paths, remarks)
        if (request.override_settings or {}).get(SAVED) is False:
            for path in paths:
                path.unlink(missing_ok=True)
        return answer


def describer_of(model: str) -> str:
    """``captioner`` or ``tagger``, for what the webui's clients call them; NotFoundError."""
    known = {"clip": "captioner", "deepdanbooru": "tagger", "deepbooru": "tagger"}
    if model.lower() not in known:
        raise NotFoundError(f"There is no model {shortened(model)} for interrogate; known are {', '.join(known)}.")
    return known[model.lower()]


def _answer(request: Txt2ImgRequest, seeds: Sequence[int], paths: Sequence[Path], remarks: list[str]) -> Drawn:
    contents = [path.read_bytes() for path in paths]
    texts = [picture_texts(content).get(CHUNK, "") for content in contents]
    with open_picture(io.BytesIO(contents[0])) as picture:
        size = picture.size
    images = [base64.b64encode(content).decode() for content in contents] if request.send_images is not False else []
    given: dict[str, Any] = json.loads(request.model_dump_json())  # NaN, which JSON does not have, becomes null
    return Drawn(images=images, parameters=given, info=info_of(request, seeds, texts, size), remarks=remarks)


def _parameters(text: str) -> dict[str, str]:
    read = parse_parameters(text)
    return {"Prompt": read.prompt, "Negative prompt": read.negative_prompt, **read.settings}


def _decoded(image: str) -> bytes:
    """The file; FileFormatError is left to those who read it."""
    encoded = image.partition(",")[2] if image.startswith("data:") else image
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise DataError("The image is not in base64; send a PNG or WebP file so, as the webui's clients do.") from None
