from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints import Checkpoints
from tincture.cli import main
from tincture.run import doctor
from tincture.workspace import Workspace

PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")


@pytest.fixture
def picto_with(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a package whose picto has only these parts in the place of ours."""

    def install(*parts: str) -> None:
        package = tmp_path_factory.mktemp("picto")
        for part in parts:
            (package / "weights" / part).mkdir(parents=True)
        monkeypatch.setattr(doctor, "files", lambda name: package)

    return install


def test_a_machine_that_is_well(tmp_path: Path, checkpoints: Checkpoints) -> None:
    workspace = Workspace(tmp_path)
    (workspace.models / "mine").mkdir(parents=True)
    (workspace.models / "mine" / "model_index.json").write_text("{}")
    (workspace.models / "anime.safetensors").symlink_to(checkpoints.path("sd2-v"))
    workspace.embeddings.mkdir()
    (workspace.embeddings / "cat.pt").write_bytes(b"x")

    report = doctor.examine(workspace)

    assert report["problems"] == []
    assert report["libraries"]["torch"] == torch.__version__
    cpu = report["devices"][0]
    assert (cpu["name"], cpu["precisions"][0]) == ("cpu", "fp32")
    assert report["picto_complete"] is True
    assert report["models"]["anime.safetensors"] == "Stable Diffusion 2, predicts v"
    assert "holds a another kind" not in report["models"]["mine"] and "cannot be used" in report["models"]["mine"]
    assert (report["workspace"]["embeddings"], report["workspace"]["hypernetworks"]) == (1, 0)
    assert report["workspace"]["free"] > 0
    assert json.loads(json.dumps(report)) == report
    text = doctor.as_text(report)
    for part in ("device cpu", "fp32", "mine", str(tmp_path), "1 embeddings", f"torch {torch.__version__}"):
        assert part in text


def test_every_extra_for_users_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert set(doctor.OPTIONAL_PARTS) == set(project["optional-dependencies"]) - {"dev", "fuzz"}
    monkeypatch.setattr(doctor, "OPTIONAL_PARTS", {"there": "json", "missing": "no_such_module"})
    report = doctor.examine(Workspace(tmp_path))
    assert report["optional_parts"] == {"there": True, "missing": False}
    assert "extra missing" in doctor.as_text(report)


def test_examining_leaves_nothing_behind(tmp_path: Path) -> None:
    doctor.examine(Workspace(tmp_path))
    assert list(tmp_path.iterdir()) == []


def leave_free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Makes the disk one of which ``size`` bytes are free."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 2**40 - size, size))


def test_each_problem_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picto_with: Callable[..., None]
) -> None:
    workspace = Workspace(tmp_path)
    workspace.embeddings.mkdir()
    picto_with("scheduler", "text_encoder", "tokenizer", "vae")
    leave_free(monkeypatch, 2**20)
    # permissions bind everybody but root, whom tests may run as
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(doctor, "LIBRARIES", ("torch", "no-such-library"))

    problems = doctor.examine(workspace)["problems"]

    assert len(problems) == 5
    for part in (
        "no-such-library",
        "lacks unet",
        f"{tmp_path} may not",
        f"{workspace.embeddings} may not",
        "Only 0.00 GB are free",
    ):
        assert any(part in problem for problem in problems), part


@pytest.mark.parametrize(("free", "little"), [(2**30, False), (2**30 - 1, True)])
def test_a_gibibyte_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, little: bool) -> None:
    leave_free(monkeypatch, free)
    report = doctor.examine(Workspace(tmp_path))
    assert report["workspace"]["free"] == free
    assert [("free" in problem) for problem in report["problems"]] == [True] * little


@pytest.mark.parametrize("part", PARTS)
def test_each_part_of_picto_is_looked_for(part: str, tmp_path: Path, picto_with: Callable[..., None]) -> None:
    picto_with(*PARTS)
    assert doctor.examine(Workspace(tmp_path))["picto_complete"] is True
    picto_with(*(name for name in PARTS if name != part))
    report = doctor.examine(Workspace(tmp_path))
    assert report["picto_complete"] is False
    assert report["problems"] == [f"The embedded model picto lacks {part}; install tincture again."]
    assert "not complete" in doctor.as_text(report)


def test_a_precision_that_fails_is_not_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = torch.nn.functional.conv2d

    def without_half(pixels: torch.Tensor, *rest: Any, **given: Any) -> torch.Tensor:
        if pixels.dtype is torch.float16:
            raise RuntimeError("not implemented for 'Half'")
        return real(pixels, *rest, **given)

    monkeypatch.setattr(torch.nn.functional, "conv2d", without_half)
    assert doctor.examine(Workspace(tmp_path))["devices"][0]["precisions"] == ["fp32", "bf16"]


@pytest.mark.parametrize(("parts", "code"), [(PARTS, 0), (PARTS[:-1], 1)])
def test_the_command_fails_when_something_is_missing(
    parts: Sequence[str],
    code: int,
    tmp_path: Path,
    picto_with: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    picto_with(*parts)
    assert main(["doctor", "--json", "--root", str(tmp_path)]) == code
    assert json.loads(capsys.readouterr().out)["workspace"]["root"] == str(tmp_path)
    assert main(["doctor", "--root", str(tmp_path)]) == code
    assert ("problem" in capsys.readouterr().out) is bool(code)


def test_the_processor_its_threads_and_mkls_mode_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = doctor.examine(Workspace(tmp_path))
    arithmetic = report["arithmetic"]
    assert (arithmetic["threads"], arithmetic["remarks"]) == (report["cpu_threads"], [])
    text = doctor.as_text(report)
    assert f"processor          {arithmetic['processor']}; {report['cpu_threads']} threads, MKL's mode: " in text
    monkeypatch.setattr("tincture.models.arithmetic.mkl_mode", lambda: "OFF")
    report = doctor.examine(Workspace(tmp_path))
    assert "MKL's mode: OFF" in doctor.as_text(report) and "import tincture before torch" in doctor.as_text(report)
    assert not [problem for problem in report["problems"] if "MKL" in problem]
