"""The clock of the machine jumps: a run does what it would have done, and says nothing absurd."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.runs import RANDOM, Bench, csv_text, equal, last_state, trained
from tincture.run.lines import Lines

DAY_S = 86_400.0


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_a_clock_that_jumps_changes_no_number(
    new_bench: Callable[[str], Bench], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {**RANDOM, "save_every": 1, "preview_every": 2, "preview_steps": 2, "ema": "0.9"}
    expected = new_bench("expected").train(kind, **settings)
    true, jumps = time.time, itertools.cycle((0.0, 30 * DAY_S, -400 * DAY_S, 3600.0, -3600.0))
    monkeypatch.setattr(time, "time", lambda: true() + next(jumps))
    bench, lines = new_bench("jumping"), list[str]()
    stopped = bench.train(kind, stop_after=2, callbacks=[Lines(lines.append)], **settings)
    resumed = bench.resume(stopped.run_dir, callbacks=[Lines(lines.append)])
    assert equal(trained(resumed.adapter_path), trained(expected.adapter_path))
    assert equal(last_state(resumed.run_dir), last_state(expected.run_dir))
    assert csv_text(resumed.run_dir) == csv_text(expected.run_dir)
    assert 0 <= resumed.seconds < DAY_S and not any(re.search(r"-\d+ s left", line) for line in lines)
