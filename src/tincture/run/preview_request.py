"""Previews on demand: a file in the folder of a run asks for them, from any process, and the run takes it away.

Nothing here loads torch.
"""

from __future__ import annotations

from pathlib import Path

from tincture.errors import StorageError

NAME = "preview-now"


def request_preview(run_dir: Path) -> None:
    """The run in ``run_dir`` draws previews after the step that it is at; asked twice before that, it draws once.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        (run_dir / NAME).touch()
    except OSError as error:
        raise StorageError(f"{run_dir / NAME} could not be written: {error.strerror or error}.") from error


def take_request(run_dir: Path) -> bool:
    """Whether previews were asked for since the last time; costs one call of the system."""
    try:
        (run_dir / NAME).unlink()
    except OSError:
        return False
    return True
