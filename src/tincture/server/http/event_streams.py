"""Server-sent events: a job's events are read once, and handed to any number of watchers.

A watcher has no queue. It has a position in the job's events and asks for what stands behind it, when it has sent what
it had. So a slow client holds nobody up and keeps nothing in memory; when it is far behind, it reads from the disk.

Each numbered event of ``worker`` is sent once, in order, its number as ``id``. Between them come events ``state``: the
job as it stands, whenever that changed. The last one, of a job that has ended, has the id ``NUMBER-end``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Send

from tincture.errors import TinctureError, UsageError
from tincture.server.errors import NotFoundError, TooMuchError
from tincture.server.queue.folder import JobFolder
from tincture.server.queue.jobs import FINISHED, Job, plain_job
from tincture.server.service import Service

EVERY_S = 0.25
"""Seconds between two polls of a job."""
HEARTBEAT_S = 15.0
"""Seconds of silence after which a comment is sent, by which both sides see that the other is there."""
PIECE = 2**18
"""Bytes of events that are read at a time."""
RECENT_BYTES = 2**20
"""Bytes of events that stay in memory for each job that is watched."""
MOST_WATCHERS = 256
_HEARTBEAT = b": here\n\n"
_POSITION = re.compile(r"(\d{1,15})(-end)?", re.ASCII)
_LISTED = 1000

logger = logging.getLogger(__name__)


class EventStream(StreamingResponse):
    """A response of events; when the client goes, what makes them is closed at once."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncGenerator[bytes, None], status_code: int = 200) -> None:
        # FastAPI reads the status from the signature; X-Accel-Buffering: nginx would hold events back otherwise
        super().__init__(chunks, status_code, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._chunks = chunks

    async def stream_response(self, send: Send) -> None:
        async with contextlib.aclosing(self._chunks):
            await super().stream_response(send)


def parse_position(text: str) -> tuple[int, bool]:
    """What ``Last-Event-ID`` says: the number of the last event, and whether the end was seen too.

    Raises:
        UsageError: it is no id that this server gave.
    """
    match = _POSITION.fullmatch(text.strip())
    if not match:
        raise UsageError(f"Last-Event-ID is {text[:40]!r}, but must be the id of an event: a number, or NUMBER-end.")
    return int(match[1]), bool(match[2])


class Streams:
    """Hands out events; one task for each job that is watched, and one for the list of all jobs."""

    def __init__(self, service: Service, *, every_s: float = EVERY_S, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._service, self._every_s, self._heartbeat_s = service, every_s, heartbeat_s
        self._followers: dict[str, _JobFollower] = {}
        self._board: _Board | None = None
        self.watchers = 0

    def check(self) -> None:
        """Raises TooMuchError when no further watcher is taken."""
        if self.watchers >= MOST_WATCHERS:
            raise TooMuchError(f"{MOST_WATCHERS} clients are watching already; close some of them.")

    async def job(self, job_id: str, since: int = 0) -> AsyncGenerator[bytes, None]:
        """Events of a job behind number ``since``, until it has ended."""
        follower = self._followers.get(job_id)
        if follower is None or follower.over:
            follower = self._followers[job_id] = _JobFollower(self._service, job_id)
        with self._watching(follower):
            position = _Position(since)
            sent = 0
            while True:
                changed, over = follower.changed, follower.over  # before reading, so that nothing is missed
                chunk = await follower.behind(position)
                caught_up = position.number >= follower.last
                if sent != follower.row_changes and (caught_up or not follower.over):
                    sent = follower.row_changes
                    chunk += follower.state()
                if chunk:
                    yield chunk
                elif over:
                    return
                elif caught_up and not await _is_set_within(changed, self._heartbeat_s):
                    yield _HEARTBEAT

    async def all_jobs(self) -> AsyncGenerator[bytes, None]:
        """``state`` of every job that waits or runs, then of every job that changes; ``deleted`` of those that go."""
        if self._board is None or self._board.over:
            self._board = _Board(self._service)
        board = self._board
        with self._watching(board):
            position: int | None = None
            while True:
                changed = board.changed
                chunk, position = board.behind(position)
                if chunk:
                    yield chunk
                elif board.over:
                    return
                elif not await _is_set_within(changed, self._heartbeat_s):
                    yield _HEARTBEAT

    @contextlib.contextmanager
    def _watching(self, follower: _Follower) -> Iterator[None]:
        self.watchers += 1
        follower.join(self._every_s)
        try:
            yield
        finally:
            self.watchers -= 1
            if follower.leave():
                self._followers = {key: each for key, each in self._followers.items() if each is not follower}
                self._board = None if self._board is follower else self._board


class _Follower:
    """Polls something, as long as somebody watches.

    Attributes:
        changed: set when there is something new; then replaced.
        over: nothing new will come.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.changed = asyncio.Event()
        self.over = False
        self._watchers = 0
        self._task: asyncio.Task[None] | None = None

    def join(self, every_s: float) -> None:
        self._watchers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._follow(every_s))

    def leave(self) -> bool:
        """Whether that was the last watcher."""
        self._watchers -= 1
        if self._watchers:
            return False
        self.over = True
        if self._task:
            self._task.cancel()
        return True

    async def poll(self) -> None:
        """Finds out what is new; sets ``over``."""
        raise NotImplementedError

    def wake(self) -> None:
        """Wakes all watchers."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def _follow(self, every_s: float) -> None:
        try:
            while not self.over:
                await self.poll()
                if self.service.stopping.is_set():
                    break
                await asyncio.sleep(0 if self.over else every_s)
        except TinctureError as error:
            logger.warning("watching ends: %s", error)
        except Exception:
            logger.exception("watching ends")
        finally:
            self.over = True
            self.wake()


class _Position:
    """Where a watcher is: the number of its last event and, while it reads from the disk, the byte to go on at."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.offset: int | None = None


class _JobFollower(_Follower):
    """Reads a job's events.

    Attributes:
        last: number of the last event that was read.
        row_changes: counts the changes of the job's row.
    """

    def __init__(self, service: Service, job_id: str) -> None:
        super().__init__(service)
        self.last = self.row_changes = 0
        self._job_id = job_id
        self._folder: JobFolder | None = None
        self._job: Job | None = None
        self._gone = False
        self._recent: deque[tuple[int, bytes]] = deque()
        self._recent_bytes = 0
        self._dropped = 0  # number of the last event that is no longer in _recent
        self._offset = 0
        self._marks = [(0, 0)]  # number of an event, and the byte behind it; about one for each PIECE

    def state(self) -> bytes:
        """The event that says how the job stands; empty while that is not known."""
        if self._gone:
            return _event("deleted", {"id": self._job_id}, f"{self.last}-end")
        if self._job is None:
            return b""
        return _event("state", _short(self._job), f"{self.last}-end" if self.over and self._ended else "")

    @property
    def _ended(self) -> bool:
        return self._job is not None and self._job.state in FINISHED

    async def poll(self) -> None:
        job, events, offset = await asyncio.to_thread(self._read_job)
        while events:
            self._add(events, offset)
            self.wake()
            events, offset = await asyncio.to_thread(self._read, offset)
        # The row was read before the events: of a job that has ended, all of them are there.
        if job is None or job != self._job:
            self._job, self._gone = job or self._job, job is None
            self.over = self._gone or self._ended
            self.row_changes += 1
            self.wake()

    def _read_job(self) -> tuple[Job | None, list[tuple[int, bytes]], int]:
        try:
            job = self.service.queue.job(self._job_id)
        except NotFoundError:
            return None, [], self._offset
        return job, *self._read(self._offset)

    def _read(self, offset: int) -> tuple[list[tuple[int, bytes]], int]:
        self._folder = self._folder or self.service.queue.folder(self._job_id)
        events, after = self._folder.read_from(offset, PIECE)
        return [(event["n"], _event(event["type"], event, str(event["n"]))) for event in events], after

    def _add(self, events: list[tuple[int, bytes]], offset: int) -> None:
        self._recent.extend(events)
        self._recent_bytes += sum(len(encoded) for _, encoded in events)
        while self._recent_bytes > RECENT_BYTES and len(self._recent) > 1:
            self._dropped, encoded = self._recent.popleft()
            self._recent_bytes -= len(encoded)
        self.last, self._offset = events[-1][0], offset
        if offset - self._marks[-1][1] >= PIECE:
            self._marks.append((self.last, offset))

    async def behind(self, position: _Position) -> bytes:
        """Some of the events behind ``position``, which moves on; empty when there is none yet."""
        if position.number >= self._dropped:
            position.offset = None
            events = self._recent_behind(position.number)
        else:
            if position.offset is None:
                position.offset = max(offset for number, offset in self._marks if number <= position.number)
            events, position.offset = await asyncio.to_thread(self._read, position.offset)
            events = [(number, encoded) for number, encoded in events if number > position.number]
        if events:
            position.number = events[-1][0]
        return b"".join(encoded for _, encoded in events)

    def _recent_behind(self, number: int) -> list[tuple[int, bytes]]:
        found = []
        for event in reversed(self._recent):
            if event[0] <= number:
                break
            found.append(event)
        return found[::-1]


class _Board(_Follower):
    """Compares the list of jobs with what it was."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._jobs: dict[str, Job] | None = None
        self._version = -1
        self._changes: dict[str, tuple[int, bytes]] = {}  # of each job the last change only, the oldest first
        self._count = 0

    def behind(self, position: int | None) -> tuple[bytes, int | None]:
        """Changes behind number ``position``, and the number of the last; None: all jobs that have not ended."""
        if self._jobs is None:
            return b"", None
        if position is None:
            going = [job for job in self._jobs.values() if job.state not in FINISHED]
            return b"".join(_event("state", _short(job)) for job in going), self._count
        chunks: list[bytes] = []
        for count, chunk in reversed(self._changes.values()):
            if count <= position:
                break
            chunks.append(chunk)
        return b"".join(reversed(chunks)), self._count

    async def poll(self) -> None:
        version = await asyncio.to_thread(self.service.queue.store.version)
        if version == self._version:
            return
        self._version = version  # asked for before the jobs, so that no change is missed
        jobs = {job.id: job for job in await asyncio.to_thread(self.service.queue.jobs, (), _LISTED)}
        if self._jobs is not None:
            for job in jobs.values():
                if job != self._jobs.get(job.id):
                    self._note(job.id, _event("state", _short(job)))
            for job_id in self._jobs.keys() - jobs.keys():
                # Where many wait, one that ended is no longer among the first of the list.
                now = await asyncio.to_thread(_found, self.service.queue.job, job_id)
                if now is None:
                    self._note(job_id, _event("deleted", {"id": job_id}))
                elif now != self._jobs[job_id]:
                    self._note(job_id, _event("state", _short(now)))
        self._jobs = jobs
        self.wake()

    def _note(self, job_id: str, chunk: bytes) -> None:
        self._count += 1
        self._changes.pop(job_id, None)
        self._changes[job_id] = (self._count, chunk)
        while len(self._changes) > _LISTED:
            del self._changes[next(iter(self._changes))]


async def _is_set_within(changed: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            return await changed.wait()
    except TimeoutError:
        return False


def _found(get: Callable[[str], Job], job_id: str) -> Job | None:
    try:
        return get(job_id)
    except NotFoundError:
        return None


def _event(kind: str, data: dict[str, Any], number: str = "") -> bytes:
    head = f"id: {number}\n" if number else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def _short(job: Job) -> dict[str, Any]:
    """The job without its settings, which never change."""
    return {name: value for name, value in plain_job(job).items() if name != "settings"}
