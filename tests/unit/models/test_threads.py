"""How many threads are chosen: by what the machine is, never by what happens to run on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tincture.models import threads
from tincture.models.threads import (
    CHOSEN,
    SPIN_VARIABLE,
    SPINS,
    VARIABLE,
    ask_for_threads,
    available_cores,
    available_processors,
    choose_threads,
    computing_threads,
    given_threads,
    quota,
    sentence,
    thread_count,
)

Machine = Callable[..., None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes a machine: its processors, which of them share a core, and files of its control groups."""
    for name in (VARIABLE, "MKL_NUM_THREADS", CHOSEN, "OMP_WAIT_POLICY", SPIN_VARIABLE):
        monkeypatch.setenv(name, "")  # so that what is set here is taken back
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "_PROCESSORS", tmp_path / "cpu")
    monkeypatch.setattr(threads, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(threads, "_OWN_CGROUPS", tmp_path / "own")

    def make(processors: set[int], siblings: dict[int, str] | None = None, own: str = "", **limits: str) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: processors, raising=False)
        for processor, text in (siblings or {}).items():
            place = tmp_path / "cpu" / f"cpu{processor}" / "topology" / "thread_siblings_list"
            place.parent.mkdir(parents=True)
            place.write_text(f"{text}\n")
        (tmp_path / "own").write_text(own)
        for name, text in limits.items():
            place = tmp_path / "cgroup" / name.replace("__", "/").replace("_max", ".max").replace("cpu_cfs", "cpu.cfs")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"{text}\n")

    return make


FOUR_CORES = {**{n: f"{n},{n + 4}" for n in range(4)}, **{n + 4: f"{n},{n + 4}" for n in range(4)}}


def test_cores_count_once_though_they_run_two_threads(machine: Machine) -> None:
    machine(set(range(8)), FOUR_CORES)
    assert (available_cores(), available_processors(), quota()) == (4, 8, 0)
    assert choose_threads() == 4 and os.environ[VARIABLE] == "4"


def test_only_processors_that_may_be_used_count(machine: Machine) -> None:
    machine({1, 5, 6}, FOUR_CORES)
    assert (available_cores(), available_processors()) == (2, 3)


def test_where_nothing_is_known_of_cores_each_processor_is_one(machine: Machine) -> None:
    machine({0, 1, 2})
    assert available_cores() == 3


@pytest.mark.parametrize(
    ("own", "limits", "allowed"),
    [
        ("0::/\n", {"cpu_max": "200000 100000"}, 2),
        ("0::/\n", {"cpu_max": "max 100000"}, 0),
        ("0::/\n", {"cpu_max": "50000 100000"}, 1),
        ("0::/\n", {"cpu_max": "350000 100000"}, 3),
        ("0::/a/b\n", {"a__b__cpu_max": "max 100000", "a__cpu_max": "300000 100000"}, 3),
        ("0::/a/b\n", {"a__b__cpu_max": "200000 100000", "a__cpu_max": "300000 100000"}, 2),
        ("0::/machine/of/the/host\n", {"cpu_max": "100000 100000"}, 1),
        ("1:cpu:/\n0::/\n", {"cpu__cpu_cfs_quota_us": "150000", "cpu__cpu_cfs_period_us": "100000"}, 1),
        ("1:cpu:/x\n", {"cpu__x__cpu_cfs_quota_us": "400000", "cpu__x__cpu_cfs_period_us": "100000"}, 4),
        ("1:cpu:/\n", {"cpu__cpu_cfs_quota_us": "-1", "cpu__cpu_cfs_period_us": "100000"}, 0),
        ("2:memory:/\n", {"memory__cpu_cfs_quota_us": "100000", "memory__cpu_cfs_period_us": "100000"}, 0),
        ("0::/\n", {"cpu_max": "nonsense"}, 0),
        ("nonsense", {}, 0),
        ("", {}, 0),
    ],
)
def test_no_more_threads_than_the_control_groups_allow(
    machine: Machine, own: str, limits: dict[str, str], allowed: int
) -> None:
    machine(set(range(8)), FOUR_CORES, own, **limits)
    assert quota() == allowed
    assert available_cores() == (min(4, allowed) or 4)
    assert available_processors() == (allowed or 8)


@pytest.mark.parametrize(("total", "shares", "chosen"), [(0, 1, 4), (0, 2, 2), (0, 3, 1), (0, 9, 1), (6, 2, 3)])
def test_threads_are_shared(machine: Machine, total: int, shares: int, chosen: int) -> None:
    machine(set(range(8)), FOUR_CORES)
    assert choose_threads(total, shares) == chosen == thread_count()
    assert given_threads() == 0
    assert os.environ.get("OMP_WAIT_POLICY") == ("PASSIVE" if shares > 1 else None)
    # What was chosen is no word of the user's: it can be chosen again, for other shares.
    assert choose_threads() == 4


@pytest.mark.parametrize("variable", [VARIABLE, "MKL_NUM_THREADS"])
def test_what_the_user_says_counts_for_each(machine: Machine, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    machine({0, 1})
    monkeypatch.setenv(variable, "7,2")
    assert (given_threads(), choose_threads(shares=3), thread_count()) == (7, 7, 7)
    assert CHOSEN not in os.environ
    assert sentence() == "7, as OMP_NUM_THREADS or MKL_NUM_THREADS says"
    assert choose_threads(8, shares=2) == 4


def test_a_variable_that_says_nothing_does_not_count(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine({0, 1})
    for text in ("", "0", "many", "²"):
        monkeypatch.setenv(VARIABLE, text)
        assert choose_threads() == 2
        monkeypatch.delenv(CHOSEN)


def test_a_person_reads_why(machine: Machine) -> None:
    machine(set(range(8)), FOUR_CORES, "0::/\n", cpu_max="200000 100000")
    choose_threads()
    assert sentence() == "2, chosen for 2 cores (8 processors, of which this process may use the time of 2)"


def test_torch_computes_with_the_number_and_with_the_earlier_one_afterwards() -> None:
    before = torch.get_num_threads()
    with computing_threads(3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), computing_threads(2):
        assert 1 / 0
    with computing_threads(0):
        assert torch.get_num_threads() == before


ASKED = "import {first}\nimport {second}\nimport torch, os\nprint(torch.get_num_threads(), os.environ.get('{name}'))"


@pytest.mark.parametrize(
    ("first", "given", "chosen"),
    [
        ("tincture", {}, None),
        ("tincture", {VARIABLE: "all"}, None),
        ("tincture", {VARIABLE: "9" * 5000}, None),
        ("tincture", {VARIABLE: "1"}, "1"),
        ("tincture", {VARIABLE: "1", CHOSEN: "1"}, "1"),
        ("torch", {}, ""),
    ],
)
def test_the_package_asks_before_torch_is_loaded(first: str, given: dict[str, str], chosen: str | None) -> None:
    """Only then it counts; a process above, or the user, may have chosen already."""
    environment = {name: text for name, text in os.environ.items() if name not in (VARIABLE, "MKL_NUM_THREADS", CHOSEN)}
    code = ASKED.format(first=first, second="tincture", name=VARIABLE)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environment, **given}, capture_output=True, text=True, check=True
    )
    number, variable = done.stdout.split()
    if first == "torch":
        assert variable == "None"
        return
    assert number == variable == (chosen or str(available_cores()))


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, SPINS), ({SPIN_VARIABLE: "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=["nothing", "a count", "a policy"],
)
def test_threads_that_wait_sleep_soon_unless_the_user_says_how(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], spins: str | None
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    ask_for_threads()
    assert os.environ.get(SPIN_VARIABLE) == spins


def test_where_several_processes_compute_threads_sleep_at_once(machine: Machine) -> None:
    machine(set(range(4)))
    ask_for_threads()
    choose_threads(shares=2)
    ask_for_threads()  # as a process does that is started so
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE" and SPIN_VARIABLE not in os.environ


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it is GNU's OpenMP that shows it")
def test_torch_is_loaded_with_it() -> None:
    """It reads the variable when it is loaded, and says what it read."""
    code = "import tincture, torch; torch.ones(2)"
    clean = {name: value for name, value in os.environ.items() if name not in (SPIN_VARIABLE, "OMP_WAIT_POLICY")}
    told = subprocess.run(
        [sys.executable, "-c", code], env={**clean, "OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True
    ).stderr
    assert f"{SPIN_VARIABLE} = '{SPINS}'" in told
