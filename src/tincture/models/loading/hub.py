"""Models of the Hugging Face hub: only when the user names one, and only the files that are needed of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from tincture.errors import ModelError, foreign
from tincture.models.loading.folder_family import INDEX, family_of
from tincture.models.loading.weight_files import choose_weight_files, weight_files

PARTS = ("unet", "vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
_WITH_WEIGHTS = ("unet", "vae", "text_encoder", "text_encoder_2")
_DESCRIPTIONS = (".json", ".txt")
_TIMEOUT = 20.0  # seconds


def fetch(hub_id: str) -> Path:
    """The diffusers folder of the model ``owner/name``: as it lies in the hub's cache, else downloaded into it.

    Raises:
        ModelError: there is no such model, or it cannot be had.
    """
    return _cached(hub_id) or _download(hub_id)


def _cached(hub_id: str) -> Path | None:
    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True))
        family_of(folder)
        for part in _WITH_WEIGHTS:
            if (folder / part).is_dir():
                weight_files(folder / part)
    except (LocalEntryNotFoundError, ModelError, OSError):
        return None  # not there, or not all of it
    return folder


def _download(hub_id: str) -> Path:
    try:
        files = needed_files(_listed(hub_id))
        if INDEX in files:
            return Path(snapshot_download(hub_id, allow_patterns=files))
    except RepositoryNotFoundError as error:
        reason = "access to it must be asked for" if isinstance(error, GatedRepoError) else "there is none"
        raise ModelError(
            f"The model {hub_id!r} is no local file or folder, and cannot be had from the Hugging Face hub: {reason} "
            f"for you there. Check its name, or log in by hf auth login."
        ) from error
    except Exception as error:  # the network's errors are of many families, and all mean that it cannot be had
        reason = foreign((str(error).strip() or type(error).__name__).splitlines()[0])
        raise ModelError(
            f"The model {hub_id!r} is no local file or folder, and the Hugging Face hub cannot be reached ({reason}); "
            f"give the path of a model, or try again where there is a network."
        ) from error
    raise ModelError(
        f"The model {hub_id!r} of the Hugging Face hub has no {INDEX}; download the checkpoint that you want, and give "
        f"its path."
    )


def _listed(hub_id: str) -> list[str]:
    """The names of a repository's files. Asked once: the library's own list tries on for half a minute, aloud."""
    siblings = HfApi().model_info(hub_id, timeout=_TIMEOUT).siblings
    return [file.rfilename for file in siblings or ()]


def needed_files(files: Iterable[str]) -> list[str]:
    """Those of a repository's ``files`` that loading reads: what describes the parts, and one set of weights each."""
    needed = []
    by_part: dict[str, list[str]] = {part: [] for part in PARTS}
    for file in files:
        path = PurePosixPath(file)
        if str(path.parent) in by_part:
            by_part[str(path.parent)].append(path.name)
        elif file == INDEX:
            needed.append(file)
    for part, names in by_part.items():
        chosen = {*choose_weight_files(names), *(name for name in names if name.endswith(_DESCRIPTIONS))}
        needed += [f"{part}/{name}" for name in sorted(chosen)]
    return needed
