"""What SQLite could not do, in sentences that say what to do about it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tincture.errors import StorageError
from tincture.server.errors import BusyStorageError

_ADVICE = {
    sqlite3.SQLITE_FULL: "The disk is full: free some space; check that the disk has room",
    sqlite3.SQLITE_IOERR: "The disk failed: check the disk, and the connection to it if it is another machine's",
    sqlite3.SQLITE_READONLY: "Check that the file and its folder may be written",
    sqlite3.SQLITE_PERM: "Check that the file and its folder may be written",
    sqlite3.SQLITE_AUTH: "Check that the file and its folder may be written",
    sqlite3.SQLITE_CANTOPEN: "Check that its folder is there and may be written, and that the process may open files",
    sqlite3.SQLITE_NOMEM: "The memory is full: close other programs",
    sqlite3.SQLITE_PROTOCOL: "The disk lacks the locks that SQLite needs: choose a --state-dir on this machine",
    sqlite3.SQLITE_NOLFS: "The disk takes no large files: choose another --state-dir",
    sqlite3.SQLITE_TOOBIG: "A text in it is too long; this is a fault of the program, which its log explains",
    sqlite3.SQLITE_ERROR: "Its tables are not those of this program: choose another --state-dir, or move it away",
    sqlite3.SQLITE_SCHEMA: "Its tables were changed by another program: start the server anew",
}
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def explained(error: sqlite3.Error, path: Path) -> StorageError:
    """The error of the queue in ``path`` as one of ours."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF  # what lies above says more exactly where it failed
    if primary in _BUSY:
        return BusyStorageError(
            f"The queue {path} is locked by another program ({error}), which did not free it in time. Try again; if it "
            "stays so, end what has the file open: a backup, a browser of databases, another server."
        )
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
        return StorageError(f"The queue {path} cannot be asked any more ({error}); the server is being stopped.")
    if isinstance(error, sqlite3.OperationalError) or primary in _ADVICE:
        usual = "Check that the disk has room and that the folder may be written"
        advice = _ADVICE.get(primary, usual) if primary is not None else usual
        return StorageError(f"The queue {path} could not be read or written: {error}. {advice}.")
    reason = " ".join(str(error).split())  # of what it finds in pages, SQLite says several lines
    return StorageError(
        f"The queue {path} is damaged ({reason}). Move it away to start with an empty queue; runs and adapters lie "
        "elsewhere and are not touched."
    )
