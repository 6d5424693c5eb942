"""The program that tries faults: which ones, with which tests, and what it makes of the outcome."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tools import mutate
from tools.mutate import ROOMS, Fault, covering, explained, faults
from tools.mutations import Mutation

FAULT = Fault("a/b.py", Mutation("act", 3, "a < b", "(a <= b)", 0, 5), (Path("tests/unit/a/test_b.py"),))
OTHER = Fault("a/b.py", Mutation("act", 4, "1", "2", 9, 10), FAULT.tests)
ENTRY = '[[survivor]]\nfile = "a/b.py"\nwhere = "act"\nchange = "a < b -> (a <= b)"\nwhy = "They are never equal."\n'


def test_as_many_of_every_room_and_the_same_for_a_seed() -> None:
    chosen = faults(ROOMS, 10, 0)
    of_rooms = [sum(fault.path.startswith(f"{room}/") for fault in chosen) for room in ROOMS]
    assert of_rooms == [2, 2, 2, 2, 2]
    assert chosen == faults(ROOMS, 10, 0) != faults(ROOMS, 10, 1)
    every = faults(["training/loss.py"], 0, 0)
    assert faults(["training/loss.py"], 10**6, 1) == every and {fault.path for fault in every} == {"training/loss.py"}


def test_every_file_of_the_rooms_has_tests_and_every_name_in_the_table_is_there() -> None:
    for fault in faults(ROOMS, 0, 0):
        assert fault.tests and all((mutate.ROOT / test).exists() for test in fault.tests)
    for path, names in mutate.MORE.items():
        assert (mutate.ROOT / mutate.PACKAGE / path).is_file(), path
        assert all((mutate.ROOT / mutate.UNIT / name).exists() for name in names), path
    with pytest.raises(SystemExit, match=r"No test covers nothing/x\.py"):
        covering("nothing/x.py")


def test_every_explanation_is_of_a_fault_that_is_there() -> None:
    paths = {fault.path for fault in faults(ROOMS, 0, 0)}
    there = {(fault.path, fault.mutation.where, fault.mutation.change) for fault in faults(sorted(paths), 0, 0)}
    assert [key for key in explained() if key not in there] == []


def test_an_explanation_without_a_reason_is_none(tmp_path: Path) -> None:
    path = tmp_path / "survivors.toml"
    path.write_text(ENTRY)
    assert explained(path) == {("a/b.py", "act", "a < b -> (a <= b)"): "They are never equal."}
    path.write_text(ENTRY.replace("They are never equal.", ""))
    with pytest.raises(SystemExit, match="needs file, where, change and why"):
        explained(path)


@pytest.mark.parametrize(
    ("survivors", "count", "code", "told"),
    [
        ([FAULT], 10, 0, "9 of 10 faults were killed (90.0%); 0 survivors unexplained."),
        ([FAULT], 9, 1, "8 of 9 faults were killed (88.9%); 0 survivors unexplained."),
        ([OTHER], 100, 1, "1 survivors unexplained."),
        ([], 0, 1, "0 of 0"),
    ],
)
def test_the_outcome_fails_below_the_aim_and_for_what_nobody_explained(
    survivors: list[Fault], count: int, code: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "survivors.toml"
    path.write_text(ENTRY)
    assert mutate._reported(survivors, count, explained(path)) == code
    shown = capsys.readouterr().out
    assert told in shown
    assert ("They are never equal." in shown) is (FAULT in survivors)
    assert ("NOT EXPLAINED" in shown) is (OTHER in survivors)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_a_fault_that_a_test_sees_is_killed_and_the_code_is_whole_again(tmp_path: Path) -> None:
    """In a project of two functions, of which one is tested."""
    code = (
        "def seen():\n    return 1\n\n\ndef unseen():\n    return 1\n\n\n"
        "def endless(count):\n    while count:\n        count -= 1\n"
    )
    test = "from tincture.a.b import endless, seen\n\ndef test():\n    assert (seen(), endless(3)) == (1, None)\n"
    program = (
        "from pathlib import Path\n"
        "from tools import mutate\n"
        "mutate.ROOT = Path.cwd()\n"
        "chosen = mutate.faults(['a'], 0, 0)\n"
        f"project = mutate.Copy(Path({str(tmp_path / 'copy')!r}))\n"
        "for fault in chosen:\n"
        "    print(fault.mutation.where, fault.mutation.before, project.survives(fault, 5))\n"
        "print(project.passes(chosen[0].tests, 5))\n"
    )
    own = tmp_path / "project"
    for path, content in {
        "src/tincture/__init__.py": "",
        "src/tincture/a/__init__.py": "",
        "src/tincture/a/b.py": code,
        "tests/unit/a/test_b.py": test,
        "pyproject.toml": '[tool.pytest.ini_options]\naddopts = ["--disable-plugin-autoload", "-phypothesispytest"]\n'
        'markers = ["slow"]\n',
    }.items():
        (own / path).parent.mkdir(parents=True, exist_ok=True)
        (own / path).write_text(content)
    environment = {**os.environ, "PYTHONPATH": str(mutate.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=own, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "seen return 1 False",
        "seen 1 False",
        "unseen return 1 True",
        "unseen 1 True",
        "endless count -= 1 False",
        "endless 1 False",
        "True",
    ]
