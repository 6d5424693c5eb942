"""The shapes of the webui's API: what OpenAPI says of requests and answers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from tincture.server.api_v1.request_models import BaseRequest, limits_of
from tincture.settings.drawing import REQUEST_FIELDS
from tincture.settings.fields import FieldSpec, specs_of
from tincture.webui.arguments import WebuiArguments

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def body_of(arguments: type[WebuiArguments]) -> dict[str, Any]:
    """What a route's ``openapi_extra`` says of a body that holds these arguments by name."""
    specs = specs_of(arguments)
    anything = {name: {"description": specs[name].help} for name in arguments.UNCHECKED if name in specs}
    schema = {
        "type": "object",
        "title": arguments.CALL,
        "properties": {name: anything.get(name) or _property(specs[name]) for name in arguments.ORDER},
        "required": [name for name in arguments.ORDER if specs[name].required],
        "additionalProperties": False,
    }
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


def _property(spec: FieldSpec) -> dict[str, Any]:
    default = list(spec.default) if spec.repeated else spec.default
    common = {"description": spec.help, **({} if spec.required else {"default": default})}
    if spec.repeated:
        return {"type": "array", "items": {"type": ["string", "integer"]}, **common}
    kinds = [_TYPES[spec.type], *(["number"] if spec.number else []), *([] if spec.required else ["null"])]
    choices = {"enum": [*spec.choices, None]} if spec.choices else {}
    return {"type": kinds, **choices, **common}


class InfoAnswer(BaseModel):
    """How something ended."""

    info: str = Field(description="As the webui words it.")
    remarks: list[str] = Field(
        default=[], description="What was done otherwise than asked for; the webui has no such field."
    )


class EmbeddingAnswer(BaseModel):
    """An embedding."""

    step: int | None = Field(description="Steps trained.")
    sd_checkpoint: str | None = Field(description="First digits of the hash of the model that it was trained on.")
    sd_checkpoint_name: str | None = Field(description="Name of that model.")
    shape: int = Field(description="Width of its vectors.")
    vectors: int = Field(description="How many tokens of a prompt it takes up.")


class Embeddings(BaseModel):
    """Embeddings by name."""

    loaded: dict[str, EmbeddingAnswer] = Field(description="Those that the model can use.")
    skipped: dict[str, EmbeddingAnswer] = Field(description="Those of other models.")


class HypernetworkAnswer(BaseModel):
    """A hypernetwork."""

    name: str
    path: str | None


class ModelAnswer(BaseModel):
    """A base model."""

    model_config = ConfigDict(protected_namespaces=())

    title: str = Field(description="To name it by, in options and override_settings.")
    model_name: str
    hash: str | None = Field(default=None, description="Of one that was used before; not computed for the list.")
    sha256: str | None = Field(default=None, description="The same in full.")
    filename: str
    config: str | None = None


class VaeAnswer(BaseModel):
    """A VAE in a file of its own."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    filename: str


class OptionsSet(BaseModel):
    """What became of options; the webui has no such answer."""

    remarks: list[str] = Field(description="Sentences, such as that an option changes nothing here.")


class SamplerAnswer(BaseModel):
    """A sampler."""

    name: str
    aliases: list[str]
    options: dict[str, str]


class SchedulerAnswer(BaseModel):
    """How a sampler's steps are spread."""

    name: str
    label: str
    aliases: list[str] | None = None
    default_rho: float | None = None
    need_inner_model: bool | None = None


class UpscalerAnswer(BaseModel):
    """Upscalers are not part of this server, so that there is none."""

    name: str


class Scripts(BaseModel):
    """Scripts are not part of this server, so that there is none."""

    txt2img: list[str] = []
    img2img: list[str] = []


class Memory(BaseModel):
    """Memory in bytes: ``total``, ``free``, ``used``, or ``error``."""

    ram: dict[str, Any]
    cuda: dict[str, Any]


class State(BaseModel):
    """What is being done."""

    skipped: bool = False
    interrupted: bool = Field(default=False, description="It was asked to stop, and will after its step.")
    job: str = Field(default="", description="Empty while nothing is done.")
    job_count: int = Field(default=0, description="Steps of a training, pictures of preprocessing, 1 for a drawing.")
    job_timestamp: str = Field(default="0", description="When it began: YYYYMMDDhhmmss, UTC.")
    job_no: int = Field(default=0, description="How many of job_count are done.")
    sampling_step: int = 0
    sampling_steps: int = 0


class Progress(BaseModel):
    """How far the server is with what it does."""

    progress: float = Field(description="From 0 to 1; 0 while nothing is done.")
    eta_relative: float = Field(description="Seconds left, as far as can be told.")
    state: State
    current_image: str | None = Field(default=None, description="The newest preview, PNG in base64.")
    textinfo: str | None = Field(default=None, description="The same for people.")


# NaN is left to the drawing's own check, as of every number of it
_GUIDANCE = {name: limit for name, limit in limits_of(REQUEST_FIELDS["guidance_scale"]).items() if name in ("ge", "le")}


class Txt2ImgRequest(BaseRequest):
    """What to draw. Further fields of the webui's are ignored where they change nothing, and refused where they would.

    What is left out is the model's own: size and guidance.
    """

    model_config = ConfigDict(extra="allow")

    prompt: str = Field(default="", description="Names embeddings, and hypernetworks as <hypernet:NAME:0.8>.")
    negative_prompt: str = ""
    seed: int = Field(default=-1, description="Of the first picture, the next have the next ones; -1: one by chance.")
    steps: Annotated[int, Field(**limits_of(REQUEST_FIELDS["steps"]))] = 20
    sampler_name: str | None = Field(default=None, description="A name of /samplers; Euler a where none is given.")
    sampler_index: str | int | None = Field(
        default=None, description="The same by its old name, or its place in /samplers, counted from 0."
    )
    scheduler: str | None = Field(default=None, description="A name of /schedulers.")
    cfg_scale: Annotated[float, Field(**_GUIDANCE)] | None = None
    width: int | None = Field(default=None, ge=8)
    height: int | None = Field(default=None, ge=8)
    batch_size: int | None = Field(default=None, ge=1, description="Pictures drawn at a time.")
    n_iter: int | None = Field(default=None, ge=1, description="How often.")
    override_settings: dict[str, Any] | None = Field(
        default=None,
        description="sd_model_checkpoint, sd_vae, CLIP_stop_at_last_layers and samples_save for this request; others "
        "are taken where they change nothing.",
    )
    override_settings_restore_afterwards: bool | None = Field(
        default=True, description="False: sd_model_checkpoint is kept as the option."
    )
    send_images: bool | None = True


class Drawn(BaseModel):
    """Pictures."""

    images: list[str] = Field(description="PNG in base64, each with its settings in the text chunk `parameters`.")
    parameters: dict[str, Any] = Field(description="The request.")
    info: str = Field(description="JSON: all_seeds, all_prompts, infotexts and what else the pictures were drawn by.")
    remarks: list[str] = Field(
        default=[], description="Sentences, such as that an embedding was left out; the webui has no such field."
    )


class PngInfoRequest(BaseRequest):
    """A picture whose text is asked for."""

    image: str = Field(description="PNG or WebP in base64, with or without data:image/png;base64, before it.")


class InterrogateRequest(BaseRequest):
    """A picture that is to be described."""

    image: str = Field(description="A picture in base64, with or without data:image/png;base64, before it.")
    model: str = Field(default="clip", description="clip: a sentence by BLIP; deepdanbooru: tags.")


class Caption(BaseModel):
    """What is on a picture."""

    caption: str


class PngInfo(BaseModel):
    """What a picture says of itself."""

    info: str = Field(description="The text; empty where it says nothing.")
    items: dict[str, str] = Field(description="All of its texts by their names.")
    parameters: dict[str, str] = Field(description="The text taken apart.")
