"""Files made to run code, to fill the memory or to take forever give one sentence, soon and in bounded memory.

Each is read in a child process, whose processor time and memory are measured.
"""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import resource
import struct
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tincture.errors import FileFormatError
from tincture.formats.embedding_file import read_embedding_file
from tincture.formats.hidden_pixels import hide_bytes

MEASURABLE = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured by Linux's /proc")
SECONDS = 15  # of processor time, against work without end; on an idle machine all take less than one
ENOUGH_SECONDS = 30  # after which the child is ended, before the machine suffers
MEBIBYTES = 300
TRUE_PNG = b"\x89PNG\r\n\x1a\n"


class Call:
    """A pickle of this calls ``function(*arguments)`` when it is loaded."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.result = (function, arguments)

    def __reduce__(self) -> Any:
        return self.result


def saved(value: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def repacked(content: bytes, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(buffer, "w", compression) as target:
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
    return buffer.getvalue()


def with_pickle(pickled: bytes) -> bytes:
    return repacked(saved({}), lambda name, old: pickled if name.endswith("data.pkl") else old)


def legacy_with_pickle(pickled: bytes) -> bytes:
    start = b"".join(
        pickle.dumps(value, protocol=2)
        for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    )
    return start + pickled + pickle.dumps([], protocol=2)


def zip_bomb() -> bytes:
    honest = saved({"string_to_param": {"*": torch.zeros(5_000_000)}})
    return repacked(honest, lambda name, old: old, zipfile.ZIP_DEFLATED)


def endless_key() -> Any:
    pairs: tuple[Any, ...] = ()
    for _ in range(40):
        pairs = (pairs, pairs)
    return pairs


def endless_key_pickle() -> bytes:
    """{pairs: None}, written by hand: Python itself could not hash the key."""
    body = b"".join(b"\x86q" + bytes([n]) + b"h" + bytes([n]) for n in range(40))
    return b"\x80\x02})" + b")" + body + b"\x86Ns."


def claims(size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A tensor that claims ``size`` and ``stride`` over a storage of four numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # storages are deprecated for users, not in files
        tensor = Call(torch._utils._rebuild_tensor_v2, torch.zeros(4).storage(), 0, size, stride, False, {})
        return saved({"string_to_param": {"*": tensor}})


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes, width: int = 1, height: int = 1) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return TRUE_PNG + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def in_chunk(text: bytes) -> bytes:
    return png(chunk(b"tEXt", b"sd-ti-embedding\0" + base64.b64encode(text)))


def packed(megabytes: int) -> bytes:
    compressor = zlib.compressobj(1)
    return b"".join(compressor.compress(b"A" * 10**6) for _ in range(megabytes)) + compressor.flush()


def picture(size: tuple[int, int], kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, kind, **options)
    return buffer.getvalue()


def hidden_bomb() -> bytes:
    """A picture whose blocks hold 100 MB, compressed."""
    buffer = io.BytesIO()
    pixels = hide_bytes(np.full((256, 256, 3), 99, np.uint8), packed(100), np.array([0.5]))
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def many_tensors() -> bytes:
    return safetensors({f"{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(28_000)})


HOSTILE: dict[str, Callable[[], bytes]] = {
    "code": lambda: saved({"string_to_param": Call(os.system, "true")}),
    "code in the legacy format": lambda: saved(Call(os.system, "true"), zipped=False),
    "code in a plain pickle": lambda: pickle.dumps(Call(os.system, "true")),
    "a huge bytearray": lambda: saved(Call(bytearray, 10**11)),
    "a huge storage": lambda: saved(Call(torch.UntypedStorage, 10**11)),
    "dicts in dicts": lambda: with_pickle(b"\x80\x02" + b"}" * 40_000_000 + b"."),
    "dicts in dicts, just short enough": lambda: with_pickle(b"\x80\x02" + b"}" * 9_990 + b"."),
    "dicts in dicts, legacy": lambda: legacy_with_pickle(b"\x80\x02" + b"}" * 40_000_000 + b"."),
    "lists in lists": lambda: with_pickle(b"\x80\x02" + b"]" * 4_990 + b"a" * 4_989 + b"."),
    "a key without end": lambda: with_pickle(endless_key_pickle()),
    "a tuple without end": lambda: saved({"string_to_param": {"*": endless_key()}}),
    "a zip bomb": zip_bomb,
    "a shape beyond the numbers": lambda: claims((10**6, 768), (768, 1)),
    "a shape without numbers": lambda: claims((10**9, 10**6), (0, 0)),
    "negative sizes": lambda: claims((-1, 4), (4, 1)),
    "huge strides": lambda: claims((2, 2), (2**62, 2**62)),
    "more than a file may have": lambda: b"PK" + bytes(65 * 2**20),
    "a safetensors header beyond the file": lambda: safetensors(b"{}", length=2**40),
    "a long safetensors header": lambda: safetensors(b"{" + b" " * 50_000_000),
    "safetensors numbers beyond the file": lambda: safetensors(
        {"a": {"dtype": "F32", "shape": [10**9, 768], "data_offsets": [0, 3_072_000_000_000]}}, bytes(64)
    ),
    "a safetensors shape beyond its numbers": lambda: safetensors(
        {"a": {"dtype": "F32", "shape": [2**40, 2**30], "data_offsets": [0, 64]}}, bytes(64)
    ),
    "nested safetensors header": lambda: safetensors(b'{"a":' + b"[" * 1_000_000),
    "many tensors": many_tensors,
    "a long name in a safetensors header": lambda: safetensors(
        {"a" * 1_000_000: {"dtype": "F32", "shape": [2], "data_offsets": [0, 64]}}, bytes(64)
    ),
    "a long name in a pickle": lambda: with_pickle(b"\x80\x02c" + b"a" * 1_000_000 + b"\nb\n."),
    "control characters in a name": lambda: with_pickle(b"\x80\x02ca\x1b[2Jb\nc\n."),
    "a long key": lambda: saved({"\x1b[2J" * 100_000: 1, "b": 2}),
    "a text chunk of 60 MB": lambda: png(chunk(b"tEXt", b"sd-ti-embedding\0" + b"A" * 60_000_000)),
    "a packed text chunk of 200 MB": lambda: png(chunk(b"zTXt", b"sd-ti-embedding\0\0" + packed(200))),
    "another packed text of 200 MB": lambda: png(chunk(b"zTXt", b"Comment\0\0" + packed(200))),
    "five million chunks": lambda: png(*[chunk(b"teSt", b"")] * 5_000_000),
    "lists in JSON": lambda: in_chunk(b"[" * 4_000_000),
    "many lists in JSON": lambda: in_chunk(b"[" + b"[]," * 1_300_000 + b"[]]"),
    "many objects in JSON": lambda: in_chunk(b"[" + b"{}," * 1_300_000 + b"{}]"),
    "as many numbers in JSON as are read": lambda: in_chunk(
        b'{"string_to_param":{"*":{"TORCHTENSOR":[[' + b"1," * 2_000_000 + b"1],[2]]}}}"
    ),
    "many lists of numbers in JSON": lambda: in_chunk(
        b'{"string_to_param":{"*":{"TORCHTENSOR":[' + b"[1]," * 1_000_000 + b"[1,2]]}}}"
    ),
    "too many pixels": lambda: png(chunk(b"IDAT", zlib.compress(bytes(10**6))), width=60_000, height=60_000),
    "as many pixels as are read": lambda: picture((4200, 4280), "PNG"),
    "too many pixels in a WebP": lambda: picture((12_000, 2_000), "WEBP", lossless=True, quality=0, method=0),
    "a bomb in the pixels": hidden_bomb,
    "an empty file": lambda: b"",
    "a torn file": lambda: saved({"string_to_param": {"*": torch.ones(2, 8)}})[:-30],
}


def measured(path: Path) -> dict[str, Any]:
    """Reads ``path`` in a child process: what it raised, the processor time in s and the growth of memory in MiB."""
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of forks beside torch's threads
        child = os.fork()
    if child == 0:
        report: dict[str, Any] = {"kind": "nothing", "text": ""}
        before, start = peak_memory(), time.process_time()
        resource.setrlimit(resource.RLIMIT_CPU, (ENOUGH_SECONDS, ENOUGH_SECONDS))
        try:
            read_embedding_file(path)
        except BaseException as error:
            report = {"kind": type(error).__name__, "text": str(error)}
        report |= {"seconds": time.process_time() - start, "mebibytes": peak_memory() - before}
        os.write(sender, json.dumps(report).encode())
        os._exit(0)
    os.close(sender)
    os.waitpid(child, 0)
    with os.fdopen(receiver, "rb") as stream:
        answer = stream.read()
    result: dict[str, Any] = json.loads(answer) if answer else {"kind": "died"}
    return result


def peak_memory() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


@MEASURABLE
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_give_a_sentence_soon_and_in_bounded_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(HOSTILE[name]())
    check(measured(path), path)


@MEASURABLE
def test_a_text_chunk_of_200_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(png()[:33] + struct.pack(">I", 200_000_000) + b"tEXtsd-ti-embedding\0")
    os.truncate(path, 200_000_100)
    check(measured(path), path)


def check(report: dict[str, Any], path: Path) -> None:
    assert report["kind"] == FileFormatError.__name__, report
    assert report["text"].startswith(str(path)) and report["text"].endswith("."), report
    assert len(report["text"]) < 400 + len(str(path)) and report["text"].isprintable(), report
    assert report["seconds"] < SECONDS, report
    assert report["mebibytes"] < MEBIBYTES, report
