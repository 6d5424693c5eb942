"""What requests and answers hold, as OpenAPI describes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from tincture.kinds.registry import AdapterKind, kind_names
from tincture.run.duration import Timing
from tincture.server.api_v1.request_models import BaseRequest, limits_of, option_field, with_fields
from tincture.server.queue.jobs import HIGHEST_PRIORITY, MOST_CPUS, MOST_GPUS, JobKind, JobState, Lane, Wanted
from tincture.settings.conversion import CONVERSION_FIELDS, INSPECTION_FIELDS
from tincture.settings.drawing import REQUEST_FIELDS
from tincture.settings.fields import FieldSpec
from tincture.settings.merging import MERGE_FIELDS

Text = Annotated[str, Field(max_length=10_000)]
Name = Annotated[str, Field(max_length=200)]
if TYPE_CHECKING:
    KindName = str
else:
    KindName = Literal[kind_names()]


class Request(BaseRequest):
    """A request's body: keys that it does not know are refused, and null stands for what is left out."""

    model_config = ConfigDict(extra="forbid")


# --- jobs ------------------------------------------------------------------------------------------------------------


class JobTurn(Request):
    """When and where a job is done."""

    priority: int = Field(0, ge=-HIGHEST_PRIORITY, le=HIGHEST_PRIORITY, description="The higher, the sooner.")
    timeout_s: float | None = Field(
        None,
        gt=0,
        le=10**7,
        allow_inf_nan=False,
        description="Seconds of running after which it is stopped, saved and failed; not given: the server's.",
    )
    device: str = Field("", max_length=40, description="One of the server's devices; empty: any.")
    gpus: int | None = Field(
        None,
        ge=0,
        le=MOST_GPUS,
        description="GPUs of one machine that it has for itself, where jobs run on a cluster; not given: one, if there "
        "are any that it may use.",
    )
    cpus: int | None = Field(
        None,
        ge=1,
        le=MOST_CPUS,
        description="Processors of that machine, which are its CPU threads; not given: one for each GPU, at least one.",
    )


class JobRequest(JobTurn):
    """A job to be done."""

    kind: JobKind = Field(description="train: an adapter that exists; preprocess: a folder of pictures.")
    settings: dict[str, Any] = Field(
        description="What /settings/train or /settings/preprocess list, by name; relative paths start at the "
        "workspace. What is left out has its default.",
        examples=[{"kind": kind_names()[0], "name": "rex", "data": "datasets/rex", "steps": 500}],
    )


class JobMove(Request):
    """A waiting job's new turn."""

    priority: int | None = Field(None, ge=-HIGHEST_PRIORITY, le=HIGHEST_PRIORITY, description="Its new priority.")
    before: str | None = Field(None, max_length=100, description="Id of a waiting job that it shall run before.")


class JobAnswer(BaseModel):
    """A job as it stands. Times are seconds since 1970, UTC."""

    id: str = Field(description="Sorts by the time of submission.")
    kind: JobKind
    name: str = Field(description="Of the adapter, or of the folder that crops go to.")
    settings: dict[str, Any] = Field(description="All settings, defaults included; paths are absolute.")
    lane: Lane = Field(
        description="Jobs of one lane take turns, those of the other run beside them; in that of preprocessing is what "
        "loads no model onto a device."
    )
    state: JobState
    priority: int
    position: float = Field(description="Among jobs of one priority, the lowest is next.")
    device: str = Field(description="What it runs, ran or must run on; empty: any. On a cluster, the machine.")
    gpus: int | None = Field(description="What it asked for of one machine of a cluster.")
    cpus: int | None = Field(description="The same of its processors.")
    timeout_s: float | None
    source: str = Field(description="Who submitted it: api, page or webui.")
    wanted: Wanted | None = Field(description="What it was asked to become while it runs.")
    created_at: float
    started_at: float | None = Field(description="When it last began to run.")
    ended_at: float | None = Field(description="When it last stopped running.")
    attempts: int = Field(description="How often it was begun, or gone on with.")
    run_dir: str | None = Field(description="The training's folder: with it, the job goes on where it stopped.")
    global_step: int = Field(description="How far it is: steps of a training, pictures of preprocessing.")
    steps: int = Field(description="Where it will end; 0: not known yet.")
    progress: float = Field(description="From 0 to 1.")
    stage: str = Field(description="What it does besides its steps, or waits for; empty while it makes steps.")
    loss: float | None = Field(description="Mean over the window of the latest steps.")
    learning_rate: float | None
    eta_s: float | None = Field(description="Seconds that are left, as far as can be told.")
    result: dict[str, Any] = Field(
        description="Of a job that is done. A training: adapter_path, run_dir, global_step, loss, interrupted, "
        "ending, seconds, overflows (steps made again), divergences (steps skipped or gone back from), "
        "best_path, companions (kind, name, adapter_path, best_path of each further adapter). Preprocessing: "
        "destination, report, counts, seconds."
    )
    preview: str = Field(description="Path of the first picture of the latest preview; empty while there is none.")
    outcome: str = Field(description="Of a job that is done: done, stopped, ended early or nothing to do; else empty.")
    ending: str = Field(description="Of a job that is done without all its steps: why, a sentence; else empty.")
    error: str = Field(description="Of a job that failed: a sentence.")
    error_type: str = Field(description="Of a job that failed: the name of the error's class.")
    sweep: str = Field(description="Of a run of a sweep: NAME/RUN; else empty.")


class JobList(BaseModel):
    """Running jobs, waiting ones in the order of their turns, then those that have ended, the latest first."""

    jobs: list[JobAnswer]
    total: int = Field(description="How many there are of those that were asked for.")


class LogPart(BaseModel):
    """A piece of a job's log."""

    text: str
    next: int = Field(description="What to give as since to read what is added later.")


class Metric(BaseModel):
    """One step of a training; a number that was not finite is null."""

    global_step: int = Field(description="Counts from 1.")
    epoch: int = Field(description="Counts from 0.")
    epoch_step: int = Field(description="Counts from 0.")
    loss: float | None
    learning_rate: float | None
    effective_rate: float | None = Field(
        None,
        description="The rate by an optimizer that finds its own, such as Prodigy; null where it is learning_rate.",
    )
    further: dict[str, float] = Field(
        {},
        description="More numbers by name: the rates of adapters that are trained together with the first, "
        "learn_rate KIND:NAME, vector_norm, the longest vector's as a multiple of that of tokens, and logged norms.",
    )


class Metrics(BaseModel):
    """Steps of a training, oldest first."""

    metrics: list[Metric]
    next: int | None = Field(None, description="What to give as since_step for those that follow; null: that is all.")


class Measurement(BaseModel):
    """What a training measured at a step, on fixed noise; a number that was not finite is null."""

    global_step: int
    loss: float | None = Field(description="Of pictures for validation, which are not trained.")
    error: float | None = Field(description="Its standard error.")
    training_loss: float | None = Field(description="Of pictures that are trained.")
    training_error: float | None
    best_step: int | None = Field(description="The step with the lowest loss so far.")
    best_loss: float | None


class Measurements(BaseModel):
    """All that a training measured, by step."""

    validations: list[Measurement]


class Preview(BaseModel):
    """A preview picture."""

    name: str
    step: int = Field(description="Step after which it was drawn.")
    prompt: str = Field(description="What was drawn; empty for previews of workers that did not report it.")
    url: str


class Previews(BaseModel):
    """Preview pictures of a training, oldest first."""

    previews: list[Preview]
    contact_sheet: str | None = Field(description="Address of the sheet with all of them, once there is one.")


class PlanRequest(Request):
    """A training to be looked at before it is begun."""

    kind: Literal["train"] = "train"
    settings: dict[str, Any] = Field(description="As of a job.")
    timing: Timing = Field(
        "measure",
        description="measure: how long it will take is measured, unless it is known or a job runs; known: it is told "
        "if it is known; none: it is left out.",
    )


class PlannedDuration(BaseModel):
    """How long a training will take; null where that is not known."""

    seconds: float | None = Field(description="In all, without loading the model.")
    step_s: float | None = Field(description="Seconds of a step.")
    preview_s: float | None = Field(description="Seconds of a preview, with all its pictures.")
    previews: int = Field(description="How many previews there will be.")
    validation_s: float | None = Field(description="Seconds of a validation.")
    validations: int = Field(description="How many validations there will be.")
    encoding_s: float | None = Field(description="Seconds of encoding the pictures.")
    measured: Literal["now", "earlier", "no"]
    description: str = Field(description="The same for people.")


class PlannedModel(BaseModel):
    """The base model of a plan."""

    name: str
    hash: str | None
    family: str
    inpainting: bool
    predicts: str
    chosen: str | None = Field(None, description="Why it is that one, where none was named.")


class Bucket(BaseModel):
    """Pictures that get the same size."""

    size: str = Field(description="WIDTHxHEIGHT in pixels.")
    pictures: int
    cropped: float = Field(description="What part of a picture is cut off on average, from 0 to 1.")


class PlannedDevice(BaseModel):
    """What a training is planned for."""

    name: str = Field(description="What people call it.")
    memory_mib: float | None = Field(description="Its memory, of a CPU the machine's.")


class Plan(BaseModel):
    """What a training would do."""

    settings: dict[str, Any]
    model: PlannedModel
    pictures: int
    samples_per_epoch: int
    chosen_by_default: dict[str, str] | None = Field(None, description="Settings that were not given: value and why.")
    skipped: dict[str, str] = Field(description="Files that are left out, and why.")
    remarks: list[str]
    buckets: list[Bucket]
    micro_batches_per_epoch: int
    schedules: dict[str, str] | None = Field(
        None, description="By setting, what changes from step to step: in words, and as bars of its values."
    )
    steps: int = Field(description="Steps that remain.")
    epochs: float
    trained_numbers: int
    memory_mib: dict[str, float] = Field(description="peak, then the most of each phase and of each part.")
    device: PlannedDevice | None = None
    processes: int | None = Field(None, description="That compute it together, where there are several.")
    chosen_for_memory: dict[str, Any] | None = Field(None, description="Settings that vram chose.")
    duration: PlannedDuration | None = None


# --- adapters, pictures, data sets -----------------------------------------------------------------------------------


def adapter_request(kind: AdapterKind) -> type[Request]:
    """The body that asks for a new adapter of this kind."""
    model = f"Base model {kind.model_use}; empty: the default one, see docs/models.md."
    fields: dict[str, Any] = {
        "name": (Name, ...),
        "model": (Name, Field("", description=model)),
        **{option.name: option_field(option) for option in kind.options},
        "overwrite": (bool, Field(False, description="Replace one of the same name.")),
    }
    words = "".join(word.capitalize() for word in kind.name.split("-"))
    made: type[Request] = create_model(
        f"{words}Request", __base__=Request, __module__=__name__, __doc__=f"A new {kind.name}.", **fields
    )
    return made


class Adapter(BaseModel):
    """A file of an embedding or hypernetwork."""

    kind: KindName
    name: str
    path: str = Field(description="From the workspace.")
    size: int = Field(description="Bytes.")
    mtime: float = Field(description="When it was last written, in seconds since 1970.")
    url: str = Field(description="Address of what is in it; with /download behind it, of the file.")


class Adapters(BaseModel):
    """Adapters of the workspace."""

    adapters: list[Adapter]


class AdapterDetails(BaseModel):
    """An adapter, and what its file says."""

    adapter: Adapter
    file: dict[str, Any] = Field(description="As `tincture inspect --json` tells it; see docs/files.md.")


@with_fields(REQUEST_FIELDS, required=["prompts"], open_ones={"model": "the default one, see docs/models.md"})
class PictureRequest(Request):
    """Pictures to be drawn: each prompt with each seed, or one sheet of one prompt and one seed."""


class DrawnPicture(BaseModel):
    """A picture that was drawn."""

    name: str
    url: str


class DrawnPictures(BaseModel):
    """Pictures that were drawn; settings stand in their PNG text."""

    pictures: list[DrawnPicture]
    remarks: list[str] = Field(description="Sentences, such as that an embedding does not fit and was left out.")


class DrawingProgress(BaseModel):
    """How far the drawing at hand is."""

    done: int = Field(description="Sampling steps.")
    total: int = Field(description="0 while nothing is drawn.")


# --- files ------------------------------------------------------------------------------------------------------------


@with_fields(INSPECTION_FIELDS, required=["path"])
class InspectionBody(Request):
    """A file to be looked into."""


class FileReport(BaseModel):
    """What a file is."""

    file: dict[str, Any] = Field(description="As `tincture inspect --json` tells it; see docs/files.md.")


@with_fields(CONVERSION_FIELDS, required=["path", "out"])
class ConversionBody(Request):
    """An adapter file to be written in another format."""


class Written(BaseModel):
    """The file that was written."""

    path: str = Field(description="From the workspace.")
    kind: str
    format: str
    name: str = Field(description="Of the adapter.")


class Converted(Written):
    """The file that was written."""

    lost: list[str] = Field(description="What the file does not hold, as sentences.")
    lora: dict[str, Any] | None = Field(None, description="Of a LoRA: how near it comes to the hypernetwork.")


@with_fields(MERGE_FIELDS, required=["sources", "out"])
class MergeBody(Request):
    """Adapter files to be made one, or one to be made weaker, stronger or smaller."""


class Merged(Written):
    """The file that was written."""

    method: str
    exact: bool = Field(description="Whether it does what was asked for up to rounding.")
    sources: list[dict[str, Any]] = Field(description="Name, weight, sha256 and step of each file.")
    widths: list[int] | None = Field(None, description="Of a hypernetwork.")
    layer_structure: list[float] | None = Field(None, description="Of a hypernetwork.")
    parameters: int | None = Field(None, description="Numbers of a hypernetwork.")
    differences: dict[int, float] | None = Field(
        None, description="By width, how far the effect on random contexts is off the one asked for, relative to it."
    )
    lost: list[str] = Field(description="What of the files is not in the new one, as sentences.")


# --- what there is ---------------------------------------------------------------------------------------------------


class BaseModelAnswer(BaseModel):
    """A base model."""

    name: str = Field(description="What requests call it by.")
    title: str
    path: str = Field(description="From the workspace; empty: it comes with Tincture.")


class BaseModels(BaseModel):
    """Base models; docs/models.md says which one is taken where none is named."""

    models: list[BaseModelAnswer]


class Names(BaseModel):
    """Names to choose from."""

    names: list[str]


class Setting(BaseModel):
    """A setting of jobs, with all that a form needs."""

    name: str
    group: str = Field(description="The heading that it stands under.")
    help: str = Field(description="One sentence.")
    type: Literal["bool", "int", "float", "str"] = Field(description="Of each item, where it is repeated.")
    default: bool | int | float | str | list[str] | list[float] | None
    required: bool = Field(description="Whether it must be given.")
    optional: bool = Field(description="Whether it may be null.")
    repeated: bool = Field(description="Whether it is a list.")
    choices: list[str] = Field(description="All that is allowed; empty: not only some values are.")
    minimum: float | None = Field(None, description="Of a number, or of each in a list; null: any, and of texts.")
    maximum: float | None = Field(None, description="The largest that this server takes, in the same way.")

    @classmethod
    def of(cls, spec: FieldSpec) -> Setting:
        """The setting as OpenAPI knows it."""
        plain = list(spec.default) if isinstance(spec.default, tuple) else spec.default
        same = {name: getattr(spec, name) for name in ("name", "group", "help", "required", "optional", "repeated")}
        limits = limits_of(spec)
        return cls(
            **same,
            type=spec.type.__name__,  # type: ignore[arg-type]
            default=plain,
            choices=list(spec.choices),
            minimum=limits.get("ge"),
            maximum=limits.get("le", limits.get("lt")),
        )


class Settings(BaseModel):
    """Settings of a kind of job, in order."""

    settings: list[Setting]

    @classmethod
    def of(cls, specs: Mapping[str, FieldSpec]) -> Settings:
        """All of a settings class."""
        return cls(settings=[Setting.of(spec) for spec in specs.values()])


class Interrupted(BaseModel):
    """What was asked to stop."""

    jobs: list[JobAnswer]


class About(BaseModel):
    """The server."""

    version: str
    root: str = Field(description="The workspace's folder.")
    devices: list[str]
    jobs: dict[str, int] = Field(description="How many jobs are in each state.")
    extensions: list[str]
    uptime_s: float
