from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import RANDOM, Bench, csv_text, equal, last_state, trained, write_pictures
from tincture import recipe
from tincture.events import Event, Progressed, RunPrepared, StepEnd
from tincture.run.folder import read_record
from tincture.server.queue import worker
from tincture.server.queue.folder import JobFolder
from tincture.server.queue.worker import STOPPED, Control
from tincture.training.trainer import Trainer

SETTINGS: dict[str, Any] = {**RANDOM, "steps": 6, "save_every": 2, "log_every": 1}


class Attempts:
    """A job's folder, in which attempts are made in this process."""

    def __init__(self, path: Path, settings: dict[str, Any], root: Path, kind: str = "train") -> None:
        self.folder = JobFolder(path)
        path.mkdir(parents=True)
        self.task: dict[str, Any] = {"kind": kind, "settings": settings, "root": str(root), "device": "auto"}
        self.task |= {"attempt": 0, "run_dir": None}

    def make(self, control: Control | None = None, **changes: Any) -> tuple[int, dict[str, Any]]:
        """The exit status and the event that ends the attempt; the next one goes on with its run."""
        self.task |= {"attempt": self.task["attempt"] + 1, **changes}
        self.folder.task.write_text(json.dumps(self.task))
        status = worker.run(self.folder, control or Control())
        ended = self.folder.ended(self.task["attempt"])
        assert ended
        self.task["run_dir"] = self.folder.run_dir() or self.task["run_dir"]
        return status, ended

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.folder.events()]


class At(Control):
    """Gets an order when something happens."""

    def __init__(self, order: str, when: Callable[[Event], bool]) -> None:
        super().__init__()
        self.order, self.when = order, when

    def on_event(self, event: Event) -> None:
        if self.when(event):
            self.obey(self.order)
        super().on_event(event)


def at_step(step: int, order: str = "stop") -> At:
    return At(order, lambda event: isinstance(event, StepEnd) and event.global_step == step)


def ordered(order: str) -> Control:
    control = Control()
    control.obey(order)
    return control


@pytest.fixture
def attempts(bench: Bench, tmp_path: Path) -> Attempts:
    return Attempts(tmp_path / "job", bench.settings("embedding", **SETTINGS).to_dict(), bench.workspace.root)


def test_a_training_tells_its_course(
    attempts: Attempts, new_bench: Callable[[str], Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    status, ended = attempts.make()
    assert (status, ended["state"]) == (0, "done")
    whole = new_bench("whole").train("embedding", **SETTINGS)
    result = ended["result"]
    assert (result["global_step"], result["loss"], result["interrupted"]) == (6, whole.loss, False)
    assert equal(trained(Path(result["adapter_path"])), trained(whole.adapter_path))
    kinds = attempts.kinds()
    # Stages that come close together are one line, and several where the machine is slow.
    assert kinds[0] == "stage" and set(kinds[: kinds.index("model")]) == {"stage"} and kinds[-1] == "ended"
    assert set(kinds) == {*("model", "stage", "prepared", "started", "progress", "steps", "measured", "saved", "ended")}
    assert attempts.folder.run_dir() == result["run_dir"]
    told = [entry["loss"] for entry in attempts.folder.metrics()]
    assert [f"{loss:.7f}" for loss in told] == [
        line.split(",")[3] for line in csv_text(Path(result["run_dir"])).splitlines()[1:]
    ]
    assert "training from step 0 to 6" in capsys.readouterr().out


@pytest.mark.parametrize("order", ["stop", "finish"])
def test_stopped_and_gone_on_with_equals_undisturbed(
    attempts: Attempts, new_bench: Callable[[str], Bench], order: str
) -> None:
    status, ended = attempts.make(at_step(3, order))
    assert (status, ended["state"], ended["result"]["global_step"]) == (STOPPED, "stopped", 3)
    run_dir = Path(ended["result"]["run_dir"])
    assert last_state(run_dir)["global_step"] == 3
    status, ended = attempts.make()
    assert (status, ended["state"], ended["result"]["run_dir"]) == (0, "done", str(run_dir))
    whole = new_bench("whole").train("embedding", **SETTINGS)
    assert equal(trained(Path(ended["result"]["adapter_path"])), trained(whole.adapter_path))
    assert csv_text(run_dir) == csv_text(whole.run_dir)
    assert [entry["global_step"] for entry in attempts.folder.metrics()] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("event", [Progressed, RunPrepared])
def test_stopped_before_the_first_step_it_ends_at_once(attempts: Attempts, bench: Bench, event: type[Event]) -> None:
    content = bench.path("embedding").read_bytes()
    status, ended = attempts.make(At("stop", lambda each: isinstance(each, event)))
    assert (status, ended["state"], ended["result"]) == (STOPPED, "stopped", {})
    assert "started" not in attempts.kinds()
    assert bench.path("embedding").read_bytes() == content
    first_dir = attempts.task["run_dir"]
    # A stop right between the run's folder and its first state.
    assert (first_dir is not None) == (event is RunPrepared)
    status, ended = attempts.make()
    assert (status, ended["result"]["global_step"]) == (0, 6)
    assert first_dir in (None, ended["result"]["run_dir"])


def test_what_is_to_finish_begins_so_that_there_is_a_file(attempts: Attempts, bench: Bench) -> None:
    status, ended = attempts.make(ordered("finish"))
    assert (status, ended["state"]) == (STOPPED, "stopped")
    assert ended["result"]["interrupted"] is True
    assert (ended["result"]["global_step"], ended["result"]["loss"]) == (0, None)
    assert ended["result"]["adapter_path"] == str(bench.path("embedding"))


def test_a_run_that_had_come_to_its_end_is_done(attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    _, first = attempts.make()
    path = Path(first["result"]["adapter_path"])
    before = path.stat().st_mtime_ns
    with monkeypatch.context() as patched:
        patched.setattr(recipe, "resume", None)
        patched.setattr(recipe, "train", None)
        status, again = attempts.make()
    assert (status, again["state"]) == (0, "done")
    assert again["result"] == {**first["result"], "seconds": again["result"]["seconds"]}
    assert path.stat().st_mtime_ns == before
    # The state is there, but the power went before the adapter was written.
    path.unlink()
    status, third = attempts.make()
    assert (status, third["result"]["global_step"]) == (0, 6)
    assert trained(path)


def test_a_joint_training_has_all_its_files_or_makes_them_again(bench: Bench, tmp_path: Path) -> None:
    settings = bench.settings("embedding", **SETTINGS, **{"with": [{"kind": "hypernetwork", "name": "ink"}]}).to_dict()
    joint = Attempts(tmp_path / "job", settings, bench.workspace.root)
    _, first = joint.make()
    other = {"kind": "hypernetwork", "name": "ink", "adapter_path": str(bench.path("hypernetwork"))}
    assert first["result"]["companions"] == [other]
    saved = {event["path"] for event in joint.folder.events() if event["type"] == "saved"}
    assert saved >= {first["result"]["adapter_path"], other["adapter_path"]}
    learned = trained(bench.path("hypernetwork"))
    _, again = joint.make()
    assert again["result"] == {**first["result"], "seconds": again["result"]["seconds"]}
    bench.path("hypernetwork").unlink()
    status, third = joint.make()
    assert (status, third["result"]["companions"]) == (0, [other])
    assert equal(trained(bench.path("hypernetwork")), learned)


def test_a_folder_that_holds_no_run_yet_is_given_up(attempts: Attempts, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    status, ended = attempts.make(run_dir=str(tmp_path / "empty"))
    assert (status, ended["result"]["global_step"]) == (0, 6)
    assert ended["result"]["run_dir"] != str(tmp_path / "empty")


@pytest.mark.parametrize("keep_states", [1, 2])
@pytest.mark.parametrize(("step", "state"), [(0, "done"), (3, "failed")])
def test_pictures_that_changed_matter_once_something_was_learned(
    attempts: Attempts, bench: Bench, step: int, state: str, keep_states: int
) -> None:
    attempts.task["settings"]["keep_states"] = keep_states
    attempts.make(at_step(step) if step else At("stop", lambda event: isinstance(event, RunPrepared)))
    write_pictures(bench.data, ["another, picture"], side=24)
    _, ended = attempts.make()
    assert ended["state"] == state
    if state == "failed":
        assert ended["error_type"] == "DataError"


def test_failures_are_told_by_a_sentence(
    attempts: Attempts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, ended = attempts.make(settings={**attempts.task["settings"], "name": "nobody"})
    assert (status, ended["state"], ended["error_type"]) == (1, "failed", "UsageError")
    assert "tincture create embedding" in ended["error"]
    for error, told in ((ZeroDivisionError("by\nzero."), "ZeroDivisionError: by zero"), (MemoryError(), "memory")):

        def fail(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(recipe, "train", fail)
        status, ended = attempts.make()
        assert (status, ended["error_type"]) == (1, type(error).__name__)
        assert told in ended["error"]
        assert "Traceback" in capsys.readouterr().err


def test_remarks_of_a_run_are_told(attempts: Attempts, bench: Bench) -> None:
    (bench.data / "broken.png").write_bytes(b"no picture")
    show = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        attempts.make()
    remarks = [event["text"] for event in attempts.folder.events() if event["type"] == "remark"]
    assert any("broken.png is skipped" in text for text in remarks)
    assert warnings.showwarning is show


def test_a_job_that_goes_on_under_other_arithmetic_says_so_and_is_done(
    attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts.make(at_step(3))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 17)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        status, ended = attempts.make()
    assert (status, ended["state"], ended["result"]["global_step"]) == (0, "done", 6)
    (remark,) = [event["text"] for event in attempts.folder.events() if event["type"] == "remark"]
    assert "goes on under other arithmetic (threads: 17 instead of" in remark


def test_the_servers_device_counts(attempts: Attempts) -> None:
    _, ended = attempts.make(device="cuda:99")
    assert (ended["state"], ended["error_type"]) == ("failed", "UsageError")
    assert "cuda:99" in ended["error"]


@pytest.mark.parametrize(("gpus", "asked", "processes"), [(2, "", "auto"), (1, "", ""), (2, "1", "1")])
def test_several_gpus_of_a_cluster_are_used_by_a_process_each(
    attempts: Attempts, gpus: int, asked: str, processes: str
) -> None:
    settings = {**attempts.task["settings"], "processes": asked, "steps": 1}
    _, ended = attempts.make(settings=settings, gpus=gpus)
    assert ended["state"] == "done"
    assert read_record(Path(attempts.task["run_dir"]))["settings"]["processes"] == processes


def test_preprocessing_is_stopped_and_gone_on_with(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"source": str(bench.data), "destination": str(tmp_path / "crops"), "width": 16, "height": 16}
    settings |= {"workers": 1, "validation_share": 0.2}
    attempts = Attempts(tmp_path / "job", settings, bench.workspace.root, "preprocess")
    control = Control()

    class Stopper:
        def callback(self) -> Stopper:
            return self

        def on_event(self, event: Event) -> None:
            if isinstance(event, Progressed) and (event.stage, event.done) == ("cutting", 1):
                control.obey("stop")

    with monkeypatch.context() as patched:
        patched.setattr(worker, "load_extensions", lambda **_: Stopper())
        status, ended = attempts.make(control)
    assert (status, ended["state"], ended["result"]["interrupted"]) == (STOPPED, "stopped", True)
    assert ended["result"]["new"] < 5
    status, ended = attempts.make()
    assert (status, ended["state"]) == (0, "done")
    assert ended["result"]["counts"]["pictures"] == 5
    assert ended["result"]["new"] < 5
    assert Path(ended["result"]["report"]).is_file()
    assert {event["stage"] for event in attempts.folder.events() if event["type"] == "stage"} == {"looking", "cutting"}


def test_preprocessing_begins_anew_once_where_it_is_asked_to(bench: Bench, tmp_path: Path) -> None:
    settings = {"source": str(bench.data), "destination": str(tmp_path / "crops"), "width": 16, "height": 16}
    settings["workers"] = 1
    assert Attempts(tmp_path / "one", settings, bench.workspace.root, "preprocess").make()[0] == 0
    settings["width"] = 24
    refused = Attempts(tmp_path / "two", settings, bench.workspace.root, "preprocess")
    _, ended = refused.make()
    assert "made with other settings" in ended["error"] and ended["error_type"] == "UsageError"
    assert "give the setting overwrite" in ended["error"] and "--" not in ended["error"]
    anew = Attempts(tmp_path / "three", {**settings, "overwrite": True}, bench.workspace.root, "preprocess")
    assert [anew.make()[1]["result"]["new"] for _ in range(2)] == [5, 0]


@pytest.mark.parametrize(
    ("orders", "early"),
    [(b"stop\n", True), (b"hello\nfinish\n", False), (b"fin", None), (b"st|op\n", True), (b"finish\nstop\n", True)],
)
def test_orders_come_by_a_pipe_whose_end_is_an_order_too(orders: bytes, early: bool | None) -> None:
    control, (reader, writer) = Control(), os.pipe()
    thread = threading.Thread(target=control.listen, args=[reader])
    thread.start()
    for part in orders.split(b"|"):
        os.write(writer, part)
    if early is not None:
        assert control.stop.wait(60)
    os.close(writer)
    thread.join(60)
    os.close(reader)
    assert control.stop.is_set()
    with pytest.raises(worker.StoppedEarly):  # nobody is there any more
        control.on_event(Progressed("latents", 1, 5))


@pytest.mark.parametrize(("ignored", "stops"), [(False, True), (True, False)], ids=["terminal", "nohup"])
def test_a_worker_that_is_hung_up_stops_and_saves_unless_it_shall_not_hear_it(ignored: bool, stops: bool) -> None:
    code = (
        "import os, signal; from tincture.server.queue import worker\n"
        f"signal.signal(signal.SIGHUP, signal.{'SIG_IGN' if ignored else 'SIG_DFL'})\n"
        "def run(folder, control):\n"
        "    os.kill(os.getpid(), signal.SIGHUP); os.kill(os.getpid(), signal.SIGHUP)\n"
        "    return int(control.stop.is_set())\n"
        "worker.run = run; raise SystemExit(worker.main(['folder']))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        assert process.wait(60) == stops


def test_an_adapter_that_has_its_steps_is_nothing_to_do_and_no_failure(
    attempts: Attempts, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.train("embedding", steps=7)
    status, ended = attempts.make()
    assert (status, ended["state"]) == (0, "done")
    sentence = ended["result"].pop("ending")
    assert sentence.startswith("The embedding 'cat' has 7 steps already, and ") and "nothing is left to do" in sentence
    assert ended["result"] == {
        "adapter_path": str(bench.path("embedding")),
        "run_dir": None,
        "global_step": 7,
        "loss": None,
        "seconds": 0.0,
        "interrupted": False,
        "nothing_to_do": True,
    }
    assert f"done: {sentence}" in capsys.readouterr().out


def test_a_run_that_ends_early_by_its_own_rule_says_why(attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    make_step = Trainer.make_step

    def end_after_three(self: Trainer, *given: Any) -> Any:
        if self.global_step == 2:
            self.end("It got no better.")
        return make_step(self, *given)

    monkeypatch.setattr(Trainer, "make_step", end_after_three)
    status, ended = attempts.make()
    assert (status, ended["state"], ended["result"]["ending"]) == (0, "done", "It got no better.")
    record = read_record(Path(ended["result"]["run_dir"]))
    assert record["ended"] == {
        "adapter_path": ended["result"]["adapter_path"],
        "global_step": 3,
        "interrupted": False,
        "ending": "It got no better.",
    }
    _, again = attempts.make()  # which had ended, and goes on with no step
    assert again["result"] == {**ended["result"], "seconds": again["result"]["seconds"]}


def test_a_run_that_was_killed_behind_its_adapter_is_not_taken_for_ended(
    attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes behind, such as the optimizer's state, is made up for."""

    def die(*given: Any) -> None:
        raise RuntimeError("killed")

    attempts.task["settings"]["save_optimizer_state"] = True
    with monkeypatch.context() as patched:
        patched.setattr("tincture.run.loop.save_optimizer", die)
        assert attempts.make()[1]["state"] == "failed"
    _, ended = attempts.make()
    assert (ended["state"], ended["result"]["global_step"]) == ("done", 6)
    assert Path(ended["result"]["adapter_path"] + ".optim").is_file()
