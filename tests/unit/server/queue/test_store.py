from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tincture.errors import StorageError, UsageError
from tincture.server.errors import BusyStorageError, ConflictError, NotFoundError
from tincture.server.http.errors import status_of
from tincture.server.queue.jobs import FINISHED, HIGHEST_PRIORITY, Job, JobState, Wanted
from tincture.server.queue.sqlite_errors import explained
from tincture.server.queue.store import JobStore


def job(job_id: str, **values: Any) -> Job:
    return Job(**{"id": job_id, "kind": "train", "name": job_id, "settings": {"steps": 5}, **values})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "jobs.sqlite3"


@pytest.fixture
def store(path: Path) -> JobStore:
    return JobStore(path)


def ids(store: JobStore, *states: JobState) -> list[str]:
    return [each.id for each in store.list(states)]


def fill(store: JobStore, count: int) -> None:
    for number in range(count):
        store.add(job(f"j{number}", position=float(number)))


def test_a_job_comes_back_as_it_was_put_in_also_from_another_store(store: JobStore, path: Path) -> None:
    whole = job(
        "one",
        kind="preprocess",
        name="Bücher",
        settings={"data": ["a", "b:3"], "rate": 1e-5, "none": None},
        state=JobState.FAILED,
        priority=-3,
        position=2.5,
        device="cuda:1",
        timeout_s=60.0,
        source="page",
        wanted=Wanted.CANCELLED,
        created_at=1.0,
        started_at=2.0,
        ended_at=3.0,
        attempts=2,
        run_dir="/somewhere/else",
        global_step=7,
        steps=9,
        stage="latents 3/5",
        loss=0.25,
        learning_rate=0.01,
        eta_s=12.0,
        result={"counts": {"used": 3}},
        error="It is »over«.",
        error_type="DataError",
    )
    store.add(whole)
    assert store.get("one") == JobStore(path).get("one") == whole
    assert store.list() == [whole]
    with pytest.raises(ConflictError, match="There is a job one already"):
        store.add(whole)


@pytest.mark.parametrize("wrong", ["two", "", "../one", "one\x00", "ö", "x" * 65, "one'; DROP TABLE jobs"])
def test_an_unknown_job_is_told(store: JobStore, wrong: str) -> None:
    store.add(job("one"))
    for ask in (
        lambda: store.get(wrong),
        lambda: store.update(wrong, error="x"),
        lambda: store.move(wrong, priority=1),
        lambda: store.move("one", before=wrong),
        lambda: store.delete(wrong, FINISHED),
    ):
        with pytest.raises(NotFoundError, match="There is no job"):
            ask()
    assert ids(store) == ["one"]


def test_running_ones_stand_first_then_waiting_ones_in_turn_then_ended_ones_latest_first(store: JobStore) -> None:
    store.add(job("waits", position=5.0))
    store.add(job("done", state=JobState.DONE, ended_at=10.0))
    store.add(job("failed", state=JobState.FAILED, ended_at=30.0))
    store.add(job("cancelled", state=JobState.CANCELLED, ended_at=20.0))
    store.add(job("urgent", priority=1, position=9.0))
    store.add(job("paused", state=JobState.PAUSED, position=4.0))
    store.add(job("runs", state=JobState.RUNNING, started_at=3.0))
    everything = ["runs", "urgent", "paused", "waits", "failed", "cancelled", "done"]
    assert ids(store) == everything
    assert ids(store, JobState.QUEUED, JobState.DONE) == ["urgent", "waits", "done"]
    assert [each.id for each in store.list(limit=2, offset=3)] == everything[3:5]
    assert [each.id for each in store.list(limit=10**30, offset=-5)] == everything
    assert store.counts() == {**dict.fromkeys(JobState, 1), JobState.QUEUED: 2}


def test_claims_go_by_priority_then_position(store: JobStore) -> None:
    for job_id, priority, position in (("a", 0, 2.0), ("b", 5, 9.0), ("c", 0, 1.0), ("d", -1, 0.0)):
        store.add(job(job_id, priority=priority, position=position))
    claimed = [store.claim("cpu") for _ in range(5)]
    assert [each and each.id for each in claimed] == ["b", "c", "a", "d", None]
    first = store.get("b")
    assert (first.state, first.device, first.attempts) == (JobState.RUNNING, "cpu", 1)
    assert first.started_at is not None


def test_turns_are_those_that_claims_would_give_and_one_may_be_claimed_before_its_turn(store: JobStore) -> None:
    for job_id, priority, position in (("a", 0, 2.0), ("b", 5, 9.0), ("c", 0, 1.0)):
        store.add(job(job_id, priority=priority, position=position))
    store.add(job("elsewhere", device="cuda:1", priority=9))
    assert [each.id for each in store.turns("cpu", ["training"], 9)] == ["b", "c", "a"]
    assert [each.id for each in store.turns("cpu", ["training"], 2)] == ["b", "c"]
    assert store.turns("cpu", ["preprocessing"], 9) == []
    claimed = store.claim("cpu", ["training"], only="c")
    assert claimed and claimed.id == "c"
    assert store.claim("cpu", ["training"], only="c") is None
    assert store.claim("cpu", ["training"], only="elsewhere") is None
    assert [each.id for each in store.turns("cpu", ["training"], 9)] == ["b", "a"]


def test_a_device_takes_its_own_jobs_and_those_of_any(store: JobStore) -> None:
    store.add(job("other", device="cuda:1", position=1.0))
    store.add(job("any", position=2.0))
    assert [each and each.id for each in (store.claim("cuda:0"), store.claim("cuda:0"))] == ["any", None]
    assert store.update("any", state=JobState.QUEUED).device == ""  # where it ran does not bind it
    assert store.claim("cuda:1") == store.get("other")
    assert store.update("other", state=JobState.QUEUED).device == "cuda:1"


def test_two_trainings_of_one_adapter_do_not_run_at_a_time(store: JobStore) -> None:
    for number, name in enumerate(("cat", "cat", "dog")):
        store.add(job(f"j{number}", name=name, position=float(number)))
    assert [each and each.id for each in (store.claim("a"), store.claim("b"), store.claim("c"))] == ["j0", "j2", None]
    store.update("j0", state=JobState.DONE)
    claimed = store.claim("b")
    assert claimed and claimed.id == "j1"


def trains(job_id: str, **values: Any) -> Job:
    return job(job_id, **{"name": "cat", "settings": {"kind": "embedding"}, **values})


def claims(store: JobStore, count: int = 3) -> list[str]:
    claimed = [store.claim("cpu") for _ in range(count)]
    return [each.id for each in claimed if each]


def test_what_two_jobs_hold_is_told_by_kind_and_name_or_by_the_destination(store: JobStore) -> None:
    store.add(trains("embedding", position=1.0))
    store.add(trains("hypernetwork", settings={"kind": "hypernetwork"}, position=2.0))
    store.add(trains("again", name="cat.pt", position=3.0))
    crops = {"kind": "preprocess", "name": "crops"}
    store.add(job("here", **crops, settings={"destination": "/here/crops"}, position=4.0))
    store.add(job("there", **crops, settings={"destination": "/there/crops"}, position=5.0))
    store.add(job("twice", **crops, settings={"destination": "/here/crops"}, position=6.0))
    assert claims(store, 6) == ["embedding", "hypernetwork", "here", "there"]
    assert [each.id for each in store.holding(*store.get("again").holds)] == ["embedding", "again"]


def test_jobs_that_have_one_adapter_in_common_do_not_run_at_a_time(store: JobStore) -> None:
    both = {"kind": "embedding", "companions": ["hypernetwork:ink:1e-4", "embedding:dog"]}
    store.add(trains("joint", settings=both, position=1.0))
    store.add(trains("ink", name="ink.pt", settings={"kind": "hypernetwork"}, position=2.0))
    store.add(trains("dog", name="dog", position=3.0))
    other = {"kind": "embedding", "companions": ["embedding:dog; template=style"]}
    store.add(trains("cow-and-dog", name="cow", settings=other, position=4.0))
    store.add(trains("cow", name="cow", position=5.0))
    store.note_what_waits()
    assert claims(store, 5) == ["joint", "cow"]
    store.note_what_waits()
    assert {store.get(each).stage for each in ("ink", "dog")} == {"waits for job joint, which is running"}
    assert [each.id for each in store.holding("embedding:dog")] == ["joint", "dog", "cow-and-dog"]
    store.update("joint", state=JobState.DONE)
    store.delete("joint", FINISHED)
    assert claims(store, 5) == ["ink", "dog"]  # what was deleted holds nothing
    store.update("dog", state=JobState.DONE)
    assert claims(store, 5) == []  # cow is under way
    store.update("cow", state=JobState.DONE)
    assert claims(store, 5) == ["cow-and-dog"]


def test_a_paused_job_that_has_begun_holds_its_adapter(store: JobStore) -> None:
    store.add(trains("begun", state=JobState.PAUSED, run_dir="run", attempts=1, position=1.0))
    store.add(trains("second", position=2.0, priority=9))
    store.add(trains("other", name="dog", position=3.0))
    store.note_what_waits()
    assert store.get("second").stage == "waits for job begun, which is paused"
    assert claims(store) == ["other"]
    store.update("begun", state=JobState.QUEUED)  # it goes on before what would spoil its run, whatever the priority
    assert claims(store) == ["begun"]
    store.note_what_waits()
    assert store.get("second").stage == "waits for job begun, which is running"
    version = store.version()
    store.note_what_waits()
    assert store.version() == version  # nothing is written, and no watcher is told, where nothing is new
    store.update("begun", state=JobState.DONE)
    store.note_what_waits()
    assert store.get("second").stage == ""
    assert claims(store) == ["second"]


def test_a_paused_job_that_never_began_holds_nothing(store: JobStore) -> None:
    store.add(trains("paused", state=JobState.PAUSED, position=1.0))
    store.add(trains("second", position=2.0))
    store.note_what_waits()
    assert store.get("second").stage == ""
    assert claims(store) == ["second"]


def test_what_else_a_job_waits_for_stays_told(store: JobStore) -> None:
    store.add(trains("begun", state=JobState.PAUSED, run_dir="run", position=1.0))
    store.add(trains("far", stage="waits for cuda:7, which this server was not given by --device"))
    store.note_what_waits()
    assert "cuda:7" in store.get("far").stage


def test_a_queue_of_the_first_version_learns_what_its_jobs_hold(store: JobStore, path: Path) -> None:
    store.add(trains("begun", state=JobState.PAUSED, run_dir="run"))
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TRIGGER nothing_is_held")
        connection.execute("DROP TABLE held")
        connection.execute("ALTER TABLE jobs DROP COLUMN holds")
        for column in ("preview", "gpus", "cpus", "sweep"):
            connection.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 1")
    again = JobStore(path)
    again.add(trains("second"))
    assert again.claim("cpu") is None
    assert [each.id for each in again.holding("embedding:cat")] == ["begun", "second"]


def test_threads_never_claim_the_same_job(store: JobStore) -> None:
    fill(store, 60)
    claimed: list[str] = []

    def work() -> None:
        while found := store.claim("cpu"):
            claimed.append(found.id)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(f"j{number}" for number in range(60))


def test_processes_never_claim_the_same_job(store: JobStore, path: Path) -> None:
    fill(store, 60)
    code = """
import sys
from pathlib import Path
from tincture.server.queue.store import JobStore
store = JobStore(Path(sys.argv[1]))
while job := store.claim(sys.argv[2]):
    print(job.id)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    outputs = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(job_id for output in outputs for job_id in output) == sorted(f"j{number}" for number in range(60))
    assert store.counts()[JobState.RUNNING] == 60
    assert {each.attempts for each in store.list(limit=100)} == {1}


def test_changes_are_refused_in_other_states(store: JobStore) -> None:
    store.add(job("one", state=JobState.DONE))
    with pytest.raises(ConflictError, match="The job one is done; this is possible only while it is queued or paused"):
        store.update("one", [JobState.QUEUED, JobState.PAUSED], state=JobState.CANCELLED)
    with pytest.raises(ConflictError, match=r"is done; .* running"):
        store.note("one", global_step=3)
    with pytest.raises(ConflictError, match="is done"):
        store.delete("one", [JobState.FAILED])
    with pytest.raises(ConflictError, match="is done"):
        store.move("one", priority=4)
    assert store.get("one") == job("one", state=JobState.DONE)
    store.delete("one", FINISHED)
    assert ids(store) == []


def test_notes_of_a_running_job(store: JobStore) -> None:
    store.add(job("one", state=JobState.RUNNING))
    assert store.note("one", global_step=3, steps=9, loss=float("nan"), stage="x").global_step == 3
    assert (store.get("one").loss, store.get("one").stage) == (None, "x")


def test_what_decides_is_on_the_disk_and_what_is_noted_need_not_be(store: JobStore) -> None:
    assert store._durable.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    assert store._quick.execute("PRAGMA synchronous").fetchone()[0] == 1  # NORMAL
    assert store._durable.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_what_was_left_running_goes_before_all_others(store: JobStore) -> None:
    fill(store, 2)
    store.add(job("urgent", priority=9))
    store.add(job("left", priority=-9, position=99.0))
    store.update("left", state=JobState.RUNNING)
    assert store.put_in_front("left", run_dir="run").run_dir == "run"
    assert ids(store) == ["left", "urgent", "j0", "j1"]
    with pytest.raises(ConflictError):
        store.put_in_front("left")
    claimed = store.claim("cpu")
    assert claimed and claimed.id == "left"
    store.update("left", state=JobState.QUEUED)
    assert ids(store) == ["urgent", "j0", "j1", "left"]


def test_moving(store: JobStore) -> None:
    fill(store, 4)
    store.move("j3", before="j1")
    assert ids(store) == ["j0", "j3", "j1", "j2"]
    store.move("j0", before="j2")
    assert ids(store) == ["j3", "j1", "j0", "j2"]
    assert store.move("j2", priority=7).priority == 7
    assert ids(store) == ["j2", "j3", "j1", "j0"]
    assert store.move("j0", before="j2").priority == 7
    assert ids(store) == ["j0", "j2", "j3", "j1"]
    store.update("j2", state=JobState.PAUSED)
    store.move("j1", before="j2")
    assert ids(store) == ["j0", "j1", "j2", "j3"]


@pytest.mark.parametrize("priority", [HIGHEST_PRIORITY, -HIGHEST_PRIORITY])
def test_the_outermost_priorities_are_taken(store: JobStore, priority: int) -> None:
    fill(store, 2)
    assert store.move("j1", priority=priority).priority == priority
    assert ids(store) == (["j1", "j0"] if priority > 0 else ["j0", "j1"])


def test_moving_many_times_keeps_the_order_exact(store: JobStore) -> None:
    for number in range(3):
        store.add(job(f"j{number}", position=1e9))  # at the very same moment
    for number in range(60):
        store.move(f"j{(number + 1) % 2}", before=f"j{number % 2}")
        assert ids(store).index(f"j{(number + 1) % 2}") == ids(store).index(f"j{number % 2}") - 1
    assert ids(store) == ["j0", "j1", "j2"]


@pytest.mark.parametrize(
    "wrong", [{}, {"priority": 1, "before": "j1"}, {"before": "j0"}, {"priority": 1001}, {"priority": -1001}]
)
def test_moves_that_make_no_sense(store: JobStore, wrong: dict[str, Any]) -> None:
    fill(store, 2)
    with pytest.raises(UsageError):
        store.move("j0", **wrong)


def test_moving_before_what_does_not_wait(store: JobStore) -> None:
    fill(store, 2)
    store.update("j1", state=JobState.RUNNING)
    with pytest.raises(ConflictError, match="j1 is running"):
        store.move("j0", before="j1")
    store.update("j0", error="still open")  # the transaction was given up


@pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\x00" + bytes(range(256)) * 40])
def test_a_damaged_file_is_told(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"is damaged .* Move it away"):
        JobStore(path)
    assert path.read_bytes() == content


def test_damage_inside_is_found_at_the_start(store: JobStore, path: Path) -> None:
    fill(store, 200)
    store.close()
    content = bytearray(path.read_bytes())
    content[4096 : len(content) - 4096] = b"\xff" * (len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(StorageError, match="is damaged") as error:
        JobStore(path)
    assert "\n" not in str(error.value)


def test_a_store_that_nobody_closed_closes_its_file(path: Path) -> None:
    connection = JobStore(path)._durable
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_a_file_of_a_later_version_is_left_alone(store: JobStore, path: Path) -> None:
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageError, match="later version"):
        JobStore(path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--state-dir"):
        JobStore(tmp_path / "file" / "jobs.sqlite3")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="could not be read or written"):
        JobStore(tmp_path / "folder")


def test_a_full_disk_is_a_sentence_and_changes_nothing(store: JobStore) -> None:
    store.add(job("one"))
    store._durable.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StorageError, match="disk has room"):
        for number in range(1000):
            store.add(job(f"j{number}", error="x" * 4000))
    assert store.get("one") == job("one")


def test_a_closed_store_says_so(store: JobStore) -> None:
    store.close()
    with pytest.raises(StorageError, match="cannot be asked any more"):
        store.counts()


# --- damage, and other programs ---------------------------------------------------------------------------------------

DAMAGE: dict[str, tuple[str, Any]] = {
    "settings that are no JSON": ("settings", '{"steps": 5'),
    "settings that are no object": ("settings", "[1, 2]"),
    "settings that are bytes": ("settings", b"\xff\xfe\x00"),
    "settings as deep as a well": ("settings", "[" * 100_000),
    "a result that is no object": ("result", "7"),
    "an unknown state": ("state", "asleep"),
    "an unknown wish": ("wanted", "rest"),
    "an unknown kind": ("kind", "dream"),
    "a priority in words": ("priority", "high"),
    "a position in words": ("position", "first"),
    "steps in words": ("steps", "many"),
    "a time without end": ("created_at", float("inf")),
    "a name of bytes": ("name", b"cat"),
    "an id that is none": ("id", "../../etc"),
    "an id of bytes": ("id", b"spoilt"),
    "an empty id": ("id", ""),
}


def spoil(path: Path, column: str, value: Any, job_id: str = "spoilt") -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(f"UPDATE jobs SET {column} = ? WHERE id = ?", [value, job_id]).rowcount == 1


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
def test_a_damaged_row_costs_its_own_job(store: JobStore, path: Path, damage: str, state: JobState) -> None:
    for name in ("before", "spoilt", "behind"):
        store.add(job(name, position=float("bsp".index(name[0])), state=state if name == "spoilt" else JobState.QUEUED))
    spoil(path, *DAMAGE[damage])
    shown = store.list()
    assert {"before", "behind"} < {each.id for each in shown} and len(shown) == 3
    (damaged,) = [each for each in shown if each.id not in ("before", "behind")]
    assert damaged.state is JobState.FAILED and damaged.error_type == "DamagedJobError"
    assert f"is damaged ({DAMAGE[damage][0]})" in damaged.error and "submit it again" in damaged.error
    # Neither a store that runs nor one that is opened now begins it, and both go on with the others.
    assert [claimed.id for _ in range(2) if (claimed := store.claim("cpu"))] == ["before", "behind"]
    assert store.claim("cpu") is None
    again = JobStore(path)
    assert again.counts()[JobState.FAILED] == 1
    (mended,) = again.list([JobState.FAILED])
    assert (mended.error, mended.error_type) == (damaged.error, "DamagedJobError")
    again.note_what_waits()
    again.delete(mended.id, FINISHED)
    assert len(again.list()) == 2


def test_a_job_that_was_done_stays_done_though_its_row_is_damaged(store: JobStore, path: Path) -> None:
    store.add(job("spoilt", state=JobState.DONE, result={"global_step": 5}))
    spoil(path, "result", "{")
    for shown in (store.get("spoilt"), JobStore(path).get("spoilt"), JobStore(path).get("spoilt")):
        assert (shown.state, shown.result) == (JobState.DONE, {})
        assert shown.error == "What the queue noted of this job is damaged (result)."


def test_text_that_is_no_utf_8_spoils_no_other_job(store: JobStore, path: Path) -> None:
    fill(store, 2)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE jobs SET error = CAST(x'ff61' AS TEXT) WHERE id = 'j0'")
    assert [each.error for each in store.list()] == ["\N{REPLACEMENT CHARACTER}a", ""]
    assert [each.id for each in JobStore(path).list()] == ["j0", "j1"]


def test_a_queue_of_the_first_version_with_a_damaged_row_is_opened(store: JobStore, path: Path) -> None:
    store.add(job("spoilt"))
    store.add(trains("sound"))
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TRIGGER nothing_is_held")
        connection.execute("DROP TABLE held")
        connection.execute("ALTER TABLE jobs DROP COLUMN holds")
        for column in ("preview", "gpus", "cpus", "sweep"):
            connection.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("UPDATE jobs SET settings = 'nonsense' WHERE id = 'spoilt'")
    again = JobStore(path)
    assert (again.get("spoilt").state, again.get("sound").state) == (JobState.FAILED, JobState.QUEUED)


def test_a_locked_file_is_not_called_a_full_disk(store: JobStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store._durable.execute("PRAGMA busy_timeout = 0")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BusyStorageError, match="is locked by another program") as error:
            store.add(job("one"))
        assert "room" not in str(error.value) and "full" not in str(error.value)
        other.execute("ROLLBACK")
    store.add(job("one"))
    assert status_of(error.value) == 503


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (sqlite3.SQLITE_FULL, sqlite3.OperationalError, "The disk is full"),
        (sqlite3.SQLITE_IOERR | 3 << 8, sqlite3.OperationalError, "The disk failed"),
        (sqlite3.SQLITE_READONLY, sqlite3.OperationalError, "may be written"),
        (sqlite3.SQLITE_CANTOPEN, sqlite3.OperationalError, "its folder is there"),
        (sqlite3.SQLITE_LOCKED, sqlite3.OperationalError, "locked by another program"),
        (sqlite3.SQLITE_BUSY | 1 << 8, sqlite3.OperationalError, "locked by another program"),
        (sqlite3.SQLITE_ERROR, sqlite3.OperationalError, "Its tables are not those"),
        (sqlite3.SQLITE_CORRUPT, sqlite3.DatabaseError, "is damaged"),
        (sqlite3.SQLITE_NOTADB, sqlite3.DatabaseError, "is damaged"),
        (None, sqlite3.OperationalError, "Check that the disk has room"),
        (None, sqlite3.ProgrammingError, "cannot be asked any more"),
    ],
)
def test_what_sqlite_could_not_do_is_named_rightly(code: int | None, kind: type[sqlite3.Error], words: str) -> None:
    error = kind("what it says itself")
    if code is not None:
        error.sqlite_errorcode = code
    said = str(explained(error, Path("jobs.sqlite3")))
    assert words in said and "what it says itself" in said
    assert ("is full" in said) is (code == sqlite3.SQLITE_FULL)


def test_jobs_are_found_by_the_words_that_people_know_them_by(store: JobStore) -> None:
    for name, settings in (
        ("rex", {"kind": "embedding", "model": "Anything v5", "data": ["datasets/Dogs:2"]}),
        ("rex-style", {"kind": "hypernetwork", "model": "picto", "data": "datasets/cats"}),
    ):
        store.add(dataclasses.replace(job(name), name=name, settings=settings))

    def found(search: str, *states: JobState) -> list[str]:
        names = [each.name for each in store.list(states, search=search)]
        assert store.count(states, search) == len(names)
        return names

    assert found("") == found("  REX ") == ["rex", "rex-style"]
    assert found("rex dogs") == found("anything") == ["rex"]
    assert found("hypernetwork cats") == ["rex-style"]
    assert found("rex birds") == found("rex", JobState.DONE) == found("'; DROP TABLE jobs") == found("%") == []
    assert len(store.list()) == 2
