"""What an oracle says of a trained adapter: picto draws pictures with it, and a program reads what they show.

Which prompts and seeds that are depends on the sweep alone, so that all its runs are judged alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.kinds.registry import find_kind
from tincture.models.loading.load import load_model
from tincture.models.picto import oracle, world
from tincture.run import demo
from tincture.run.components import load_adapter
from tincture.settings.train import TrainSettings
from tincture.sweeps.points import PICTURES
from tincture.workspace import Workspace

SEED = 0
_PURPOSE = "sweep"


def judge(
    asked: Mapping[str, Any], settings: TrainSettings, files: Sequence[Path], workspace: Workspace
) -> dict[str, float]:
    """Shares of pictures, from 0 to 1.

    Of a subject ``fidelity``: it is shown, and ``editability``: with it all else that the prompt says. Of a style
    ``style`` and, with it, all that the prompt says: ``content``.

    Args:
        asked: ``[oracle]`` of a sweep: ``subject`` or ``style``, and ``pictures``.
        files: of the adapters that were trained together.
    """
    scenes = _scenes(asked, int(asked.get("pictures", PICTURES)))
    has_word = any(find_kind(kind).has_word for kind, _ in settings.adapters)
    prompts = [_prompt(scene, asked, settings.word if has_word else "") for scene in scenes]
    model = load_model("picto", workspace=workspace)
    with contextlib.ExitStack() as acting:
        for (kind, name), path in zip(settings.adapters, files, strict=True):
            acting.enter_context(load_adapter(kind, path, name).train(False).attach(model))
        judged = demo.draw(model, scenes, prompts, SEED)
    shown = demo.SUBJECT_ATTRIBUTES if asked.get("subject") else ("style",)
    first, second = ("fidelity", "editability") if asked.get("subject") else ("style", "content")
    return {first: judged.share(shown), second: judged.share((*shown, *oracle.ATTRIBUTES))}


def _scenes(asked: Mapping[str, Any], count: int) -> list[world.Scene]:
    scenes = demo.random_scenes(count, SEED, _PURPOSE)
    if not asked.get("subject"):
        return [dataclasses.replace(scene, style=str(asked["style"])) for scene in scenes]
    subject = dataclasses.asdict(world.parse_subject(str(asked["subject"])))
    return [world.Scene(**subject, position=scene.position, background=scene.background) for scene in scenes]


def _prompt(scene: world.Scene, asked: Mapping[str, Any], word: str) -> str:
    if asked.get("subject"):
        return scene.caption(word)
    return f"{scene.caption()}, in the style of {word}" if word else scene.caption()
