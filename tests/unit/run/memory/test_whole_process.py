"""What a run's process takes on the processor: the program, its tensors, and files while they load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from tests.support import tiny_model
from tincture import recipe
from tincture.models.loading.sources import PICTO
from tincture.run.memory.estimate import MemoryEstimate
from tincture.run.memory.whole_process import process_bytes, program_bytes
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace

RUN = """
import json, sys
from pathlib import Path
from tincture import recipe
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace
settings, root, what = TrainSettings.from_dict(json.loads(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
if what == 'plan':
    print(recipe.plan(settings, Workspace(root), 'none', alone=True)['process_mib'])
else:
    print(recipe.train(settings, Workspace(root)).measured['memory']['process_peak'] / 2**20)
"""


def bytes_for(peak: int, weights: int, model: Path, workspace: Workspace) -> int:
    estimate = MemoryEstimate({"denoiser": weights}, 0, 0, {"training": peak})
    settings = cast(TrainSettings, SimpleNamespace(model=str(model)))
    return process_bytes(1000, estimate, settings, workspace)


def test_a_file_lies_in_memory_while_it_is_loaded_and_is_gone_when_steps_begin(tmp_path: Path) -> None:
    (file := tmp_path / "model.safetensors").write_bytes(bytes(500))
    workspace = Workspace(tmp_path)
    assert bytes_for(700, 300, file, workspace) == 1000 + 300 + 500
    assert bytes_for(900, 300, file, workspace) == 1000 + 900


def test_a_state_lies_in_memory_twice_more_while_it_is_saved(tmp_path: Path) -> None:
    (file := tmp_path / "model.safetensors").write_bytes(bytes(5))
    estimate = MemoryEstimate({"denoiser": 300}, 200, 10, {"training": 100}, 50)
    settings = cast(TrainSettings, SimpleNamespace(model=str(file)))
    assert process_bytes(1000, estimate, settings, Workspace(tmp_path)) == 1000 + 300 + 10 + 50 + 3 * 200


def test_of_a_folder_one_part_after_the_other_is_loaded(tmp_path: Path) -> None:
    largest = (PICTO / "unet/diffusion_pytorch_model.safetensors").stat().st_size
    assert bytes_for(0, 300, PICTO, Workspace(tmp_path)) == 1000 + 300 + largest


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="nobody tells what a process takes")
def test_the_program_is_measured_without_its_weights_and_draws_nothing() -> None:
    model, state = tiny_model(), torch.get_rng_state()
    before = program_bytes(model)
    model.unet.extra = torch.nn.Parameter(torch.ones(2**26))
    after = program_bytes(model)
    assert before is not None and after is not None
    assert abs(after - before) < 2**26 and torch.get_rng_state().equal(state)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_what_is_predicted_is_what_a_run_takes(kind: str, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    given: dict[str, Any] = {"kind": kind, "name": "cat", "model": "picto", "data": str(tmp_path / "data"), "steps": 4}
    recipe.create(kind, "cat", workspace=workspace, model="picto")
    write_pictures(tmp_path / "data")

    def said(what: str) -> float:
        command = [sys.executable, "-c", RUN, json.dumps({**given, "device": "cpu"}), str(tmp_path), what]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])

    assert said("plan") == pytest.approx(said("run"), rel=0.1)


def write_pictures(folder: Path) -> None:
    from bench.material import make_workspace

    make_workspace(folder.parent / "material", 3)
    (folder.parent / "material/data").rename(folder)
