"""What is asked of a GPU cannot fail for want of a try: all of it runs on the processor, with tiny models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench import gpu

SCRIPT = Path(gpu.__file__).with_suffix(".sh")


@pytest.mark.slow
def test_every_part_is_done_and_found_something(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run([SCRIPT, "--cpu", str(tmp_path / "out")], capture_output=True, text=True, env=environment)
    log = (tmp_path / "out/gpu.log").read_text()
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{log}"
    parts = json.loads((tmp_path / "out/gpu.json").read_text())["parts"]
    assert list(parts) == list(gpu.PARTS) and all(part["found"] for part in parts.values())
    assert all(parts["resume"]["found"].values())
    assert (tmp_path / "out/demo/subject.png").exists() and not (tmp_path / "out/material").exists()


def test_parts_that_take_too_long_stop_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = {name: (limit, gpu.write_models) for name, limit in (("models", 1.2), ("resume", 1.1), ("demo", 1.2))}
    monkeypatch.setattr(gpu, "PARTS", left)

    states = [part["state"] for part in gpu.run_all(gpu.Bench(tmp_path, cpu=False))["parts"].values()]

    assert states == ["stopped after 1 s"] * 3
    assert list(json.loads((tmp_path / "gpu.json").read_text())["parts"]) == list(left)
    assert "=== demo, 1 s at most" in (tmp_path / "gpu.log").read_text()


def test_what_is_left_when_the_time_is_up_is_left_out(tmp_path: Path) -> None:
    parts = gpu.run_all(gpu.Bench(tmp_path, cpu=False), whole=0)["parts"]
    assert list(parts) == list(gpu.PARTS)
    assert {part["state"] for part in parts.values()} == {"left out: the time was up"}


def test_all_limits_come_to_the_time_that_there_is() -> None:
    assert gpu.WHOLE <= 480 and all(limit <= 110 for limit, _ in gpu.PARTS.values())
