"""The same training gives the same bits each time: again in one process, and in fresh ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import NAMES, RANDOM, Bench, make_bench
from tests.support import save_folder, tiny_model
from tincture import recipe
from tincture.models import arithmetic
from tincture.models.arithmetic import VARIABLE, Arithmetic
from tincture.models.stable_diffusion import StableDiffusion
from tincture.run.components import load_adapter
from tincture.run.folder import read_record, write_json
from tincture.run.ownership import adapter_digest

REPOSITORY = Path(__file__).parents[3]
THREADS = (1, 2, 3)
SETTINGS: dict[str, Any] = {**RANDOM, "steps": 3}
# A fresh process, in which nothing was computed before.
PROGRAM = """
import json, sys
from pathlib import Path
from tests.unit.run.test_exactness import trainings
print(json.dumps(trainings(Path(sys.argv[1]), int(sys.argv[2]))))
"""


def trainings(root: Path, times: int) -> dict[str, list[str]]:
    """For each kind of adapter and number of threads the different results of so many trainings, as digests."""
    model = tiny_model()
    folder = save_folder(model, root / "tiny")
    results: defaultdict[str, set[str]] = defaultdict(set)
    for threads in THREADS:
        torch.set_num_threads(threads)
        for time in range(times):
            held = [bytearray(97 * number % 4099) for number in range(200 * time)]  # so that other addresses are free
            bench = make_bench(root / f"{threads}-{time}", model, folder)
            del held[::2]
            for kind in NAMES:
                path = bench.train(kind, **SETTINGS).adapter_path
                results[f"{kind}, {threads} threads"].add(adapter_digest(load_adapter(kind, path, path.stem)))
    return {case: sorted(digests) for case, digests in results.items()}


def process(root: Path, times: int) -> subprocess.Popen[str]:
    """A fresh process that trains; its threads sleep while they wait, since the cores may have other work."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {"PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-c", PROGRAM, str(root), str(times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("times", [(2, 1), pytest.param((8, 4, 1, 1), marks=pytest.mark.slow)], ids=str)
def test_the_same_training_gives_the_same_bits_each_time(tmp_path: Path, times: tuple[int, ...]) -> None:
    results = []
    for number, again in enumerate(times):
        with process(tmp_path / str(number), again) as training:
            results.append(json.loads(training.communicate(timeout=900)[0]))
    assert len(results[0]) == len(NAMES) * len(THREADS)
    assert {case: len(digests) for case, digests in results[0].items()} == dict.fromkeys(results[0], 1)
    assert all(result == results[0] for result in results)


# --- what is said of another arithmetic ------------------------------------------------------------------------------


def arithmetic_of(run_dir: Path) -> list[dict[str, Any]]:
    noted: list[dict[str, Any]] = read_record(run_dir)["arithmetic"]
    return noted


def test_a_run_notes_what_it_computes_with(bench: Bench) -> None:
    result = bench.train("embedding", stop_after=2)
    assert arithmetic_of(result.run_dir) == [Arithmetic.current("cpu").to_dict()]
    bench.resume(result.run_dir)  # without a warning, which would be an error
    assert len(arithmetic_of(result.run_dir)) == 1


@pytest.mark.parametrize("kind", NAMES)
def test_a_resume_under_other_arithmetic_says_so_once_and_goes_on(
    bench: Bench, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    result = bench.train(kind, stop_after=1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 17)
    with pytest.warns(UserWarning, match=rf"other arithmetic \(threads: 17 instead of {threads}\), so") as remarks:
        again = bench.resume(result.run_dir, stop_after=2)
    assert len(remarks) == 1
    assert [noted["threads"] for noted in arithmetic_of(result.run_dir)] == [threads, 17]
    assert again.interrupted
    assert not bench.resume(result.run_dir).interrupted
    assert [noted["threads"] for noted in arithmetic_of(result.run_dir)] == [threads, 17]


def test_a_run_computes_with_as_many_threads_as_it_is_given(bench: Bench) -> None:
    before = torch.get_num_threads()
    result = bench.train("embedding", stop_after=1, threads=2)
    assert torch.get_num_threads() == before
    assert [noted["threads"] for noted in arithmetic_of(result.run_dir)] == [2]
    bench.resume(result.run_dir, stop_after=2)  # as many again, so without a warning
    assert len(arithmetic_of(result.run_dir)) == 1
    with pytest.warns(UserWarning, match=r"threads: 1 instead of 2\)"):
        recipe.resume(result.run_dir, memory={"threads": 1})
    assert [noted["threads"] for noted in arithmetic_of(result.run_dir)] == [2, 1]
    assert read_record(result.run_dir)["settings"]["threads"] == 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("noted", [None, [], "damaged"])
def test_runs_of_before_such_notes_resume_silently(bench: Bench, noted: Any) -> None:
    result = bench.train("embedding", stop_after=2)
    record = {**read_record(result.run_dir), "arithmetic": noted}
    if noted is None:
        del record["arithmetic"]
    write_json(result.run_dir / "run.json", record)
    assert bench.resume(result.run_dir).global_step == 4
    assert arithmetic_of(result.run_dir) == [Arithmetic.current("cpu").to_dict()]


def test_a_run_without_the_reproducible_mode_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "mkl_mode", lambda: "OFF")
    with pytest.warns(UserWarning, match="torch was used before tincture was imported") as remarks:
        result = bench.train("embedding", stop_after=2)
    assert len(remarks) == 1
    with pytest.warns(UserWarning, match="torch was used before tincture was imported"):
        bench.resume(result.run_dir)
    (remark,) = recipe.plan(bench.settings("embedding", steps=9), bench.workspace)["remarks"]
    assert "reproducible mode" in remark
    assert arithmetic_of(result.run_dir)[0]["mkl"] == "OFF"


@pytest.mark.parametrize(
    ("precision", "flags", "is_said"),
    [("bf16", "avx2", True), ("bf16", "avx2 amx_bf16", False), ("bf16", None, False), ("fp32", "avx2", False)],
)
def test_a_plan_says_when_a_half_precision_is_the_slower_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, precision: str, flags: str | None, is_said: bool
) -> None:
    known = {} if flags is None else {"flags": flags}
    monkeypatch.setattr(arithmetic, "_cpuinfo", lambda: {"model name": "a processor", **known})
    remarks = recipe.plan(bench.settings("embedding", precision=precision), bench.workspace)["remarks"]
    assert any("bf16 makes a step slower" in remark for remark in remarks) == is_said


def test_latents_kept_under_other_arithmetic_are_made_anew(
    new_bench: Callable[[str], Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = StableDiffusion.encode_pictures

    def count(model: StableDiffusion, pictures: torch.Tensor) -> Any:
        encoded.append(torch.get_num_threads())
        return encode(model, pictures)

    monkeypatch.setattr(StableDiffusion, "encode_pictures", count)
    for number, threads in enumerate((1, 17, 1, 17)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        new_bench(str(number)).train("embedding", cache_dir=str(tmp_path / "cache"), steps=1)
    assert encoded == [1] * 5 + [17] * 5
