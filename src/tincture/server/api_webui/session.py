"""What clients of the webui choose for all their requests: the model."""

from __future__ import annotations

import re
import threading
import time
from pathlib import PurePath
from typing import Any

from tincture.server.service import Service

_HASH = re.compile(r"[0-9a-f]{8,64}\]")


class Session:
    """The model that counts where a request names none; one for all clients, as in the webui.

    Attributes:
        drawing_since: when the drawing at hand began, in seconds since 1970; None while nothing is drawn by this API.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._chosen = ""
        self._lock = threading.Lock()
        self.drawing_since: float | None = None

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

    def begin_drawing(self) -> None:
        """Notes the time, for those who ask how long it will take."""
        self.drawing_since = time.time()

    def end_drawing(self) -> None:
        """The drawing is over."""
        self.drawing_since = None


def title_matches(title: str, model: dict[str, Any]) -> bool:
    """Whether ``title`` means the model, one of ``Service.models``."""
    # By rpartition, since a pattern for blanks before the bracket tries each of a million blanks anew.
    name, _, hashed = title.rpartition("[")
    given = name.rstrip() if name and _HASH.fullmatch(hashed) else title
    return given in (model["name"], model["path"], PurePath(model["name"]).name, PurePath(model["name"]).stem)
