"""Everything that can go wrong for a user, as one tree.

    TinctureError                 exit code 1
    ├── UsageError                exit code 2: a value that was given is not allowed
    │   └── AlreadyTrainedError   an adapter that has all the steps that were asked for
    ├── DataError                 pictures or captions that cannot be used
    ├── ModelError                a base model that cannot be loaded or does not fit
    ├── FileFormatError           an adapter or state file that cannot be read
    ├── StorageError              a disk that is full, a folder that may not be written
    └── TrainingError             a run that cannot start or go on
        ├── DivergedError         loss or weights became NaN or infinite
        └── OutOfMemoryError      the device's memory does not hold the run

Every message is a sentence that says what was given, what is allowed and what to do.
"""

SHOWN = 80
"""So many characters of a wrong value are shown."""


class TinctureError(Exception):
    """The root of what Tincture raises on purpose."""

    exit_code = 1


class UsageError(TinctureError, ValueError):
    """A setting, name or schedule that is not allowed."""

    exit_code = 2


class AlreadyTrainedError(UsageError):
    """The adapter has all the steps that were asked for, so that nothing is left to do."""


class DataError(TinctureError):
    """Pictures or captions that cannot be used."""


class ModelError(TinctureError):
    """A base model that cannot be loaded, or does not fit the adapter."""


class FileFormatError(TinctureError):
    """An adapter or state file that cannot be read, or does not hold what its name says."""


class StorageError(TinctureError):
    """The disk is full, or a folder may not be written."""


class TrainingError(TinctureError):
    """A run that cannot start or go on."""


class DivergedError(TrainingError):
    """The loss or the trained weights became NaN or infinite."""


class OutOfMemoryError(TrainingError):
    """The device's memory does not hold the run."""


def shortened(value: object) -> str:
    """A value as an error shows it: in quotes where it is a text, and never long."""
    try:
        shown = repr(value[: SHOWN + 1] if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # of a number with thousands of digits, Python writes none
        return f"a very large {type(value).__name__}"
    return shown if len(shown) <= SHOWN else shown[: SHOWN - 1] + "…"
