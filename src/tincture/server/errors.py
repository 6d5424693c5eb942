"""What a request can be refused for, beside the errors that any command has."""

from __future__ import annotations

from tincture.errors import StorageError, UsageError


class NotFoundError(UsageError):
    """There is no job, file or data set of that name."""


class ConflictError(UsageError):
    """What was asked for does not fit the state that a job is in, or a name is taken."""


class ForbiddenPathError(UsageError):
    """A path leads out of the workspace and of the folders that were allowed."""


class TooMuchError(UsageError):
    """More than the limits of this server allow: bytes, files, pictures, jobs."""


class QueueFullError(TooMuchError):
    """As many jobs, or requests for the same thing, wait as this server allows; later there is room again."""


class BusyStorageError(StorageError):
    """Another program has locked a file; later it is free again."""


class StoppedError(ConflictError):
    """What was asked for was stopped by somebody before it was done."""
