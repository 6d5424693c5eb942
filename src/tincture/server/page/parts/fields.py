"""Inputs made from settings: label, help, default and choices come from one place, as the command line's flags do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from tincture.errors import UsageError
from tincture.server.page.parts.components import TypedSlider
from tincture.settings.fields import FieldSpec

# what has capitals, or is clearer in other words than the setting's own name
_LABELS = {
    "vae": "VAE",
    "vram": "VRAM",
    "clip_skip": "CLIP skip",
    "zero_terminal_snr": "Zero terminal SNR",
    "tensorboard": "TensorBoard",
    "yunet_model": "YuNet model",
    "recursive": "Inner folders too",
    "varsize": "Do not resize images",
    "license": "Licence",
    **dict.fromkeys(("companions", "with"), "Trained together with"),
    **dict.fromkeys(("fixed_adapters", "fixed"), "Acts beside it, not trained"),
}
_NAMED = re.compile(r"--([a-z][a-z-]*[a-z])|`([a-z][a-z_]*[a-z])`")
_YES_NO = {"yes": True, "no": False}
_FEW = 4


def label_of(name: str) -> str:
    """A setting's name as a label: ``save_every`` is "Save every"."""
    return _LABELS.get(name) or name.replace("_", " ").capitalize()


def help_of(spec: FieldSpec) -> str:
    """The setting's help, with labels where the command line's help has flags."""
    text = without_flags(spec.help)
    return text.replace("; repeat for several", "; one a line") if spec.repeated else text


def without_flags(text: str) -> str:
    """A text with labels where it names settings: ``--batch-size``, or `batch_size`, is “Batch size”."""
    return _NAMED.sub(lambda found: f"“{label_of((found[1] or found[2]).replace('-', '_'))}”", text)


_QUOTED = re.compile(r"""('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|“[^”\n]*”)""")
# where sentences of settings begin with the name of one
_FIRST_WORD = re.compile(r"(?:\A|(?<=not allowed: )|(?<=\n  ))([a-z][a-z0-9_]*)(?= (?:is|has|are) )")
# where such a name of one word may stand: not in "the base model has"
_CLAUSE = r"(?:\A|(?<=[:;,] )|(?<=\n  )|(?<= but )|(?<= and )|(?<= that )|(?<= though ))"


def in_labels(text: str, labels: Mapping[str, str]) -> str:
    """A sentence about settings with what their inputs are called, such as “Max steps” for `steps`.

    A name of one word that may be a word of the language too counts where something is said of it: "steps is 0".
    What stands in quotation marks was typed by somebody and stays. What has no label among ``labels`` is called as
    ``label_of`` does.
    """
    pieces = _QUOTED.split(text)
    pieces[::2] = [_in_labels(piece, labels) for piece in pieces[::2]]
    return "".join(pieces)


def _in_labels(text: str, labels: Mapping[str, str]) -> str:
    def label(found: re.Match[str]) -> str:
        name = next(group for group in found.groups() if group).replace("-", "_")
        return f"“{labels.get(name) or label_of(name)}”"

    text = _FIRST_WORD.sub(label, _NAMED.sub(label, text))
    if not labels:
        return text
    names = "|".join(sorted(map(re.escape, labels), key=len, reverse=True))
    rare = "|".join(sorted((re.escape(name) for name in labels if "_" in name), key=len, reverse=True)) or "(?!)"
    named = re.compile(rf"(?<![“\w])(?:({rare})|{_CLAUSE}({names})(?=(?: is| has| are|:| and \w+ are)\b|: ))\b")
    return named.sub(label, text)


def labels_of(inputs: Mapping[str, Any]) -> dict[str, str]:
    """By the names of settings, what their inputs are called."""
    return {name: str(getattr(component, "label", None) or label_of(name)) for name, component in inputs.items()}


def range_of(spec: FieldSpec) -> dict[str, float]:
    """What a number's input takes: ``minimum`` and ``maximum``, as far as the setting has bounds."""
    bounds = spec.bounds
    limits = {} if bounds is None else {"minimum": bounds.minimum, "maximum": spec.largest or bounds.maximum}
    return {name: limit for name, limit in limits.items() if limit is not None}


class Form:
    """Inputs by the names of settings, and what a person gave as values of settings.

    Pass ``components`` as the inputs of an event: its function gets one mapping, which ``read`` takes.
    """

    def __init__(
        self,
        specs: Mapping[str, FieldSpec],
        prefix: str,
        begin: Mapping[str, Any] | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """``prefix``: what the inputs' ids in the page begin with; ``begin``: values that win over all defaults;
        ``options``: by setting, what wins over what the setting says, for Gradio."""
        self._begin, self._options = begin or {}, options or {}
        self._first: dict[str, Any] = {}
        self.inputs: dict[str, Component] = {}
        self._specs, self._prefix = specs, prefix

    def add(self, name: str, **options: Any) -> Component:
        """The input of the setting ``name``; ``options`` go to Gradio, and win over what the setting says."""
        spec = self._specs[name]
        given = {"label": label_of(name), "info": help_of(spec), "elem_id": f"{self._prefix}-{name}"}
        given |= {**self._options.get(name, {}), **options}
        if name in self._begin:
            given["value"] = self._begin[name]
        self._first[name] = _shown(spec, given.get("value", spec.default))
        self.inputs[name] = _input(spec, given)
        return self.inputs[name]

    @property
    def labels(self) -> dict[str, str]:
        """By setting, what its input is called; by whichever of the setting's names."""
        labels = labels_of(self.inputs)
        aliases = {self._specs[name].alias: label for name, label in labels.items() if self._specs[name].alias}
        return {**aliases, **labels}

    def is_changed(self, name: str, raw: Any) -> bool:
        """Whether an input has another value than the form began with."""
        first = self._first[name]
        return bool((raw if raw not in (None, "", []) else None) != (first if first not in (None, "", []) else None))

    def add_all(self, names: Iterable[str]) -> None:
        """One input for each, with nothing but what the settings say."""
        for name in names:
            self.add(name)

    def left(self, without: Sequence[str] = ()) -> Iterator[tuple[str, list[str]]]:
        """The settings that have no input yet, by their groups."""
        groups: dict[str, list[str]] = {}
        for name, spec in self._specs.items():
            if name not in self.inputs and name not in without:
                groups.setdefault(spec.group, []).append(name)
        yield from groups.items()

    @property
    def components(self) -> set[Component]:
        return set(self.inputs.values())

    def read(self, given: Mapping[Component, Any]) -> dict[str, Any]:
        """Values of settings; UsageError names a number that is missing."""
        return {name: self._value(name, given[component]) for name, component in self.inputs.items()}

    def shown(self, settings: Mapping[str, Any]) -> dict[Component, Any]:
        """What the inputs show of these values, or of a setting's default; `read` gives the same values back."""
        specs = self._specs
        return {
            component: _shown(specs[name], settings.get(name, specs[name].default))
            for name, component in self.inputs.items()
        }

    def _value(self, name: str, raw: Any) -> Any:
        spec = self._specs[name]
        if spec.repeated:
            lines = [line.strip() for line in str(raw or "").splitlines() if line.strip()]
            return lines[0] if spec.lone and len(lines) == 1 else lines
        if spec.optional and spec.type is bool:
            return _YES_NO.get(raw)
        if spec.type in (int, float) and raw is None and not spec.optional:
            label = getattr(self.inputs[name], "label", None) or label_of(name)
            raise UsageError(f"{label} is empty; give a number, such as {spec.default}.")
        return "" if raw is None and spec.type is str else raw


def _shown(spec: FieldSpec, value: Any) -> Any:
    """A setting's value as its input has it."""
    if spec.repeated:
        return value if isinstance(value, str) else "\n".join(value or ())
    if spec.optional and spec.type is bool:
        return {None: "", True: "yes", False: "no"}[value]
    return "" if value is None and spec.type is str else value


def _input(spec: FieldSpec, given: dict[str, Any]) -> Component:
    """Whatever suits the type; ``choices`` among the options makes a list to choose from."""
    value = given.pop("value", spec.default)
    if spec.repeated and "choices" not in given:
        return gr.Textbox(value=_shown(spec, value), lines=2, **given)
    if spec.type is bool and spec.optional:
        choices = [("Not given", ""), ("Yes", "yes"), ("No", "no")]
        return gr.Radio(choices=choices, value=_shown(spec, value), **given)
    if spec.type is bool:
        return gr.Checkbox(value=bool(value), **given)
    choices = given.pop("choices", spec.choices or None)
    if choices is not None:
        return _choice(choices, value, given)
    if spec.type in (int, float) and {"minimum", "maximum"} <= given.keys():
        return TypedSlider(value=value, **given)
    if spec.type in (int, float):
        return gr.Number(value, **({"precision": 0} if spec.type is int else {"step": 0.01}), **given)
    return gr.Textbox(value=value or "", **given)


def _choice(choices: Sequence[Any], value: Any, given: dict[str, Any]) -> Component:
    if len(choices) <= _FEW and not given.get("allow_custom_value"):
        return gr.Radio(choices=list(choices), value=value, **given)
    return gr.Dropdown(choices=list(choices), value=value, **given)
