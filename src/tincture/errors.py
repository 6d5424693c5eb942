"""Everything that can go wrong for a user, as one tree.

    TinctureError                 exit code 1
    ├── UsageError                exit code 2: a value that was given is not allowed
    │   └── AlreadyTrainedError   an adapter that has all the steps that were asked for
    ├── DataError                 pictures or captions that cannot be used
    ├── ModelError                a base model that cannot be loaded or does not fit
    ├── FileFormatError           an adapter or state file that cannot be read
    ├── StorageError              a disk that is full, a folder that may not be written
    └── TrainingError             a run that cannot start or go on
        ├── BusyError             another process trains the adapter, or goes on with the run
        ├── DivergedError         loss or weights became NaN or infinite
        ├── OutOfMemoryError      the device's memory does not hold the run
        └── LostProcessError      of the processes that compute a run together, one failed or is gone

Every message is a sentence that says what was given, what is allowed and what to do. It names settings as the command
line does, ``--batch-size``. Only the command line shows it so: for all others, ``str`` of an error has `batch_size`.
"""

import re

_FLAG = r"(?<![^\s(])--(?P<name>[a-z][a-z0-9]*(?:-[a-z0-9]+)*)(?![\w/=-])"
_OPTIONS = r"(?:[ ]--?[a-z][\w-]*(?:=[^\s,;]*|[ ](?!-)[^\s,;]+(?=[ ]-))?)+"
_QUOTED = r"`[^`]*`|(?<!\w)'[^']*'(?!\w)"
_COMMAND = rf"\btincture[ ][a-z]+(?:[ ](?:'[^']*'|[A-Z_.]+|embedding|hypernetwork))*{_OPTIONS}"
_NAMED = re.compile(rf"{_COMMAND}|{_QUOTED}|{_FLAG}")
_FOREIGN = re.compile(r"`(?P<quoted>[^`]*)`|(?<![^\s(])(?P<flag>--[a-z][^\s,;)]*[^\s,;).])")
SHOWN = 80
"""So many characters of a wrong value are shown."""


class TinctureError(Exception):
    """The root of what Tincture raises on purpose."""

    exit_code = 1

    @property
    def sentence(self) -> str:
        """The message in the command line's words."""
        return super().__str__()

    def __str__(self) -> str:
        return in_names(self.sentence)


class UsageError(TinctureError, ValueError):
    """A setting, name or schedule that is not allowed."""

    exit_code = 2


class AlreadyTrainedError(UsageError):
    """The adapter has all the steps that were asked for, so that nothing is left to do; ``step`` is how many it has.

    It is raised where a training is asked for from Python. To all who run one for somebody, it is no failure.
    """

    def __init__(self, sentence: str, step: int = 0) -> None:
        super().__init__(sentence)
        self.step = step


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


class BusyError(TrainingError):
    """Another process, or another thread of this one, trains the adapter, or goes on with the run."""


class DivergedError(TrainingError):
    """The loss or the trained weights became NaN or infinite."""


class OutOfMemoryError(TrainingError):
    """The device's memory does not hold the run."""


class LostProcessError(TrainingError):
    """Of the processes that compute a run together, one failed, or is gone.

    ``silent`` are the ranks of those that are gone without having said why.
    """

    def __init__(self, sentence: str, silent: tuple[int, ...] = ()) -> None:
        super().__init__(sentence)
        self.silent = silent


def in_names(text: str) -> str:
    """A text of the command line's for all other callers: ``--batch-size`` is `batch_size`, in backquotes.

    What stands in quotes, or in a command of ours ("tincture serve --ray"), is a flag for everybody.
    """
    return _NAMED.sub(lambda found: f"`{found['name'].replace('-', '_')}`" if found["name"] else found[0], text)


def foreign(error: BaseException | str, most: int = 300) -> str:
    """What a library or another program says, as a part of a sentence of ours: one line without its full stop.

    Its flags and names stay its own: whoever reads them, they are not taken for settings, but for those of our errors.
    """
    if isinstance(error, TinctureError):
        return " ".join(error.sentence.split())[:most].rstrip(". ")
    text = " ".join(str(error).split()) or type(error).__name__
    return _FOREIGN.sub(lambda found: f"'{found['quoted'] or found['flag'] or ''}'", text)[:most].rstrip(". ")


def shortened(value: object) -> str:
    """A value as an error shows it: in quotes where it is a text, and never long."""
    try:
        shown = repr(value[: SHOWN + 1] if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # of a number with thousands of digits, Python writes none
        return f"a very large {type(value).__name__}"
    return shown if len(shown) <= SHOWN else shown[: SHOWN - 1] + "…"
