"""Where things lie: the webui's folder layout, so that a workspace may be an existing webui folder.

    embeddings/                       textual-inversion embeddings, NAME.pt or NAME.safetensors
    models/hypernetworks/             hypernetworks, NAME.pt or NAME.safetensors
    models/Stable-diffusion/          base models: NAME.safetensors, NAME.ckpt, or diffusers folders
    models/VAE/                       VAEs in files of their own
    textual_inversion_templates/      the user's own prompt templates, NAME.txt
    training_presets/                 settings to begin a training from, NAME.toml
    textual_inversion/DATE/NAME/      logs, copies and previews of runs
    datasets/NAME/                    pictures to train on, as the server keeps them
    sweeps/NAME/                      sweeps: what they are, how far their runs are, their reports
    prior_pictures/KEY/               pictures that a model drew so that it does not forget them

Nothing here opens a file: this module answers where a file is, or would be.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tincture.errors import UsageError
from tincture.kinds.embedding import EMBEDDING
from tincture.kinds.hypernetwork import HYPERNETWORK
from tincture.kinds.registry import find_kind, kind_names

ROOT_VARIABLE = "TINCTURE_ROOT"
ADAPTER_SUFFIX = ".pt"
TRAINABLE_SUFFIXES = frozenset({ADAPTER_SUFFIX, ".safetensors"})
MODEL_SUFFIXES = frozenset({".safetensors", ".ckpt"})
VAE_SUFFIXES = MODEL_SUFFIXES | {".pt"}
MAX_NAME_LENGTH = 100
MAX_NAME_BYTES = 200  # file systems allow 255 bytes, and "-STEP.pt.optim" comes behind the name


def clean_name(name: str) -> str:
    """Return `name` without blanks around it when it may name an adapter, so a file.

    Allowed are letters and digits of any script and the characters of ``._- ``, at most 100 characters; at least one
    must not be a dot or blank.

    Raises:
        UsageError: naming the characters or the length that is not allowed.
    """
    cleaned = name.strip()
    wrong = sorted({character for character in cleaned if not (character.isalnum() or character in "._- ")})
    if wrong:
        characters = " ".join("/" if character == "/" else repr(character)[1:-1] for character in wrong)
        raise UsageError(
            f"The name {name!r} has characters that are not allowed ({characters}); "
            "use letters, digits, blanks and any of . _ - only."
        )
    if not cleaned.strip(". "):
        raise UsageError(f"The name {name!r} is empty; give at least one letter or digit.")
    if len(cleaned) > MAX_NAME_LENGTH or len(cleaned.encode()) > MAX_NAME_BYTES:
        raise UsageError(
            f"The name {cleaned[:20] + '...'!r} has {len(cleaned)} characters ({len(cleaned.encode())} bytes); "
            f"allowed are {MAX_NAME_LENGTH} characters and {MAX_NAME_BYTES} bytes."
        )
    return cleaned


@dataclass(frozen=True, slots=True)
class Workspace:
    """One folder laid out like a webui's. Folders in it need not exist before something is written to them."""

    root: Path

    @classmethod
    def open(cls, root: str | Path | None = None) -> Workspace:
        """The workspace at `root`, else at the environment variable TINCTURE_ROOT, else the current directory.

        Raises:
            UsageError: when there is no such folder; a mistyped root must not become a new, empty workspace.
        """
        chosen = root or os.environ.get(ROOT_VARIABLE) or "."
        path = Path(chosen).expanduser().resolve()
        if not path.is_dir():
            raise UsageError(
                f"The workspace {str(chosen)!r} is not a folder; create it, or give another one by --root "
                f"or {ROOT_VARIABLE}."
            )
        return cls(path)

    @property
    def embeddings(self) -> Path:
        return self.root / EMBEDDING.folder

    @property
    def hypernetworks(self) -> Path:
        return self.root / HYPERNETWORK.folder

    @property
    def models(self) -> Path:
        return self.root / "models" / "Stable-diffusion"

    @property
    def vaes(self) -> Path:
        return self.root / "models" / "VAE"

    @property
    def templates(self) -> Path:
        return self.root / "textual_inversion_templates"

    @property
    def presets(self) -> Path:
        return self.root / "training_presets"

    @property
    def logs(self) -> Path:
        return self.root / "textual_inversion"

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def sweeps(self) -> Path:
        return self.root / "sweeps"

    @property
    def prior_pictures(self) -> Path:
        return self.root / "prior_pictures"

    def adapter_folder(self, kind: str) -> Path:
        """Where adapters of this kind lie; UsageError when there is no such kind."""
        return self.root / find_kind(kind).folder

    def adapter_path(self, kind: str, name: str) -> Path:
        """Where a new adapter called `name` is to be written.

        Raises:
            UsageError: the name is not allowed, or there is no such kind.
        """
        return self.adapter_folder(kind) / f"{clean_name(name)}{ADAPTER_SUFFIX}"

    def list_adapters(self, kind: str) -> list[Path]:
        """Adapter files that can be trained, at any depth, links followed, empty files left out; sorted."""
        return [path for path, _ in adapter_files([self.adapter_folder(kind)], TRAINABLE_SUFFIXES)]

    def list_models(self) -> list[Path]:
        """Checkpoint files and diffusers folders (with a model_index.json) at any depth, links followed; sorted.

        Left out are empty files, and VAEs that lie beside checkpoints (``NAME.vae.safetensors``).
        """
        seen: set[str] = set()
        return sorted(_walk_models(self.models, seen)) if _is_new(str(self.models), seen) else []

    def list_vaes(self) -> list[Path]:
        """Files of VAEs at any depth, links followed, empty files left out; sorted."""
        return [path for path, _ in adapter_files([self.vaes], VAE_SUFFIXES)]

    def find_adapter(self, kind: str, name: str) -> Path:
        """The file of the adapter called `name`, of several the one that sorts first; UsageError names others."""
        return _find(kind, name, self.list_adapters(kind), self.adapter_folder(kind))

    def find_named(self, name: str) -> Path:
        """The file of the adapter called `name`, of whatever kind; UsageError where there is none, or one of each."""
        candidates = {kind: self.list_adapters(kind) for kind in kind_names()}
        found = {}
        for kind, paths in candidates.items():
            with contextlib.suppress(UsageError):
                found[kind] = _find(kind, name, paths, self.adapter_folder(kind))
        if len(found) > 1:
            several = " and of ".join(find_kind(kind).one for kind in found)
            paths_found = " or ".join(map(str, found.values()))
            raise UsageError(f"{name!r} is the name of {several}; give the path of one: {paths_found}.")
        if not found:
            everything = [path for paths in candidates.values() for path in paths]
            return _find("adapter", name, everything, self.root)
        return next(iter(found.values()))

    def find_model(self, name: str) -> Path:
        """The file or folder of the base model called `name`; UsageError names what comes near.

        `name` is the file's name with or without suffix, or its path from the models folder.
        """
        return _find("model", name, self.list_models(), self.models)

    def find_vae(self, name: str) -> Path:
        """The file of the VAE called `name`, which may be one of a base model too; UsageError names what comes near."""
        return _find("VAE", name, [*self.list_vaes(), *self.list_models()], self.vaes)


def copy_name(name: str, step: int) -> str:
    """What the copy of an adapter after `step` steps is called, without suffix: NAME-STEP, as the webui has it."""
    return f"{name}-{step}"


def path_beside(path: Path, name: str, more: str) -> Path:
    """Where another file of an adapter lies beside ``path``, its own or a copy: NAME-raw, NAME-raw-500."""
    return path.with_name(f"{name}{more}{path.name.removeprefix(name)}")


def parse_copy_name(stem: str) -> tuple[str, int] | None:
    """Name and step of a copy by its file's name without suffix; None when it is not the name of a copy."""
    name, _, step = stem.rpartition("-")
    return (name, int(step)) if name and step.isascii() and step.isdigit() else None


def adapter_of_copy(copy: Path) -> str:
    """NAME of ``NAME-500.pt``; of a file that is no copy, its own name without suffix."""
    parsed = parse_copy_name(copy.stem)
    return parsed[0] if parsed else copy.stem


def adapter_files(folders: Iterable[Path], suffixes: Collection[str]) -> Iterator[tuple[Path, os.stat_result]]:
    """Files of the given suffixes (lower case) at any depth, and what the system says of them; sorted in each folder.

    Links are followed, and every folder is walked once, though several ways lead there. Empty files are left out, and
    so is what cannot be looked at.
    """
    seen: set[str] = set()  # real paths: links may form a ring
    for folder in folders:
        if _is_new(str(folder), seen):
            yield from sorted(_walk(folder, suffixes, seen))


def _walk(folder: Path, suffixes: Collection[str], seen: set[str]) -> Iterator[tuple[Path, os.stat_result]]:
    for directory, subdirectories, names in os.walk(folder, followlinks=True):
        subdirectories[:] = [name for name in subdirectories if _is_new(os.path.join(directory, name), seen)]
        for name in names:
            if os.path.splitext(name)[1].lower() not in suffixes or name.startswith(_COMPANION):
                continue
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                found = os.stat(path)
                if stat.S_ISREG(found.st_mode) and found.st_size > 0:
                    yield Path(path), found


def _walk_models(folder: Path, seen: set[str]) -> Iterator[Path]:
    for directory, subdirectories, names in os.walk(folder, followlinks=True):
        subdirectories[:] = [name for name in subdirectories if _is_new(os.path.join(directory, name), seen)]
        if "model_index.json" in names:
            subdirectories.clear()  # its weights are parts of a model
            yield Path(directory)
            continue
        for name in names:
            path = Path(directory, name)
            if name.startswith(_COMPANION):
                continue
            if path.suffix.lower() in MODEL_SUFFIXES and not path.stem.lower().endswith(".vae"):
                with contextlib.suppress(OSError):
                    found = path.stat()
                    if stat.S_ISREG(found.st_mode) and found.st_size > 0:
                        yield path


# What a Mac lays beside the files of other file systems, and into archives; it holds nothing of the file itself.
_COMPANION = "._"


def _is_new(directory: str, seen: set[str]) -> bool:
    real = os.path.realpath(directory)
    if real in seen:
        return False
    seen.add(real)
    return True


def _find(kind: str, name: str, candidates: list[Path], folder: Path) -> Path:
    named = {_without_suffix(path.name): path for path in reversed(candidates)}
    inner = {path.relative_to(folder).as_posix(): path for path in candidates if path.is_relative_to(folder)}
    found = {path.name: path for path in reversed(candidates)} | named | inner
    found |= {_without_suffix(path): inner[path] for path in reversed(inner)}
    if name in found:
        return found[name]
    near = difflib.get_close_matches(_without_suffix(name), named, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif named:
        hint = f"there are: {', '.join(sorted(named)[:10])}{', ...' if len(named) > 10 else ''}."
    else:
        hint = "there is none yet."
    raise UsageError(f"There is no {kind} {name!r} in {folder}; {hint}")


def _without_suffix(file_name: str) -> str:
    stem, suffix = os.path.splitext(file_name)
    return stem if suffix.lower() in TRAINABLE_SUFFIXES | VAE_SUFFIXES else file_name
