"""Trackers of Accelerate get a run's settings, numbers and previews, once each, and nothing of this machine."""

from __future__ import annotations

import json
import socket
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate.tracking
import pytest
from accelerate.state import PartialState
from accelerate.tracking import GeneralTracker

from tests.runs import Bench, Recorder
from tincture import recipe
from tincture.errors import DataError, UsageError
from tincture.events import Progressed
from tincture.run.duration import ENCODING
from tincture.run.presence import require_trackers

CHANGES: dict[str, Any] = {"steps": 6, "log_every": 2, "save_every": 3, "preview_every": 3, "preview_steps": 1}


def tracker_class(given: list[Any], name: str, **methods: Any) -> type:
    """A tracker as Accelerate has them, which puts all that it is given into ``given``."""

    def begin(self: Any, run_name: str, **options: Any) -> None:
        GeneralTracker.__init__(self)
        given.append(("made", run_name, options))

    def note(what: str) -> Callable[..., None]:
        def called(self: Any, values: Any = None, step: int | None = None, **more: Any) -> None:
            given.append((what, step, values))

        return called

    body = {
        "name": name,
        "requires_logging_directory": False,
        "tracker": property(lambda self: self),
        "__init__": begin,
        "start": accelerate.tracking.on_main_process(lambda self: accelerate.tracking.logger.debug("started")),
        "store_init_configuration": note("config"),
        "log": note("log"),
        "log_images": note("images"),
        "finish": note("finish"),
    }
    return type("Made", (GeneralTracker,), {**body, **methods})


def stages(watcher: Recorder) -> set[str]:
    return {event.stage for event in watcher.of(Progressed)}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What two trackers, which seem installed, are given."""
    calls: list[Any] = []
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, name, tracker_class(calls, name))
    return calls


def test_a_tracker_gets_settings_numbers_and_previews(
    new_bench: Callable[[str], Bench], given: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret-of-mine")
    bench = new_bench("one")
    result = bench.train("embedding", log_with=["wandb"], log_project="moons", validation_share=0.4, **CHANGES)
    (made, (_, _, config), *logged) = given
    assert made[:2] == ("made", "moons")
    assert made[2]["name"] == "/".join(result.run_dir.parts[-2:]) and made[2]["dir"] == str(result.run_dir)
    assert (config["steps"], config["data"], config["log_with"]) == (6, "pictures", "wandb")
    assert all(isinstance(value, str | int | float | None) for value in config.values())
    assert str(bench.workspace.root) not in json.dumps(config)
    of_steps = [step for what, step, values in logged if what == "log" and "Loss/train" in values]
    assert of_steps == [1, 2, 3, 4, 5, 6]
    assert {"Gradient norm", "Weight norm", "Vector norm mean"} <= logged[-4][2].keys() | logged[2][2].keys()
    assert [step for what, step, values in logged if what == "log" and "Loss/validation" in values]
    pictures = [(step, list(values)) for what, step, values in logged if what == "images"]
    assert [step for step, _ in pictures] == [0, 3, 6] and pictures[0][1][0] == "Previews/1"
    steps = [step for _, step, _ in logged if step is not None]
    assert steps == sorted(steps), "no tracker takes an earlier step"
    assert logged[-1][0] == "finish"
    assert not PartialState._shared_state, "Accelerate's state is as it was"
    notes = (result.run_dir / "trackers.json").read_text()
    assert "secret-of-mine" not in (result.run_dir / "run.json").read_text() + notes


def test_a_run_that_goes_on_appends_to_the_same_and_gives_nothing_twice(
    new_bench: Callable[[str], Bench], given: list[Any]
) -> None:
    bench = new_bench("two")
    begun = bench.train("embedding", log_with=["wandb", "mlflow"], stop_after=4, **CHANGES).run_dir
    max((begun / "state").iterdir()).unlink()  # as after a kill: it stands at step 3 again
    bench.resume(begun)
    made = [options for what, _, options in given if what == "made"]
    assert len(made) == 4 and made[0]["id"] == made[2]["id"] != made[1].get("run_id")
    assert made[1]["run_id"] is None and made[3]["run_id"]
    for what, mark in (("log", "Loss/train"), ("images", "Previews/1")):
        steps = [step for each, step, values in given if each == what and mark in values]
        expected = [1, 2, 3, 4, 5, 6] if what == "log" else [0, 3, 6]
        assert sorted(steps) == sorted(2 * expected)


def test_a_run_may_go_on_with_other_trackers(new_bench: Callable[[str], Bench], given: list[Any]) -> None:
    bench = new_bench("three")
    begun = bench.train("embedding", stop_after=2, **CHANGES).run_dir
    assert not given
    recipe.resume(begun, memory={"log_with": ["mlflow"]})
    assert [step for what, step, values in given if what == "log" and "Loss/train" in values] == [3, 4, 5, 6]
    assert json.loads((begun / "run.json").read_text())["settings"]["log_with"] == ["mlflow"]


@pytest.mark.parametrize("error", [RuntimeError("api_key not configured"), SystemExit(1)], ids=("error", "exit"))
def test_one_that_does_not_start_is_a_sentence_and_the_others_are_ended(
    new_bench: Callable[[str], Bench], given: list[Any], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(self: Any) -> None:
        raise error

    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "mlflow", tracker_class(given, "mlflow", start=fail))
    bench, watcher = new_bench("four"), Recorder()
    with pytest.raises(UsageError, match="The tracker mlflow of `log_with` does not start"):
        bench.train("embedding", log_with=["wandb", "mlflow"], callbacks=[watcher], **CHANGES)
    assert given[-1][0] == "finish" and not PartialState._shared_state
    assert "starting trackers" in stages(watcher) and ENCODING not in stages(watcher)
    assert not list(bench.workspace.logs.iterdir()), "no folder of a run that never began"


def test_a_run_that_goes_on_is_refused_as_early_and_stays_what_it_is(
    new_bench: Callable[[str], Bench], given: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, watcher = new_bench("five"), Recorder()
    begun = bench.train("embedding", stop_after=2, **CHANGES).run_dir
    before = {path.name: path.read_bytes() for path in begun.iterdir() if path.is_file()}

    def fail(self: Any) -> None:
        raise RuntimeError("no login; set `api_key` by --relogin")

    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "wandb", tracker_class(given, "wandb", start=fail))
    with pytest.raises(UsageError, match="set 'api_key' by '--relogin'") as refusal:
        recipe.resume(begun, memory={"log_with": ["wandb"]}, callbacks=[watcher])
    assert "--log-with" in refusal.value.sentence and ENCODING not in stages(watcher)
    assert {path.name: path.read_bytes() for path in begun.iterdir() if path.is_file()} == before
    assert bench.resume(begun).global_step == 6


def test_a_run_that_fails_after_its_trackers_started_leaves_no_folder(
    new_bench: Callable[[str], Bench], given: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise DataError("a picture is gone")

    monkeypatch.setattr("tincture.run.components.encode", fail)
    bench = new_bench("six")
    with pytest.raises(DataError, match="gone"):
        bench.train("embedding", log_with=["wandb"], **CHANGES)
    assert [what for what, *_ in given] == ["made", "config", "finish"]
    assert not list(bench.workspace.logs.iterdir())


@pytest.mark.parametrize(
    ("name", "variable"), [("mlflow", "MLFLOW_TRACKING_URI"), ("wandb", "WANDB_BASE_URL")], ids=("mlflow", "wandb")
)
def test_a_server_that_does_not_answer_is_refused_before_anything_starts(
    bench: Bench, given: list[Any], monkeypatch: pytest.MonkeyPatch, name: str, variable: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv(variable, f"http://user:secret@127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        require_trackers([name])
    sentence = rf"`log_with` is {name}, but nothing answers at http://127.0.0.1:{port}, which {variable} names"
    with pytest.raises(UsageError, match=sentence):
        bench.train("embedding", log_with=[name])
    assert not given and not bench.workspace.logs.exists()
    for elsewhere in ("file:/runs", "sqlite:///runs.db", "", "http://host:port"):
        monkeypatch.setenv(variable, elsewhere)
        require_trackers([name])


def test_a_server_is_not_asked_where_a_proxy_reaches_it_or_none_is_used(
    given: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("MLFLOW_TRACKING_URI", "WANDB_BASE_URL"):
        monkeypatch.setenv(variable, "http://localhost:9")
    monkeypatch.setenv("WANDB_MODE", "offline")
    require_trackers(["wandb"])
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    require_trackers(["mlflow"])


def test_one_that_is_not_installed_is_refused_before_anything_starts(bench: Bench) -> None:
    with pytest.raises(UsageError, match=r"`log_with` is wandb, but wandb is not installed: pip install wandb; or"):
        bench.train("embedding", log_with=["wandb"])
    assert not bench.workspace.logs.exists()


def test_the_absence_of_tensorboard_and_of_accelerate_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"tensorboard", "accelerate", "mlflow"}
    monkeypatch.setattr("tincture.run.presence._is_installed", lambda module: module not in absent)
    with pytest.raises(UsageError, match=r"not installed: pip install 'tincture\[tensorboard\]'"):
        require_trackers(["tensorboard"])
    with pytest.raises(UsageError, match="mlflow and accelerate is not installed"):
        require_trackers(["mlflow"])


def test_the_trackers_are_those_that_accelerate_knows() -> None:
    from tincture.settings.groups.tracking import TRACKERS

    assert TRACKERS.keys() == accelerate.tracking.LOGGER_TYPE_TO_CLASS.keys()


@pytest.mark.parametrize("name", ["wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab", "trackio"])
@pytest.mark.parametrize("begun", [False, True], ids=("new", "begun"))
def test_each_is_told_its_run(name: str, begun: bool, tmp_path: Path) -> None:
    from tincture.run.trackers import _options

    assert _options(name, "0" * 32, tmp_path, begun=begun)
