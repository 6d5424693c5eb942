"""What is trained, and on which model."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tincture.errors import UsageError
from tincture.kinds.registry import any_of, faults_of, find_kind, kind_names
from tincture.settings.companions import WITH, Companion, adapter_stem, companion_texts, sound_companions
from tincture.settings.fields import CheckedSettings, same_as, setting
from tincture.settings.fixed_adapters import FIXED, FixedAdapter, fixed_faults, fixed_texts
from tincture.settings.model_overrides import ModelChoice
from tincture.settings.schedule import schedule_fault
from tincture.workspace import MAX_NAME_LENGTH, clean_name

GROUP = "What is trained"


def _name(value: str) -> str | None:
    try:
        clean_name(value)
    except UsageError:
        return f"made of letters, digits, blanks and . _ - only, and at most {MAX_NAME_LENGTH} characters long"
    return None


@dataclass(frozen=True, kw_only=True)
class TrainedSettings(CheckedSettings):
    """The adapter by kind and name, and the frozen model."""

    kind: str = setting(
        dataclasses.MISSING, GROUP, lambda: f"What is trained: {any_of(kind_names())}.", choices=kind_names
    )
    name: str = setting(
        dataclasses.MISSING,
        GROUP,
        lambda: f"Name of the {any_of(kind_names())}, made by create.",
        _name,
        strip=True,
    )
    model: str = same_as(ModelChoice, "model")
    vae: str = same_as(ModelChoice, "vae")
    family: Literal["auto", "sd1", "sd2", "sdxl"] = same_as(ModelChoice, "family")
    prediction_type: Literal["auto", "epsilon", "v_prediction"] = same_as(ModelChoice, "prediction_type")
    zero_terminal_snr: bool | None = same_as(ModelChoice, "zero_terminal_snr")
    companions: tuple[str, ...] = setting(
        (),
        GROUP,
        "What is trained together with it, as KIND:NAME or KIND:NAME:RATE; repeat for several.",
        largest=4000,
        most_items=16,
        alias=WITH,
        meaning=companion_texts,
    )

    fixed_adapters: tuple[str, ...] = setting(
        (),
        GROUP,
        "What acts beside it all the while and is not trained, as KIND:NAME or KIND:NAME:STRENGTH; repeat for several.",
        largest=1000,
        most_items=16,
        alias=FIXED,
        meaning=fixed_texts,
    )

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        if "kind" not in values:
            return []
        others = sound_companions(values)
        faults = [*_unreadable(values), *_faults_together(values, others, faulty)]
        own = [(values["kind"], values.get("name", "")), *((other.kind, other.name) for other in others)]
        faults += fixed_faults(values, own)
        return faults + faults_of([find_kind(values["kind"]), *(other.adapter_kind for other in others)], values)

    @property
    def others(self) -> tuple[Companion, ...]:
        """What is trained together with the adapter."""
        return tuple(Companion.parse(text) for text in self.companions)

    @property
    def fixed(self) -> tuple[FixedAdapter, ...]:
        """What acts and is not trained."""
        return tuple(FixedAdapter.parse(text) for text in self.fixed_adapters)

    @property
    def adapters(self) -> list[tuple[str, str]]:
        """Kind and name of everything that is trained, the adapter first."""
        return [(self.kind, self.name), *((other.kind, other.name) for other in self.others)]


def _unreadable(values: Mapping[str, Any]) -> Iterator[str]:
    for text in values.get("companions", ()):
        try:
            Companion.parse(text)
        except UsageError as error:
            yield f"{WITH} has {text!r}, but {error}"


def _faults_together(values: Mapping[str, Any], others: Sequence[Companion], faulty: Collection[str]) -> list[str]:
    faults = [
        f"{WITH} has {str(other)!r}, whose name is not {fault}" for other in others if (fault := _name(other.name))
    ]
    if "steps" not in faulty:
        wrong = [(other, schedule_fault(other.rate, values)) for other in others]
        faults += [f"{WITH} has {str(other)!r}: {fault}" for other, fault in wrong if fault]
    given = [(values["kind"], adapter_stem(values.get("name", "")))]
    for one in [(other.kind, adapter_stem(other.name)) for other in others]:
        if one in given:
            faults.append(f"{WITH} has the {one[0]} {one[1]!r}, which is trained already; give each adapter once")
        given.append(one)
    return faults
