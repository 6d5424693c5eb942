"""The pictures of a data set: captions, crops, masks, duplicates, sizes, descriptions."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Response

from tincture.server.api_v1.common import Patient, file_answers, url
from tincture.server.api_v1.dataset_schemas import (
    Caption,
    Captions,
    CaptionsChange,
    ChangedCaption,
    ChangedCaptions,
    Crop,
    DatasetPicture,
    DatasetPictures,
    Describer,
    Describers,
    DescriptionRequest,
    Duplicates,
    Mask,
    PictureSizes,
    PicturesOfSize,
)
from tincture.server.errors import NotFoundError
from tincture.server.http.errors import documented
from tincture.server.library import overview, retouching
from tincture.server.library.caption_tags import change_tags, planned_changes
from tincture.server.library.describers import describers
from tincture.server.library.pictures import PictureInfo
from tincture.server.requests.sizes import LONGEST_TEXT
from tincture.server.service import Service
from tincture.settings.preprocess import MOST_PIXELS


def _folder(
    name: str,
    folder: Annotated[
        str, Query(max_length=LONGEST_TEXT, description="Path of another folder, in place of the data set.")
    ] = "",
) -> str:
    return folder or name


Folder = Annotated[str, Depends(_folder)]
"""The data set that the address names, or the folder that ``?folder=`` does."""
Side = Annotated[int, Query(ge=8, le=MOST_PIXELS, description="Pixels.")]
BucketSide = Annotated[int, Query(ge=0, le=MOST_PIXELS, description="As in the settings of a training.")]


class DatasetPictureEndpoints:
    """Everything below /datasets/{name} that is about its pictures."""

    def __init__(self, service: Service) -> None:
        self._service, self._store = service, service.datasets
        self._patient = Patient()  # to read many or vast pictures takes long

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["data sets"])
        one, file = "/datasets/{name}", "{file:path}"

        def add(path: str, act: Any, method: str, summary: str, *errors: int, **more: Any) -> None:
            responses = {"responses": documented(*errors), **more}
            router.add_api_route(f"{one}{path}", act, methods=[method], summary=summary, **responses)

        done: dict[str, Any] = {"status_code": 204}
        small: dict[str, Any] = {"response_class": Response, "responses": file_answers("image/jpeg", 404)}
        mask: dict[str, Any] = {"response_class": Response, "responses": file_answers("image/png", 404)}
        add("", self.show, "GET", "List a data set's pictures", 404)
        add(f"/pictures/{file}", self.thumbnail, "GET", "Get a small picture", **small)
        add(f"/pictures/{file}", self.remove, "DELETE", "Delete a picture", 404, 507, **done)
        add(f"/captions/{file}", self.set_caption, "PUT", "Write a caption", 404, 507, **done)
        add("/captions", self.set_captions, "PUT", "Write captions", 404, 507, **done)
        add("/captions", self.change_captions, "POST", "Change captions", 404, 507)
        add(f"/crops/{file}", self.crop, "PUT", "Crop a picture", 404, 507)
        add(f"/crops/{file}", self.uncrop, "DELETE", "Take a crop back", 404, 507)
        add(f"/masks/{file}", self.mask, "GET", "Get a mask", **mask)
        add(f"/masks/{file}", self.set_mask, "PUT", "Write a mask", 404, 507)
        add(f"/masks/{file}", self.remove_mask, "DELETE", "Delete a mask", 404, 507)
        add(f"/descriptions/{file}", self.describe, "POST", "Describe a picture", 404, 429, 507)
        add("/duplicates", self.duplicates, "GET", "Find duplicates", 404)
        add("/sizes", self.sizes, "GET", "Find the sizes in a training", 404)
        router.add_api_route("/describers", self.describers, methods=["GET"], summary="List what describes pictures")
        return router

    def show(self, name: str, folder: Folder) -> DatasetPictures:
        """The pictures of a data set, with their captions."""
        pictures = self._store.pictures(folder)
        return DatasetPictures(name=name, pictures=[_answer(name, folder, picture) for picture in pictures])

    async def thumbnail(
        self, folder: Folder, file: str, side: Annotated[int, Query(ge=16, le=1024, description="Pixels.")] = 256
    ) -> Response:
        """A picture of a data set as JPEG, at most `side` pixels wide and high."""
        content = await self._patient.call(lambda: self._store.thumbnail(folder, file, side))
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"})

    def remove(self, folder: Folder, file: str) -> None:
        """Deletes a picture of a data set, with its captions and its mask."""
        self._store.remove_picture(folder, file)

    # --- captions ----------------------------------------------------------------------------------------------------

    def set_caption(self, folder: Folder, file: str, request: Caption) -> None:
        """Writes the caption of a picture into the text file beside it."""
        self._store.set_caption(folder, file, request.text)

    def set_captions(self, folder: Folder, request: Captions) -> None:
        """Writes the captions of several pictures; where one is not allowed, none is written."""
        self._store.set_captions(folder, request.captions)

    def change_captions(self, folder: Folder, request: CaptionsChange) -> ChangedCaptions:
        """Changes a tag, or a text, in many captions, or says what that would change."""
        pictures = [
            info if info.captioned else dataclasses.replace(info, caption="")
            for info in self._store.pictures(folder)
            if (request.files is None or info.file in request.files) and not info.fault
        ]
        before = {info.file: info.caption for info in pictures}
        if request.preview:
            changed = planned_changes(pictures, request.change, request.find, request.by)
        else:
            changed = change_tags(self._store, folder, pictures, request.change, request.find, request.by)
        return ChangedCaptions(
            changed=[ChangedCaption(file=file, before=before[file], after=text) for file, text in changed.items()]
        )

    async def describe(self, folder: Folder, file: str, request: DescriptionRequest) -> Caption:
        """Lets a model write the caption of a picture, and says what it is then."""
        asked = request.model_dump()
        return Caption(text=await self._patient.call(lambda: self._service.describe_picture(folder, file, **asked)))

    def describers(self) -> Describers:
        """The models that can describe pictures, and what they lack."""
        found = describers(self._store.places)
        return Describers(**{what: Describer(**dataclasses.asdict(each)) for what, each in found.items()})

    # --- crops and masks ---------------------------------------------------------------------------------------------

    async def crop(self, name: str, folder: Folder, file: str, request: Crop) -> DatasetPicture:
        """Lets a part of the picture take its place; the original is kept. Its mask is cropped alike."""
        box = (request.left, request.top, request.width, request.height)
        await self._patient.call(lambda: retouching.crop(self._store, folder, file, box))
        return self._one(name, folder, file)

    def uncrop(self, name: str, folder: Folder, file: str) -> DatasetPicture:
        """Puts the original back as it was before its first crop, with the mask that it had."""
        retouching.uncrop(self._store, folder, file)
        return self._one(name, folder, file)

    def mask(self, folder: Folder, file: str) -> Response:
        """The picture's mask as a grey PNG: white is learned, black is not."""
        content = retouching.mask_of(self._store, folder, file)
        if content is None:
            raise NotFoundError(f"{file} has no mask.")
        return Response(content, media_type="image/png", headers={"Cache-Control": "no-store"})

    def set_mask(self, name: str, folder: Folder, file: str, request: Mask) -> DatasetPicture:
        """Writes the picture's mask where a training looks for it; one that is white all over is taken away."""
        retouching.set_mask(self._store, folder, file, request.png)
        return self._one(name, folder, file)

    def remove_mask(self, name: str, folder: Folder, file: str) -> DatasetPicture:
        """Takes the picture's mask away."""
        retouching.remove_mask(self._store, folder, file)
        return self._one(name, folder, file)

    # --- all of them -------------------------------------------------------------------------------------------------

    async def duplicates(
        self, folder: Folder, bits: Annotated[int, Query(ge=0, le=72, description="Of 144 that may differ.")] = 12
    ) -> Duplicates:
        """Pictures that show the same, or nearly; every picture is read."""
        return Duplicates(groups=await self._patient.call(lambda: overview.find_duplicates(self._store, folder, bits)))

    async def sizes(
        self,
        folder: Folder,
        width: Side,
        height: Side,
        resize: Literal["stretch", "crop"] = "crop",
        varsize: bool = False,
        buckets: bool = False,
        bucket_step: BucketSide = 0,
        bucket_min: BucketSide = 0,
        bucket_max: BucketSide = 0,
    ) -> PictureSizes:
        """The size that each picture gets in a training with these settings, the most frequent one first."""
        given = {"resize": resize, "varsize": varsize, "buckets": buckets, "bucket_step": bucket_step}
        sides = {"bucket_min": bucket_min, "bucket_max": bucket_max}
        found = await self._patient.call(
            lambda: overview.find_sizes(self._store, folder, width, height, **given, **sides)  # type: ignore[arg-type]
        )
        return PictureSizes(
            sizes=[
                PicturesOfSize(
                    width=one.size[0],
                    height=one.size[1],
                    files=list(one.files),
                    cropped=one.cropped,
                    enlarged=len(one.enlarged_files),
                    enlarged_files=list(one.enlarged_files),
                )
                for one in found
            ]
        )

    def _one(self, name: str, folder: str, file: str) -> DatasetPicture:
        return _answer(name, folder, self._store.info_of(folder, file))


def _answer(name: str, folder: str, picture: PictureInfo) -> DatasetPicture:
    address = url("datasets", name, "pictures", *picture.file.split("/"))
    values = {key: value for key, value in dataclasses.asdict(picture).items() if key != "path"}
    return DatasetPicture(url=address + (f"?folder={quote(folder, safe='')}" if folder != name else ""), **values)
