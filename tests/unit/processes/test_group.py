from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.ranks import Ended, on_ranks
from tincture.errors import LostProcessError, UsageError
from tincture.processes import group
from tincture.processes.group import Group, device_count, meet, timeout_s
from tincture.processes.launch import Launch, find_launch


def joined(act: Any) -> Any:
    """What ``act`` gives of the group of this process's launch."""

    def run(rank: int) -> Any:
        launch = find_launch()
        assert launch is not None
        found = Group(launch, meet(launch))
        with found.telling(), found.joined("cpu"):
            return act(found)

    return run


def values(ended: list[Ended]) -> list[Any]:
    assert not [each for each in ended if each.error or each.status], ended
    return [each.value for each in ended]


def summed(processes: Group) -> tuple[list[Any], float]:
    """Of three parameters each process has a gradient of the first, that of rank 1 of the second, none of the third."""
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((2, 2), (3,), (1,))]
    parameters[0].grad = torch.full((2, 2), 1.0 + processes.rank)
    if processes.rank == 1:
        parameters[1].grad = torch.tensor([1.0, float("inf"), 0.0])
    loss = processes.sum_gradients(parameters, torch.tensor(0.5))
    return [None if one.grad is None else one.grad.tolist() for one in parameters], loss.item()


@pytest.mark.parametrize("count", [2, 3])
def test_gradients_and_losses_are_summed(tmp_path: Path, count: int) -> None:
    total = sum(range(1, count + 1))
    expected = [[[total, total], [total, total]], [1.0, float("inf"), 0.0], None], 0.5 * count
    assert values(on_ranks(count, joined(summed), tmp_path)) == [expected] * count


def test_one_exchange_makes_the_sum(tmp_path: Path) -> None:
    def counted(processes: Group) -> int:
        calls, real = [], torch.distributed.all_reduce
        torch.distributed.all_reduce = lambda *args, **more: calls.append(real(*args, **more))
        summed(processes)
        return len(calls)

    assert values(on_ranks(2, joined(counted), tmp_path)) == [1, 1]


def test_what_processes_hand_each_other(tmp_path: Path) -> None:
    def exchanged(processes: Group) -> tuple[Any, ...]:
        rank = processes.rank
        return (
            processes.gathered({"rank": rank}),
            processes.from_main(lambda: f"of {rank}"),
            (processes.any(rank == 1), processes.any(False)),
            list(processes.share(range(5))),
            processes.is_main,
        )

    first, second = values(on_ranks(2, joined(exchanged), tmp_path))
    shared = ([{"rank": 0}, {"rank": 1}], "of 0", (True, False))
    assert first == (*shared, [0, 2, 4], True)
    assert second == (*shared, [1, 3], False)


def test_what_fails_in_the_main_process_alone_is_learned_by_the_others(tmp_path: Path) -> None:
    def fail() -> None:
        raise UsageError("--steps is 0; give at least 1.")

    main, other = on_ranks(2, joined(lambda processes: processes.from_main(fail)), tmp_path)
    assert (main.kind, other.kind) == ("UsageError", "LostProcessError")
    assert other.error.endswith("failed: --steps is 0; give at least 1. The run was stopped.")
    assert other.error.startswith("The process of rank 0 of 2 (")


def test_runs_of_one_launch_come_one_after_another(tmp_path: Path) -> None:
    """What was noted of an earlier one, such as that it failed, is not taken for the next one's."""
    act = joined(lambda processes: processes.gathered(processes.rank))

    def fail(processes: Group) -> None:
        if processes.rank == 1:
            raise UsageError("no")
        processes.any(True)

    def several(rank: int) -> Any:
        with pytest.raises((UsageError, LostProcessError)):
            joined(fail)(rank)
        return act(rank), act(rank)

    assert values(on_ranks(2, several, tmp_path)) == [([0, 1], [0, 1])] * 2


def test_a_process_that_does_not_come_is_named(tmp_path: Path) -> None:
    def alone(rank: int) -> Any:
        if rank == 1:
            os._exit(3)
        pytest.MonkeyPatch().setattr(group, "MEETING_S", 1)
        return joined(lambda processes: None)(rank)

    main, _ = on_ranks(2, alone, tmp_path)
    assert main.kind == "LostProcessError"


def test_the_environment_is_given_back(tmp_path: Path) -> None:
    def compared(rank: int) -> tuple[bool, bool]:
        os.environ.pop("MASTER_PORT_BEFORE", None)
        before = dict(os.environ)
        joined(lambda processes: processes.any(False))(rank)
        return dict(os.environ) == before, torch.distributed.is_initialized()

    assert values(on_ranks(2, compared, tmp_path)) == [(True, False)] * 2


@pytest.mark.parametrize(("text", "seconds"), [("", 1800), ("60", 60), ("0", 1800), ("soon", 1800), ("-1", 1800)])
def test_the_patience_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float) -> None:
    monkeypatch.setenv("TINCTURE_PROCESSES_TIMEOUT", text)
    assert timeout_s() == seconds


def test_a_device_is_one_of_a_kind_for_each() -> None:
    assert device_count("cpu") == 0
    with pytest.raises(UsageError, match="give `device` cuda, and each process"):
        device_count("cuda:1")


def test_a_machine_out_of_reach_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process of rank 0 knows of the others cannot be asked where it is that which is gone."""
    monkeypatch.setattr(group, "LEAVING_S", 0.1)
    answered = threading.Event()
    silent = SimpleNamespace(set=lambda *_: answered.wait(60), check=lambda *_: answered.wait(60))

    def fail() -> None:
        raise RuntimeError("timed out")

    cut_off = Group(Launch(1, 2, 0, 1, "10.0.0.7", 1234, "WORLD_SIZE"), silent)
    with pytest.raises(LostProcessError) as lost, cut_off.telling():
        cut_off._exchange(fail)
    assert lost.value.silent == (0,)
    assert "that of rank 0 is gone" in lost.value.sentence
    answered.set()
