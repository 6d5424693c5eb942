"""One run on several processes: what it learns, what each of them does, and how it ends."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import Ended, on_ranks
from tests.runs import CAPTIONS, NAMES, RANDOM, Bench, OnStep, equal, last_state, make_bench, trained, write_pictures
from tests.support import save_folder
from tincture import recipe
from tincture.errors import UsageError
from tincture.models.stable_diffusion import StableDiffusion
from tincture.run.result import RunResult
from tincture.training.trainer import Trainer

KINDS = ("embedding", "hypernetwork")
LONG = ", ".join(f"word{number}" for number in range(20))  # several chunks of tokens: prompts beside it are filled up
ALL: dict[str, Any] = {
    **{name: value for name, value in RANDOM.items() if name not in ("batch_size", "gradient_accumulation_steps")},
    "width": 32,
    "height": 32,
    "steps": 3,
    "seed": 1,  # the long prompt comes with three others, of which two lie in another process
    "learning_rate": "",
    "batch_size": 4,
    "ema": "0.9",
    "validation_every": 2,
    "preview_every": 3,
    "preview_steps": 1,
    # Some gradients are zero but for rounding, such as that of what is added to all keys alike, which attention does
    # not feel. AdamW would enlarge such noise to whole steps.
    "optimizer_args": "eps=1e-2",
}


class Together:
    """Runs of one kind, each in a workspace of its own that is made anew, on one process or several."""

    def __init__(self, root: Path, model: StableDiffusion) -> None:
        self.root, self.model, self.made = root, model, 0
        self.folder = save_folder(model, root / "tiny")

    def bench(self) -> Bench:
        self.made += 1
        bench = make_bench(self.root / str(self.made), self.model, self.folder)
        write_pictures(bench.data, [*CAPTIONS[:4], LONG], side=32)  # five: the last micro-batch has one
        write_pictures(bench.workspace.root / "prior", CAPTIONS[:3], side=32)
        write_pictures(bench.workspace.root / "held-out", CAPTIONS[2:4], side=40)
        return bench

    def settings(self, bench: Bench, **changes: Any) -> dict[str, Any]:
        places = {"prior_data": "prior", "validation_data": "held-out"}
        found = {name: str(bench.workspace.root / folder) for name, folder in places.items()}
        if changes.get("validation_every") == 0:
            del found["validation_data"]
        return {**ALL, **found, "prior_template": "style_filewords", **changes}

    def alone(self, kind: str, **changes: Any) -> tuple[Bench, RunResult]:
        bench = self.bench()
        return bench, bench.train(kind, **self.settings(bench, **changes))

    def on(self, count: int, kind: str, bench: Bench | None = None, **changes: Any) -> tuple[Bench, list[Ended]]:
        bench = bench or self.bench()
        settings = self.settings(bench, **changes)
        return bench, self.act(count, lambda rank: bench.train(kind, **settings), bench)

    def act(self, count: int, act: Callable[[int], Any], bench: Bench) -> list[Ended]:
        return on_ranks(count, act, self.root / "ranks" / str(self.made))


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, tiny_model_for_module: StableDiffusion) -> Together:
    return Together(tmp_path_factory.mktemp("together"), tiny_model_for_module)


@pytest.fixture(scope="module")
def tiny_model_for_module() -> StableDiffusion:
    from tests.support import tiny_model

    return tiny_model()


def results(ended: list[Ended]) -> list[RunResult]:
    assert not [each for each in ended if each.error or each.status], ended
    return [each.value for each in ended]


def close(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], limit: float = 1e-6) -> bool:
    """Whether all tensors together are the same to ``limit`` relative."""
    left, right = (torch.cat([each[name].double().flatten() for name in one]) for each in (one, other))
    return bool((left - right).norm() <= limit * left.norm())


def numbers(run_dir: Path, name: str) -> list[list[float]]:
    (path,) = (path for path in run_dir.glob(name) if name != "*_loss.csv" or path.name != "validation_loss.csv")
    return [[float(cell) for cell in line.split(",")] for line in path.read_text().splitlines()[1:]]


def test_helper_sees_what_differs() -> None:
    assert close({"a": torch.ones(3)}, {"a": torch.ones(3)})
    assert not close({"a": torch.ones(3)}, {"a": torch.tensor([1, 1, 1.00001])})


# --- the same weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_processes_learns_the_same(together: Together, kind: str) -> None:
    """With uneven last batches, dropout, shuffled and dropped tags, prompts of two lengths, prior pictures, averages,
    validation and previews."""
    _, alone = together.alone(kind)
    learned = trained(alone.adapter_path)
    for count in (2, 4):
        bench, ended = together.on(count, kind)
        result, *others = results(ended)
        assert others == [result] * (count - 1)
        assert close(learned, trained(result.adapter_path))
        assert close(last_state(alone.run_dir)["adapter"], last_state(result.run_dir)["adapter"])
        for log in ("*_loss.csv", "validation_loss.csv"):
            measured = zip(numbers(alone.run_dir, log), numbers(result.run_dir, log), strict=True)
            assert all(row == pytest.approx(other, rel=1e-4, nan_ok=True) for row, other in measured)
        assert result.global_step == 3
        assert result.loss == pytest.approx(alone.loss, rel=1e-5)
        assert files(result.run_dir) == files(alone.run_dir)
        assert (result.best_path is None) == (alone.best_path is None)
        assert json.loads((result.run_dir / "run.json").read_text())["processes"] == count
        assert bench.path(kind) == result.adapter_path


def files(folder: Path) -> set[str]:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("settings-")}


@pytest.mark.parametrize("kind", [KINDS[0], pytest.param(KINDS[1], marks=pytest.mark.slow)])
def test_as_many_processes_learn_the_same_bit_for_bit_also_when_stopped(together: Together, kind: str) -> None:
    changes = {"preview_every": 0, "gradient_accumulation_steps": 3, "batch_size": 2}

    def whole(rank: int) -> tuple[Any, Any]:
        once, again = together_benches
        found = once.train(kind, **together.settings(once, **changes))
        stopped = again.train(kind, stop_after=2 if rank == 1 else 0, **together.settings(again, **changes))
        assert stopped.interrupted
        assert stopped.global_step == 2
        gone_on = recipe.resume(stopped.run_dir)
        return last_state(found.run_dir), last_state(gone_on.run_dir)

    together_benches = together.bench(), together.bench()
    with stopping_anywhere():
        (first, resumed), *others = results(together.act(2, whole, together_benches[0]))
    states = [first, resumed, *(state for pair in others for state in pair)]
    assert all(equal(state["adapter"], first["adapter"]) for state in states)
    assert all(equal(state["optimizer"], first["optimizer"]) for state in states)
    assert all(state["losses"] == first["losses"] for state in states)


class stopping_anywhere:
    """Callbacks of all ranks see steps, as only those of rank 0 do else."""

    def __enter__(self) -> None:
        self._patched = pytest.MonkeyPatch()
        self._patched.setattr("tincture.run.train.watchers", lambda processes, callbacks: callbacks)

    def __exit__(self, *_: object) -> None:
        self._patched.undo()


@pytest.mark.parametrize("kind", [pytest.param(KINDS[0], marks=pytest.mark.slow), KINDS[1]])
def test_a_run_goes_on_with_another_number_of_processes(together: Together, kind: str) -> None:
    _, alone = together.alone(kind)
    bench = together.bench()
    stopped = bench.train(kind, stop_after=1, **together.settings(bench))
    on_two = results(together.act(2, lambda rank: bench_resume(stopped, 2 if rank == 0 else 0), bench))[0]
    assert (on_two.interrupted, on_two.global_step) == (True, 2)
    with pytest.warns(UserWarning, match="1 process instead of 2"):
        ended = recipe.resume(stopped.run_dir)
    assert close(trained(alone.adapter_path), trained(ended.adapter_path))


def bench_resume(stopped: RunResult, stop_after: int) -> RunResult:
    stop = threading.Event()
    warnings.simplefilter("ignore")  # that it goes on with other processes
    return recipe.resume(stopped.run_dir, callbacks=[OnStep(stop_after, stop.set)], stop=stop)


def test_whole_micro_batches_are_shared_out_to_the_same_end(together: Together) -> None:
    """Three of two pictures, of which one process makes two; of five pictures, the third one has one."""
    changes = {"preview_every": 0, "validation_every": 0, "gradient_accumulation_steps": 3, "batch_size": 2}
    _, alone = together.alone("embedding", **changes)
    _, ended = together.on(2, "embedding", **changes)
    assert close(trained(alone.adapter_path), trained(results(ended)[0].adapter_path))


@pytest.mark.slow
def test_masks_guidance_and_held_norms_count_the_same(together: Together) -> None:
    """Terms of the loss that are no sum over samples count once."""
    changes = {
        "negative_prompt": "blurred",
        "guidance_scale": "2",
        "norm_weight": "0.5",
        "norm_limit": "3",
        "clip_grad_mode": "norm",
        "clip_grad_value": "0.05",
        "optimizer": "SGD",
        "optimizer_args": "",
        "learning_rate": "0.05",
        "log_norms": True,
    }
    _, alone = together.alone("embedding", **changes)
    _, ended = together.on(3, "embedding", **changes)
    assert close(trained(alone.adapter_path), trained(results(ended)[0].adapter_path))


@pytest.mark.slow
def test_adapters_that_are_trained_together_learn_the_same(together: Together) -> None:
    changes = {"companions": [f"hypernetwork:{NAMES['hypernetwork']}:0:3, 1e-3"], "validation_every": 0}
    _, alone = together.alone("embedding", **changes)
    _, ended = together.on(2, "embedding", **changes)
    result = results(ended)[0]
    pairs = zip((alone, *alone.companions), (result, *result.companions), strict=True)
    assert all(close(trained(one.adapter_path), trained(other.adapter_path)) for one, other in pairs)


# --- who does what ---------------------------------------------------------------------------------------------------


def test_work_is_done_once_and_files_are_written_by_one(together: Together) -> None:
    bench = together.bench()
    more = {"gradient_accumulation_steps": 3, "cache_dir": str(bench.workspace.root / "cache")}
    settings = together.settings(bench, preview_every=2, steps=2, **more)

    def counted(rank: int) -> dict[str, int]:
        counts = {"encoded": 0, "drawn": 0, "written": 0, "summed": 0}
        count_calls("tincture.processes.group.Group.sum_gradients", counts, "summed", each=lambda parameters: 1)
        count_calls("tincture.models.stable_diffusion.StableDiffusion.encode_pictures", counts, "encoded")
        count_calls("tincture.models.stable_diffusion.StableDiffusion.decode_latents", counts, "drawn")
        sys.addaudithook(lambda event, args: written(event, args, bench.workspace.root, counts))
        bench.train("embedding", **settings)
        return counts

    first, second = results_of(together.act(2, counted, bench))
    assert first["summed"] == second["summed"] == 2  # steps: whatever number of micro-batches they have
    pictures = 5 + 2  # to be learned and for validation; those beside them are some of the first
    assert first["encoded"] + second["encoded"] == pictures
    assert abs(first["encoded"] - second["encoded"]) <= 3
    assert (first["drawn"], second["drawn"]) == (4, 4)  # pictures, of two previews with four
    assert second["written"] == second["encoded"]  # latents for later runs, by whoever encoded them
    assert first["written"] > first["encoded"]


def results_of(ended: list[Ended]) -> list[dict[str, int]]:
    assert not [each for each in ended if each.error or each.status], ended
    return [each.value for each in ended]


def count_calls(path: str, counts: dict[str, int], name: str, each: Callable[[Any], int] = len) -> None:
    place, attribute = path.rsplit(".", 1)
    module, owner = place.rsplit(".", 1)
    cls = getattr(__import__(module, fromlist=[owner]), owner)
    real = getattr(cls, attribute)

    def counting(self: Any, tensor: Any, *args: Any, **more: Any) -> Any:
        counts[name] += each(tensor)
        return real(self, tensor, *args, **more)

    setattr(cls, attribute, counting)


def written(event: str, args: tuple[Any, ...], root: Path, counts: dict[str, int]) -> None:
    if event == "open" and isinstance(args[0], str) and args[0].startswith(str(root)) and args[2] & os.O_CREAT:
        counts["written"] += 1


@pytest.mark.slow
def test_previews_are_those_of_one_process(together: Together) -> None:
    _, alone = together.alone("embedding", steps=1, preview_every=1)
    _, ended = together.on(3, "embedding", steps=1, preview_every=1)
    result = results(ended)[0]
    pictures = [sorted((run / "images").glob("cat-0-*.png")) for run in (alone.run_dir, result.run_dir)]
    assert len(pictures[0]) == 4
    assert [path.name for path in pictures[0]] == [path.name for path in pictures[1]]
    from PIL import Image, ImageChops

    for one, other in zip(*pictures, strict=True):
        difference = ImageChops.difference(Image.open(one), Image.open(other))
        assert max(high for _, high in difference.getextrema()) <= 1


# --- what goes wrong -------------------------------------------------------------------------------------------------


def at_step(step: int, rank: int, only: int, act: Callable[[], object]) -> None:
    """In the process of rank ``only``, ``act`` is called before the step behind ``step``."""
    real = Trainer.make_step

    def make_step(self: Trainer, *rates: float) -> Any:
        if self.global_step == step and rank == only:
            act()
        return real(self, *rates)

    Trainer.make_step = make_step  # type: ignore[method-assign]


@pytest.mark.parametrize("only", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_gradient_that_overflows_in_one_process_is_made_again_by_all(together: Together, only: int) -> None:
    changes = {"precision": "fp16", "preview_every": 0, "validation_every": 0, "ema": ""}
    bench = together.bench()

    def overflowing(rank: int) -> tuple[RunResult, Any]:
        real, left = Trainer._micro_batch_loss, [1]

        def loss(self: Trainer, share: Any) -> Any:
            found = real(self, share)
            if rank == only and self.global_step == 1 and left:
                left.pop()
                return found * 1e36  # times the scale of the loss, beyond float32
            return found

        Trainer._micro_batch_loss = loss  # type: ignore[method-assign]
        result = bench.train("hypernetwork", **together.settings(bench, **changes))
        return result, last_state(result.run_dir)["grad_scaler"]

    (first, scaler), (second, other) = (each.value for each in together.act(2, overflowing, bench))
    assert first == second
    assert first.overflows == 1
    assert scaler == other
    assert scaler["scale"] == 2.0**15
    _, alone = together.alone("hypernetwork", **changes)
    assert close(trained(alone.adapter_path), trained(first.adapter_path), 1e-3)


@pytest.mark.parametrize(
    "on_divergence", ["stop", *(pytest.param(x, marks=pytest.mark.slow) for x in ("skip", "rollback"))]
)
def test_a_loss_that_is_not_finite_in_one_process_is_so_in_all(together: Together, on_divergence: str) -> None:
    bench = together.bench()
    settings = together.settings(bench, on_divergence=on_divergence, preview_every=0, log_every=1, save_every=1)

    def diverging(rank: int) -> RunResult:
        real, left = Trainer._micro_batch_loss, [1]

        def loss(self: Trainer, share: Any) -> Any:
            if rank == 1 and self.global_step == 1 and left:
                left.pop()
                return real(self, share) * float("nan")
            return real(self, share)

        Trainer._micro_batch_loss = loss  # type: ignore[method-assign]
        return bench.train("embedding", **settings)

    ended = together.act(2, diverging, bench)
    if on_divergence == "stop":
        assert [each.kind for each in ended] == ["DivergedError"] * 2
        assert all("step 2" in each.error for each in ended)
    else:
        assert [each.divergences for each in results(ended)] == [1, 1]


def test_a_process_that_is_killed_ends_the_run_which_can_be_resumed(together: Together) -> None:
    _, alone = together.alone("embedding", preview_every=0)
    bench = together.bench()

    def dying(rank: int) -> RunResult:
        at_step(2, rank, 1, lambda: os.kill(os.getpid(), signal.SIGKILL))
        return bench.train("embedding", **together.settings(bench, preview_every=0))

    lost, killed = together.act(2, dying, bench)
    assert killed.status == signal.SIGKILL
    assert lost.kind == "LostProcessError"
    assert "rank 1" in lost.error
    assert "Its 2 steps are saved" in lost.error
    (run_dir,) = bench.workspace.logs.glob("*/cat")
    assert f"tincture resume {str(run_dir)!r}" in lost.error
    with pytest.warns(UserWarning, match="1 process instead of 2"):
        assert close(trained(alone.adapter_path), trained(recipe.resume(run_dir).adapter_path))


@pytest.mark.parametrize("only", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_process_that_fails_says_so_to_the_others(together: Together, only: int) -> None:
    bench = together.bench()

    def failing(rank: int) -> RunResult:
        def fail() -> None:
            raise ZeroDivisionError("nothing to share")

        at_step(1, rank, only, fail)
        return bench.train("embedding", **together.settings(bench, preview_every=0))

    ended = together.act(3, failing, bench)
    assert ended[only].kind == "ZeroDivisionError"
    for each in (each for rank, each in enumerate(ended) if rank != only):
        assert each.kind == "LostProcessError"
        assert f"rank {only} of 3" in each.error
        assert "ZeroDivisionError: nothing to share" in each.error


# --- refused before anything starts ----------------------------------------------------------------------------------


def refused(together: Together, bench: Bench, act: Callable[[int], Any], count: int = 2) -> list[Ended]:
    before = files(bench.workspace.root)
    ended = together.act(count, act, bench)
    assert files(bench.workspace.root) == before
    assert all(each.error and "\n" not in each.error for each in ended), ended
    return ended


def test_more_processes_than_pictures_of_a_step_are_refused(together: Together) -> None:
    bench = together.bench()
    settings = together.settings(bench, batch_size=1, gradient_accumulation_steps=2)
    ended = refused(together, bench, lambda rank: bench.train("embedding", **settings), 3)
    assert [each.kind for each in ended] == ["UsageError"] * 3
    assert all("There are 3 processes, but a step has 2 pictures (--batch-size" in each.error for each in ended)
    with pytest.raises(UsageError, match="processes is 3, but a step has 2 pictures"):
        bench.settings("embedding", **settings, processes=3)


def test_processes_with_other_settings_are_refused(together: Together) -> None:
    bench = together.bench()

    def different(rank: int) -> RunResult:
        return bench.train("embedding", **together.settings(bench, seed=rank, log_every=5 + rank))

    for each in refused(together, bench, different):
        assert each.kind == "UsageError"
        assert "rank 1" in each.error
        assert "seed is 1, not 0; log_every is 6, not 5" in each.error or "log_every is 6, not 5" in each.error


def test_processes_with_other_code_are_refused(together: Together) -> None:
    bench = together.bench()

    def different(rank: int) -> RunResult:
        pytest.MonkeyPatch().setattr("tincture.run.together.code_digest", lambda: f"code of {rank}")
        return bench.train("embedding", **together.settings(bench))

    for each in refused(together, bench, different):
        assert (each.kind, "runs another tincture" in each.error) == ("UsageError", True)


@pytest.mark.parametrize("differs", ["pictures", "captions", "adapters", "prompt templates"])
def test_processes_that_see_other_files_are_refused(together: Together, differs: str) -> None:
    benches = together.bench(), together.bench()
    other = benches[1]
    if differs == "pictures":
        (other.data / "0.png").unlink()
    elif differs == "captions":
        (other.data / "0.txt").write_text("another caption")
    elif differs == "adapters":
        other.path("embedding").write_bytes(other.path("hypernetwork").with_name("ink.pt").read_bytes()[:0])
        benches[0].train("embedding", **together.settings(other, steps=1, data=str(benches[0].data)))
        other.path("embedding").write_bytes(benches[0].path("embedding").read_bytes())
        benches = (together.bench(), other)
    else:
        (other.workspace.templates).mkdir(parents=True, exist_ok=True)
        for each, line in zip(benches, ("a [name]", "the [name]"), strict=True):
            each.workspace.templates.mkdir(parents=True, exist_ok=True)
            (each.workspace.templates / "own.txt").write_text(line)

    def elsewhere(rank: int) -> RunResult:
        own = benches[rank]
        # The same places by name, as on machines that share no folder.
        os.chdir(own.workspace.root)
        settings = together.settings(own, data="pictures", prior_data="prior", validation_data="held-out")
        settings |= {"template": "own"} if differs == "prompt templates" else {}
        return dataclasses.replace(own, data=Path("pictures")).train("embedding", **{**settings, "steps": 9})

    for each in refused(together, benches[0], elsewhere):
        assert each.kind == "DataError", each
        assert "sees other files than that of rank 0" in each.error
        assert "a folder that their machines share" in each.error


def test_what_only_one_process_lacks_is_said_by_all(together: Together) -> None:
    bench, other = together.bench(), together.bench()
    other.path("embedding").unlink()

    def elsewhere(rank: int) -> RunResult:
        own = (bench, other)[rank]
        return recipe.train(bench.settings("embedding", **together.settings(bench)), own.workspace)

    main, lacking = refused(together, bench, elsewhere)
    assert lacking.kind == "UsageError"
    assert main.kind == "LostProcessError"
    assert "The process of rank 1 of 2" in main.error
    assert lacking.error.rstrip(".") in main.error


def test_another_number_than_the_launcher_started_is_refused(together: Together) -> None:
    bench = together.bench()
    settings = together.settings(bench, processes=4)
    for each in refused(together, bench, lambda rank: bench.train("embedding", **settings)):
        assert each.kind == "UsageError"
        assert "--processes is 4, but WORLD_SIZE says that a launcher started 2" in each.error


def test_a_device_by_its_number_is_none_for_several(together: Together) -> None:
    bench = together.bench()
    settings = together.settings(bench, device="cuda:0")
    for each in refused(together, bench, lambda rank: bench.train("embedding", **settings)):
        assert "one device for several processes" in each.error
    with pytest.raises(UsageError, match="one device for several processes"):
        bench.train("embedding", **settings, processes=2)
