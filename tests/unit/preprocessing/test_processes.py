from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tincture.preprocessing import processes
from tincture.preprocessing.processes import Crashed, process_count, run_jobs


def never() -> bool:
    return False


def square(number: int) -> int:
    if number < 0:
        os._exit(3)  # as a fault in a decoder does
    return number * number


def complain(number: int) -> int:
    raise ValueError(f"no {number}")


@pytest.mark.parametrize(
    ("wanted", "jobs", "cores", "expected"),
    [(3, 100, 8, 3), (3, 2, 8, 2), (5, 0, 8, 1), (0, 100, 8, 8), (0, 20, 8, 5), (0, 3, 8, 1), (0, 100, 1, 1)],
)
def test_as_many_processes_as_the_jobs_are_worth(
    monkeypatch: pytest.MonkeyPatch, wanted: int, jobs: int, cores: int, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert process_count(wanted, jobs) == expected


def test_one_process_is_the_callers_own() -> None:
    pids = [pid for _, pid in run_jobs(lambda _: os.getpid(), [1, 2], 1, never)]
    assert pids == [os.getpid()] * 2


def test_every_job_gets_its_result_and_a_crash_costs_one() -> None:
    jobs = [3, 4, -1, 5, 6, 7, -2, 8]
    results = dict(run_jobs(square, jobs, 2, never))
    assert results == {job: Crashed() if job < 0 else job * job for job in jobs}


def test_an_exception_of_a_job_is_the_callers() -> None:
    with pytest.raises(ValueError, match=r"no [1-4]"):
        list(run_jobs(complain, [1, 2, 3, 4], 2, never))


@pytest.mark.parametrize("count", [1, 2])
def test_a_stop_ends_it_after_the_jobs_that_run(count: int) -> None:
    done: list[int] = []
    for job, _ in run_jobs(square, list(range(100)), count, lambda: len(done) >= 3):
        done.append(job)
    assert 3 <= len(done) <= 3 + count * processes.AHEAD


PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from tincture.preprocessing.processes import run_jobs

def work(number):
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(0.2)
    return number

if __name__ == "__main__":
    # It is ignored in what a shell script runs in the background, tests among them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for job, result in run_jobs(work, list(range(10000)), 2, lambda: False):
        print(job, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C goes to all processes of a terminal, and only the parent may answer; killed, it cannot even say so."""
    (tmp_path / "pids").mkdir()
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    command = [sys.executable, str(script), str(tmp_path / "pids")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as program:
        assert program.stdout and program.stderr
        for _ in range(4):
            assert program.stdout.readline()
        if number == signal.SIGINT:
            os.killpg(program.pid, number)
        else:
            os.kill(program.pid, number)
        errors = program.stderr.read()
    pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    assert len(pids) == 2
    assert errors.count("Traceback") == (1 if number == signal.SIGINT else 0), errors
    _wait_for_end(pids)


def _wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(_is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "processes outlive their parent"
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_script_without_guard_is_told(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(
        textwrap.dedent(
            """
            from tincture.errors import TinctureError
            from tincture.preprocessing.processes import run_jobs
            try:
                list(run_jobs(abs, [1, 2], 2, lambda: False))
            except TinctureError as error:
                print(error)
            """
        )
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert "below `if __name__ == '__main__':`; or give workers=1" in done.stdout
