"""Pictures of what the model knows already and shall not forget, trained beside those to be learned."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tincture.settings.checks import filled_if_any
from tincture.settings.fields import CheckedSettings, setting
from tincture.settings.schedule import weight_faults

GROUP = "Prior preservation"


@dataclass(frozen=True, kw_only=True)
class PriorSettings(CheckedSettings):
    """Regularisation pictures."""

    prior_data: str | tuple[str, ...] = setting(
        (),
        GROUP,
        "Folder of pictures of what the model shall not forget, trained beside those in the data; repeat for several.",
        filled_if_any,
        path=True,
    )
    prior_weight: str = setting(
        "", GROUP, "How much their loss counts, or its schedule; empty: 1.", number=True, schedule=True, largest=2000
    )
    prior_template: str = setting(
        "", GROUP, "Their prompt template, by name or path; empty: the caption alone.", path=True
    )

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        faults = weight_faults(values, faulty, "prior_weight", "so that prior_data would not count; leave both out")
        if not values.get("prior_data") and "prior_data" not in faulty:
            for name in ("prior_weight", "prior_template"):
                if values.get(name):
                    faults.append(
                        f"{name} is {values[name]!r}, but prior_data is empty, so that there are no pictures it could "
                        "be of; give both or neither"
                    )
        return faults
