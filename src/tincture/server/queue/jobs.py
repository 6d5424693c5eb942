"""What a job is, and the states that it goes through.

queued ──► running ──► done
  ▲ │         │  └───► failed
  │ └──────┐  ├──────► paused ──► queued (goes on)
  │        ▼  └──────► cancelled ─┐
  │     cancelled                 │
  └───────────── retry ───────────┘
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from tincture.errors import UsageError
from tincture.settings.companions import adapter_stem, sound_companions

JobKind = Literal["train", "preprocess"]
JOB_KINDS: tuple[JobKind, ...] = ("train", "preprocess")
Lane = Literal["training", "preprocessing"]
LANES: tuple[Lane, ...] = ("training", "preprocessing")
HIGHEST_PRIORITY = 1000
MOST_GPUS, MOST_CPUS = 64, 1024


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINISHED = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})


class Wanted(StrEnum):
    """What a running job was asked to become; it finishes its step and saves first."""

    PAUSED = "paused"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"  # as the webui's button: done, with what was learned so far


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job as the queue knows it. Times are seconds since 1970, UTC.

    Attributes:
        id: letters and digits; sorts by the time of submission.
        kind: ``train`` (also what goes on with a run) or ``preprocess``.
        name: of the adapter, or of the folder that crops go to.
        settings: of ``TrainSettings`` or ``PreprocessSettings``, complete enough to be run anywhere on this machine.
        state: where it stands.
        priority: the higher, the sooner; jobs of the same priority go by ``position``.
        position: the lower, the sooner.
        device: what it runs, ran or must run on; empty: any of the server's. On a cluster, the machine's name.
        gpus, cpus: what it has for itself of the cluster's machine that does it; None: the usual, see
            ``cluster.needs``. Where there is no cluster, both are None.
        timeout_s: seconds of running after which it is stopped, saved and failed; None: never.
        source: who submitted it: ``api``, ``page`` or ``webui``.
        wanted: what it was asked to become while it ran.
        created_at, started_at, ended_at: of the last time that it ran.
        attempts: how often it was begun, or gone on with.
        run_dir: the run's folder, once there is one: with it, the job goes on where it stopped.
        global_step, steps: how far a training is; pictures, for preprocessing. 0 of 0 before that is known.
        stage: what it does besides its steps, or waits for, for people; empty while it makes steps.
        loss: mean over the window.
        learning_rate: at ``global_step``.
        eta_s: seconds that are left, as far as can be told.
        result: of a job that is done: ``adapter_path``, ``run_dir``, ``global_step``, ``loss``, ``interrupted``,
            ``ending``, ``seconds`` of a training, and ``companions``, a list of what it says of each adapter that was
            trained together with it; ``destination``, ``report``, ``counts``, ``seconds`` of a
            preprocessing.
        preview: the first picture of the latest preview; empty while there is none.
        error: of a job that failed: a sentence.
        error_type: the name of the exception's class.
        sweep: ``NAME/RUN`` of a sweep, whose run it does up to the step that is asked for in the run's folder; empty
            for every other job.
    """

    id: str
    kind: JobKind
    name: str
    settings: dict[str, Any]
    state: JobState = JobState.QUEUED
    priority: int = 0
    position: float = 0.0
    device: str = ""
    gpus: int | None = None
    cpus: int | None = None
    timeout_s: float | None = None
    source: str = "api"
    wanted: Wanted | None = None
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    attempts: int = 0
    run_dir: str | None = None
    global_step: int = 0
    steps: int = 0
    stage: str = ""
    loss: float | None = None
    learning_rate: float | None = None
    eta_s: float | None = None
    result: dict[str, Any] = field(default_factory=dict)
    preview: str = ""
    error: str = ""
    error_type: str = ""
    sweep: str = ""

    @property
    def holds(self) -> tuple[str, ...]:
        """What it works on, as texts: of two jobs with one in common, the second waits for the first."""
        return held_by(self.kind, self.name, self.settings)

    @property
    def lane(self) -> Lane:
        """Whom it waits behind: jobs of one lane take turns, those of the other go on beside them."""
        return lane_of(self.kind, self.settings)

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        if self.state is JobState.DONE and not self.result.get("interrupted"):
            return 1.0
        return min(1.0, self.global_step / self.steps) if self.steps else 0.0

    @property
    def outcome(self) -> str:
        """How it is done, in a word or two: ``done``, ``stopped``, ``ended early`` or ``nothing to do``; else empty."""
        if self.state is not JobState.DONE:
            return ""
        if self.result.get("interrupted"):
            return "stopped"
        if self.result.get("nothing_to_do"):
            return "nothing to do"
        return "ended early" if self.result.get("ending") else "done"

    @property
    def ending(self) -> str:
        """Why it is done without having made all its steps, as a sentence; empty for every other job."""
        if self.outcome == "stopped":
            of = f"step {self.global_step:,} of {self.steps:,}" if self.kind == "train" else "the pictures at hand"
            return f"It was stopped after {of}, and saved."
        return str(self.result.get("ending") or "") if self.state is JobState.DONE else ""


def plain_job(job: Job) -> dict[str, Any]:
    """A job as JSON has it, with its ``lane``, ``progress``, ``outcome`` and ``ending``."""
    return {name: getattr(job, name) for name in ("lane", "progress", "outcome", "ending")} | dataclasses.asdict(job)


def check_priority(priority: int) -> None:
    """UsageError unless a job may have it."""
    if abs(priority) > HIGHEST_PRIORITY:
        raise UsageError(f"The priority is {priority}; allowed is -{HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}.")


def check_machine(gpus: int | None, cpus: int | None) -> None:
    """UsageError unless a job may ask for so many GPUs and processors of one machine."""
    if gpus is not None and not 0 <= gpus <= MOST_GPUS:
        raise UsageError(f"The job's gpus are {gpus}; allowed is 0 to {MOST_GPUS}.")
    if cpus is not None and not 1 <= cpus <= MOST_CPUS:
        raise UsageError(f"The job's cpus are {cpus}; allowed is 1 to {MOST_CPUS}.")


def lane_of(kind: str, settings: Mapping[str, Any]) -> Lane:
    """``preprocessing`` for what loads no model onto a device: a card that a training fills has no room for another."""
    if kind != "preprocess":
        return "training"
    describes = settings.get("captioner") or settings.get("tagger")
    return "training" if describes and settings.get("device") != "cpu" else "preprocessing"


def held_by(kind: str, name: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """See ``Job.holds``: the adapters that are trained, or the folder that crops go to."""
    if kind == "train":
        others = [held_adapter(other.kind, other.name) for other in sound_companions(settings)]
        return (held_adapter(str(settings.get("kind", "")), name), *others)
    return (f"{kind}:{settings.get('destination', name)}",)


def held_adapter(kind: str, name: str) -> str:
    """What a training of the adapter of this kind and name holds."""
    return f"{kind}:{adapter_stem(name)}"
