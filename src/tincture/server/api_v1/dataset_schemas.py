"""What requests and answers about data sets hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from tincture.server.api_v1.schemas import Name, Request, Text
from tincture.server.library.caption_tags import CaptionChange
from tincture.server.library.retouching import LARGEST_MASK
from tincture.server.requests.sizes import LARGEST_NUMBER, LONGEST_TEXT, MOST_ITEMS

FileName = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]
Pixels = Annotated[int, Field(ge=0, le=LARGEST_NUMBER)]


class DatasetAnswer(BaseModel):
    """A folder of pictures to train on."""

    name: str
    path: str = Field(description="From the workspace: what the setting data takes.")
    pictures: int
    captions: int = Field(description="How many of them have a caption.")
    bytes: int


class DatasetList(BaseModel):
    """Data sets that were uploaded, or made by preprocessing."""

    datasets: list[DatasetAnswer]


class DatasetPicture(BaseModel):
    """A picture of a data set."""

    file: str
    caption: str = Field(description="What a training takes.")
    captioned: bool = Field(description="Whether the caption is its own; else it comes from the file's name.")
    width: int = Field(description="Pixels; 0 where the file cannot be read.")
    height: int
    mask: bool = Field(description="Whether it has a mask.")
    cropped: bool = Field(description="Whether it was cropped, and the original can be had back.")
    fault: str = Field(description="Why it cannot be used; empty where it can.")
    version: str = Field(description="Differs once the file was changed.")
    url: str = Field(description="Address of a small JPEG of it.")


class DatasetPictures(BaseModel):
    """The pictures of a data set."""

    name: str
    pictures: list[DatasetPicture]


class Caption(Request):
    """A picture's caption."""

    text: Text


class Captions(Request):
    """Captions by the pictures' files."""

    captions: Annotated[dict[FileName, Text], Field(max_length=MOST_ITEMS)]


class CaptionsChange(Request):
    """One change to many captions."""

    change: CaptionChange = Field(
        description="A tag, which stands between commas, is added in front or behind, removed or replaced; text: a "
        "text is replaced wherever it stands, capitals or not."
    )
    find: Text = Field(description="The tag, or the text.")
    by: Text = Field("", description="What replaces it.")
    files: Annotated[list[FileName], Field(max_length=MOST_ITEMS)] | None = Field(
        None, description="Pictures whose captions are changed; not given: all."
    )
    preview: bool = Field(False, description="Only says what would be changed.")


class ChangedCaption(BaseModel):
    """A caption before a change and after it."""

    file: str
    before: str
    after: str


class ChangedCaptions(BaseModel):
    """The captions that a change changed, or would change."""

    changed: list[ChangedCaption]


class Crop(Request):
    """The part of a picture that shall stay, in pixels of the picture as it is seen."""

    left: Pixels
    top: Pixels
    width: Pixels
    height: Pixels


class Mask(Request):
    """What of a picture is to be learned."""

    png: str = Field(
        max_length=4 * LARGEST_MASK // 3 + 4,
        description="A PNG in base64, of the picture's proportions: white is learned, black is not.",
    )


class Duplicates(BaseModel):
    """Pictures that show the same, or nearly."""

    groups: list[list[str]] = Field(description="Files that belong together.")


class PicturesOfSize(BaseModel):
    """Pictures that get one size in a training."""

    width: int
    height: int
    files: list[str]
    cropped: float = Field(description="Share that is cut off, 0 to 1, on average.")
    enlarged: int = Field(description="How many are made larger.")
    enlarged_files: list[str] = Field(description="Those that are made larger.")


class PictureSizes(BaseModel):
    """The sizes that pictures get in a training."""

    sizes: list[PicturesOfSize]


class DescriptionRequest(Request):
    """Which models describe a picture."""

    captioner: Name = Field("", description="BLIP model: a folder, or a name on the hub where that is allowed.")
    tagger: Name = Field("", description="Booru tagger: a folder or file, or a name on the hub where that is allowed.")
    only_missing: bool = Field(True, description="A picture that has a caption keeps it.")


class Describer(BaseModel):
    """A model that describes pictures."""

    model: str = Field(description="The one that is found by itself; empty where there is none.")
    missing: str = Field(description="A sentence: what is not there that it needs; empty where it can be used.")


class Describers(BaseModel):
    """What can describe pictures on this server."""

    captioner: Describer
    tagger: Describer
