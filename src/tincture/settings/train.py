"""The settings of a training run: every default, help text and check in one place.

A field of `TrainSettings` is at once a command-line flag, a key of a TOML run file and a keyword of the Python API.
Only the standard library is imported, so that the command line can build its flags without loading torch.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tincture.errors import UsageError
from tincture.kinds.registry import AdapterKind, any_of, find_kind, for_each, kind_names
from tincture.randomness import LARGEST_REQUESTED_SEED
from tincture.settings.checks import (
    Bounds,
    at_least,
    cpu_threads,
    device_name,
    drawn_seed,
    filled,
    filled_each,
    filled_if_any,
    gigabytes,
    multiple_of_8,
    regular_expression,
    share,
    text_encoding,
)
from tincture.settings.drawing import Drawing
from tincture.settings.fields import CheckedSettings, FieldSpec, same_as, setting, specs_of
from tincture.settings.model_overrides import ModelChoice, ModelOverrides
from tincture.settings.schedule import Schedule
from tincture.workspace import MAX_NAME_LENGTH, clean_name


def _usual_weight_decay(kind: AdapterKind) -> str:
    return "the optimizer's own" if kind.weight_decay is None else f"{kind.weight_decay:g}"


def _name(value: str) -> str | None:
    try:
        clean_name(value)
    except UsageError:
        return f"made of letters, digits, blanks and . _ - only, and at most {MAX_NAME_LENGTH} characters long"
    return None


def _spike_threshold(value: float) -> str | None:
    return None if value == 0 or value > 1 else "0 or above 1"


_SIDES = Bounds("0 (chosen for you) or a multiple of 8", 0, multiple_of=8)
_ANY_STEPS = 10**12
"""No phase of a schedule lies beyond, so that all are seen."""
MOST_PIXELS = 8192
"""Of a side, in a request."""

MEMORY_SETTINGS: Mapping[str, Any] = types.MappingProxyType(
    {
        "offload": False,
        "slicing": False,
        "precision": "fp32",
        "gradient_checkpointing": False,
        "weight_storage": "same",
    }
)
"""Settings that decide on how much memory a run needs, with what they usually are; those that cost least come first."""

ADAPTER, OPTIMIZER, GUARDS, DATA, VALIDATION, MACHINE, OUTPUT, PREVIEW = (
    "What is trained",
    "Optimization",
    "Averages and guards",
    "Pictures and captions",
    "Validation",
    "Precision and device",
    "Copies and logs",
    "Previews",
)


@dataclass(frozen=True, kw_only=True)
class TrainSettings(CheckedSettings):
    """All settings of one run; immutable, checked when made.

    A learning rate or a clipping threshold is a schedule text ("0.005:100, 1e-3:1000, 1e-5"); a plain number is taken
    too. Paths are relative to the current directory.

    Raises:
        UsageError: naming every value that is not allowed, all in one message.
    """

    kind: str = setting(
        dataclasses.MISSING, ADAPTER, lambda: f"What is trained: {any_of(kind_names())}.", choices=kind_names
    )
    name: str = setting(
        dataclasses.MISSING,
        ADAPTER,
        lambda: f"Name of the {any_of(kind_names())}, made by create.",
        _name,
        strip=True,
    )

    model: str = same_as(ModelChoice, "model")
    vae: str = same_as(ModelChoice, "vae")
    family: Literal["auto", "sd1", "sd2", "sdxl"] = same_as(ModelChoice, "family")
    prediction_type: Literal["auto", "epsilon", "v_prediction"] = same_as(ModelChoice, "prediction_type")
    zero_terminal_snr: bool | None = same_as(ModelChoice, "zero_terminal_snr")

    data: str | tuple[str, ...] = setting(
        dataclasses.MISSING,
        DATA,
        "Folder of pictures; FOLDER:3 for each 3 times an epoch; repeat for several folders.",
        filled_each,
        path=True,
    )
    recursive: bool = setting(False, DATA, "Take the pictures in inner folders too.")
    folder_repeats: bool = setting(False, DATA, "A folder called 10_rex gives each of its pictures 10 times an epoch.")
    flip: bool = setting(False, DATA, "Train each picture mirrored left to right too.")
    width: int = setting(0, DATA, "Width in pixels; 0: the model's own size.", multiple_of_8, largest=MOST_PIXELS)
    height: int = setting(0, DATA, "Height in pixels; 0: the model's own size.", multiple_of_8, largest=MOST_PIXELS)
    resize: Literal["stretch", "crop"] = setting(
        "stretch", DATA, "Bring pictures of other proportions to width and height by stretching or by cropping."
    )
    varsize: bool = setting(False, DATA, "Keep each picture's own size; a batch holds pictures of one size.")
    buckets: bool = setting(
        False, DATA, "Crop each picture as little as sizes of the same area (width times height) allow."
    )
    bucket_step: int = setting(
        0, DATA, "Sides of buckets are multiples of this; 0: 64, or less for small models.", _SIDES, largest=MOST_PIXELS
    )
    bucket_min: int = setting(
        0, DATA, "Shortest side of a bucket in pixels; 0: half a square's.", _SIDES, largest=MOST_PIXELS
    )
    bucket_max: int = setting(
        0, DATA, "Longest side of a bucket in pixels; 0: twice a square's.", _SIDES, largest=MOST_PIXELS
    )
    small_pictures: Literal["enlarge", "skip"] = setting(
        "enlarge", DATA, "What becomes of pictures that are smaller than they are to be trained."
    )
    template: str = setting(
        "", DATA, lambda: f"Prompt template, by name or path; empty: {for_each(lambda kind: kind.template)}.", path=True
    )
    word_regex: str = setting(
        "",
        DATA,
        "Regular expression that finds the words of a caption in a file name.",
        regular_expression,
        largest=200,
    )
    join_string: str = setting(" ", DATA, "What joins the words found by --word-regex.")
    caption_encoding: str = setting(
        "utf-8", DATA, "Encoding of caption files that don't begin with a byte order mark.", text_encoding
    )
    shuffle_tags: bool = setting(False, DATA, "Shuffle a caption's comma-separated tags each time it is used.")
    keep_tags: int = setting(0, DATA, "So many first tags stay in their place and are never left out.", at_least(0))
    tag_drop_out: float = setting(0.0, DATA, "Probability of leaving out a tag each time it is used.", share)
    caption_drop_out: float = setting(
        0.0, DATA, "Probability of training a picture without its caption each time it is used.", share
    )
    latent_sampling_method: Literal["once", "deterministic", "random"] = setting(
        "once", DATA, "Latents of a picture: one sample kept, the mean, or a new sample at every use."
    )
    cache_dir: str = setting(
        "", DATA, "Folder that keeps the pictures' latents for later runs; empty: none are kept.", path=True
    )
    use_weight: bool = setting(False, DATA, "Weigh the loss by mask pictures, or by the pictures' alpha channel.")
    masks: str = setting(
        "", DATA, "Folder of mask pictures; empty: folders called mask beside the pictures.", path=True
    )
    unmasked_weight: float = setting(0.0, DATA, "What counts where a mask is black, when white counts 1.", share)
    attention_mask_weight: float = setting(
        0.0,
        DATA,
        "Weight of a loss that holds the attention to an embedding's name to the masks; 0: none.",
        at_least(0),
    )

    validation_data: str | tuple[str, ...] = setting(
        (),
        VALIDATION,
        "Folder of pictures that are not trained, to measure the loss on; repeat for several.",
        filled_if_any,
        path=True,
    )
    validation_share: float = setting(
        0.0, VALIDATION, "Part of the pictures in the data that is not trained, to measure the loss on; 0: none.", share
    )
    validation_every: int = setting(
        100,
        VALIDATION,
        "Steps between measurements of the loss on pictures that are not trained; 0: none.",
        at_least(0),
    )
    validation_pictures: int = setting(
        16,
        VALIDATION,
        "Pictures that are measured at most, of those for validation and of those that are trained.",
        at_least(1),
        largest=10**4,
    )
    validation_bands: int = setting(
        8,
        VALIDATION,
        "Bands of timesteps; each picture is measured at one timestep of each.",
        at_least(1),
        largest=1000,
    )
    early_stopping_patience: int = setting(
        0,
        VALIDATION,
        "End the run when so many measurements in a row were no better than the best one; 0: never.",
        at_least(0),
        largest=10**7,
    )

    steps: int = setting(
        1000, OPTIMIZER, "Optimizer steps in all, those of earlier runs included.", at_least(1), largest=10**7
    )
    learning_rate: str = setting(
        "",
        OPTIMIZER,
        lambda: f"Rate, or schedule 'rate:step, rate:step, rate'; empty: {for_each(lambda kind: kind.learning_rate)}.",
        number=True,
        largest=2000,
    )
    batch_size: int = setting(1, OPTIMIZER, "Pictures in a micro-batch.", at_least(1), largest=1024)
    gradient_accumulation_steps: int = setting(
        1, OPTIMIZER, "Micro-batches whose gradients make up one step.", at_least(1), largest=10**4
    )
    optimizer: str = setting("AdamW", OPTIMIZER, "Name of an optimizer of torch.optim.", filled)
    weight_decay: float | None = setting(
        None, OPTIMIZER, lambda: f"Weight decay; not given: {for_each(_usual_weight_decay)}.", at_least(0)
    )
    clip_grad_mode: Literal["none", "value", "norm"] = setting("none", OPTIMIZER, "How gradients are clipped.")
    clip_grad_value: str = setting(
        "0.1", OPTIMIZER, "Clipping threshold, or its schedule 'value:step, value'.", filled, number=True, largest=2000
    )
    clip_skip: int = same_as(Drawing, "clip_skip", group=OPTIMIZER)
    seed: int = setting(
        0,
        OPTIMIZER,
        "Every random draw of the run depends on this number.",
        at_least(0),
        largest=LARGEST_REQUESTED_SEED,
    )

    ema: str = setting(
        "",
        GUARDS,
        "Publish exponential averages of the trained weights: their decay, such as 0.999, or its schedule 'decay:step, "
        "decay'; empty: none.",
        number=True,
        largest=2000,
    )
    ema_warmup: bool = setting(True, GUARDS, "The decay after n steps is at most (1 + n) / (10 + n).")
    ema_publish: Literal["average", "raw"] = setting(
        "average",
        GUARDS,
        "Which weights the file, copies and previews show; the others stand beside, as NAME-raw or NAME-average.",
    )
    on_divergence: Literal["stop", "skip", "rollback"] = setting(
        "stop",
        GUARDS,
        "What becomes of a step whose loss or gradients are NaN or infinite: the run stops, the step is left out, or "
        "the run goes back to its last state with a lower rate.",
    )
    divergence_limit: int = setting(
        3, GUARDS, "How often steps may be skipped or gone back from; then the run stops.", at_least(1), largest=10**6
    )
    rollback_factor: float = setting(
        0.5, GUARDS, "Going back multiplies the learning rate by this.", Bounds("above 0 and below 1", 1e-6, below=1)
    )
    spike_threshold: float = setting(
        0.0,
        GUARDS,
        "A loss over so many times the mean of the 32 before is a divergence too; 0: none is.",
        _spike_threshold,
    )
    overflow_limit: int = setting(
        20, GUARDS, "So many steps in a row whose float16 gradients overflow stop the run.", at_least(1), largest=1000
    )

    device: str = setting("auto", MACHINE, "auto, cpu, cuda, cuda:N, mps, xpu.", device_name)
    threads: int = setting(
        0,
        MACHINE,
        "CPU threads to compute with; 0: as many as there are cores to use, or what OMP_NUM_THREADS says.",
        cpu_threads,
    )
    vram: str = setting(
        "off",
        MACHINE,
        "Choose those of the settings below that are not given, so that the run fits: auto (what the device has free), "
        "or its gigabytes; off: none is chosen.",
        gigabytes,
        number=True,
    )
    offload: bool | None = setting(
        None, MACHINE, "Text encoders and VAE leave the device while they rest; not given: no."
    )
    slicing: bool | None = setting(
        None,
        MACHINE,
        "Encode and draw pictures one at a time, and in tiles where larger than the model's own size; not given: no.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto", MACHINE, "Precision of the frozen model; auto: fp32, unless --vram chooses another."
    )
    gradient_checkpointing: bool | None = setting(
        None, MACHINE, "Less memory for about a third more time; not given: no."
    )
    weight_storage: Literal["auto", "same", "float8"] = setting(
        "auto", MACHINE, "Keep the U-Net's weights in 8 bits each; auto: same (as they compute), unless --vram chooses."
    )

    log_dir: str = setting("", OUTPUT, "Folder for run folders; empty: textual_inversion in the workspace.", path=True)
    save_every: int = setting(500, OUTPUT, "Steps between copies of the adapter; 0: none.", at_least(0))
    keep_copies: int = setting(0, OUTPUT, "Keep only so many of the newest copies; 0: all.", at_least(0))
    keep_copies_every: int = setting(
        0, OUTPUT, "Keep copies whose step is a multiple of this too; 0: none of them.", at_least(0)
    )
    keep_states: int = setting(
        2, OUTPUT, "Keep so many of the newest training states, which a resume begins from.", at_least(1)
    )
    keep_states_every: int = setting(
        0, OUTPUT, "Keep states whose step is a multiple of this too; 0: none of them.", at_least(0)
    )
    save_optimizer_state: bool = setting(
        False,
        OUTPUT,
        "Keep the optimizer's state beside the finished file and its copies, for a later training.",
    )
    author: str = setting("", OUTPUT, "Who made it, kept in the finished file.")
    license: str = setting("", OUTPUT, "Licence of the finished file, kept in it.")
    log_every: int = setting(
        10,
        OUTPUT,
        "Steps between readings of the losses from the device, which a NaN is noticed by; the log has each step.",
        at_least(1),
    )
    tensorboard: bool = setting(False, OUTPUT, "Write TensorBoard logs too (needs tincture[tensorboard]).")

    preview_every: int = setting(500, PREVIEW, "Steps between previews; 0: none.", at_least(0))
    preview_prompts: tuple[str, ...] = setting(
        (), PREVIEW, "Prompt of a preview; repeat for several. Not given: a prompt of the data.", most_items=64
    )
    preview_negative_prompt: str = same_as(Drawing, "negative_prompt", group=PREVIEW)
    preview_steps: int = same_as(Drawing, "steps", group=PREVIEW)
    preview_sampler: str = same_as(Drawing, "sampler", group=PREVIEW)
    preview_guidance_scale: float | None = same_as(Drawing, "guidance_scale", group=PREVIEW)
    preview_seed: int = setting(0, PREVIEW, "Seed of the previews.", drawn_seed, largest=LARGEST_REQUESTED_SEED)
    preview_width: int = setting(
        0, PREVIEW, "Width of the previews in pixels; 0: that of --width.", _SIDES, largest=MOST_PIXELS
    )
    preview_height: int = setting(
        0, PREVIEW, "Height of the previews in pixels; 0: that of --height.", _SIDES, largest=MOST_PIXELS
    )
    preview_with_embedding: bool = setting(
        False, PREVIEW, "Save the first preview once more as a PNG card that holds the embedding, in image_embeddings."
    )

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        sound = {name: value for name, value in values.items() if name not in faulty}
        faults = [*_data_faults(sound), *_validation_faults(sound), *_kind_faults(sound)]
        faults += [*_preview_faults(sound), *_output_faults(sound)]
        return faults + ([] if "steps" in faulty else _schedule_faults(sound))

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of pictures, as `data` says them."""
        return (self.data,) if isinstance(self.data, str) else self.data

    @property
    def validation_folders(self) -> tuple[str, ...]:
        """The folders of pictures for validation, as `validation_data` says them."""
        folders = (self.validation_data,) if isinstance(self.validation_data, str) else self.validation_data
        return tuple(folder for folder in folders if folder)

    def overrides(self) -> ModelOverrides:
        """What counts instead of what the model's files say."""
        return ModelOverrides.of(self)

    def resolved(self) -> TrainSettings:
        """A copy in which what depends on the kind (rate, template, weight decay) is filled in.

        So is what is left open of `MEMORY_SETTINGS`, unless `vram` asks for a choice.
        """
        kind = find_kind(self.kind)
        return self.replace(
            **(self.open_memory_settings() if self.vram == "off" else {}),
            learning_rate=self.learning_rate or kind.learning_rate,
            template=self.template or kind.template,
            weight_decay=kind.weight_decay if self.weight_decay is None else self.weight_decay,
        )

    @property
    def last_step(self) -> int:
        """The step that ends the run: as in the webui, it may be the end of the learning rate's schedule."""
        rate = self.learning_rate or find_kind(self.kind).learning_rate
        return min(self.steps, Schedule.parse(rate, self.steps).end_step)

    def open_memory_settings(self) -> dict[str, Any]:
        """Those of `MEMORY_SETTINGS` that were not given, with what they usually are."""
        return {name: usual for name, usual in MEMORY_SETTINGS.items() if getattr(self, name) in (None, "auto")}


FIELDS: Mapping[str, FieldSpec] = specs_of(TrainSettings)


def _data_faults(values: Mapping[str, Any]) -> list[str]:
    faults = []
    if values.get("varsize") and values.get("buckets"):
        faults.append("varsize and buckets are both on, but a picture has its own size or a bucket's; give one of them")
    if 0 < values.get("bucket_max", 0) < values.get("bucket_min", 0):
        faults.append(f"bucket_min is {values['bucket_min']}, but must be at most bucket_max, {values['bucket_max']}")
    attention = values.get("attention_mask_weight")
    if values.get("masks") and not values.get("use_weight") and not attention:
        faults.append(
            f"masks is {values['masks']!r}, but use_weight is off and attention_mask_weight is 0, so that no mask "
            "would count; give one of them"
        )
    return faults


def _validation_faults(values: Mapping[str, Any]) -> list[str]:
    data, part = values.get("validation_data"), values.get("validation_share")
    patience, faults = values.get("early_stopping_patience"), []
    if data and part:
        faults.append(
            f"validation_data is {data!r} and validation_share is {part:g}, but the pictures for validation come from "
            "folders of their own or from the data; give one of them"
        )
    asked = {"validation_data": data, "validation_share": part, "early_stopping_patience": patience}
    for name, value in asked.items():
        if value and values.get("validation_every") == 0:
            faults.append(
                f"{name} is {value!r}, but validation_every is 0, so that nothing would be measured; leave one out"
            )
    return faults


def _kind_faults(values: Mapping[str, Any]) -> list[str]:
    """None before the kind is known."""
    return find_kind(values["kind"]).faults(values) if "kind" in values else []


def _preview_faults(values: Mapping[str, Any]) -> list[str]:
    has_card = "kind" not in values or find_kind(values["kind"]).has_card
    if values.get("preview_with_embedding") and values.get("preview_every") == 0 and has_card:
        return ["preview_with_embedding is on, but preview_every is 0, so that there is no preview; leave one out"]
    return []


def _output_faults(values: Mapping[str, Any]) -> list[str]:
    faults = []
    if values.get("ema_publish", "average") == "raw" and not values.get("ema"):
        faults.append("ema_publish is 'raw', but ema is empty, so that no weights are averaged; give both or neither")
    if values.get("keep_copies_every") and not values.get("keep_copies"):
        faults.append("keep_copies_every is given, but keep_copies is 0, so that all copies are kept; give both")
    return faults


def _schedule_faults(values: Mapping[str, Any]) -> list[str]:
    steps = values.get("steps", FIELDS["steps"].default)
    schedules = ("learning_rate", "clip_grad_value", "ema")
    texts = {name: values[name] for name in schedules if values.get(name)}
    return [fault for name, text in texts.items() if (fault := _schedule_fault(name, text, steps))]


def _schedule_fault(name: str, text: str, steps: int) -> str | None:
    try:
        Schedule.parse(text, steps)
    except UsageError as error:
        return f"{name}: {str(error).rstrip('.')}"
    if name == "ema" and any(phase.rate >= 1 for phase in Schedule.parse(text, _ANY_STEPS).phases):
        return f"ema is {text!r}, but a decay must be below 1; usual ones are 0.99 to 0.9999"
    return None
