"""The embeddings of one or several folders: which of them a model can use, and which of those a prompt names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tincture.adapters.embedding import Embedding
from tincture.errors import ModelError
from tincture.formats.file_state import FileState, state_of
from tincture.workspace import adapter_files

if TYPE_CHECKING:
    from tincture.models.diffusion_model import DiffusionModel
    from tincture.workspace import Workspace

PICTURE_SUFFIXES = frozenset({".png", ".webp"})
EMBEDDING_SUFFIXES = frozenset({".pt", ".bin", ".safetensors"}) | PICTURE_SUFFIXES


class Entry(NamedTuple):
    """A file whose embedding the model can use; ``embedding`` lies on the CPU until it is attached."""

    path: Path
    embedding: Embedding

    @property
    def name(self) -> str:
        """What stands for it in prompts: the file's name without its suffix, or what a picture says."""
        return self.embedding.name


class LeftOut(NamedTuple):
    """A file that will not act.

    Attributes:
        name: the word in prompts that will not act.
        reason: why, as a sentence.
        embedding: None where the file cannot be read.
    """

    path: Path
    name: str
    reason: str
    embedding: Embedding | None


class EmbeddingDatabase:
    """Knows the embedding files below ``folders`` once ``refresh`` was called.

    Empty files and pictures that show an embedding (``NAME.preview.png``) are passed over. Of two usable embeddings
    with the same name, the one in the earlier folder is loaded, or in one folder that whose path sorts first.

    Args:
        folders: walked to any depth, links followed; they need not exist.

    Attributes:
        loaded: by name, what the model can use.
        skipped: embeddings that do not fit the model, whose name is taken or has no tokens.
        unreadable: files that are damaged or hold no embedding.
    """

    def __init__(self, folders: Iterable[str | os.PathLike[str]]) -> None:
        self.folders = tuple(Path(folder) for folder in folders)
        self.loaded: dict[str, Entry] = {}
        self.skipped: list[LeftOut] = []
        self.unreadable: list[LeftOut] = []
        # By path: what told a change from, and the embedding or why it cannot be read.
        self._files: dict[Path, tuple[FileState, Embedding | str]] = {}
        self._sorted_for: object = None
        self._find: Callable[[Sequence[str]], list[Entry]] = lambda prompts: []
        self._find_left_out: Callable[[Sequence[str]], list[LeftOut]] = lambda prompts: []

    def refresh(self, model: DiffusionModel, *, force: bool = False) -> bool:
        """Reads files that are new or changed since the last call, and sorts all by what ``model`` can use.

        A file that cannot be read does not stop the others. Entries of unchanged files keep their ``Embedding``.

        Args:
            model: whose prompts will name the embeddings.
            force: reads every file again.

        Returns:
            Whether anything can have changed: files, or the model.
        """
        found = {
            path: state_of(stat)
            for path, stat in adapter_files(self.folders, EMBEDDING_SUFFIXES)
            if not _is_only_a_preview(path)
        }
        fits = (model.text.vocabulary, tuple(model.text.widths.items()))
        known = {path: signature for path, (signature, _) in self._files.items()}
        # Compared in their order too, which decides whose name counts.
        if not force and list(found.items()) == list(known.items()) and fits == self._sorted_for:
            return False
        self._files = {
            path: (signature, self._files[path][1])
            if not force and known.get(path) == signature
            else (signature, _read(path))
            for path, signature in found.items()
        }
        self._sort(model)
        self._sorted_for = fits
        return True

    def named_in(self, prompts: Sequence[str]) -> list[Entry]:
        """Loaded entries whose names stand in ``prompts``, each once, in the order in which they come up.

        Names are found as the model finds those of attached embeddings.
        """
        return list(dict.fromkeys(self._find(prompts)))

    def left_out_in(self, prompts: Sequence[str]) -> list[LeftOut]:
        """Likewise what is skipped or unreadable, for telling the user what will not act, and why."""
        return list(dict.fromkeys(self._find_left_out(prompts)))

    def _sort(self, model: DiffusionModel) -> None:
        read = [Entry(path, found) for path, (_, found) in self._files.items() if isinstance(found, Embedding)]
        vocabulary = model.text.vocabulary
        self.loaded, self.skipped = {}, []
        known: dict[tuple[Any, ...], Entry] = {}
        for entry, spelling in zip(read, vocabulary.spellings([entry.name for entry in read]), strict=True):
            reason = _misfit(entry.embedding, model) or _no_name(entry, bool(spelling), known.get(spelling))
            if reason:
                self.skipped.append(LeftOut(entry.path, entry.name, reason, entry.embedding))
            else:
                self.loaded[entry.name] = known[spelling] = entry
        self._find = vocabulary.finder(known.items())
        self.unreadable = [
            LeftOut(path, path.stem, found, None)
            for path, (_, found) in self._files.items()
            if isinstance(found, str) and not self._is_shown(path)
        ]
        left_out = [*self.skipped, *self.unreadable]
        spellings = vocabulary.spellings([entry.name for entry in left_out])
        self._find_left_out = vocabulary.finder(zip(spellings, left_out, strict=True))

    def _is_shown(self, picture: Path) -> bool:
        """Whether ``NAME.png`` stands beside ``NAME.pt``, so that it need not hold an embedding itself."""
        if picture.suffix.lower() not in PICTURE_SUFFIXES:
            return False
        return any(picture.with_suffix(suffix) in self._files for suffix in EMBEDDING_SUFFIXES - PICTURE_SUFFIXES)


def usable_embeddings(model: DiffusionModel, workspace: Workspace) -> EmbeddingDatabase:
    """The embeddings of a workspace as they are now, sorted by what ``model`` can use."""
    database = EmbeddingDatabase([workspace.embeddings])
    database.refresh(model)
    return database


def _is_only_a_preview(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and path.stem.lower().endswith(".preview")


def _read(path: Path) -> Embedding | str:
    """The embedding, or why there is none."""
    try:
        embedding = Embedding.load(path)
    # Whatever is wrong with one file, the others must load.
    except Exception as error:
        return str(error) or type(error).__name__
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        embedding.name = path.stem
    return embedding


def _misfit(embedding: Embedding, model: DiffusionModel) -> str:
    try:
        embedding.require_fit(model)
    except ModelError as error:
        return str(error)
    return ""


def _no_name(entry: Entry, has_tokens: bool, taken: Entry | None) -> str:
    if not has_tokens:
        return f"The name {entry.name!r} of {entry.path} has no tokens, so no prompt can hold it; rename the file."
    if taken:
        return f"The name {entry.name!r} of {entry.path} is taken by {taken.path}; rename one of them."
    return ""
