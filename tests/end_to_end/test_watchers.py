"""Fifty clients that watch one run, over real connections: each gets every event in order, exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from tests.served import quick_service, training, until
from tests.unit.server.live import live
from tincture.server.app import build_app

WATCHERS = 50
STEPS = 40


async def ids(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """The ids of the events in a stream."""
    async for line in lines:
        if line.startswith("id: "):
            yield line.removeprefix("id: ")


async def watched(client: httpx.AsyncClient, job: str, leave_after: int | None) -> list[str]:
    """All ids that a client gets; it leaves after so many, and comes back as browsers do, until the end."""
    got: list[str] = []
    while not (got and got[-1].endswith("-end")):
        headers = {"Last-Event-ID": got[-1]} if got else {}
        async with client.stream("GET", f"/api/v1/jobs/{job}/events", headers=headers) as answer:
            assert answer.status_code == 200
            count = 0
            async for told in ids(answer.aiter_lines()):
                got.append(told)
                count += 1
                if count == leave_after:
                    break
    answer = await client.get(f"/api/v1/jobs/{job}/events", headers={"Last-Event-ID": got[-1]})
    assert answer.status_code == 204
    return got


def test_fifty_watchers_get_every_event_in_order_exactly_once(tmp_path: Path) -> None:
    service = quick_service(tmp_path, pace_s=0.05, requests_per_minute=10**6)
    with live(build_app(service, page=False)) as port:

        async def watch() -> tuple[str, list[list[str]]]:
            limits = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=120) as client:
                answer = await client.post("/api/v1/jobs", json=training(steps=STEPS))
                job = answer.json()["id"]
                # the even ones stay; the others leave after 1, 3, 5, ... events and come back
                leaving = [None if index % 2 == 0 else index for index in range(WATCHERS)]
                return job, list(await asyncio.gather(*(watched(client, job, after) for after in leaving)))

        job, told = asyncio.run(watch())
        last = service.queue.folder(job).events()[-1]["n"]
        assert last > 2 * STEPS
        expected = [*(str(number) for number in range(1, last + 1)), f"{last}-end"]
        assert all(got == expected for got in told)


def test_a_watcher_that_reads_nothing_disturbs_nobody_and_ends_with_the_server(tmp_path: Path) -> None:
    service = quick_service(tmp_path, pace_s=0.02)
    with httpx.Client(timeout=120) as client:
        with live(build_app(service, page=False)) as port:
            jobs = f"http://127.0.0.1:{port}/api/v1/jobs"
            job = client.post(jobs, json=training(steps=100_000)).json()["id"]
            unread = client.send(client.build_request("GET", f"{jobs}/{job}/events"), stream=True)
            until(lambda: client.get(f"{jobs}/{job}").json()["global_step"] > 10)
            service.stopping.set()
        assert b"-end" not in unread.read()  # the server ended, the job did not
        assert service.queue.store.get(job).state == "queued" and service.queue.store.get(job).global_step > 10


def test_all_jobs_are_watched_in_one_stream(tmp_path: Path) -> None:
    service = quick_service(tmp_path)
    with live(build_app(service, page=False)) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        states: list[tuple[str, str]] = []
        with client.stream("GET", "/api/v1/events", timeout=120) as stream:
            first, second = (client.post("/api/v1/jobs", json=training()).json()["id"] for _ in range(2))
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    job: dict[str, Any] = httpx.Response(200, content=line.removeprefix("data: ")).json()
                    states.append((job["id"], job["state"]))
                if {(first, "done"), (second, "done")} <= set(states):
                    break
        assert {job for job, _ in states} == {first, second}
        service.stopping.set()
