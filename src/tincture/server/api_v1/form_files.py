"""Files of a multipart request, each written to the disk as it comes: none is held in memory, one at a time is open."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from tincture.errors import StorageError, UsageError
from tincture.server.errors import TooMuchError

WRITTEN_AT_ONCE = 2**20
LONGEST_HEADER = 2**14


@asynccontextmanager
async def received_files(
    request: Request, folder: Path, *, max_bytes: int, max_files: int
) -> AsyncIterator[Iterator[tuple[str, BinaryIO]]]:
    """The files of the request with the names that the client gave, each open while it is looked at.

    They lie in a folder of their own inside ``folder``, which goes when the context is left.

    Raises:
        UsageError: it is no multipart request, is damaged, or has no files.
        TooMuchError: more bytes or files than allowed.
        StorageError: the disk is full.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise UsageError("An upload must be a multipart/form-data request with files in it; see /docs.")
    place = await asyncio.to_thread(_make, folder)
    try:
        parts = _Parts(options[b"boundary"], place, max_bytes, max_files)
        try:
            await _receive(request, parts)
        finally:
            parts.close()
        if not parts.names:
            raise UsageError("The upload has no files in it; send at least one picture or a zip.")
        yield _opened(parts.names, place)
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, place, ignore_errors=True))


async def _receive(request: Request, parts: _Parts) -> None:
    waiting = bytearray()
    try:
        async for chunk in request.stream():
            waiting += chunk
            if len(waiting) >= WRITTEN_AT_ONCE:
                await asyncio.to_thread(parts.take, bytes(waiting))
                waiting.clear()
    except ClientDisconnect:
        raise UsageError("The upload broke off; send it again.") from None
    await asyncio.to_thread(parts.take, bytes(waiting))
    parts.finish()


def _make(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=folder))
    except OSError as error:
        raise StorageError(f"The upload cannot be kept: {error.strerror or error}.") from error


def _opened(names: Sequence[str], place: Path) -> Iterator[tuple[str, BinaryIO]]:
    for index, name in enumerate(names):
        with (place / str(index)).open("rb") as file:
            yield name, file


class _Parts:
    """Writes each part of the body that has a file name into a file called by its number."""

    def __init__(self, boundary: bytes, place: Path, max_bytes: int, max_files: int) -> None:
        self.names: list[str] = []
        self._place, self._max_bytes, self._max_files = place, max_bytes, max_files
        self._written = 0
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._file: BinaryIO | None = None
        self._ended = False
        with _explained():
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._add_header(0, data[start:end]),
                    "on_header_value": lambda data, start, end: self._add_header(1, data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open,
                    "on_part_data": self._write,
                    "on_part_end": self.close,
                    "on_end": self._end,
                },
            )

    def take(self, content: bytes) -> None:
        """The next bytes of the body."""
        with _explained():
            self._parser.write(content)

    def finish(self) -> None:
        """The body is complete."""
        with _explained():
            self._parser.finalize()
        if not self._ended:
            raise UsageError("The upload ends in the middle; send it again.")

    def close(self) -> None:
        """Closes the file at hand."""
        if self._file:
            self._file.close()
        self._file = None

    def _begin(self) -> None:
        self._disposition = b""

    def _add_header(self, part: int, data: bytes) -> None:
        self._header[part].extend(data)
        if len(self._header[part]) > LONGEST_HEADER:
            raise UsageError(f"A part of the upload has a header of more than {LONGEST_HEADER} bytes.")

    def _end_header(self) -> None:
        name, value = (bytes(part) for part in self._header)
        if name.lower() == b"content-disposition":
            self._disposition = value
        for part in self._header:
            part.clear()

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" not in options:
            field = options.get(b"name", b"").decode(errors="replace")[:80]
            raise UsageError(f"The field {field!r} of the upload is no file; send files only.")
        if len(self.names) >= self._max_files:
            raise TooMuchError(f"The upload has more than {self._max_files} files; send them in several.")
        self._file = (self._place / str(len(self.names))).open("wb")
        self.names.append(options[b"filename"].decode(errors="replace"))

    def _write(self, data: bytes, start: int, end: int) -> None:
        self._written += end - start
        if self._written > self._max_bytes:
            raise TooMuchError(f"The upload is larger than {self._max_bytes // 2**20} MB; send it in several.")
        if self._file:
            self._file.write(data[start:end])

    def _end(self) -> None:
        self._ended = True


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except FormParserError:
        raise UsageError("The upload is damaged; send it again.") from None
    except OSError as error:
        raise StorageError(f"The upload cannot be kept: {error.strerror or error}.") from error
