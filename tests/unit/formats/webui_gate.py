"""What the webui checks before it loads a ``.pt`` file, written down from its documented behaviour."""

from __future__ import annotations

import pickletools
import re
import zipfile
from pathlib import Path

ENTRY = re.compile(r"[^/]+/(data\.pkl|version|data/\d+)")
STORAGES = ("Float", "Half", "Int", "Long", "Double", "Byte", "BFloat16")
GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in STORAGES),
}


def refusals(path: Path) -> list[str]:
    """Every reason for which the webui would refuse the zip file ``path``."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        found = [f"entry {name}" for name in names if not ENTRY.fullmatch(name)]
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            return [*found, f"{len(pickles)} pickles"]
        for opcode, argument, _ in pickletools.genops(archive.read(pickles[0])):
            if opcode.name == "GLOBAL" and argument not in GLOBALS:
                found.append(f"global {argument}")
            elif opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
                found.append(f"opcode {opcode.name}")
    return found
