"""Which base model counts where none is named; nothing here loads torch.

The first of these that there is: the model that an adapter says it was made or trained on; one that somebody chose for
this; the only model in the workspace; of several the one that was used last. Without a model in the workspace it is
picto. A file that is no model, such as a web page that a download left, is none of them.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from tincture.errors import StorageError, TinctureError, UsageError
from tincture.formats.files import write_text
from tincture.formats.hash_cache import SMALL_FILE, remembered_sha256, sha256_of
from tincture.formats.tensor_names import Size, pickled_head, safetensors_header, trained_on, unwrapped
from tincture.models.loading.checkpoint_kind import find_checkpoint
from tincture.workspace import Workspace

PICTO_NAME = "picto"
LAST_MODEL = "last-model.txt"
"""In the folder of logs: the model of the workspace that was used last, by its path from the folder of models."""
_MOST_NAMED = 5
# A tensor that every checkpoint of Stable Diffusion has, and what stands for it where only the running mean is left.
_UNET = re.compile(
    rb"model\.diffusion_model\.input_blocks\.0\.0\.weight|model_ema\.diffusion_modelinput_blocks00weight"
)


@dataclass(frozen=True)
class DefaultModel:
    """A model that nobody named.

    Attributes:
        path: its file or folder; None for picto.
        name: its path from the folder of models, with / between its parts, or picto.
        reason: why it counts, as words in brackets would say it: "the only one in the workspace".
    """

    path: Path | None
    name: str
    reason: str

    def __str__(self) -> str:
        """What means the same model from any current folder."""
        return PICTO_NAME if self.path is None else str(self.path)


def default_model(
    workspace: Workspace | None, *, adapter: Path | None = None, chosen: str = "", or_first: bool = False
) -> DefaultModel:
    """The model that counts where none is named.

    Args:
        workspace: whose models are asked; None: there is only picto.
        adapter: the file of the adapter that it is for; it need not be there.
        chosen: the name of the one that was chosen for this, which counts as long as it is there.
        or_first: of several, none of which was used yet, the first one counts.

    Raises:
        UsageError: there are several, and none was used yet.
    """
    if workspace is None:
        return DefaultModel(None, PICTO_NAME, "embedded in the package")
    if adapter is not None and (own := _own(adapter, workspace)):
        return own
    listed = {path.relative_to(workspace.models).as_posix(): path for path in workspace.list_models()}
    if chosen == PICTO_NAME or chosen in listed:
        return DefaultModel(listed.get(chosen), chosen, "chosen as the default")
    usable = (name for name, path in listed.items() if is_model(path))
    first = list(itertools.islice(usable, 2))
    if not first:
        why = "no file there can be used as a model" if listed else "there is no model in the workspace"
        return DefaultModel(None, PICTO_NAME, why)
    last = _last_used(workspace)
    if len(first) == 1:
        name, reason = first[0], "the only one in the workspace"
    elif last in listed and is_model(listed[last]):
        name, reason = last, f"the last used of {len(listed)} in the workspace"
    elif or_first:
        name, reason = first[0], f"the first of {len(listed)} in the workspace"
    else:
        raise UsageError(_several([*first, *itertools.islice(usable, _MOST_NAMED - 2)], len(listed), workspace))
    return DefaultModel(listed[name], name, reason)


def remember_model(workspace: Workspace, path: Path | None) -> None:
    """Notes that a model was used, if it is one of the workspace; where nothing can be written, nothing is noted."""
    if path is None:
        return
    by_place = {each.resolve(): each for each in workspace.list_models()}
    found = by_place.get(path.resolve())
    if found is None:
        return
    name = found.relative_to(workspace.models).as_posix()
    if len(by_place) > 1 and name != _last_used(workspace):
        with contextlib.suppress(StorageError, OSError):
            write_text(workspace.logs / LAST_MODEL, f"{name}\n")


def own_model(name: str, short_hash: str, workspace: Workspace) -> Path | None:
    """The model of the workspace that a file names as its own.

    Of several that are called so, and of those that are called otherwise, the hash decides as far as it is known.
    """
    listed = workspace.list_models()
    called = [path for path in listed if name and _name_of(path) == name]
    if len(called) == 1:
        return called[0]
    known = (called or listed) if short_hash else []
    same = next((path for path in known if _known_hash(path).startswith(short_hash)), None)
    return same or next(iter(called), None)


def is_model(path: Path) -> bool:
    """Whether a file or folder looks like a model that can be used, by its head."""
    if path.is_dir():
        return (path / "unet").is_dir()
    header = safetensors_header(path)
    if header is None:
        return _UNET.search(pickled_head(path)) is not None
    shapes = {name: Size(tuple(entry.get("shape", ()))) for name, entry in header.items() if name != "__metadata__"}
    checkpoint = find_checkpoint({name: shapes[own] for name, own in unwrapped(shapes).items()})
    return checkpoint is not None and bool(checkpoint.text_encoders)


def _own(adapter: Path, workspace: Workspace) -> DefaultModel | None:
    name, short_hash = trained_on(adapter)
    reason = f"the one that {adapter.stem} was made on"
    if name == PICTO_NAME:
        return DefaultModel(None, PICTO_NAME, reason)
    path = own_model(name, short_hash, workspace) if name or short_hash else None
    return DefaultModel(path, path.relative_to(workspace.models).as_posix(), reason) if path else None


def _known_hash(path: Path) -> str:
    """The sha256 of a file, if it is known or takes no time; else empty."""
    try:
        small = path.is_file() and path.stat().st_size <= SMALL_FILE
        return sha256_of([path]) if small else remembered_sha256(path) or ""
    except (TinctureError, OSError):
        return ""


def _name_of(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _last_used(workspace: Workspace) -> str:
    try:
        return (workspace.logs / LAST_MODEL).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _several(names: list[str], count: int, workspace: Workspace) -> str:
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return (
        f"There are several models in {workspace.models}, and none of them was used yet: {', '.join(names)}{more}. "
        f"Name one by --model, such as --model {names[0]!r}; from then on the last used counts."
    )
