"""On what file system a path lies: SQLite's locks and shared memory do not work on a folder of the network."""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
NETWORK = re.compile(r"nfs4?|cifs|smb3|smbfs|9p|afs|ceph|lustre|beegfs|gpfs|fuse\.(sshfs|glusterfs|ceph|s3fs|rclone)")


def network_file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """The kind of a network's file system on which ``path`` lies, or would; empty for others, and where none is known.

    Args:
        path: need not be there.
        mounts: what the system says of its mounts, see proc(5).
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    real, found = os.path.realpath(path), ("", "")
    for line in lines:
        fields, _, kind = line.partition(" - ")
        place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields.split(" ")[4])
        if os.path.commonpath([real, place]) == place and len(place) >= len(found[0]):
            found = place, kind.split(" ")[0]
    return found[1] if NETWORK.fullmatch(found[1]) else ""
