from __future__ import annotations

from pathlib import Path

from torch import Tensor

from tincture.formats.files import read_bytes
from tincture.formats.safetensors_file import parse_safetensors


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file, as readers of adapters get them."""
    return parse_safetensors(path, read_bytes(path))
