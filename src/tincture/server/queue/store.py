"""The queue on the disk: one SQLite file, from which a power cut takes nothing that was answered for.

What decides about a job is on the disk before a method returns. How far it is, is noted without waiting for the disk.
"""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import logging
import math
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tincture.errors import StorageError, UsageError
from tincture.server.errors import ConflictError, NotFoundError
from tincture.server.queue.jobs import LANES, Job, JobState, Lane, check_priority
from tincture.server.queue.rows import ID, found, is_damaged, job_of, lane, stored, uses, what_it_holds
from tincture.server.queue.sqlite_errors import explained

logger = logging.getLogger(__name__)

WAITING = (JobState.QUEUED, JobState.PAUSED)
BUSY_S = 30.0
"""Seconds that a call waits for another process that writes."""

# Besides what a Job says: `asked_device` is where it must run, also after it ran somewhere; `front` puts those first
# that a server left running when it ended; `holds` was what is in `held` now, as `Job.holds` has it.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE jobs (
            id TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, settings TEXT NOT NULL, state TEXT NOT NULL,
            priority INTEGER NOT NULL, position REAL NOT NULL, device TEXT NOT NULL, timeout_s REAL,
            source TEXT NOT NULL, wanted TEXT, created_at REAL NOT NULL, started_at REAL, ended_at REAL,
            attempts INTEGER NOT NULL, run_dir TEXT, global_step INTEGER NOT NULL, steps INTEGER NOT NULL,
            stage TEXT NOT NULL, loss REAL, learning_rate REAL, eta_s REAL, result TEXT NOT NULL, error TEXT NOT NULL,
            error_type TEXT NOT NULL, asked_device TEXT NOT NULL, front INTEGER NOT NULL DEFAULT 0
        )""",
        "CREATE INDEX jobs_by_turn ON jobs (state, front DESC, priority DESC, position, id)",
    ),
    (
        "ALTER TABLE jobs ADD COLUMN holds TEXT NOT NULL DEFAULT ''",
        "UPDATE jobs SET holds = held_by(kind, name, settings)",
        "CREATE INDEX jobs_by_what_they_hold ON jobs (holds, state)",
    ),
    (
        "CREATE TABLE held (job TEXT NOT NULL, what TEXT NOT NULL, PRIMARY KEY (job, what)) WITHOUT ROWID",
        "CREATE INDEX held_by_what ON held (what, job)",
        "INSERT INTO held SELECT id, holds FROM jobs",
        "DROP INDEX jobs_by_what_they_hold",
        "CREATE TRIGGER nothing_is_held AFTER DELETE ON jobs BEGIN DELETE FROM held WHERE job = OLD.id; END",
    ),
    ("ALTER TABLE jobs ADD COLUMN preview TEXT NOT NULL DEFAULT ''",),
    ("ALTER TABLE jobs ADD COLUMN gpus INTEGER", "ALTER TABLE jobs ADD COLUMN cpus INTEGER"),
    ("ALTER TABLE jobs ADD COLUMN sweep TEXT NOT NULL DEFAULT ''",),
)
_TURN = "front DESC, priority DESC, position, id"
_ORDER = f"""
    CASE state WHEN 'running' THEN 0 WHEN 'queued' THEN 1 WHEN 'paused' THEN 1 ELSE 2 END,
    CASE WHEN state IN ('queued', 'paused') THEN 0 ELSE -COALESCE(ended_at, started_at, created_at) END,
    {_TURN}"""
_HELD_FOR = "waits for job "
# Two trainings of one adapter would overwrite each other's work, so the second waits for the first: while that runs,
# and while it could go on with a run that the second would spoil.
_HOLDERS = """
    FROM held AS own JOIN held AS theirs ON theirs.what = own.what JOIN jobs AS other ON other.id = theirs.job
    WHERE own.job = next.id AND other.id <> next.id AND (
        other.state = 'running' OR (other.run_dir IS NOT NULL AND (
            other.state = 'paused' OR (other.state = 'queued' AND next.run_dir IS NULL))))"""
# What reads pictures that an earlier preprocessing, in a lane of its own, still makes.
_MAKERS = """
    FROM jobs AS other JOIN held AS made ON made.job = other.id
    WHERE other.state IN ('running', 'queued', 'paused') AND other.kind = 'preprocess'
        AND (other.created_at, other.id) < (next.created_at, next.id) AND uses(next.kind, next.settings, made.what)"""
_WAITS = f"""COALESCE((
    SELECT '{_HELD_FOR}' || other.id || ', which is ' || other.state {_HOLDERS}
    ORDER BY other.state = 'running' DESC, other.position LIMIT 1), (
    SELECT '{_HELD_FOR}' || other.id || ', which makes its pictures and is ' || other.state {_MAKERS} LIMIT 1), '')"""
_NOTE_WAITS = f"""
    UPDATE jobs AS next SET stage = {_WAITS}
    WHERE state = 'queued' AND (stage = '' OR stage LIKE '{_HELD_FOR}%') AND stage <> {_WAITS}"""
_NEXT = f"""
    FROM jobs AS next WHERE state = 'queued'
        AND (instr(:lanes, 'training') = 0 OR asked_device IN ('', :device))
        AND instr(:lanes, lane(kind, settings)) AND NOT EXISTS (SELECT 1 {_HOLDERS})
        AND NOT EXISTS (SELECT 1 {_MAKERS}) AND :only IN ('', id) ORDER BY {_TURN} LIMIT :limit"""
_CLAIM = f"""
    UPDATE jobs SET state = 'running', device = :device, attempts = attempts + 1, started_at = :now, ended_at = NULL,
        stage = '', front = 0
    WHERE id = (SELECT id {_NEXT}) RETURNING *"""


class JobStore:
    """All jobs, in one SQLite file. Threads and processes may use it at the same time.

    Attributes:
        on_change: called with a job as it stands after each change that this process makes to it but its making and
            its end in `delete`, one at a time; they are quick and raise nothing.

    Raises:
        StorageError: the file cannot be opened, is damaged, or is of a later version; so does every method when the
            disk is full or the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.on_change: list[Callable[[Job], object]] = []
        self._lock = threading.RLock()
        self._connections = contextlib.ExitStack()
        weakref.finalize(self, self._connections.close)  # also of a store that could not be opened
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"The folder {path.parent} could not be made: {error.strerror or error}. Choose another by "
                "tincture serve --state-dir."
            ) from error
        with self._explained():
            self._durable = self._connect("FULL")
            self._migrate()
            # Without FULL, a commit waits for no disk; the next one of the other connection takes it along.
            self._quick = self._connect("NORMAL")
        for row in self._read("SELECT * FROM jobs"):
            if is_damaged(row):
                self._mend(row)

    def add(self, job: Job) -> None:
        """Puts a new job in; ConflictError when there is one of its id."""
        values = {**stored(dataclasses.asdict(job)), "asked_device": job.device}
        places = ", ".join(f":{name}" for name in values)
        try:
            with self._transaction():
                self._write(f"INSERT INTO jobs ({', '.join(values)}) VALUES ({places})", values)
                for what in dict.fromkeys(job.holds):
                    self._write("INSERT INTO held (job, what) VALUES (?, ?)", [job.id, what])
        except sqlite3.IntegrityError:
            raise ConflictError(f"There is a job {job.id} already.") from None

    def get(self, job_id: str) -> Job:
        """The job as it stands; NotFoundError."""
        rows = self._read("SELECT * FROM jobs WHERE id = ?", [checked_id(job_id)])
        if not rows:
            raise _unknown(job_id)
        return job_of(rows[0])

    def list(
        self, states: Collection[JobState] = (), limit: int = 100, offset: int = 0, search: str = ""
    ) -> builtins.list[Job]:
        """Jobs in the given states, or all: running, then waiting in their order, then ended ones, latest first.

        With ``search``, only those whose name, id, kind, base model or pictures have all its words in them.
        """
        where, values = _where(states, search)
        bounds = [min(max(number, 0), 2**62) for number in (limit, offset)]
        rows = self._read(f"SELECT * FROM jobs {where} ORDER BY {_ORDER} LIMIT ? OFFSET ?", [*values, *bounds])
        return [job_of(row) for row in rows]

    def count(self, states: Collection[JobState] = (), search: str = "") -> int:
        """How many jobs ``list`` gives without bounds."""
        where, values = _where(states, search)
        return int(self._read(f"SELECT COUNT(*) AS count FROM jobs {where}", values)[0]["count"])

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state."""
        rows = self._read("SELECT state, COUNT(*) AS count FROM jobs GROUP BY state")
        counted = {row["state"]: row["count"] for row in rows}
        return {state: counted.get(state, 0) for state in JobState}

    def last_position(self) -> float:
        """The position behind which no job waits; 0 when none does."""
        query = f"SELECT MAX(position) AS last FROM jobs WHERE state IN ({_marks(WAITING)})"
        return float(self._read(query, list(WAITING))[0]["last"] or 0.0)

    def version(self) -> int:
        """A number that is another one after every change of any job; for those who ask again and again."""
        with self._lock, self._explained():
            return self._durable.total_changes + self._quick.total_changes

    def claim(self, device: str, lanes: Sequence[Lane] = LANES, *, only: str = "") -> Job | None:
        """Takes the waiting job whose turn it is on ``device``, which then counts as running; None when none waits.

        Only jobs of ``lanes`` count; for those of preprocessing alone any device does, since they load no model. With
        ``only``, no other job than this one counts.

        No two callers get the same job. A job waits while another one that holds the same (see ``Job.holds``) runs, or
        is paused with a run that it can go on with, or waits to go on with one while this job would begin a new one;
        and while an earlier preprocessing that has not ended makes the pictures that it reads.
        """
        with self._lock:
            asked = {"device": device, "lanes": " ".join(lanes), "only": only, "limit": 1, "now": time.time()}
            while claimed := self._write(_CLAIM, asked):
                if not is_damaged(claimed[0]):
                    return self._changed(claimed[0])
                self._mend(claimed[0])
            return None

    def turns(self, device: str, lanes: Sequence[Lane], limit: int) -> builtins.list[Job]:
        """The jobs that ``claim`` would give one after another, if each were claimed; the first ``limit`` of them."""
        asked = {"device": device, "lanes": " ".join(lanes), "only": "", "limit": limit}
        return [job_of(row) for row in self._read(f"SELECT * {_NEXT}", asked) if not is_damaged(row)]

    def holding(self, *held: str) -> builtins.list[Job]:
        """Running, waiting and paused jobs that hold one of these (see ``Job.holds``), in the order of ``list``."""
        states = (JobState.RUNNING, *WAITING)
        those = f"SELECT job FROM held WHERE what IN ({_marks(held)})"
        query = f"SELECT * FROM jobs WHERE id IN ({those}) AND state IN ({_marks(states)}) ORDER BY {_ORDER}"
        return [job_of(row) for row in self._read(query, [*held, *states])]

    def note_what_waits(self) -> None:
        """Lets the ``stage`` of waiting jobs say which other job they wait for, and no longer, if they don't."""
        self._write(_NOTE_WAITS, [])

    def update(self, job_id: str, only_from: Collection[JobState] | None = None, **changes: Any) -> Job:
        """Changes fields of a job and returns it. A job that is queued again may run on any device that it may.

        Args:
            job_id: which.
            only_from: states that it must be in; None: any.
            changes: fields of ``Job`` with their values.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: it is in another state.
        """
        return self._change(self._durable, job_id, only_from, changes)

    def note(self, job_id: str, **changes: Any) -> Job:
        """The same for how far a running job is: it does not wait for the disk, and a power cut may take it back."""
        return self._change(self._quick, job_id, [JobState.RUNNING], changes)

    def put_in_front(self, job_id: str, **changes: Any) -> Job:
        """Lets a running job wait again, before all others whatever their priority; NotFoundError, ConflictError."""
        changes = {**changes, "state": JobState.QUEUED, "front": 1}
        return self._change(self._durable, job_id, [JobState.RUNNING], changes)

    def move(self, job_id: str, *, priority: int | None = None, before: str | None = None) -> Job:
        """Gives a waiting job another ``priority``, or the turn right ``before`` another one, with its priority.

        Raises:
            UsageError: neither or both are given, or the priority is not allowed.
            NotFoundError: there is no such job.
            ConflictError: one of them does not wait.
        """
        if (priority is None) == (before is None) or before == job_id:
            raise UsageError("Give either a priority, or another job before which this one is to run.")
        if priority is not None:
            check_priority(priority)
            return self.update(job_id, WAITING, priority=priority, front=0)
        with self._transaction():
            moved, next_one = (self._waiting(each) for each in (job_id, str(before)))
            same = {"priority": next_one["priority"], "front": next_one["front"]}
            query = f"SELECT id, position FROM jobs WHERE state IN ({_marks(WAITING)}) AND priority = ? AND front = ?"
            rows = self._read(f"{query} ORDER BY {_TURN}", [*WAITING, *same.values()])
            others = [row for row in rows if row["id"] != job_id]
            at = [row["id"] for row in others].index(before)
            turns = [*others[:at], moved, *others[at:]]
            for row, position in zip(turns, _apart([row["position"] for row in turns]), strict=True):
                self.update(row["id"], position=position)
            return self.update(job_id, **same)

    def delete(self, job_id: str, only_from: Collection[JobState]) -> None:
        """Forgets a job; NotFoundError, or ConflictError when it is in another state than those."""
        query = f"DELETE FROM jobs WHERE id = ? AND state IN ({_marks(only_from)}) RETURNING id"
        if not self._write(query, [checked_id(job_id), *only_from]):
            raise _refused(self.get(job_id), only_from)

    def close(self) -> None:
        """Closes the file; nothing can be asked afterwards."""
        with self._lock:
            self._connections.close()

    # --- SQLite ------------------------------------------------------------------------------------------------------

    def _connect(self, synchronous: str) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        self._connections.callback(connection.close)
        connection.row_factory = sqlite3.Row
        connection.text_factory = _text
        connection.create_function("held_by", 3, what_it_holds)
        connection.create_function("found", 5, found)
        connection.create_function("lane", 2, lane)
        connection.create_function("uses", 3, uses)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        return connection

    def _migrate(self) -> None:
        (state,) = self._durable.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise sqlite3.DatabaseError(state)
        with self._transaction():
            (version,) = self._durable.execute("PRAGMA user_version").fetchone()
            if version > len(_MIGRATIONS):
                raise StorageError(
                    f"The queue {self.path} was written by a later version of Tincture; start that one, or choose "
                    "another by tincture serve --state-dir."
                )
            for statements in _MIGRATIONS[version:]:
                for statement in statements:
                    self._durable.execute(statement)
            self._durable.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")

    def _mend(self, row: sqlite3.Row) -> None:
        """Notes in the file what ``job_of`` makes of a damaged row, so that nobody stumbles over it again."""
        job = job_of(row)
        logger.error("The job %s is damaged in the queue %s: %s", job.id, self.path, job.error)
        values = {**stored(dataclasses.asdict(job)), "asked_device": job.device, "front": 0}
        assigned = ", ".join(f"{name} = ?" for name in values)
        self._write(f"UPDATE jobs SET {assigned} WHERE id IS ?", [*values.values(), row["id"]])

    def _change(
        self,
        connection: sqlite3.Connection,
        job_id: str,
        only_from: Collection[JobState] | None,
        changes: Mapping[str, Any],
    ) -> Job:
        values = stored(changes)
        assigned = [f"{name} = ?" for name in values]
        if values.get("state") == JobState.QUEUED:
            assigned.append("device = asked_device")
        states = tuple(JobState) if only_from is None else tuple(only_from)
        query = f"UPDATE jobs SET {', '.join(assigned)} WHERE id = ? AND state IN ({_marks(states)}) RETURNING *"
        with self._lock:
            changed = self._write(query, [*values.values(), checked_id(job_id), *states], connection)
            if not changed:
                raise _refused(self.get(job_id), states)
            return self._changed(changed[0])

    def _changed(self, row: sqlite3.Row) -> Job:
        job = job_of(row)
        for each in self.on_change:
            each(job)
        return job

    def _waiting(self, job_id: str) -> sqlite3.Row:
        """The row of a job that waits."""
        job = self.get(job_id)
        if job.state not in WAITING:
            raise _refused(job, WAITING)
        return self._read("SELECT * FROM jobs WHERE id = ?", [job_id])[0]

    def _read(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> Sequence[sqlite3.Row]:
        with self._lock, self._explained():
            return self._durable.execute(query, values).fetchall()

    def _write(
        self, query: str, values: Sequence[Any] | Mapping[str, Any], connection: sqlite3.Connection | None = None
    ) -> Sequence[sqlite3.Row]:
        """Runs a statement that changes something, whole or not at all, and gives the rows that it returns."""
        with self._lock, self._explained():
            return (connection or self._durable).execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            with self._explained():
                self._durable.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._durable.in_transaction:  # a full disk has ended it already
                    self._durable.execute("ROLLBACK")
                raise
            with self._explained():
                self._durable.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns SQLite's errors into sentences."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise explained(error, self.path) from error


def _text(content: bytes) -> str:
    """A text of the file; what is no UTF-8 in it spoils its own job and not the others."""
    return content.decode("utf-8", "replace")


def _apart(positions: Sequence[float]) -> list[float]:
    """The same positions in rising order, no two of them equal."""
    risen: list[float] = []
    for position in sorted(positions):
        risen.append(position if not risen or position > risen[-1] else math.nextafter(risen[-1], math.inf))
    return risen


def _where(states: Collection[JobState], search: str) -> tuple[str, builtins.list[Any]]:
    """The condition of jobs in these states that have the words of ``search``, and its values; empty for all."""
    parts, values = ([f"state IN ({_marks(states)})"] if states else []), builtins.list[Any](states)
    if search.strip():
        parts.append("found(?, id, kind, name, settings)")
        values.append(search)
    return (f"WHERE {' AND '.join(parts)}" if parts else ""), values


def _marks(values: Collection[Any]) -> str:
    return ", ".join("?" * len(values))


def checked_id(job_id: str) -> str:
    """An id that may be one; others name no job, nor a folder."""
    if not ID.fullmatch(job_id):
        raise _unknown(job_id)
    return job_id


def _unknown(job_id: str) -> NotFoundError:
    return NotFoundError(f"There is no job {job_id[:64]!r}.")


def _refused(job: Job, states: Collection[JobState]) -> ConflictError:
    fitting = " or ".join(str(state) for state in states)
    return ConflictError(f"The job {job.id} is {job.state}; this is possible only while it is {fitting}.")
