from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from tincture.errors import UsageError
from tincture.server.errors import TooMuchError
from tincture.server.http import event_streams as streams
from tincture.server.http.event_streams import Streams, parse_position
from tincture.server.queue.folder import JobFolder
from tincture.server.queue.jobs import Job, JobState
from tincture.server.queue.store import JobStore
from tincture.server.service import Service

JOB = "20260101-000000-0badcafe"


class CountingFolder(JobFolder):
    reads = 0

    def read_from(self, offset: int, most: int = 2**22) -> tuple[list[dict[str, Any]], int]:
        self.reads += 1
        return super().read_from(offset, most)


@dataclass
class WatchedService:
    """The parts of a service that streams ask."""

    root: Path
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.store = JobStore(self.root / "jobs.sqlite3")
        self.kept = CountingFolder(self.root / JOB)
        self.kept.path.mkdir()
        self.queue, self.job, self.jobs = self, self.store.get, self.store.list

    def folder(self, job_id: str) -> JobFolder:
        return self.kept

    def add(self, job_id: str = JOB, state: JobState = JobState.RUNNING) -> None:
        self.store.add(Job(id=job_id, kind="train", name="cat", settings={"steps": 9}, state=state, created_at=1.0))

    def write(self, *numbers: int, ending: str = "\n", blow: int = 0) -> None:
        """Writes events as a worker does; ``blow``: bytes that each has besides."""
        with self.kept.event_file.open("a") as file:
            for number in numbers:
                line = {"n": number, "time": 1.0, "type": "progress", "global_step": number, "more": "x" * blow}
                file.write(json.dumps(line) + ending)

    def streams(self, heartbeat_s: float = 60.0) -> Streams:
        return Streams(cast(Service, self), every_s=0.01, heartbeat_s=heartbeat_s)


@pytest.fixture
def service(tmp_path: Path) -> WatchedService:
    return WatchedService(tmp_path)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await body()

    asyncio.run(bounded())


def parsed(content: bytes) -> list[tuple[str, str, dict[str, Any]]]:
    """The events in a stream: id, type, data. Comments are left out."""
    found = []
    for block in content.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if lines:
            found.append((lines.get("id", ""), lines["event"], json.loads(lines["data"])))
    return found


async def whole(stream: AsyncGenerator[bytes, None]) -> list[tuple[str, str, dict[str, Any]]]:
    return parsed(b"".join([chunk async for chunk in stream]))


async def until(stream: AsyncGenerator[bytes, None], wanted: Callable[[bytes], bool]) -> bytes:
    """What comes until ``wanted`` of it is true."""
    content = b""
    async for chunk in stream:
        content += chunk
        if wanted(content):
            break
    return content


def numbers(events: list[tuple[str, str, dict[str, Any]]]) -> list[int]:
    return [data["n"] for _, _, data in events if "n" in data]


def test_a_watcher_gets_every_event_once_and_at_last_how_the_job_ended(service: WatchedService) -> None:
    async def body() -> None:
        service.add()
        service.write(1, 2)
        stream = service.streams().job(JOB)
        first = await until(stream, lambda content: b"event: state" in content)
        service.write(3)
        second = await until(stream, lambda content: b"id: 3" in content)
        service.write(4)
        service.store.update(JOB, state=JobState.DONE)
        last = await whole(stream)
        events = parsed(first) + parsed(second) + last
        assert numbers(events) == [1, 2, 3, 4]
        assert [told for told, _, data in events if "n" in data] == ["1", "2", "3", "4"]
        assert parsed(first)[-1][1:] == ("state", parsed(first)[-1][2])
        assert parsed(first)[-1][2]["state"] == "running" and "settings" not in parsed(first)[-1][2]
        assert (last[-1][0], last[-1][1], last[-1][2]["state"]) == ("4-end", "state", "done")

    run(body)


def test_only_the_last_state_says_that_it_is_the_end(service: WatchedService) -> None:
    async def body() -> None:
        service.add()
        stream = service.streams().job(JOB)
        content = await until(stream, lambda content: b"event: state" in content)
        for step in (1, 2):
            service.store.note(JOB, global_step=step)
            content += await until(stream, lambda content: b"event: state" in content)
        service.store.update(JOB, state=JobState.FAILED, error="no room")
        states = parsed(content) + await whole(stream)
        assert [(told, data["global_step"]) for told, _, data in states] == [("", 0), ("", 1), ("", 2), ("0-end", 2)]
        assert states[-1][2]["error"] == "no room"

    run(body)


@pytest.mark.parametrize("since", [0, 1, 250, 500, 999, 1000, 5000])
def test_a_watcher_goes_on_behind_the_number_that_it_names(
    service: WatchedService, since: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PIECE", 2000)
    monkeypatch.setattr(streams, "RECENT_BYTES", 5000)

    async def body() -> None:
        service.add(state=JobState.DONE)
        service.write(*range(1, 1001))
        events = await whole(service.streams().job(JOB, since))
        assert numbers(events) == list(range(since + 1, 1001))
        assert events[-1][0] == "1000-end"

    run(body)


def test_many_watchers_cost_one_reader(service: WatchedService) -> None:
    async def body() -> None:
        service.add()
        watched = service.streams()
        watchers = [asyncio.create_task(whole(watched.job(JOB))) for _ in range(50)]
        for number in range(1, 41):
            service.write(number)
            await asyncio.sleep(0.005)
        service.store.update(JOB, state=JobState.DONE)
        told = await asyncio.gather(*watchers)
        assert all(numbers(events) == list(range(1, 41)) for events in told)
        assert service.kept.reads < 50 * 5  # had each watcher read for itself, it would be 50 times that
        assert watched.watchers == 0

    run(body)


def test_a_slow_watcher_misses_nothing_and_keeps_nothing_in_memory(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PIECE", 10_000)
    monkeypatch.setattr(streams, "RECENT_BYTES", 20_000)

    async def body() -> None:
        service.add()
        watched = service.streams()
        slow = watched.job(JOB)
        content = await until(slow, lambda content: b"event: state" in content)
        quick = asyncio.create_task(whole(watched.job(JOB)))
        largest = 0
        for first in range(1, 1001, 100):
            service.write(*range(first, first + 100), blow=200)
            await asyncio.sleep(0.02)
            largest = max(largest, watched._followers[JOB]._recent_bytes)
        service.store.update(JOB, state=JobState.DONE)
        assert numbers(await quick) == list(range(1, 1001))
        assert largest <= 20_000
        async for chunk in slow:
            assert len(chunk) < 60_000
            content += chunk
        assert numbers(parsed(content)) == list(range(1, 1001))

    run(body)


def test_the_end_is_told_after_all_events_also_to_one_who_reads_from_the_disk(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PIECE", 500)
    monkeypatch.setattr(streams, "RECENT_BYTES", 100)

    async def body() -> None:
        service.add()
        service.write(*range(1, 301))
        stream = service.streams().job(JOB)
        content = await anext(stream)
        service.store.update(JOB, state=JobState.DONE)
        events = parsed(content) + await whole(stream)
        assert numbers(events) == list(range(1, 301))
        assert [told for told, kind, _ in events if kind == "state" and told] == ["300-end"]
        assert events[-1][0] == "300-end"

    run(body)


def test_a_half_written_event_waits_for_its_other_half(service: WatchedService) -> None:
    async def body() -> None:
        service.add()
        service.write(1)
        service.write(2, ending="")
        stream = service.streams(heartbeat_s=0.2).job(JOB)
        content = await until(stream, lambda content: content.endswith(b": here\n\n"))
        assert numbers(parsed(content)) == [1]
        service.write(ending="")
        with service.kept.event_file.open("a") as file:
            file.write("\n")
        content = await until(stream, lambda content: b"id: 2" in content)
        assert numbers(parsed(content)) == [2]
        await stream.aclose()

    run(body)


def test_silence_is_broken_by_comments(service: WatchedService) -> None:
    async def body() -> None:
        service.add()
        stream = service.streams(heartbeat_s=0.05).job(JOB)
        content = await until(stream, lambda content: content.count(b": here\n\n") == 3)
        assert len(parsed(content)) == 1
        await stream.aclose()

    run(body)


def test_nobody_is_followed_after_the_last_watcher_left(service: WatchedService) -> None:
    async def body() -> None:
        service.add()
        watched = service.streams()
        first, second = watched.job(JOB), watched.job(JOB)
        await anext(first), await anext(second)
        follower = watched._followers[JOB]
        await first.aclose()
        assert watched.watchers == 1 and watched._followers == {JOB: follower}
        await second.aclose()
        await asyncio.sleep(0)
        assert watched.watchers == 0 and not watched._followers
        assert follower._task is not None
        await asyncio.wait([follower._task])
        service.write(1)
        third = watched.job(JOB)
        assert numbers(parsed(await until(third, lambda content: b"id: 1" in content))) == [1]
        await third.aclose()

    run(body)


def test_a_job_that_is_deleted_ends_its_streams(service: WatchedService) -> None:
    async def body() -> None:
        service.add()
        stream = service.streams().job(JOB)
        await anext(stream)
        service.store.delete(JOB, list(JobState))
        assert (await whole(stream))[-1] == ("0-end", "deleted", {"id": JOB})

    run(body)


def test_a_paused_job_is_watched_until_it_goes_on_and_ends(service: WatchedService) -> None:
    async def body() -> None:
        service.add(state=JobState.PAUSED)
        stream = service.streams().job(JOB)
        content = await anext(stream)
        for state in (JobState.QUEUED, JobState.RUNNING, JobState.CANCELLED):
            service.store.update(JOB, state=state)
            content += await anext(stream)
        states = [data["state"] for _, _, data in parsed(content) + await whole(stream)]
        assert states == ["paused", "queued", "running", "cancelled"]

    run(body)


def test_a_job_that_is_tried_again_can_be_watched_again(service: WatchedService) -> None:
    async def body() -> None:
        service.add(state=JobState.FAILED)
        service.write(1)
        watched = service.streams()
        assert numbers(await whole(watched.job(JOB))) == [1]
        service.store.update(JOB, state=JobState.RUNNING)
        stream = watched.job(JOB, since=1)
        await anext(stream)
        service.write(2)
        service.store.update(JOB, state=JobState.DONE)
        events = await whole(stream)
        assert numbers(events) == [2] and events[-1][0] == "2-end"

    run(body)


def test_streams_end_when_the_server_does(service: WatchedService) -> None:
    async def body() -> None:
        service.add()
        watched = service.streams()
        one, everything = watched.job(JOB), watched.all_jobs()
        await anext(one), await anext(everything)
        service.stopping.set()
        assert not any(told for told, _, _ in await whole(one))
        assert await whole(everything) == []

    run(body)


def test_a_folder_that_cannot_be_read_ends_the_stream(service: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        service.add()
        monkeypatch.setattr(service.kept, "read_from", lambda *_: 1 / 0)
        assert await whole(service.streams().job(JOB)) == []

    run(body)


def test_the_list_of_jobs_is_told_first_and_then_what_changes(service: WatchedService) -> None:
    async def body() -> None:
        service.add("a1", JobState.RUNNING)
        service.add("b2", JobState.QUEUED)
        service.add("c3", JobState.DONE)
        watched = service.streams()
        stream = watched.all_jobs()
        assert [data["id"] for _, _, data in parsed(await anext(stream))] == ["a1", "b2"]
        service.store.update("b2", state=JobState.CANCELLED)
        service.add("d4", JobState.QUEUED)
        changes = parsed(await until(stream, lambda content: b"d4" in content))
        assert {data["id"]: data["state"] for _, _, data in changes} == {"b2": "cancelled", "d4": "queued"}
        service.store.delete("c3", [JobState.DONE])
        assert parsed(await anext(stream)) == [("", "deleted", {"id": "c3"})]
        later = watched.all_jobs()
        assert [data["id"] for _, _, data in parsed(await anext(later))] == ["a1", "d4"]
        await stream.aclose(), await later.aclose()
        assert watched.watchers == 0

    run(body)


def test_a_job_that_ends_behind_all_that_wait_is_told_too(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_LISTED", 2)

    async def body() -> None:
        for job_id in ("a1", "b2", "c3"):
            service.add(job_id, JobState.QUEUED)
        stream = service.streams().all_jobs()
        await anext(stream)
        service.store.update("a1", state=JobState.CANCELLED)
        changes = parsed(await until(stream, lambda content: b"a1" in content))
        assert {data["id"]: data["state"] for _, _, data in changes}["a1"] == "cancelled"
        await stream.aclose()

    run(body)


def test_one_who_watches_all_jobs_slowly_gets_the_last_state_of_each(service: WatchedService) -> None:
    async def body() -> None:
        service.add()
        watched = service.streams()
        slow, quick = watched.all_jobs(), watched.all_jobs()
        await anext(slow), await anext(quick)
        for step in range(1, 6):
            service.store.note(JOB, global_step=step)
            assert parsed(await anext(quick))[0][2]["global_step"] == step
        assert [data["global_step"] for _, _, data in parsed(await anext(slow))] == [5]
        await slow.aclose(), await quick.aclose()

    run(body)


def test_watchers_are_not_taken_without_bound(service: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_WATCHERS", 1)

    async def body() -> None:
        service.add()
        watched = service.streams()
        watched.check()
        stream = watched.job(JOB)
        await anext(stream)
        with pytest.raises(TooMuchError, match="1 clients are watching"):
            watched.check()
        await stream.aclose()
        watched.check()

    run(body)


def test_positions_are_those_that_ids_tell() -> None:
    assert parse_position("17") == (17, False)
    assert parse_position(" 17-end ") == (17, True)
    for wrong in ("", "-1", "x", "1-", "17-END", "1" * 16, "٣"):
        with pytest.raises(UsageError, match="Last-Event-ID"):
            parse_position(wrong)
