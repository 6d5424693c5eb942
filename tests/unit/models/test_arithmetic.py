from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tincture.models import arithmetic
from tincture.models.arithmetic import REPRODUCIBLE, VARIABLE, Arithmetic, mkl_mode
from tincture.server.child_environment import child_environment

HERE = Arithmetic("cpu", "EPYC, AVX512", 2, "2.13.0", REPRODUCIBLE)
needs_mkl = pytest.mark.skipif(
    not (torch.backends.mkl.is_available() and sys.platform == "linux"), reason="no MKL that can be asked"
)
# What MKL says of itself (MKL_VERBOSE, public) beside what is read from it.
COMPUTE = "torch.rand(64, 64) @ torch.rand(64, 64)\n"
SHOW = COMPUTE + "from tincture.models.arithmetic import Arithmetic\nprint('mode', Arithmetic.current().mkl)\n"
SHOW += "print(*Arithmetic.current().remarks(), sep='\\n')\n"


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def python(program: str, **variables: str) -> str:
    """What a fresh process prints, in which nobody has asked for a mode yet."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    command = [sys.executable, "-P", "-c", program]
    return subprocess.run(
        command, env={**environment, **variables}, check=True, capture_output=True, text=True, timeout=300
    ).stdout


@pytest.mark.parametrize(
    "module",
    ["tincture", "tincture.__main__", "tincture.server.queue.worker", "tincture.server.model_process.process"],
)
def test_every_way_in_asks_before_torch_is_loaded(module: str) -> None:
    assert python(f"import sys, os, {module}\nprint('torch' in sys.modules, os.environ['{VARIABLE}'])") == (
        f"False {REPRODUCIBLE}\n"
    )


def test_what_the_user_has_set_stays_and_children_have_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "COMPATIBLE")
    arithmetic.ask_for_reproducible_results()
    assert child_environment(allow_hub=False)[VARIABLE] == "COMPATIBLE"
    monkeypatch.setenv(VARIABLE, "")
    arithmetic.ask_for_reproducible_results()
    assert child_environment(allow_hub=False)[VARIABLE] == REPRODUCIBLE


@needs_mkl
@pytest.mark.parametrize(
    ("program", "variables", "mode", "remark"),
    [
        ("import tincture, torch\n", {}, REPRODUCIBLE, ""),
        ("import torch, tincture\n", {}, REPRODUCIBLE, ""),
        ("import tincture, torch\n", {VARIABLE: "COMPATIBLE"}, "COMPATIBLE", ""),
        (
            "import torch\n" + COMPUTE + "import tincture\n",
            {},
            "OFF",
            "since torch was used before tincture was imported",
        ),
    ],
    ids=["first", "after torch", "user", "too late"],
)
def test_mkl_computes_in_the_mode_that_is_told(program: str, variables: dict[str, str], mode: str, remark: str) -> None:
    shown = python(program + SHOW, MKL_VERBOSE="1", **variables)
    products = [line for line in shown.splitlines() if "SGEMM" in line]
    assert products and all(f"CNR:{mode} " in line for line in products)
    assert f"mode {mode}\n" in shown
    assert ("reproducible mode" in shown) is bool(remark)
    assert remark in shown


@needs_mkl
def test_this_process_is_reproducible_too() -> None:
    assert mkl_mode() == os.environ[VARIABLE] == REPRODUCIBLE


@pytest.mark.parametrize(
    ("code", "mode"),
    [(1, "OFF"), (2, "AUTO"), (0x10002, "AUTO,STRICT"), (0x1000C, "AVX512,STRICT"), (10, "AVX2"), (99, "99")],
)
def test_modes_have_the_names_of_the_variable(code: int, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(arithmetic, "_mkl_code", lambda _: code)
    assert mkl_mode() == mode


def test_where_mkl_cannot_be_asked_the_variable_counts_unless_it_may_come_late(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert arithmetic._mkl_code(tmp_path / "no-such-library.so") is None
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(arithmetic, "_mkl_code", lambda _: None)
    monkeypatch.setattr(arithmetic, "TORCH_CAME_FIRST", False)
    assert mkl_mode() == REPRODUCIBLE
    monkeypatch.setattr(arithmetic, "TORCH_CAME_FIRST", True)
    assert mkl_mode() == "unknown"
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert mkl_mode() == "none"


def test_the_arithmetic_is_that_of_now(threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(3)
    now = Arithmetic.current()
    assert (now.device, now.threads, now.torch) == ("cpu", 3, torch.__version__)
    assert arithmetic.processor_name() in now.processor
    torch.set_num_threads(1)
    assert Arithmetic.current().threads == 1
    monkeypatch.setattr(arithmetic, "_cpuinfo", dict)
    assert (platform.processor() or platform.machine()) in Arithmetic.current().processor


@pytest.mark.parametrize(
    ("before", "changes"),
    [
        ({}, ""),
        ({"threads": 4}, "(threads: 2 instead of 4)"),
        ({"processor": "Xeon, AVX2", "mkl": "OFF"}, "(processor: EPYC, AVX512 instead of Xeon, AVX2; mkl: AUTO,STRICT"),
        ({"torch": "2.6.0"}, "(torch: 2.13.0 instead of 2.6.0)"),
        ({"device": "cuda"}, "(device: cpu instead of cuda)"),
    ],
)
def test_a_change_is_told_in_one_sentence(before: dict[str, Any], changes: str) -> None:
    remarks = HERE.remarks({**HERE.to_dict(), **before})
    assert len(remarks) == bool(changes)
    for sentence in remarks:
        assert changes in sentence and "not the same bit for bit" in sentence
        assert sentence.endswith(".") and sentence.count(". ") == 0


@pytest.mark.parametrize("before", [None, "damaged", ["list"], {}, {"of later versions": 1}])
def test_of_runs_without_a_note_nothing_is_said(before: object) -> None:
    assert HERE.remarks(before) == []


def test_only_runs_on_a_processor_promise_bits() -> None:
    card = replace(HERE, device="cuda", mkl="OFF")
    assert card.remarks({**card.to_dict(), "threads": 9}) == []
    assert len(card.remarks(HERE.to_dict())) == 1
    assert replace(HERE, mkl="none").remarks() == []


@pytest.mark.parametrize(
    ("variable", "cause"),
    [(REPRODUCIBLE, "torch was used before tincture was imported"), ("OFF", f"{VARIABLE} is OFF")],
)
@pytest.mark.parametrize("mode", ["OFF", "unknown"])
def test_why_there_is_no_reproducible_mode(
    mode: str, variable: str, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, variable)
    (sentence,) = replace(HERE, mkl=mode).remarks()
    assert f"since {cause}," in sentence and f"set {VARIABLE}={REPRODUCIBLE} before the program starts." in sentence


def test_a_place_is_told_from_others_by_all_that_changes_bits() -> None:
    others = [replace(HERE, processor="Xeon"), replace(HERE, threads=1), replace(HERE, mkl="OFF")]
    assert len({each.place() for each in (HERE, *others)}) == 4
    assert replace(HERE, device="cuda").place() == replace(HERE, device="cuda", threads=1).place() == "cuda"
