"""The arguments of the reference's calls: names, order, defaults, help and checks, in one place.

The names are the webui's, as are the messages about them. Nothing heavy is imported, so that a server checks requests
at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

from tincture.errors import UsageError, shortened
from tincture.kinds.layer_structure import check_dropout_structure, check_layer_structure, numbers
from tincture.models.samplers import SAMPLERS
from tincture.settings.checks import Bounds, at_least, filled, multiple_of_8, overlap, part, share, side
from tincture.settings.fields import CheckedSettings, FieldSpec, setting, specs_of
from tincture.settings.schedule import Schedule

ADAPTER, DATA, OPTIMIZER, OUTPUT, PREVIEW, SIZE, CROPS, CAPTIONS = (
    "What is trained",
    "Pictures and captions",
    "Optimization",
    "Copies and logs",
    "Previews",
    "Size and tiles",
    "Crops",
    "Captions",
)
MOST_VECTORS = 75
"""Vectors that an embedding may have: what one chunk of a prompt has room for."""


_OFF = (None, False, "", "disabled")


@dataclass(frozen=True, kw_only=True)
class WebuiArguments(CheckedSettings):
    """Arguments of one of the reference's calls; the base of all below.

    Raises:
        UsageError: naming every value that is not allowed, all in one message.
    """

    CALL: ClassVar[str]
    """The call's name."""
    ORDER: ClassVar[tuple[str, ...]]
    """All arguments, in the order in which they may be given by position."""
    UNCHECKED: ClassVar[frozenset[str]] = frozenset()
    """Arguments, of today and of earlier years, on which nothing depends: any value is taken, and forgotten."""
    EARLIER_NAMES: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """What the reference called its arguments in earlier years → their names of today."""
    SWITCHES: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Arguments that count only where another one is on → that one. Where it is off, they are not checked."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Arguments by name, as JSON gives them; None stands for what is not given.

        Raises:
            UsageError: for unknown, missing and wrong ones; an unknown one is told with the nearest that is known.
        """
        specs = specs_of(cls)
        given = {
            name: _as_meant(specs[name], value) if name in specs else value
            for name, value in cls.in_names_of_today(values).items()
        }
        return cls.from_dict(given, source=cls.CALL)

    @classmethod
    def in_names_of_today(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments that are given and count, by today's names; UsageError for one that is given by two names."""
        given = cls._renamed(values)
        return {name: value for name, value in given.items() if not cls._is_switched_off(name, given)}

    @classmethod
    def _is_switched_off(cls, name: str, given: Mapping[str, Any]) -> bool:
        return name in cls.SWITCHES and given.get(cls.SWITCHES[name]) in _OFF

    @classmethod
    def _renamed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for name, value in values.items():
            if value is None or name in cls.UNCHECKED:
                continue
            today = cls.EARLIER_NAMES.get(name, name)
            if today in given:
                raise UsageError(f"{cls.CALL} was given {today} twice: also by its earlier name {name}; leave one out.")
            given[today] = value
        return given

    @classmethod
    def of_call(cls, positional: Sequence[Any], named: Mapping[str, Any]) -> Self:
        """Arguments as a call gives them; UsageError as ``of``, and for too many or doubled ones."""
        if len(positional) > len(cls.ORDER):
            raise UsageError(f"{cls.CALL} takes {len(cls.ORDER)} arguments, but {len(positional)} were given.")
        placed = dict(zip(cls.ORDER, positional, strict=False))
        if twice := placed.keys() & named.keys():
            raise UsageError(f"{cls.CALL} was given {', '.join(sorted(twice))} both by position and by name.")
        return cls.of({**placed, **named})


def _as_meant(spec: FieldSpec, value: Any) -> Any:
    """The spellings that the reference's clients use: 1.0 for 1, 0 for False and the reverse, lists for "1, 2, 1"."""
    if spec.type is bool and not isinstance(value, str | bool) and value in (0, 1):
        return bool(value)
    if spec.type is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if spec.type is float and value is False:  # its signature calls the probability of dropping tags a bool
        return 0.0
    if spec.repeated and isinstance(value, list | tuple):
        whole = [int(item) if isinstance(item, float) and item.is_integer() else item for item in value]
        return tuple(str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in whole)
    if spec.type is str and isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return value


_SEED = Bounds("-1 (one by chance) or from 0 to 4294967295", -1, 2**32 - 1)


def _clip_mode(value: str) -> str | None:
    return None if value in ("disabled", "", "value", "norm") else "disabled, value or norm"


_VECTORS = Bounds(f"from 1 to {MOST_VECTORS}", 1, MOST_VECTORS)


def _widths(values: tuple[str, ...]) -> str | None:
    sound = all(value.strip().isascii() and value.strip().isdigit() and 0 < int(value) <= 8192 for value in values)
    return None if sound else "a list of context widths, such as 768, 320, 640, 1280"


# --- create ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CreateEmbedding(WebuiArguments):
    """What ``create_embedding`` takes."""

    CALL = "create_embedding"
    ORDER = ("name", "num_vectors_per_token", "overwrite_old", "init_text")
    EARLIER_NAMES = MappingProxyType({"initialization_text": "init_text", "nvpt": "num_vectors_per_token"})

    name: str = setting(dataclasses.MISSING, ADAPTER, "Its name; also the file's name.", filled)
    num_vectors_per_token: int = setting(1, ADAPTER, "Number of vectors: tokens it stands for.", _VECTORS)
    overwrite_old: bool = setting(False, ADAPTER, "Replace an existing file of that name.")
    init_text: str = setting("*", ADAPTER, "Text whose tokens it starts from; empty: zeros.")


@dataclass(frozen=True, kw_only=True)
class CreateHypernetwork(WebuiArguments):
    """What ``create_hypernetwork`` takes."""

    CALL = "create_hypernetwork"
    ORDER = (
        "name",
        "enable_sizes",
        "overwrite_old",
        "layer_structure",
        "activation_func",
        "weight_init",
        "add_layer_norm",
        "use_dropout",
        "dropout_structure",
    )
    SWITCHES = MappingProxyType({"dropout_structure": "use_dropout"})

    name: str = setting(dataclasses.MISSING, ADAPTER, "Its name; also the file's name.", filled)
    enable_sizes: tuple[str, ...] = setting(
        (), ADAPTER, "Context widths that get a pair of modules, such as 768 and 320; none: all of the model.", _widths
    )
    overwrite_old: bool = setting(False, ADAPTER, "Replace an existing file of that name.")
    layer_structure: str = setting("1, 2, 1", ADAPTER, "Widths of the layers as factors; first and last must be 1.")
    activation_func: str | None = setting(
        None, ADAPTER, "Activation between layers: linear, relu, swish, mish, ...; not given: linear."
    )
    weight_init: str | None = setting(
        None, ADAPTER, "Normal, XavierUniform, XavierNormal, KaimingUniform or KaimingNormal; not given: Normal."
    )
    add_layer_norm: bool = setting(False, ADAPTER, "Add a layer norm behind each layer.")
    use_dropout: bool = setting(False, ADAPTER, "Use dropout: that of dropout_structure, else 0.3 after inner layers.")
    dropout_structure: str | None = setting(
        None, ADAPTER, "Dropout per entry of the structure, such as 0, 0.3, 0; counts only with use_dropout."
    )

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        sound = {name: value for name, value in values.items() if name not in faulty and value is not None}
        structure = sound.get("layer_structure", specs_of(cls)["layer_structure"].default)
        if "layer_structure" in faulty:
            return []
        try:
            factors = numbers("layer structure", structure)
            check_layer_structure(factors)
        except UsageError as error:
            return [f"layer_structure: {str(error).rstrip('.')}"]
        try:
            if sound.get("use_dropout") and (dropout := sound.get("dropout_structure")):
                check_dropout_structure(numbers("dropout structure", dropout), factors)
        except UsageError as error:
            return [f"dropout_structure: {str(error).rstrip('.')}"]
        return []


# --- train -----------------------------------------------------------------------------------------------------------


_BEFORE: tuple[str, ...] = (
    *("learn_rate", "batch_size", "gradient_step", "data_root", "log_directory", "training_width", "training_height"),
    *("varsize", "steps", "clip_grad_mode", "clip_grad_value", "shuffle_tags", "tag_drop_out"),
    *("latent_sampling_method", "use_weight", "create_image_every"),
)
_PREVIEW: tuple[str, ...] = (
    *("preview_from_txt2img", "preview_prompt", "preview_negative_prompt", "preview_steps", "preview_sampler_name"),
    *("preview_cfg_scale", "preview_seed", "preview_width", "preview_height"),
)


@dataclass(frozen=True, kw_only=True)
class TrainArguments(WebuiArguments):
    """What both trainings take; relative paths start at the workspace."""

    KIND: ClassVar[str]
    UNCHECKED = frozenset({"id_task", "num_repeats"})
    EARLIER_NAMES = MappingProxyType(
        {"template_file": "template_filename", "preview_sampler_index": "preview_sampler_name"}
    )
    SWITCHES = MappingProxyType(
        {"clip_grad_value": "clip_grad_mode", **dict.fromkeys(_PREVIEW[1:], "preview_from_txt2img")}
    )

    id_task: str = setting(
        "", ADAPTER, "The reference's identifier of a task, of any type; nothing depends on it here."
    )

    learn_rate: str = setting(
        "",
        OPTIMIZER,
        "Rate, or schedule 'rate:step, rate:step, rate'; empty: 0.005 (embedding) or 0.00001 (hypernetwork).",
        number=True,
    )
    batch_size: int = setting(1, OPTIMIZER, "Pictures in a micro-batch; at most as many as there are.", at_least(1))
    gradient_step: int = setting(1, OPTIMIZER, "Micro-batches that make up one step.", at_least(1))
    steps: int = setting(100000, OPTIMIZER, "Steps in all, those of earlier runs included.", at_least(1))
    clip_grad_mode: str | None = setting(
        "disabled", OPTIMIZER, "How gradients are clipped: disabled, value or norm.", _clip_mode
    )
    clip_grad_value: str = setting("0.1", OPTIMIZER, "Clipping threshold, or its schedule.", filled, number=True)

    data_root: str = setting(dataclasses.MISSING, DATA, "Folder of pictures.", filled)
    training_width: int = setting(0, DATA, "Width in pixels; 0: the model's own size.", multiple_of_8)
    training_height: int = setting(0, DATA, "Height in pixels; 0: the model's own size.", multiple_of_8)
    varsize: bool = setting(False, DATA, "Keep each picture's own size; a batch holds pictures of one size.")
    shuffle_tags: bool = setting(False, DATA, "Shuffle a caption's comma-separated tags each time it is used.")
    tag_drop_out: float = setting(0.0, DATA, "Probability of leaving out a tag each time it is used.", share)
    latent_sampling_method: Literal["once", "deterministic", "random"] = setting(
        "once", DATA, "Latents of a picture: one sample kept, the mean, or a new sample at every use."
    )
    use_weight: bool = setting(False, DATA, "Weigh the loss by the pictures' alpha channel, or by mask pictures.")
    template_filename: str = setting(
        "style_filewords.txt", DATA, "Prompt template: a file in textual_inversion_templates, or a shipped one.", filled
    )

    log_directory: str = setting("textual_inversion", OUTPUT, "Folder for the folders of runs.")
    create_image_every: int = setting(500, PREVIEW, "Steps between previews; 0: none.", at_least(0))
    preview_from_txt2img: bool = setting(
        False, PREVIEW, "Draw previews by the preview_... arguments, not by a prompt of the data."
    )
    preview_prompt: str = setting("", PREVIEW, "Prompt of the previews.")
    preview_negative_prompt: str = setting("", PREVIEW, "Negative prompt of the previews.")
    preview_steps: int = setting(20, PREVIEW, "Sampling steps of the previews.", at_least(1))
    preview_sampler_name: str = setting(
        "Euler a", PREVIEW, "Sampler of the previews, or its place in the list of samplers, counted from 0.", filled
    )
    preview_cfg_scale: float | None = setting(
        None, PREVIEW, "Guidance scale of the previews; not given: the model's own.", at_least(0)
    )
    preview_seed: int = setting(-1, PREVIEW, "Seed of all previews; -1: one by chance.", _SEED, largest=2**32)
    preview_width: int = setting(0, PREVIEW, "Width of the previews; 0: that of the training.", multiple_of_8)
    preview_height: int = setting(0, PREVIEW, "Height of the previews; 0: that of the training.", multiple_of_8)

    @classmethod
    def in_names_of_today(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Also with the sampler's name for its place in the list, as the reference had it until September 2023."""
        given = super().in_names_of_today(values)
        if "preview_sampler_name" in given:
            given["preview_sampler_name"] = _sampler(given["preview_sampler_name"])
        return given

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        sound = {name: value for name, value in values.items() if name not in faulty}
        faults = [] if "steps" in faulty else _schedule_faults(sound)
        sampler = sound.get("preview_sampler_name", "Euler a")
        if sound.get("preview_from_txt2img") and sampler not in SAMPLERS:
            faults.append(f"preview_sampler_name is {sampler!r}, but must be one of {', '.join(SAMPLERS)}")
        return faults

    @property
    def trained(self) -> str:
        """The name of what is trained."""
        return str(getattr(self, f"{self.KIND}_name"))

    @property
    def save_every(self) -> int:
        """Steps between copies."""
        return int(getattr(self, f"save_{self.KIND}_every"))


def _sampler(given: Any) -> Any:
    """The sampler's name for its place in the list that clients are given; another value is left as it is."""
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if not isinstance(given, int) or isinstance(given, bool):
        return given
    if not 0 <= given < len(SAMPLERS):
        raise UsageError(
            f"preview_sampler_index is {shortened(given)}, but must be from 0 to {len(SAMPLERS) - 1}, or a name: "
            f"{', '.join(SAMPLERS)}."
        )
    return list(SAMPLERS)[given]


def _schedule_faults(values: Mapping[str, Any]) -> list[str]:
    faults = []
    for name in ("learn_rate", "clip_grad_value"):
        try:
            if values.get(name):
                Schedule.parse(values[name], values.get("steps", specs_of(TrainArguments)["steps"].default))
        except UsageError as error:
            faults.append(f"{name}: {str(error).rstrip('.')}")
    return faults


@dataclass(frozen=True, kw_only=True)
class TrainEmbedding(TrainArguments):
    """What ``train_embedding`` takes."""

    CALL, KIND = "train_embedding", "embedding"
    ORDER = (
        "id_task",
        "embedding_name",
        *_BEFORE,
        "save_embedding_every",
        "template_filename",
        "save_image_with_stored_embedding",
        *_PREVIEW,
    )

    embedding_name: str = setting(dataclasses.MISSING, ADAPTER, "Name of the embedding, made before.", filled)
    save_embedding_every: int = setting(500, OUTPUT, "Steps between copies; 0: none.", at_least(0))
    save_image_with_stored_embedding: bool = setting(
        False, OUTPUT, "Save each preview once more as a PNG card that holds the embedding."
    )


@dataclass(frozen=True, kw_only=True)
class TrainHypernetwork(TrainArguments):
    """What ``train_hypernetwork`` takes."""

    CALL, KIND = "train_hypernetwork", "hypernetwork"
    ORDER = ("id_task", "hypernetwork_name", *_BEFORE, "save_hypernetwork_every", "template_filename", *_PREVIEW)

    hypernetwork_name: str = setting(dataclasses.MISSING, ADAPTER, "Name of the hypernetwork, made before.", filled)
    save_hypernetwork_every: int = setting(500, OUTPUT, "Steps between copies; 0: none.", at_least(0))


# --- preprocess ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Preprocess(WebuiArguments):
    """What ``preprocess`` takes; relative paths start at the workspace."""

    CALL = "preprocess"
    ORDER = (
        "id_task",
        "process_src",
        "process_dst",
        "process_width",
        "process_height",
        "preprocess_txt_action",
        "process_keep_original_size",
        "process_flip",
        "process_split",
        "process_caption",
        "process_caption_deepbooru",
        "split_threshold",
        "overlap_ratio",
        "process_focal_crop",
        "process_focal_crop_face_weight",
        "process_focal_crop_entropy_weight",
        "process_focal_crop_edges_weight",
        "process_focal_crop_debug",
        "process_multicrop",
        "process_multicrop_mindim",
        "process_multicrop_maxdim",
        "process_multicrop_minarea",
        "process_multicrop_maxarea",
        "process_multicrop_objective",
        "process_multicrop_threshold",
        "validation_share",
    )

    UNCHECKED = frozenset({"id_task"})
    SWITCHES = MappingProxyType(
        {
            "split_threshold": "process_split",
            "overlap_ratio": "process_split",
            **{name: "process_focal_crop" for name in ORDER if name.startswith("process_focal_crop_")},
            **{name: "process_multicrop" for name in ORDER if name.startswith("process_multicrop_")},
        }
    )

    id_task: str = setting("", DATA, "The reference's identifier of a task, of any type; nothing depends on it here.")
    process_src: str = setting(dataclasses.MISSING, DATA, "Folder of pictures.", filled)
    process_dst: str = setting(dataclasses.MISSING, DATA, "Folder for the crops.", filled)

    process_width: int = setting(512, SIZE, "Width of the crops in pixels.", side)
    process_height: int = setting(512, SIZE, "Height of the crops in pixels.", side)
    process_keep_original_size: bool = setting(False, SIZE, "Keep each picture whole and in its own size.")
    process_flip: bool = setting(False, SIZE, "Add a mirrored copy of each crop.")
    process_split: bool = setting(False, SIZE, "Cut pictures that are very long or tall into overlapping tiles.")
    split_threshold: float = setting(
        0.5, SIZE, "Split where at most this part of the long side would stay in a crop.", part
    )
    overlap_ratio: float = setting(0.2, SIZE, "Part of a tile that the next one shares, at least.", overlap)

    preprocess_txt_action: Literal["ignore", "copy", "prepend", "append"] = setting(
        "ignore", CAPTIONS, "What becomes of captions beside the pictures."
    )
    process_caption: bool = setting(False, CAPTIONS, "Describe the crops by BLIP.")
    process_caption_deepbooru: bool = setting(False, CAPTIONS, "Tag the crops by DeepDanbooru, or a tagger of today.")

    process_focal_crop: bool = setting(False, CROPS, "Cut around what draws the eye instead of the middle.")
    process_focal_crop_face_weight: float = setting(0.9, CROPS, "How much faces count.", at_least(0))
    process_focal_crop_entropy_weight: float = setting(0.3, CROPS, "How much the busiest part counts.", at_least(0))
    process_focal_crop_edges_weight: float = setting(0.5, CROPS, "How much corners count.", at_least(0))
    process_focal_crop_debug: bool = setting(False, CROPS, "Draw what was found into pictures in process_dst/debug.")
    process_multicrop: bool = setting(False, CROPS, "Choose for each picture the size that cuts off little.")
    process_multicrop_mindim: int = setting(384, CROPS, "Smallest width or height.", side)
    process_multicrop_maxdim: int = setting(768, CROPS, "Largest width or height.", side)
    process_multicrop_minarea: int = setting(4096, CROPS, "Smallest width times height.", at_least(1))
    process_multicrop_maxarea: int = setting(409600, CROPS, "Largest width times height.", at_least(1))
    process_multicrop_objective: Literal["Maximize area", "Minimize error"] = setting(
        "Maximize area", CROPS, "What goes first: the largest area, or the least error of proportions."
    )
    process_multicrop_threshold: float = setting(0.1, CROPS, "Part of a picture that may be cut off.", part)

    validation_share: float = setting(
        0.0,
        DATA,
        "Part of the pictures that goes to process_dst/validation, the rest to process_dst/train; not the reference's.",
        share,
    )

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        sound = {name: spec.default for name, spec in specs_of(cls).items()}
        sound |= {name: value for name, value in values.items() if name not in faulty}
        faults = [
            f"process_multicrop_{least} is {sound[f'process_multicrop_{least}']}, but must be at most "
            f"process_multicrop_{most}, {sound[f'process_multicrop_{most}']}"
            for least, most in (("mindim", "maxdim"), ("minarea", "maxarea"))
            if sound[f"process_multicrop_{least}"] > sound[f"process_multicrop_{most}"]
        ]
        weights = [sound[f"process_focal_crop_{kind}_weight"] for kind in ("face", "entropy", "edges")]
        if sound["process_focal_crop"] and not any(weights):
            faults.append(
                "the three process_focal_crop weights are 0, so that nothing would count; give one of them, or no "
                "process_focal_crop"
            )
        return faults
