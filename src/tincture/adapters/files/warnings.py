"""What is odd about an adapter file, as sentences for people: traps that cost them time elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tincture.adapters.files.programs import comfyui_differences
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.errors import FileFormatError
from tincture.formats.contents import Contents
from tincture.formats.embedding_content import EmbeddingFile
from tincture.formats.hypernetwork_file import HypernetworkFile
from tincture.models.families import MAX_VECTORS

_KNOWN_WIDTHS = {768, 1024, 1280}
_PICTURES = ("png", "webp")
_SUFFIXES = {"safetensors": (".safetensors", ".sft"), "png": (".png",), "webp": (".webp",)}
_TORCH_SUFFIXES = (".pt", ".bin", ".pth", ".ckpt", ".optim")


def container_warnings(path: Path, found: Contents) -> Iterator[str]:
    """Of any file: a name that does not fit the content, and what the webui's check refuses."""
    allowed = _SUFFIXES.get(found.container, _TORCH_SUFFIXES)
    if path.suffix.lower() not in allowed:
        yield (
            f"Its content is that of a {found.container} file, but its name ends in {path.suffix or 'nothing'}; "
            f"programs that go by names fail. Convert it to a name in {allowed[0]}."
        )
    if found.refused_entries and found.kind != "lora":
        yield (
            "The webui's check of unsafe files refuses it, for entries that newer versions of torch write; "
            f"{'convert it to pt' if found.kind != 'optimizer' else 'train it further with Tincture'} to write it anew."
        )


def embedding_warnings(path: Path, found: Contents, file: EmbeddingFile) -> Iterator[str]:
    """Of an embedding's name and vectors."""
    if found.container not in _PICTURES:
        yield from _name_warnings(path, file.name)
    for encoder, vectors in file.vectors.items():
        if not vectors.any():
            yield f"All numbers for {encoder} are 0."
        elif len({row.numpy().tobytes() for row in vectors}) < len(vectors):
            yield f"Some of the vectors for {encoder} are equal."
        if vectors.shape[1] not in _KNOWN_WIDTHS:
            yield f"The width {vectors.shape[1]} is that of no text encoder of Stable Diffusion 1, 2 or XL."
    if len(next(iter(file.vectors.values()))) > MAX_VECTORS:
        yield f"It has more vectors than the {MAX_VECTORS} that a prompt has room for in a row."


def hypernetwork_warnings(path: Path, found: Contents, file: HypernetworkFile) -> Iterator[str]:
    """Of a hypernetwork's name and weights, where it acts otherwise, and why it cannot be used if it cannot."""
    yield from _name_warnings(path, file.name)
    if not any(bool(tensor.any()) for pair in file.states.values() for state in pair for tensor in state.values()):
        yield "All its weights are 0, so it changes nothing."
    yield from comfyui_differences(file, None if found.container == "safetensors" else found.values)
    try:
        Hypernetwork.load(path)
    except FileFormatError as error:
        yield str(error)


def _name_warnings(path: Path, name: str) -> Iterator[str]:
    if name != path.stem:
        yield f"It calls itself {name!r}, but the webui, ComfyUI and Tincture go by the file's name, {path.stem!r}."
