"""What is fuzzed: every reader of files, behind wrappings that bring mutated bytes past checksums and lengths.

A target takes any bytes. It must return, or raise a ``TinctureError`` whose message is one line; anything else that is
raised is a finding.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import torch

from tincture.adapters.files.inspection import inspect_file
from tincture.data.dataset import Sample
from tincture.data.latent_files import LatentFiles
from tincture.errors import TinctureError
from tincture.formats.embedding_file import read_embedding_file
from tincture.formats.embedding_optimizer import read_embedding_optimizer
from tincture.formats.hypernetwork_file import read_hypernetwork_file
from tincture.formats.hypernetwork_optimizer import read_hypernetwork_optimizer
from tincture.formats.picture_text import parse_parameters
from tincture.models.inspection import describe_model, inspect_model
from tincture.models.loading.load import load_model

Reader = Callable[[Path], object]
STORAGE_BYTES = 64
"""Of each of the three storages that a wrapped pickle may refer to."""


def target(name: str) -> Callable[[bytes], None]:
    """The target of that name, one of ``TARGETS``."""
    wrap, reader = TARGETS[name]
    path = Path(tempfile.mkdtemp(prefix="tincture-fuzz-")) / "file.pt"

    def run(data: bytes) -> None:
        path.write_bytes(wrap(data))
        try:
            reader(path)
        except TinctureError as error:
            assert "\n" not in str(error), "the message has several lines"
            assert len(str(error)) < 1000, "the message is long"

    return run


# --- wrappings --------------------------------------------------------------------------------------------------------


def plain(data: bytes) -> bytes:
    """The bytes as they are."""
    return data


def pickled(data: bytes) -> bytes:
    """As the pickle of a torch file that has storages 0, 1 and 2."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in [("data.pkl", data), *((f"data/{n}", bytes(STORAGE_BYTES)) for n in range(3))]:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
        archive.writestr(zipfile.ZipInfo("archive/version"), b"3\n")
    return buffer.getvalue()


def headed(data: bytes) -> bytes:
    """As a safetensors file: the first line is the header, what follows are the tensors."""
    header, _, values = data.partition(b"\n")
    return struct.pack("<Q", len(header)) + header + values


def checked(data: bytes) -> bytes:
    """As a file of latents: a checksum, then the safetensors file of ``headed``."""
    content = headed(data)
    return hashlib.sha256(content).digest() + content


def in_text(data: bytes) -> bytes:
    """As the JSON in the text chunk of a picture card."""
    body = b"sd-ti-embedding\0" + base64.b64encode(data)
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"tEXt", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


# --- readers ----------------------------------------------------------------------------------------------------------


def _inspected(path: Path) -> object:
    return json.dumps(inspect_file(path), allow_nan=False, ensure_ascii=False).encode()


def _optimizer(path: Path) -> object:
    beside = path.with_name(f"{path.name}.optim")
    beside.write_bytes(path.read_bytes())
    readers: tuple[Callable[[], object], ...] = (
        lambda: read_embedding_optimizer(path, torch.zeros(1, 2)),
        lambda: read_hypernetwork_optimizer(path),
        lambda: _inspected(beside),
    )
    for read in readers:
        with contextlib.suppress(TinctureError):
            read()
    return None


def _parameters(path: Path) -> object:
    return parse_parameters(path.read_bytes().decode(errors="replace"))


def kept_latents(folder: Path) -> tuple[LatentFiles, Sample, Path]:
    """A cache, a sample of 16 x 8 pixels, and where its latents would lie, the same with every release of torch."""
    files = LatentFiles(folder / "cache", "vae")
    files.encoder = "vae"
    sample = Sample(folder / "picture.png", "", 16, 8, (16, 8), (16, 8), digest="0" * 64)
    return files, sample, files._path(sample)


def _latents(path: Path) -> object:
    files, sample, place = kept_latents(path.parent)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(path.read_bytes())
    check, moments = files._stored_check(sample.digest), files.read(sample)
    assert check is None or len(check.size) == 2
    assert moments is None or all(part.shape == (4, 1, 2) and part.isfinite().all() for part in moments)
    return moments


def _model(path: Path) -> object:
    with contextlib.suppress(TinctureError):
        load_model(str(path))
    return inspect_model(path), describe_model(path)


TARGETS: dict[str, tuple[Callable[[bytes], bytes], Reader]] = {
    "embedding-file": (plain, read_embedding_file),
    "embedding-pickle": (pickled, read_embedding_file),
    "embedding-safetensors": (headed, read_embedding_file),
    "embedding-json": (in_text, read_embedding_file),
    "hypernetwork-file": (plain, read_hypernetwork_file),
    "hypernetwork-pickle": (pickled, read_hypernetwork_file),
    "hypernetwork-safetensors": (headed, read_hypernetwork_file),
    "latents-file": (plain, _latents),
    "latents-safetensors": (checked, _latents),
    "optimizer-pickle": (pickled, _optimizer),
    "inspect-file": (plain, _inspected),
    "inspect-pickle": (pickled, _inspected),
    "inspect-safetensors": (headed, _inspected),
    "model-file": (plain, _model),
    "model-pickle": (pickled, _model),
    "model-safetensors": (headed, _model),
    "picture-parameters": (plain, _parameters),
}
"""By name: how the bytes are wrapped, and what reads the file."""
