"""The pictures that are not trained, and how often the loss on them is measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tincture.settings.checks import at_least, filled_if_any, share
from tincture.settings.fields import CheckedSettings, setting

GROUP = "Validation"


@dataclass(frozen=True, kw_only=True)
class ValidationSettings(CheckedSettings):
    """What is measured beside the training."""

    validation_data: str | tuple[str, ...] = setting(
        (),
        GROUP,
        "Folder of pictures that are not trained, to measure the loss on; repeat for several.",
        filled_if_any,
        path=True,
    )
    validation_share: float = setting(
        0.0, GROUP, "Part of the pictures in the data that is not trained, to measure the loss on; 0: none.", share
    )
    validation_every: int = setting(
        100,
        GROUP,
        "Steps between measurements of the loss on pictures that are not trained; 0: none.",
        at_least(0),
    )
    validation_pictures: int = setting(
        16,
        GROUP,
        "Pictures that are measured at most, of those for validation and of those that are trained.",
        at_least(1),
        largest=10**4,
    )
    validation_bands: int = setting(
        8,
        GROUP,
        "Bands of timesteps; each picture is measured at one timestep of each.",
        at_least(1),
        largest=1000,
    )
    early_stopping_patience: int = setting(
        0,
        GROUP,
        "End the run when so many measurements in a row were no better than the best one; 0: never.",
        at_least(0),
        largest=10**7,
    )

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        data, part = values.get("validation_data"), values.get("validation_share")
        patience, faults = values.get("early_stopping_patience"), []
        if data and part:
            faults.append(
                f"validation_data is {data!r} and validation_share is {part:g}, but the pictures for validation come "
                "from folders of their own or from the data; give one of them"
            )
        asked = {"validation_data": data, "validation_share": part, "early_stopping_patience": patience}
        for name, value in asked.items():
            if value and values.get("validation_every") == 0:
                faults.append(
                    f"{name} is {value!r}, but validation_every is 0, so that nothing would be measured; leave one out"
                )
        return faults
