"""A job as a row of the queue's file, and a row as a job, be it damaged or not.

A row that some other hand has changed, or that the disk has, costs its own job: the job counts as failed and says so.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import secrets
import sqlite3
import types
import typing
from collections.abc import Mapping
from typing import Any

from tincture.server.queue.jobs import FINISHED, Job, JobState, Wanted, held_by, lane_of

FIELDS = tuple(field.name for field in dataclasses.fields(Job))
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
DAMAGED = "DamagedJobError"
"""What stands as the class of the error of a job whose row is damaged."""
_JSON = ("settings", "result")
_SEARCHED = ("kind", "model", "data", "source", "destination")
_REAL = ("position", "timeout_s", "created_at", "started_at", "ended_at", "loss", "learning_rate", "eta_s")
_HINTS = types.MappingProxyType(typing.get_type_hints(Job))
_DEFAULTS = types.MappingProxyType(
    {
        field.name: field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        for field in dataclasses.fields(Job)
    }
    | {"kind": "train", "name": "damaged", "settings": {}}
)


def stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a job as SQLite stores them: texts, numbers and None."""
    return {name: _stored(name, value) for name, value in values.items()}


def job_of(row: sqlite3.Row) -> Job:
    """The job of a row; of a damaged one, what can be said of it."""
    values, faults = _values(row)
    if not faults:
        return Job(**values)
    sound = {name: values.get(name, _DEFAULTS[name]) for name in FIELDS}
    if "id" in faults:
        sound["id"] = f"damaged-{secrets.token_hex(4)}"
    words = f"What the queue noted of this job is damaged ({', '.join(faults)})"
    if sound["state"] in FINISHED and "state" not in faults:
        before = sound["error"]
        return Job(**{**sound, "error": f"{before} {words}.".strip(), "error_type": sound["error_type"] or DAMAGED})
    failed = {"state": JobState.FAILED, "wanted": None, "stage": "", "error_type": DAMAGED}
    return Job(**{**sound, **failed, "error": f"{words}, so it cannot be run; submit it again."})


def is_damaged(row: sqlite3.Row) -> bool:
    """Whether not all of a row can be what a job had."""
    return bool(_values(row)[1])


def what_it_holds(kind: str, name: str, settings: str) -> str:
    """The first of ``Job.holds``, of columns; empty where they are damaged."""
    try:
        return held_by(kind, name, json.loads(settings))[0]
    except (ValueError, TypeError, AttributeError):
        return ""


def lane(kind: str, settings: str) -> str:
    """``Job.lane``, of columns."""
    try:
        return lane_of(kind, json.loads(settings))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return lane_of("", {})


def uses(kind: str, settings: str, what: str) -> bool:
    """Whether a job, given by columns, reads pictures of the folder that another one holds as ``what``."""
    folder = what.partition(":")[2]
    try:
        text = str(json.loads(settings).get("source")) if kind == "preprocess" else settings
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False
    written = folder if kind == "preprocess" else json.dumps(folder, ensure_ascii=False)[1:-1]
    return bool(folder) and written in text


def found(search: str, job_id: str, kind: str, name: str, settings: str) -> bool:
    """Whether a job, given by columns, has all words of ``search`` in what people know it by; case does not count."""
    try:
        given = json.loads(settings)
        values = [given.get(key) for key in _SEARCHED]
    except (ValueError, TypeError, AttributeError):
        values = []
    text = " ".join(map(str, (job_id, kind, name, *values))).casefold()
    return all(word in text for word in search.casefold().split())


def _values(row: sqlite3.Row) -> tuple[dict[str, Any], list[str]]:
    """Fields that are sound, and the names of the others."""
    values, faults = {}, []
    for name in FIELDS:
        try:
            value = _value(name, row[name])
        except (ValueError, TypeError, RecursionError):
            faults.append(name)
            continue
        if _fits(name, value):
            values[name] = value
        else:
            faults.append(name)
    return values, faults


def _value(name: str, column: Any) -> Any:
    if name in _JSON:
        return json.loads(column)
    if name in _REAL and isinstance(column, int):
        return float(column)  # RETURNING gives whole numbers as integers, whatever the column
    if name == "state":
        return JobState(column)
    return Wanted(column) if name == "wanted" and column is not None else column


def _fits(name: str, value: Any) -> bool:
    hint = _HINTS[name]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if typing.get_origin(hint) is typing.Literal:
        return value in options or value in typing.get_args(hint)
    if name == "id":
        return isinstance(value, str) and ID.fullmatch(value) is not None
    known = tuple(typing.get_origin(option) or option for option in options)
    return isinstance(value, known) and not (isinstance(value, float) and not math.isfinite(value))


def _stored(name: str, value: Any) -> Any:
    if name in _JSON:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, JobState | Wanted) else value
