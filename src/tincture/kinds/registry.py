"""The kinds of adapters: what workspace, settings, command line and server know of each, without loading torch.

This is one half of an adapter; the other is the class that ``implementation`` names, behind the protocol in
``adapters/adapter.py``. Whoever adds an adapter describes it by an ``AdapterKind`` and calls ``register``. All else
asks the description, and never which kind it is.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tincture.errors import UsageError

PLACEHOLDER = "[name]"
"""What prompt templates, captions and negative prompts have where the name of what is trained belongs."""
_SHIPPED = ("tincture.kinds.embedding:EMBEDDING", "tincture.kinds.hypernetwork:HYPERNETWORK")
_UNIQUE = ("name", "plural", "folder", "losses", "tag")
_TAKEN = frozenset({"kind", "name", "model", "workspace", "overwrite"})  # what all are made with
_OF_NORMS = ("norm_limit", "norm_weight")
_OF_BIASES = ("weight_decay_bias", "weight_decay_norm")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def _nothing_wrong(values: Mapping[str, Any]) -> Sequence[str]:
    return ()


def _anything_goes(options: Mapping[str, Any]) -> None:
    """No options are checked."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """A choice when an adapter is made: a flag of ``tincture create``, a field of the HTTP request, an input of a form.

    Attributes:
        name: keyword of the class's ``create``.
        default: where nothing is chosen; its type is the option's, but for ``several``.
        help: one sentence, for the command line.
        described: another one for the HTTP API; empty: the same; None: none at all.
        flags: on the command line; none: ``--NAME`` with hyphens.
        flag_bounds: ``min`` and ``max`` of its value on the command line.
        request_bounds: of its value in a request (of each number, of ``several``), as pydantic's ``Field`` names them.
        several: the type of its numbers where it is a list of them; None can be given too if it is the default.
        most: items of a list in a request.
        or_word: of a list: a word may be given instead.
        item: what one of the numbers of a list is.
        largest: what a server takes of a number in a request at most; None: as of any number.
    """

    name: str
    default: Any
    help: str
    described: str | None = ""
    flags: tuple[str, ...] = ()
    flag_bounds: Mapping[str, Any] = field(default_factory=dict)
    request_bounds: Mapping[str, Any] = field(default_factory=dict)
    several: type[int] | type[float] | None = None
    most: int | None = None
    or_word: bool = False
    item: str = "number"
    largest: int | None = None

    @property
    def flag(self) -> str:
        """How the command line's messages name it."""
        return self.flags[0] if self.flags else f"--{self.name.replace('_', '-')}"


class FileFormat(NamedTuple):
    """A format that files of a kind can be converted to: what people read, its name for ``convert``, the suffix."""

    title: str
    name: str
    suffix: str


@dataclass(frozen=True, kw_only=True)
class AdapterKind:
    """What is known of a kind of adapters without its class.

    Attributes:
        name: in settings, commands and addresses: small letters, digits and hyphens.
        title: what it is called in full.
        plural: the folder of copies in a run, and a heading.
        folder: where its files lie in a workspace.
        implementation: ``MODULE:CLASS`` of the adapter.
        losses: name of a run's CSV file.
        learning_rate: where a run gives none; a schedule.
        template: name of the prompt template where a run gives none.
        weight_decay: where a run gives none; None: the optimizer's own.
        options: what can be chosen when one is made.
        tag: prompts name it by ``<TAG:NAME:0.8>``; empty: by its name as a word, and by ``(NAME:0.8)``.
        strength: what the number in the prompt is called.
        picture_key: what the text in pictures calls it, where other programs know a name for it.
        model_use: what the base model is needed for when one is made.
        words_alone: a new one needs the token tables of the base model only: ``create`` is handed ``ModelWords``
            (``models/loading/token_tables.py``), which come sooner than the model.
        has_word: its name stands in prompts as a word, so that the attention to it can be held to masks.
        has_card: a picture can hold it.
        has_biases: there are biases and norms among its weights, which may have a weight decay of their own.
        formats: that its files can be converted to.
        preset: settings with which picto learns well within a minute: the demo measures them, and the page begins with
            them.
        preset_options: options of the adapter that learns so.
        presets: by the name of a preset (``settings/presets.py``), what is this kind's own in it.
        small_presets: likewise for picto, over ``preset``: what a preset has that asks for more than a minute.
        check: what is wrong with a run's settings taken together, as words that name them.
        check_options: raises UsageError for options that it cannot be made with, as far as can be said without a model.
        size: of options, how many numbers such an adapter has, as far as can be said without a model, and which option
            decides on it; a server refuses too many.
    """

    name: str
    title: str
    plural: str
    folder: str
    implementation: str
    losses: str
    learning_rate: str
    template: str
    weight_decay: float | None = None
    options: tuple[Option, ...] = ()
    tag: str = ""
    strength: str = "multiplier"
    picture_key: str = ""
    model_use: str = "it is for"
    words_alone: bool = False
    has_word: bool = False
    has_card: bool = False
    has_biases: bool = False
    formats: tuple[FileFormat, ...] = ()
    preset: Mapping[str, Any] = field(default_factory=dict)
    preset_options: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    small_presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    check: Callable[[Mapping[str, Any]], Sequence[str]] = _nothing_wrong
    check_options: Callable[[Mapping[str, Any]], None] = _anything_goes
    size: Callable[[Mapping[str, Any]], tuple[int, str]] | None = None

    @property
    def one(self) -> str:
        """With its article: ``an embedding``."""
        return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"

    def option(self, name: str) -> Option:
        """The option called ``name``."""
        return next(option for option in self.options if option.name == name)

    def in_prompt(self, name: str, strength: float | None = None) -> str:
        """How a prompt names it; without a strength: at full strength."""
        if self.tag:
            return f"<{self.tag}:{name}:{'1.0' if strength is None else format(strength, '.4g')}>"
        return name if strength in (None, 1) else f"({name}:{strength:.4g})"

    @property
    def not_for_it(self) -> tuple[str, ...]:
        """Settings of a run that mean nothing for it, and are refused."""
        of_words = dict.fromkeys(("attention_mask_weight", *_OF_NORMS), not self.has_word)
        of_biases = dict.fromkeys(_OF_BIASES, not self.has_biases)
        unfit = {**of_words, **of_biases, "preview_with_embedding": not self.has_card}
        return tuple(name for name, is_unfit in unfit.items() if is_unfit)

    def faults(self, values: Mapping[str, Any]) -> list[str]:
        """What is wrong with the settings of a run of this kind, as words that name them."""
        return faults_of([self], values)


_registered: dict[str, AdapterKind] = {}


def register(kind: AdapterKind) -> AdapterKind:
    """Makes ``kind`` known to all parts, which ask for the kinds when they are made; returns it.

    Raises:
        UsageError: its name, or that of an option, cannot be one, or something that tells it apart is another kind's.
    """
    if not _NAME.fullmatch(kind.name):
        raise UsageError(f"The kind of adapter {kind.name!r} must be named by small letters, digits and hyphens.")
    if taken := _TAKEN & {option.name for option in kind.options}:
        raise UsageError(f"The kind of adapter {kind.name!r} cannot have an option called {min(taken)}.")
    for other in kinds():
        same = [part for part in _UNIQUE if getattr(kind, part) and getattr(kind, part) == getattr(other, part)]
        if same:
            raise UsageError(
                f"The kind of adapter {kind.name!r} has the {same[0]} {getattr(kind, same[0])!r} of {other.name!r}; "
                "choose another one."
            )
    _registered[kind.name] = kind
    return kind


def unregister(name: str) -> None:
    """Takes back what ``register`` did; nothing happens where there is no such kind."""
    _registered.pop(name, None)


def kinds() -> tuple[AdapterKind, ...]:
    """All kinds: those that are shipped, then others in the order of their registration."""
    return (*_shipped(), *_registered.values())


def kind_names() -> tuple[str, ...]:
    """The names of all kinds."""
    return tuple(kind.name for kind in kinds())


def find_kind(name: str) -> AdapterKind:
    """The kind called ``name``; UsageError names those that there are."""
    found = next((kind for kind in kinds() if kind.name == name), None)
    if found is None:
        raise UsageError(f"There is no kind of adapter {name!r}; there are {' and '.join(kind_names())}.")
    return found


def tagged_kinds() -> dict[str, AdapterKind]:
    """Kinds that prompts name by a tag, by that tag."""
    return {kind.tag: kind for kind in kinds() if kind.tag}


def any_of(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def faults_of(trained: Sequence[AdapterKind], values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the settings of a run of adapters of these kinds, as words that name them."""
    faults = [fault for kind in {kind.name: kind for kind in trained}.values() for fault in kind.check(values)]
    named = any_of(list(dict.fromkeys(kind.one for kind in trained)))
    attention, words = values.get("attention_mask_weight"), sum(kind.has_word for kind in trained)
    if attention and not words:
        faults.append(
            f"attention_mask_weight is {attention}, but {named} has no name in the prompt whose attention could be "
            "held to a mask; leave it out, or use masks by use_weight"
        )
    if attention and words > 1:
        faults.append(
            f"attention_mask_weight is {attention}, but {words} adapters with a name in the prompt are trained "
            "together, and a mask does not say whose it is; leave it out, or train them one by one"
        )
    for name in _OF_NORMS:
        if values.get(name) and not words:
            faults.append(
                f"{name} is {values[name]!r}, but {named} has no vectors that stand for tokens, whose norms could be "
                "held; leave it out"
            )
    for name in _OF_BIASES:
        if values.get(name) is not None and not any(kind.has_biases for kind in trained):
            faults.append(
                f"{name} is {values[name]:g}, but {named} has neither biases nor norms; leave it out, or give "
                "weight_decay"
            )
    if values.get("preview_with_embedding") and not any(kind.has_card for kind in trained):
        faults.append(f"preview_with_embedding is on, but a picture has no place for {named}; leave it out")
    return faults


def word_of(adapters: Sequence[tuple[str, str]]) -> str:
    """What takes the place of ``PLACEHOLDER``: of adapters by kind and name the first that has a word, or the first."""
    return next((name for kind, name in adapters if find_kind(kind).has_word), adapters[0][1])


def for_each(text_of: Callable[[AdapterKind], str]) -> str:
    """``text_of`` each kind, with the kind behind it where it is not the same word."""
    each = [(text_of(kind), kind.name) for kind in kinds()]
    return any_of([text if text == name else f"{text} ({name})" for text, name in each])


def _shipped() -> tuple[AdapterKind, ...]:
    """Described beside their classes; found by name, since they import this module."""
    places = (place.split(":") for place in _SHIPPED)
    return tuple(getattr(importlib.import_module(module), name) for module, name in places)
