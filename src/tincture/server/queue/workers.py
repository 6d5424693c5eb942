"""What the supervisor knows of those who do the jobs, be they processes of this machine or of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tincture.server.queue.folder import JobFolder
from tincture.server.queue.jobs import Job, Lane
from tincture.server.queue.store import JobStore


class Line(NamedTuple):
    """Where jobs are taken from the queue, one after another.

    Attributes:
        device: as which the jobs are claimed, see ``JobStore.claim``.
        lane: of the jobs.
        one_at_a_time: whether a job must have ended before the next one is taken.
    """

    device: str
    lane: Lane
    one_at_a_time: bool = True


class Loss(NamedTuple):
    """That a worker is gone for no fault of its job.

    Attributes:
        sentence: what was lost.
        often: whether that happened to the job again and again, so that it shall not be begun anew by itself.
    """

    sentence: str
    often: bool = False


class Worker(Protocol):
    """Who does one job, from its start to its end."""

    @property
    def loss(self) -> Loss | None:
        """Why one that has ended did not do so by itself; None where it did, or its process was ended."""

    @property
    def place(self) -> str:
        """Where it works, for people; empty while that is not known, or where it is the device of its job."""

    def order(self, text: str) -> None:
        """Gives it an order, see ``worker``; one that has ended does not hear it."""

    def wait(self, seconds: float) -> int | None:
        """The exit status; None when it has not ended after so many seconds. Below 0: the signal that ended it."""

    def kill(self) -> None:
        """Ends it at once, with all that it started."""

    def close(self) -> None:
        """Ends it if it lives, and forgets it."""


class Workers(Protocol):
    """All who can do jobs. Its methods may be called from any thread, those of a worker from the job's only."""

    @property
    def lines(self) -> Sequence[Line]:
        """The lines that jobs are taken in; the first one takes on what was left by lines that are gone."""

    def start(self) -> None:
        """Called before all else, once; TinctureError where there is nobody who could work."""

    def claim(self, store: JobStore, line: Line) -> Job | None:
        """Takes the job whose turn it is in a line; None while none waits, or there is no room for it."""

    def begin(self, job: Job, folder: JobFolder) -> Worker:
        """Lets somebody begin with a claimed job, or go on with it.

        Raises:
            ConflictError: another one works on it still.
            StorageError: its folder cannot be written.
            TinctureError: nobody can begin with it.
        """

    def has_left(self, folder: JobFolder, *, overdue: bool) -> bool:
        """Whether nobody works on a job any more, whoever began with it.

        Args:
            folder: the job's.
            overdue: who still does has had the time to save, and is ended by force where that is possible.
        """

    def close(self) -> None:
        """Called after all else, once nobody works any more."""
