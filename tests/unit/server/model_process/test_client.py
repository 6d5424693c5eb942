from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tincture.errors import DivergedError, TinctureError
from tincture.server.child_environment import child_environment
from tincture.server.errors import NotFoundError, QueueFullError, StoppedError
from tincture.server.model_process.client import ModelProcess
from tincture.workspace import Workspace

REPOSITORY = Path(__file__).parents[4]
ODD = "tests.unit.server.odd_targets"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModelProcess]]:
    """Makes ``ModelProcess`` of the odd targets."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    made: list[ModelProcess] = []

    def calls(**changes: Any) -> ModelProcess:
        made.append(ModelProcess(Workspace(tmp_path), **{"idle_s": 60, "targets": ODD, **changes}))
        return made[-1]

    yield calls
    for each in made:
        each.close()


@pytest.fixture
def calls(make: Callable[..., ModelProcess]) -> ModelProcess:
    return make()


def until(fact: Callable[[], Any]) -> None:
    """Waits for something that happens soon, however slow the machine is."""
    end = time.monotonic() + 120
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_one_process_does_all_calls_and_keeps_what_it_has(calls: ModelProcess, tmp_path: Path) -> None:
    assert calls._child is None  # begun at the first call only
    first = calls.call("count", name="a name", path=tmp_path)
    second = calls.call("count")
    assert (first["calls"], second["calls"]) == (1, 2)
    assert first["pid"] == second["pid"] != os.getpid()
    assert (first["name"], first["path"], first["root"], first["cwd"]) == ("a name", tmp_path, tmp_path, str(tmp_path))


def test_what_libraries_write_does_not_disturb(calls: ModelProcess, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tincture.server"):
        assert calls.call("chatter") == "said"
    assert "chatter: one embedding is left out" in caplog.text and "programmers" not in caplog.text
    assert calls.call_with_remarks("chatter") == ("said", ["one embedding is left out"] * 2)


def test_large_messages_come_whole(calls: ModelProcess) -> None:
    content = os.urandom(5 * 2**20)
    assert calls.call("large", content=content) == content[::-1]


def test_an_answer_that_is_too_large_ends_its_call_alone(calls: ModelProcess, caplog: pytest.LogCaptureFixture) -> None:
    before = calls.call("count")["pid"]
    with pytest.raises(TinctureError, match="not foreseen"):
        calls.call("too_large")
    assert "allowed are 1,000" in caplog.text
    assert calls.call("count")["pid"] == before


def test_remarks_of_several_threads_come_whole(calls: ModelProcess) -> None:
    assert calls.call_with_remarks("crowd") == ("done", ["w" * 100_000] * 8)


def test_our_errors_come_back_as_themselves(calls: ModelProcess) -> None:
    with pytest.raises(NotFoundError, match="There is no such thing"):
        calls.call("fail", kind="ours")
    with pytest.raises(DivergedError):
        calls.call("fail", kind="diverged")
    assert calls.call("count")["calls"] == 1


def test_other_errors_are_told_without_what_is_inside(calls: ModelProcess, caplog: pytest.LogCaptureFixture) -> None:
    for kind in ("other", "value"):
        with pytest.raises(TinctureError) as told:
            calls.call("fail", kind=kind)
        assert "not foreseen" in str(told.value) and "odd_targets" not in str(told.value)
    assert "raise {" in caplog.text  # the log has the traceback
    with pytest.raises(TinctureError, match="not foreseen"):
        calls.call("nothing of this name")
    with pytest.raises(TinctureError, match="not foreseen"):
        calls.call("unpicklable")
    assert calls.call("count")["calls"] == 1


def test_a_crash_ends_one_call_and_the_next_has_a_new_process(
    calls: ModelProcess, caplog: pytest.LogCaptureFixture
) -> None:
    pid = calls.call("count")["pid"]
    with pytest.raises(TinctureError, match="ended with code 7"):
        calls.call("die", code=7)
    assert "last words" in caplog.text
    after = calls.call("count")
    assert after["calls"] == 1 and after["pid"] != pid
    with pytest.raises(TinctureError, match=r"signal 9.*memory ran out"):
        calls.call("kill")
    with pytest.raises(TinctureError, match="ended with code 3"):
        calls.call("fail", kind="exit")
    assert calls.call("count")["calls"] == 1


def test_a_process_that_died_while_it_rested_is_replaced(calls: ModelProcess) -> None:
    pid = calls.call("count")["pid"]
    os.kill(pid, 9)
    child = calls._child
    assert child is not None
    until(lambda: not child.is_alive())
    assert calls.call("count")["calls"] == 1


def test_progress_is_told_and_a_call_can_be_stopped(calls: ModelProcess) -> None:
    calls.interrupt()  # without a call, nothing happens
    assert calls.progress() is None
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(calls.call, "work", steps=10**6)
        until(lambda: (calls.progress() or {}).get("done"))
        assert (calls.progress() or {})["total"] == 10**6
        calls.interrupt()
        with pytest.raises(StoppedError):
            asked.result(120)
    assert calls.progress() is None
    assert calls.call("work", steps=3) == 3


def test_a_stop_that_comes_at_once_is_not_lost(calls: ModelProcess) -> None:
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(calls.call, "work", steps=10**6)
        until(lambda: calls.progress() is not None and calls._child is not None)
        calls.interrupt()
        with pytest.raises(StoppedError):
            asked.result(120)


def test_callers_wait_for_each_other_but_not_too_many(make: Callable[..., ModelProcess]) -> None:
    calls = make(most_waiting=2)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(calls.call, "work", steps=10**6)
        until(lambda: (calls.progress() or {}).get("done"))
        waiting = [pool.submit(calls.call, "count") for _ in range(2)]
        until(lambda: calls._waiting == 3)
        with pytest.raises(QueueFullError, match="2 requests wait"):
            calls.call("count")
        calls.interrupt()
        assert sorted(each.result(120)["calls"] for each in waiting) == [1, 2]
        with pytest.raises(StoppedError):
            first.result(120)


def test_a_call_that_takes_too_long_is_ended(make: Callable[..., ModelProcess]) -> None:
    calls = make(longest_s=0.5)
    with pytest.raises(TinctureError, match=r"longer than 0\.5 s"):
        calls.call("work", steps=1, seconds=600)


def test_an_idle_process_ends_and_the_next_call_has_a_new_one(make: Callable[..., ModelProcess]) -> None:
    calls = make(idle_s=0.05)
    pid = calls.call("count")["pid"]
    until(lambda: calls._child is None)
    assert calls.call("count")["pid"] != pid


def test_a_process_that_rests_gives_its_memory_back_and_one_at_work_is_left_alone(calls: ModelProcess) -> None:
    first = calls.call("count")
    assert calls.rest() and calls.rest()
    assert calls._child is None and calls._idle is None
    second = calls.call("count")
    assert (second["calls"], second["pid"] != first["pid"]) == (1, True)
    with calls._turn:
        assert not calls.rest()
    assert calls.call("count")["calls"] == 2


def test_closing_ends_the_process_and_the_call_at_work(calls: ModelProcess, caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(calls.call, "work", steps=10**6)
        until(lambda: (calls.progress() or {}).get("done"))
        waiting = pool.submit(calls.call, "count")
        until(lambda: calls._waiting == 2)
        calls.close()
        for each in (asked, waiting):
            with pytest.raises(TinctureError, match="being stopped"):
                each.result(120)
    assert not caplog.records  # nothing went wrong
    calls.close()
    with pytest.raises(TinctureError, match="being stopped"):
        calls.call("count")


def test_the_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib, tincture.server.model_process.client as c, tincture.workspace as w\n"
        f"calls = c.ModelProcess(w.Workspace(pathlib.Path({str(tmp_path)!r})), idle_s=60, targets={ODD!r})\n"
        "print(calls.call('count')['pid'], flush=True)\n"
        "import threading; threading.Thread(target=calls.call, args=('work', ), kwargs={'steps': 10**6}).start()\n"
        "import time; time.sleep(0.3)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, timeout=120)
    pid = int(parent.stdout)
    until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return not Path("/proc").exists()
    return state != "Z"


def test_nothing_of_the_workspace_is_imported(calls: ModelProcess, tmp_path: Path) -> None:
    for name in ("json.py", "torch.py", "tincture.py", "sitecustomize.py", "diffusers.py"):
        (tmp_path / name).write_text("raise SystemExit(9)")
    assert "torch" not in calls.call("modules")
    assert threading.active_count() < 50


def test_the_process_does_not_learn_the_servers_secrets(calls: ModelProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TINCTURE_AUTH", "TINCTURE_TOKEN", "TINCTURE_OTHER"):
        monkeypatch.setenv(name, "user:secret")
    found = calls.call("environment")
    assert "TINCTURE_OTHER" in found and not {"TINCTURE_AUTH", "TINCTURE_TOKEN"} & set(found)


def test_only_where_it_is_allowed_is_there_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert child_environment(allow_hub=False)["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in child_environment(allow_hub=True)


def test_the_newest_call_of_a_key_takes_the_place_of_those_before_it(calls: ModelProcess) -> None:
    with ThreadPoolExecutor() as pool:
        older = pool.submit(calls.call_while_latest, "page", "work", steps=100_000)
        until(calls.progress)
        waiting = pool.submit(calls.call_while_latest, "page", "work", steps=100_000)
        with pytest.raises(StoppedError):
            older.result(timeout=60)
        newest = pool.submit(calls.call_while_latest, "page", "count")
        assert newest.result(timeout=60)["calls"] == 1
        with pytest.raises(StoppedError):
            waiting.result(timeout=60)
    assert calls._latest == {}


def test_what_gives_way_begins_anew_after_other_calls(calls: ModelProcess) -> None:
    with ThreadPoolExecutor() as pool:
        gives_way = pool.submit(calls.call_while_latest, "page", "work", steps=300)
        until(calls.progress)
        assert calls.call("count")["calls"] == 1  # at once, though the other has not ended
        assert not gives_way.done()
        assert gives_way.result(timeout=60) == 300


def test_what_nobody_waits_for_any_more_is_ended(calls: ModelProcess) -> None:
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(calls.call_while_latest, "page", "work", steps=100_000)
        until(calls.progress)
        calls.forget("another page")
        assert not asked.done()
        calls.forget("page")
        with pytest.raises(StoppedError):
            asked.result(timeout=60)
