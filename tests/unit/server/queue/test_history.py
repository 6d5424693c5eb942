from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tincture.server.queue.folder import JobFolder
from tincture.server.queue.store import JobStore
from tincture.server.queue.supervisor import MOST_FOLDERS, Supervisor
from tincture.server.queue.worker_process import DeviceWorkers
from tincture.workspace import Workspace


def tell(folder: Path, *events: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "events.jsonl"
    known = len(file.read_text().splitlines()) if file.exists() else 0
    with file.open("a") as lines:
        for n, event in enumerate(events, known + 1):
            lines.write(json.dumps({"n": n, "time": float(n), **event}) + "\n")


def steps(*numbers: int, loss: float | None = 0.5) -> dict[str, Any]:
    records = [[step, (step - 1) // 4, (step - 1) % 4, loss, 0.005] for step in numbers]
    return {"type": "steps", "records": records, "steps": 100, "loss_mean": 0.4, "loss_error": 0.1}


def test_a_trace_grows_with_what_is_told(tmp_path: Path) -> None:
    job = JobFolder(tmp_path / "one")
    assert len(job.trace().loss) == 0
    tell(tmp_path / "one", {"type": "model", "text": "picto"}, {"type": "started", "global_step": 0}, steps(1, 2, 3))
    first = job.trace()
    assert (list(first.global_step), first.model, first.epoch) == ([1, 2, 3], "picto", 0)
    preview = {"type": "preview", "global_step": 5, "paths": ["a.png", "b.png"]}
    tell(tmp_path / "one", steps(4, 5, loss=None), preview, {"type": "remark", "text": "odd"})
    second = job.trace()
    assert list(second.global_step) == [1, 2, 3, 4, 5]
    assert math.isnan(second.loss[-1]) and second.loss_mean == 0.4
    assert (second.previews, second.remarks) == ({5: (Path("a.png"), Path("b.png"))}, ("odd",))
    assert len(first.loss) == 3  # what was handed out stays as it was


def test_a_run_that_goes_on_from_an_earlier_step_forgets_the_later_ones(tmp_path: Path) -> None:
    job = JobFolder(tmp_path / "one")
    tell(tmp_path / "one", steps(1, 2, 3, 4), {"type": "started", "global_step": 2})
    assert list(job.trace().global_step) == [1, 2]
    tell(tmp_path / "one", steps(3, loss=0.1))
    assert list(job.trace().loss) == [0.5, 0.5, 0.1]


def test_the_speed_is_that_of_the_last_steps(tmp_path: Path) -> None:
    job = JobFolder(tmp_path / "one")
    tell(tmp_path / "one", {"type": "progress", "global_step": 3, "steps": 9})  # of an earlier version
    assert job.trace().speed is None
    tell(
        tmp_path / "one", *({"type": "progress", "global_step": 4, "steps": 9, "step_s": pace} for pace in (1.0, 0.25))
    )
    assert job.trace().speed == 4.0
    tell(tmp_path / "one", {"type": "started", "global_step": 4})
    assert job.trace().speed is None


def validated(step: int, loss: float | None, best: int) -> dict[str, Any]:
    numbers = {"error": 0.1, "training_loss": 0.3, "training_error": 0.2, "best_loss": 0.4}
    return {"type": "validated", "global_step": step, "steps": 9, "loss": loss, "best_step": best, **numbers}


def test_validations_stay_until_the_run_goes_back_behind_them(tmp_path: Path) -> None:
    job, folder = JobFolder(tmp_path), tmp_path
    # A reading of losses may come after what was measured at its last step.
    tell(folder, {"type": "started", "global_step": 0}, validated(0, 0.5, 0), validated(4, None, 0), steps(1, 2, 3, 4))
    measured = job.trace().validations
    assert [(each.global_step, each.loss, each.best_step) for each in measured] == [(0, 0.5, 0), (4, None, 0)]
    assert measured == job.validations()
    tell(folder, validated(6, 0.4, 6), {"type": "started", "global_step": 4}, steps(5, 6), validated(6, 0.45, 6))
    assert [(each.global_step, each.loss) for each in job.validations()] == [(0, 0.5), (4, None), (6, 0.45)]
    tell(folder, {"type": "rolled_back", "global_step": 2, "text": "back"})
    assert [each.global_step for each in job.validations()] == [0]
    # Begun anew, it measures before it says that it started.
    tell(folder, validated(0, 0.7, 0), {"type": "started", "global_step": 0})
    assert [(each.global_step, each.loss) for each in job.validations()] == [(0, 0.7)]


def test_previews_that_a_run_went_back_from_are_shown_no_more(tmp_path: Path) -> None:
    drawn = [{"type": "preview", "global_step": step, "paths": [f"{step}.png"]} for step in (0, 2, 4)]
    tell(tmp_path / "one", *drawn, {"type": "started", "global_step": 2})
    assert list(JobFolder(tmp_path / "one").trace().previews) == [0, 2, 4]  # a resume leaves them where they are
    tell(tmp_path / "one", {"type": "rolled_back", "global_step": 2, "text": "back"})
    assert list(JobFolder(tmp_path / "one").trace().previews) == [0, 2]


def test_only_the_latest_jobs_are_kept_and_others_are_read_again(tmp_path: Path) -> None:
    supervisor = Supervisor(
        JobStore(tmp_path / "jobs.sqlite3"), tmp_path, Workspace(tmp_path), DeviceWorkers(tmp_path, ["auto"])
    )
    first = supervisor.folder("0")
    for number in range(MOST_FOLDERS + 3):
        tell(tmp_path / str(number), steps(1, 2))
        assert len(supervisor.folder(str(number)).trace().loss) == 2
    assert supervisor.folder("0") is not first
    assert len(supervisor.folder("0").trace().loss) == 2
    supervisor.store.close()


def test_the_tail_of_a_log_begins_with_a_whole_line_and_ends_what_was_written_over(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    assert folder.log_tail(100) == ""
    (tmp_path / "log.txt").write_bytes(b"first line\nstep 1\rstep 2\rstep 3\nlast\n")
    assert folder.log_tail(1000) == "first line\nstep 3\nlast\n"
    assert folder.log_tail(30) == "step 3\nlast\n"


def test_a_spoiled_line_that_is_json_all_the_same_costs_only_itself(tmp_path: Path) -> None:
    """As one flipped bit leaves it: a key of another name, a number that has become a text."""
    whole = [{"type": "prepared", "run_dir": "r"}, steps(1, 2), {"type": "preview", "global_step": 2, "paths": ["a"]}]
    tell(tmp_path / "whole", *whole, steps(3))
    expected = JobFolder(tmp_path / "whole").trace()
    spoiled: list[dict[str, Any]] = [
        {"type": "steps", "rfcords": []},
        {"type": "steps", "records": [[4, 0, 3, "0.5", "x"]]},
        {"type": "steps", "records": [[4, 0, 3]]},
        {"type": "preview", "global_step": "two", "paths": []},
        {"type": "started", "global_stfp": 0},
        {"type": "prepared"},
        {"type": "model", "taxt": ""},
    ]
    tell(tmp_path / "spoiled", *whole, *spoiled, steps(3))
    found = JobFolder(tmp_path / "spoiled").trace()
    assert list(found.loss) == list(expected.loss) and list(found.learning_rate) == list(expected.learning_rate)
    assert found.previews == expected.previews
