from __future__ import annotations

import subprocess
import sys


def test_the_protocol_is_imported_without_torch() -> None:
    code = "import sys, tincture.adapters.adapter; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
