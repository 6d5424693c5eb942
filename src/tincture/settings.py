"""The settings of a training run: every default, help text and check in one place.

A field of `TrainSettings` is at once a command-line flag, a key of a TOML run file and a keyword of the Python API.
Only the standard library is imported, so that the command line can build its flags without loading torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tincture.errors import UsageError
from tincture.workspace import MAX_NAME_LENGTH, clean_name

Check = Callable[[Any], str | None]
"""Says what is allowed when a value is not ("at least 1"), or None when it is fine."""

DEFAULT_LEARNING_RATE: Mapping[str, str] = types.MappingProxyType({"embedding": "0.005", "hypernetwork": "1e-5"})
DEFAULT_TEMPLATE: Mapping[str, str] = types.MappingProxyType(
    {"embedding": "subject_filewords", "hypernetwork": "hypernetwork"}
)


def _field(default: Any, group: str, help_text: str, check: Check | None = None, *, number: bool = False) -> Any:
    """A dataclass field. `number`: a text that may also be given as a number, such as a schedule of one rate."""
    metadata = {"group": group, "help": help_text, "check": check, "number": number}
    return dataclasses.field(default=default, metadata=metadata)


def _at_least(minimum: float) -> Check:
    return lambda value: None if value >= minimum else f"at least {minimum:g}"


def _share(value: float) -> str | None:
    return None if 0 <= value < 1 else "at least 0 and below 1"


def _size(value: int) -> str | None:
    return None if value >= 0 and value % 8 == 0 else "0 (the model's own size) or a multiple of 8"


def _filled(value: str) -> str | None:
    return None if value.strip() else "a text that is not empty"


def _regex(value: str) -> str | None:
    try:
        re.compile(value)
    except re.error as error:
        return f"a regular expression ({error})"
    return None


def _device(value: str) -> str | None:
    known = re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", value)
    return None if known else "auto, cpu, mps, cuda, cuda:N, xpu or xpu:N"


def _name(value: str) -> str | None:
    try:
        clean_name(value)
    except UsageError:
        return f"made of letters, digits, blanks and . _ - only, and at most {MAX_NAME_LENGTH} characters long"
    return None


ADAPTER, OPTIMIZER, DATA, MACHINE, OUTPUT, PREVIEW = (
    "What is trained",
    "Optimization",
    "Pictures and captions",
    "Precision and device",
    "Copies and logs",
    "Previews",
)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """All settings of one run; immutable, checked when made.

    A learning rate or a clipping threshold is a schedule text ("0.005:100, 1e-3:1000, 1e-5"); a plain number is taken
    too. Paths are relative to the current directory.

    Raises:
        UsageError: naming every value that is not allowed, all in one message.
    """

    kind: Literal["embedding", "hypernetwork"] = _field(
        dataclasses.MISSING, ADAPTER, "What is trained: embedding or hypernetwork."
    )
    name: str = _field(dataclasses.MISSING, ADAPTER, "Name of the embedding or hypernetwork, made by create.", _name)
    model: str = _field("picto", ADAPTER, "Base model: picto, a diffusers folder, or a name in the workspace.", _filled)

    data: str = _field(dataclasses.MISSING, DATA, "Folder of pictures.", _filled)
    width: int = _field(0, DATA, "Width in pixels; 0: the model's own size.", _size)
    height: int = _field(0, DATA, "Height in pixels; 0: the model's own size.", _size)
    varsize: bool = _field(False, DATA, "Keep each picture's own size; a batch holds pictures of one size.")
    template: str = _field(
        "", DATA, "Prompt template, by name or path; empty: subject_filewords (embedding) or hypernetwork."
    )
    word_regex: str = _field("", DATA, "Regular expression that finds the words of a caption in a file name.", _regex)
    join_string: str = _field(" ", DATA, "What joins the words found by --word-regex.")
    shuffle_tags: bool = _field(False, DATA, "Shuffle a caption's comma-separated tags each time it is used.")
    tag_drop_out: float = _field(0.0, DATA, "Probability of leaving out a tag each time it is used.", _share)
    caption_drop_out: float = _field(
        0.0, DATA, "Probability of training a picture without its caption each time it is used.", _share
    )
    latent_sampling_method: Literal["once", "deterministic", "random"] = _field(
        "once", DATA, "Latents of a picture: one sample kept, the mean, or a new sample at every use."
    )
    use_weight: bool = _field(False, DATA, "Weigh the loss by the pictures' alpha channel.")

    steps: int = _field(1000, OPTIMIZER, "Optimizer steps in all, those of earlier runs included.", _at_least(1))
    learning_rate: str = _field(
        "",
        OPTIMIZER,
        "Rate, or schedule 'rate:step, rate:step, rate'; empty: 0.005 (embedding) or 1e-5 (hypernetwork).",
        number=True,
    )
    batch_size: int = _field(1, OPTIMIZER, "Pictures in a micro-batch.", _at_least(1))
    gradient_accumulation_steps: int = _field(
        1, OPTIMIZER, "Micro-batches whose gradients make up one step.", _at_least(1)
    )
    optimizer: str = _field("AdamW", OPTIMIZER, "Name of an optimizer of torch.optim.", _filled)
    weight_decay: float | None = _field(
        None, OPTIMIZER, "Weight decay; not given: 0 (embedding) or the optimizer's own (hypernetwork).", _at_least(0)
    )
    clip_grad_mode: Literal["none", "value", "norm"] = _field("none", OPTIMIZER, "How gradients are clipped.")
    clip_grad_value: str = _field(
        "0.1", OPTIMIZER, "Clipping threshold, or its schedule 'value:step, value'.", _filled, number=True
    )
    clip_skip: int = _field(1, OPTIMIZER, "Layer of the text encoder to use, counted from the end.", _at_least(1))
    seed: int = _field(0, OPTIMIZER, "Every random draw of the run depends on this number.", _at_least(0))

    device: str = _field("auto", MACHINE, "auto, cpu, cuda, cuda:N, mps, xpu.", _device)
    precision: Literal["fp32", "bf16", "fp16"] = _field("fp32", MACHINE, "Precision of the frozen model.")
    gradient_checkpointing: bool = _field(False, MACHINE, "Less memory for more time.")

    log_dir: str = _field("", OUTPUT, "Folder for run folders; empty: textual_inversion in the workspace.")
    save_every: int = _field(500, OUTPUT, "Steps between copies of the adapter; 0: none.", _at_least(0))
    save_optimizer_state: bool = _field(
        False, OUTPUT, "Keep the optimizer's state beside the finished file, for a later training to go on with."
    )
    author: str = _field("", OUTPUT, "Who made it, kept in the finished file.")
    license: str = _field("", OUTPUT, "Licence of the finished file, kept in it.")
    log_every: int = _field(10, OUTPUT, "Steps between lines of the log.", _at_least(1))
    tensorboard: bool = _field(False, OUTPUT, "Write TensorBoard logs too (needs tincture[tensorboard]).")

    preview_every: int = _field(500, PREVIEW, "Steps between previews; 0: none.", _at_least(0))
    preview_prompts: tuple[str, ...] = _field(
        (), PREVIEW, "Prompt of a preview; repeat for several. Not given: a prompt of the data."
    )
    preview_negative_prompt: str = _field("", PREVIEW, "Negative prompt of the previews.")
    preview_steps: int = _field(20, PREVIEW, "Sampling steps of the previews.", _at_least(1))
    preview_sampler: str = _field("Euler a", PREVIEW, "Sampler of the previews.", _filled)
    preview_guidance_scale: float | None = _field(
        None, PREVIEW, "Guidance scale of the previews; not given: the model's own (7; picto: 2).", _at_least(0)
    )
    preview_seed: int = _field(0, PREVIEW, "Seed of the previews.", _at_least(0))

    def __post_init__(self) -> None:
        converted = {name: _converted(spec, getattr(self, name)) for name, spec in FIELDS.items()}
        for name, value in converted.items():
            object.__setattr__(self, name, value)
        _refuse(_faults(converted))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "") -> TrainSettings:
        """Settings from plain values, as JSON or TOML give them.

        Args:
            values: setting names and values; lists stand for tuples.
            source: where they come from, for the message ("run.toml").

        Raises:
            UsageError: for unknown, missing and wrong settings, all in one message.
        """
        faults = [_unknown(name) for name in values if name not in FIELDS]
        missing = [spec for name, spec in FIELDS.items() if spec.required and name not in values]
        faults += [f"{spec.name} is missing ({spec.help.rstrip('.')})" for spec in missing]
        known = {name: _converted(FIELDS[name], value) for name, value in values.items() if name in FIELDS}
        _refuse(faults + _faults(known), source)
        return cls(**known)

    @classmethod
    def from_toml(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> TrainSettings:
        """Settings of a run file; `overrides` (the flags of a command line) win over it.

        Raises:
            UsageError: when the file cannot be read, is no TOML, or holds something that is not allowed.
        """
        return cls.from_dict({**read_toml(path), **(overrides or {})}, source=str(path))

    def replace(self, **changes: Any) -> TrainSettings:
        """A copy with some settings changed, checked anew."""
        return dataclasses.replace(self, **changes)

    def resolved(self) -> TrainSettings:
        """A copy in which what depends on the kind (rate, template, an embedding's weight decay) is filled in."""
        return self.replace(
            learning_rate=self.learning_rate or DEFAULT_LEARNING_RATE[self.kind],
            template=self.template or DEFAULT_TEMPLATE[self.kind],
            weight_decay=0.0 if self.kind == "embedding" and self.weight_decay is None else self.weight_decay,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; `from_dict` makes the same settings of them."""
        plain = {name: getattr(self, name) for name in FIELDS}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    def to_toml(self) -> str:
        """A run file that `from_toml` reads back; a setting that is None is left out."""
        lines = [f"{name} = {_toml_value(value)}" for name, value in self.to_dict().items() if value is not None]
        return "\n".join(lines) + "\n"


def read_toml(path: str | Path) -> dict[str, Any]:
    """The top-level table of a TOML file; UsageError when there is none."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The run file {str(path)!r} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"The run file {str(path)!r} is not UTF-8 text; save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The run file {str(path)!r} is not valid TOML: {error}.") from None


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """What is known of one setting: the command line makes a flag of it."""

    name: str
    group: str
    help: str
    default: Any  # None where the setting is required
    required: bool
    type: type  # bool, int, float or str; of the items where `repeated`
    optional: bool  # None is allowed
    repeated: bool
    choices: tuple[str, ...]
    number: bool
    check: Check | None


def _spec(field: dataclasses.Field[Any], annotation: Any) -> FieldSpec:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    optional = origin is types.UnionType
    repeated = origin is tuple
    choices = arguments if origin is Literal else ()
    base = str if choices else arguments[0] if optional or repeated else annotation
    required = field.default is dataclasses.MISSING
    return FieldSpec(
        name=field.name,
        default=None if required else field.default,
        required=required,
        type=base,
        optional=optional,
        repeated=repeated,
        choices=choices,
        **field.metadata,
    )


_HINTS = typing.get_type_hints(TrainSettings)
FIELDS: Mapping[str, FieldSpec] = types.MappingProxyType(
    {field.name: _spec(field, _HINTS[field.name]) for field in dataclasses.fields(TrainSettings)}
)


def _converted(spec: FieldSpec, value: Any) -> Any:
    """Take the spellings that mean the same: 1 for 1.0, 1e-4 for "1e-4", a list for a tuple."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if spec.type is float and is_number:
        return float(value)
    if spec.number and is_number:
        return repr(value)
    if spec.repeated and isinstance(value, list):
        return tuple(value)
    if spec.name == "name" and isinstance(value, str):
        return value.strip()
    return value


def _faults(values: Mapping[str, Any]) -> list[str]:
    faults = {name: fault for name, value in values.items() if (fault := _fault(FIELDS[name], value))}
    if "steps" not in faults:
        steps = values.get("steps", FIELDS["steps"].default)
        texts = {name: value for name, value in values.items() if FIELDS[name].number and name not in faults and value}
        faults |= {name: fault for name, text in texts.items() if (fault := _schedule_fault(name, text, steps))}
    return list(faults.values())


def _schedule_fault(name: str, text: str, steps: int) -> str | None:
    from tincture.training.lr_schedule import Schedule

    try:
        Schedule.parse(text, steps)
    except UsageError as error:
        return f"{name}: {str(error).rstrip('.')}"
    return None


def _fault(spec: FieldSpec, value: Any) -> str | None:
    if value is None and spec.optional:
        return None
    if not _has_type(spec, value):
        return f"{spec.name} is {value!r}, but must be {_type_words(spec)}"
    if spec.choices and value not in spec.choices:
        return f"{spec.name} is {value!r}, but must be {_any_of(spec.choices)}"
    if spec.type is float and not math.isfinite(value):
        return f"{spec.name} is {value!r}, but must be a finite number"
    allowed = spec.check(value) if spec.check else None
    return f"{spec.name} is {value!r}, but must be {allowed}" if allowed else None


def _has_type(spec: FieldSpec, value: Any) -> bool:
    if spec.repeated:
        return isinstance(value, tuple) and all(isinstance(item, spec.type) for item in value)
    return isinstance(value, spec.type) and (spec.type is bool or not isinstance(value, bool))


def _type_words(spec: FieldSpec) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[spec.type]
    if spec.repeated:
        return "a list of texts"
    return f"{words} or a number" if spec.number else words


def _any_of(choices: tuple[str, ...]) -> str:
    return ", ".join(choices[:-1]) + " or " + choices[-1]


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name.replace("-", "_"), FIELDS, n=1, cutoff=0.5)
    hint = f"the nearest is {near[0]}" if near else f"known are {', '.join(FIELDS)}"
    return f"there is no setting {name!r}; {hint}"


def _refuse(faults: list[str], source: str = "") -> None:
    where = f" in {source}" if source else ""
    if len(faults) == 1:
        raise UsageError(f"A setting{where} is not allowed: {faults[0]}.")
    if faults:
        lines = "".join(f"\n  {fault}" for fault in faults)
        raise UsageError(f"{len(faults)} settings{where} are not allowed:{lines}")


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    # a JSON string is a TOML basic string, except that JSON leaves DEL as it is
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
