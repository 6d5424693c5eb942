"""What clients of the webui choose for all their requests: the model, and two options of trainings."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from tincture.errors import UsageError, shortened
from tincture.server.api_webui import options
from tincture.server.service import Service

_HASH = re.compile(r"[0-9a-f]{8,64}\]")


class Session:
    """The model that counts where a request names none; one for all clients, as in the webui.

    Attributes:
        training: settings of every training that the options set, by name.
        drawing_since: when the drawing at hand began, in seconds since 1970; None while nothing is drawn by this API.
        drawing_mark: the same by a clock that never jumps.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._chosen = ""
        self._lock = threading.Lock()
        self.training: dict[str, bool] = {}
        self.drawing_since: float | None = None
        self.drawing_mark = 0.0

    def model(self) -> str:
        """The model's name, as ``sd-models`` lists it."""
        with self._lock:
            return self._chosen or self._service.default_model()

    def choose(self, title: str) -> None:
        """From now on, another model counts; UsageError names what there is."""
        name = self.named(title)
        with self._lock:
            self._chosen = name

    def named(self, title: str) -> str:
        """The name of the model that a client calls ``title``: its name, file, path, or these with a hash behind.

        Raises:
            UsageError: there is no such model.
            ForbiddenPathError: it is a path that leads out.
        """
        for model in self._service.models():
            if title_matches(title, model):
                return str(model["name"])
        self._service.places.model(title)
        return title

    def options(self) -> dict[str, Any]:
        """The options that there are, with their values."""
        return {
            options.MODEL: self.model(),
            "sd_checkpoint_hash": "",
            "sd_vae": "Automatic",
            "CLIP_stop_at_last_layers": 1,
            "samples_save": True,
            "samples_format": "png",
            "outdir_txt2img_samples": str(self._service.state_dir / "pictures"),
            **{option: self.training.get(setting, False) for option, setting in options.TRAINING.items()},
        }

    def set_options(self, given: Mapping[str, Any]) -> list[str]:
        """Sets what can be set; what is given as it is, or as null, stays. Returns remarks on what changes nothing.

        Raises:
            UsageError: an option cannot be set here, or has a value that is not allowed; nothing is set then.
        """
        present = self.options()
        wanted = {name: value for name, value in given.items() if not options.is_left(name, value, present)}
        model = wanted.pop(options.MODEL, "picto")
        if not isinstance(model, str) or not model:
            raise UsageError(f"{options.MODEL} is {shortened(model)}, but must be the title of a model.")
        training = {
            setting: options.truth(wanted.pop(name)) for name, setting in options.TRAINING.items() if name in wanted
        }
        for name, setting in options.TRAINING.items():
            if not isinstance(value := training.get(setting, False), bool):
                raise UsageError(f"{name} is {shortened(value)}, but must be true or false.")
        for name, value in wanted.items():
            if name in present or options.refused(name, value):
                raise UsageError(
                    f"The option {shortened(name)} cannot be set here{options.refused(name, value, before=': ')}; only "
                    f"{', '.join((options.MODEL, *options.TRAINING))} can. Settings of a training or a picture go with "
                    "its request."
                )
        if not options.is_left(options.MODEL, given.get(options.MODEL), present):
            self.choose(model)
        self.training |= training
        return options.remark(list(wanted))

    def begin_drawing(self) -> None:
        """Notes the time, for those who ask how long it will take."""
        self.drawing_since, self.drawing_mark = time.time(), time.monotonic()

    def end_drawing(self) -> None:
        """The drawing is over."""
        self.drawing_since = None


def title_matches(title: str, model: dict[str, Any]) -> bool:
    """Whether ``title`` means the model, one of ``Service.models``."""
    # By rpartition, since a pattern for blanks before the bracket tries each of a million blanks anew.
    name, _, hashed = title.rpartition("[")
    given = name.rstrip() if name and _HASH.fullmatch(hashed) else title
    return given in (model["name"], model["path"], PurePath(model["name"]).name, PurePath(model["name"]).stem)
