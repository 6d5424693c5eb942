"""The settings of a training run: every default, help text and check in one place, `settings/groups`.

A field of `TrainSettings` is at once a command-line flag, a key of a TOML run file and a keyword of the Python API.
Only the standard library is imported, so that the command line can build its flags without loading torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tincture.kinds.registry import PLACEHOLDER, AdapterKind, find_kind, kinds, word_of
from tincture.settings.companions import adapter_stem
from tincture.settings.fields import CheckedSettings, FieldSpec, specs_of
from tincture.settings.groups.guards import GuardSettings
from tincture.settings.groups.loss import LossSettings
from tincture.settings.groups.machine import MEMORY_SETTINGS, MachineSettings
from tincture.settings.groups.missing_captions import MissingCaptionSettings
from tincture.settings.groups.negative import NegativeSettings
from tincture.settings.groups.optimization import OptimizationSettings
from tincture.settings.groups.output import OutputSettings
from tincture.settings.groups.pictures import PictureSettings
from tincture.settings.groups.previews import PreviewSettings
from tincture.settings.groups.prior import PriorSettings
from tincture.settings.groups.tracking import TrackingSettings
from tincture.settings.groups.trained import TrainedSettings
from tincture.settings.groups.validation import ValidationSettings
from tincture.settings.model_overrides import ModelOverrides
from tincture.settings.optimizers import USUAL, parse_arguments, usual_rate
from tincture.settings.schedule import Schedule

GROUPS: tuple[type[CheckedSettings], ...] = (
    TrainedSettings,
    PictureSettings,
    MissingCaptionSettings,
    ValidationSettings,
    OptimizationSettings,
    LossSettings,
    PriorSettings,
    NegativeSettings,
    GuardSettings,
    MachineSettings,
    OutputSettings,
    TrackingSettings,
    PreviewSettings,
)
"""In the order of the help, of run files and of the page."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(
    PreviewSettings,
    TrackingSettings,
    OutputSettings,
    MachineSettings,
    GuardSettings,
    NegativeSettings,
    PriorSettings,
    LossSettings,
    OptimizationSettings,
    ValidationSettings,
    MissingCaptionSettings,
    PictureSettings,
    TrainedSettings,  # a dataclass has the fields of its last base first
):
    """All settings of one run; immutable, checked when made.

    A learning rate or a clipping threshold is a schedule text ("0.005:100, 1e-3:1000, 1e-5"); a plain number is taken
    too. Paths are relative to the current directory.

    Raises:
        UsageError: naming every value that is not allowed, all in one message.
    """

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        sound = {name: value for name, value in values.items() if name not in faulty}
        return [fault for group in GROUPS for fault in group.faults_between(sound, faulty)]

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of pictures, as `data` says them."""
        return (self.data,) if isinstance(self.data, str) else self.data

    @property
    def validation_folders(self) -> tuple[str, ...]:
        """The folders of pictures for validation, as `validation_data` says them."""
        folders = (self.validation_data,) if isinstance(self.validation_data, str) else self.validation_data
        return tuple(folder for folder in folders if folder)

    @property
    def prior_folders(self) -> tuple[str, ...]:
        """The folders of regularisation pictures, as `prior_data` says them."""
        folders = (self.prior_data,) if isinstance(self.prior_data, str) else self.prior_data
        return tuple(folder for folder in folders if folder)

    @property
    def given_prior_folders(self) -> tuple[str, ...]:
        """Those of `prior_folders` that must be there: what the model draws itself need not."""
        return () if self.prior_prompt else self.prior_folders

    @property
    def has_prior(self) -> bool:
        """Whether there are regularisation pictures, or will be."""
        return bool(self.prior_folders or self.prior_prompt)

    def overrides(self) -> ModelOverrides:
        """What counts instead of what the model's files say."""
        return ModelOverrides.of(self)

    def resolved(self, half_precision: str = "") -> TrainSettings:
        """A copy in which what depends on kind, optimizer (rate, template, weight decay) and device is filled in.

        With a negative prompt, previews have it too unless they have one of their own; and where the adapter's name
        stands in that, the usual template is one without it.

        So is what is left open of `MEMORY_SETTINGS`, unless `vram` asks for a choice. Without an optimizer the
        rate is AdamW's.

        Args:
            half_precision: the one that the device of the run computes well in, if it is a GPU; empty: it is a CPU.
        """
        optimizer = self.optimizer or USUAL
        kind = find_kind(self.kind)
        trained = [kind, *(other.adapter_kind for other in self.others)]
        # Trained together with an embedding, a hypernetwork is trained with prompts that name that.
        named = next((each for each in trained if each.has_word), kind)
        card = {"vram": self.vram or ("auto" if half_precision else "off")}
        if half_precision and self.precision == "auto":
            card["precision"] = half_precision
        if PLACEHOLDER in self.negative_prompt:
            named = next(each for each in kinds() if not each.has_word)
        return self.replace(
            **{**(self.open_memory_settings() if card["vram"] == "off" else {}), **card},
            companions=tuple(str(other.resolved(optimizer)) for other in self.others),
            learning_rate=self.learning_rate or usual_rate(optimizer, kind.learning_rate),
            template=self.template or named.template,
            preview_negative_prompt=self.preview_negative_prompt
            or self.negative_prompt.replace(PLACEHOLDER, self.word),
            weight_decay=self._usual_weight_decay(kind) if self.weight_decay is None else self.weight_decay,
        )

    def _usual_weight_decay(self, kind: AdapterKind) -> float | None:
        """The kind's, unless the optimizer's arguments have one."""
        return None if "weight_decay" in parse_arguments(self.optimizer_args) else kind.weight_decay

    @property
    def word(self) -> str:
        """What takes the place of [name] in prompts, as far as can be said without the adapter's file."""
        return adapter_stem(word_of(self.adapters))

    @property
    def last_step(self) -> int:
        """The step that ends the run: as in the webui, it may be the end of the learning rate's schedule.

        Of several adapters that are trained together, it is the end of the last schedule.
        """
        rates = [self.learning_rate or find_kind(self.kind).learning_rate, *(other.rate for other in self.others)]
        return min(self.steps, max(Schedule.parse(rate, self.steps).end_step for rate in rates))

    def open_memory_settings(self) -> dict[str, Any]:
        """Those of `MEMORY_SETTINGS` that were not given, with what they usually are."""
        return {name: usual for name, usual in MEMORY_SETTINGS.items() if getattr(self, name) in (None, "auto")}


FIELDS: Mapping[str, FieldSpec] = specs_of(TrainSettings)
EARLIER_DEFAULTS: Mapping[str, Any] = MappingProxyType({"model": "picto", "resize": "stretch", "vram": "off"})
"""What the records of earlier runs mean where they say nothing of these; what is not given means something else now."""
