"""Jobs spread over processes, in any order, so that neither a crash of one nor Ctrl-C leaves a mess.

Processes are spawned, never forked: a fork of a process that has used torch or a GPU may hang.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for_end
from typing import TypeVar

from tincture.errors import TinctureError
from tincture.models.threads import available_processors

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")

AHEAD = 4
"""Jobs waiting for each process, so that none is idle while the caller is busy with a result."""
JOBS_PER_PROCESS = 4
"""A process takes about as long to start as so many pictures to cut."""


@dataclass(frozen=True)
class Crashed:
    """The job ended its process, by a fault in a decoder or for lack of memory."""


def process_count(wanted: int, jobs: int) -> int:
    """How many processes so many jobs are worth; 1 means the caller's own. `wanted` 0 stands for all cores."""
    if wanted:
        return max(1, min(wanted, jobs))
    return max(1, min(available_processors(), jobs // JOBS_PER_PROCESS))


def run_jobs(
    function: Callable[[JobT], ResultT], jobs: Sequence[JobT], processes: int, stop: Callable[[], bool]
) -> Iterator[tuple[JobT, ResultT | Crashed]]:
    """Each job with its result, as they come.

    Args:
        function: of a module, so that processes find it.
        jobs: may be told to another process.
        processes: 1 does everything here, and nothing then guards against a crash.
        stop: asked before each job; True ends it after the jobs that run.

    Raises:
        TinctureError: no process can be started.
    """
    if processes <= 1:
        for job in jobs:
            if stop():
                return
            yield job, function(job)
        return
    waiting = deque(jobs)
    while waiting and not stop():
        suspects = yield from _until_crash(function, waiting, processes, stop)
        for job in suspects:
            if not stop():
                yield job, _alone(function, job)


def _until_crash(
    function: Callable[[JobT], ResultT], waiting: deque[JobT], processes: int, stop: Callable[[], bool]
) -> Generator[tuple[JobT, ResultT | Crashed], None, list[JobT]]:
    """Takes jobs from `waiting`; when a process dies, returns those that it may have had."""
    running: dict[Future[ResultT], JobT] = {}
    with _pool(processes) as pool:
        while waiting or running:
            try:
                while waiting and len(running) < processes * AHEAD and not stop():
                    future = _submit(pool, function, waiting[0])
                    running[future] = waiting.popleft()
                if not running:
                    return []
                with _uninterrupted():
                    done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    yield running.pop(future), result
                if stop():
                    _withdraw(running)
            except BrokenProcessPool:
                return list(running.values())
    return []


def _withdraw(running: dict[Future[ResultT], JobT]) -> None:
    for future in list(running):
        if future.cancel():
            del running[future]


def _alone(function: Callable[[JobT], ResultT], job: JobT) -> ResultT | Crashed:
    with _pool(1) as pool:
        try:
            return _submit(pool, function, job).result()
        except BrokenProcessPool:
            return Crashed()


@contextlib.contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin)
    try:
        _submit(pool, os.getpid).result()
    except BrokenProcessPool:
        pool.shutdown()
        raise TinctureError(
            "No process could be started to spread the work over. A script that calls preprocess must do so below "
            "`if __name__ == '__main__':`; or give workers=1."
        ) from None
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, function: Callable[..., ResultT], *arguments: JobT) -> Future[ResultT]:
    """Submitting starts processes. They are born with SIGINT and SIGHUP blocked, which are the caller's business."""
    with _uninterrupted():
        return pool.submit(function, *arguments)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the end: raised while a lock of a future is held, it would leave the lock closed for ever."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """What every process does first."""
    for number in {signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)}:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(ImportError):
        import cv2

        # There is a process for each core already.
        cv2.setNumThreads(1)


def _end_with_parent() -> None:
    """A parent that is killed cannot tell its processes to end."""
    if parent := multiprocessing.parent_process():
        wait_for_end([parent.sentinel])
        os._exit(1)
