from __future__ import annotations

from pathlib import Path

import pytest

from tincture.formats.file_systems import network_file_system

# As proc(5) has it: a later mount of a place hides the earlier one, and blanks are written in octal.
MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /shared rw,relatime shared:9 - nfs4 head:/export rw,vers=4.2
31 30 8:2 / /shared/scratch rw - xfs /dev/sdb rw
32 22 0:41 / /my\040folder rw - cifs //nas/x rw
33 22 8:3 / /over rw - ext4 /dev/sdc rw
34 22 0:42 / /over rw - fuse.sshfs me@x: rw
35 22 0:43 / /tmp rw - tmpfs tmpfs rw
""".strip()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/shared/workspace/jobs.sqlite3", "nfs4"),
        ("/shared", "nfs4"),
        ("/sharedness/x", ""),
        ("/shared/scratch/x", ""),
        ("/my folder/x", "cifs"),
        ("/over/x", "fuse.sshfs"),
        ("/tmp/x", ""),
        ("/", ""),
    ],
)
def test_folders_of_the_network_are_told_apart(path: str, kind: str, tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert network_file_system(Path(path), mounts) == kind


def test_a_system_that_says_nothing_of_its_mounts_is_taken_at_its_best(tmp_path: Path) -> None:
    assert network_file_system(tmp_path, tmp_path / "nothing") == ""


def test_the_system_s_own_mounts_can_be_read(tmp_path: Path) -> None:
    assert network_file_system(tmp_path) in ("", "9p")
