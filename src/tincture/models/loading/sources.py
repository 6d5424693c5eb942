"""What a model's name means: the embedded picto, a file, a diffusers folder, or a model of the Hugging Face hub."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tincture.errors import ModelError, TinctureError, UsageError
from tincture.formats.hash_cache import sha256_of
from tincture.models.loading.default_model import PICTO_NAME, default_model
from tincture.models.loading.weight_files import weight_files

if TYPE_CHECKING:
    from tincture.workspace import Workspace

PICTO = Path(__file__).parents[1] / "picto" / "weights"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_TITLE = re.compile(r"(?P<name>.*?)\s*\[(?P<hash>[0-9a-f]{8,64})\]")
_HASH = re.compile(r"[0-9a-f]{10}|[0-9a-f]{64}")
HASH_DIGITS = 10
_OLD_DIGITS = 8


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Attributes:
        path: its file or folder; None for one of the hub that is not here yet.
        hub_id: ``owner/name`` of one of the hub; "" for others.
    """

    path: Path | None
    hub_id: str = ""

    @property
    def name(self) -> str:
        """What files and pictures call the model: as in the webui, its file's name without suffix."""
        if self.path is None or self.hub_id:
            return self.hub_id.partition("/")[2]
        if self.path == PICTO:
            return "picto"
        return self.path.name if self.path.is_dir() else self.path.stem

    def __str__(self) -> str:
        """What means the same model from any current folder."""
        return "picto" if self.path == PICTO else self.hub_id or str(self.path)


def find_source(name: str, workspace: Workspace | None = None) -> Source:
    """What ``name`` means.

    Empty: what ``default_model`` gives. ``picto``; the path of a file or folder; a name or path in
    the workspace's ``models/Stable-diffusion``, with or
    without suffix, as the webui shows it (``name.safetensors [0123456789]``), or the hash alone; or an id of the hub,
    ``owner/name``. The first of these that there is counts.

    Raises:
        ModelError: there is none.
        UsageError: none is named, and there are several.
    """
    name = name or str(default_model(workspace))
    if name == PICTO_NAME:
        return Source(PICTO)
    path = Path(name).expanduser()
    if path.exists():
        return Source(path.resolve())
    hint = ""
    if workspace is not None:
        try:
            return Source(find_in_workspace(name, workspace).resolve())
        except UsageError as error:
            hint = f" {error}"
    if _HUB_ID.fullmatch(name) and not path.parent.exists():
        return Source(None, name)
    raise ModelError(
        f"There is no model {name!r}; give 'picto', the path of a .safetensors or .ckpt file or of a diffusers folder, "
        f"or an id of the Hugging Face hub (owner/name).{hint}"
    )


def find_in_workspace(name: str, workspace: Workspace) -> Path:
    """The model of the workspace that ``name`` means: a name, a title with its hash, or a hash alone.

    Raises:
        UsageError: there is none, or the hash is another one's.
    """
    try:
        return workspace.find_model(name)  # also one whose own name ends in brackets
    except UsageError as error:
        not_found = error
    title = _TITLE.fullmatch(name)
    if title and title["name"]:
        path, given = workspace.find_model(title["name"]), title["hash"]
        # Of eight digits are hashes of another kind, which old webuis showed.
        if len(given) != _OLD_DIGITS and not _full_hash(path).startswith(given):
            raise UsageError(f"The model {path} has the hash {short_hash(path)}, not {given}; give the one you mean.")
        return path
    wanted = title["hash"] if title else name
    if _HASH.fullmatch(wanted):
        for path in workspace.list_models():
            with contextlib.suppress(TinctureError):
                if _full_hash(path).startswith(wanted):
                    return path
    raise not_found


def find_vae(name: str, workspace: Workspace | None = None) -> Path:
    """The file or folder of the VAE ``name``: a path, or a name in the workspace; ModelError when there is none."""
    path = Path(name).expanduser()
    if path.exists():
        return path.resolve()
    hint = ""
    if workspace is not None:
        try:
            return workspace.find_vae(name).resolve()
        except UsageError as error:
            hint = f" {error}"
    raise ModelError(f"There is no VAE {name!r}; give the path of its file or diffusers folder.{hint}")


def short_hash(path: Path) -> str:
    """The first 10 hex digits of the sha256 of a checkpoint file, as the webui names it.

    Of a diffusers folder: over the contents of its U-Net's weight files, in order of name.

    Raises:
        ModelError: the folder has no U-Net.
    """
    return _full_hash(path)[:HASH_DIGITS]


def _full_hash(path: Path) -> str:
    if not path.is_dir():
        return sha256_of([path])
    if not (path / "unet").is_dir():
        raise ModelError(f"The model folder {path} has no unet; a diffusers folder is needed.")
    return sha256_of(weight_files(path / "unet"))
