from __future__ import annotations

import sys

import psutil
import pytest
import torch

from tincture.models import devices
from tincture.models.devices import free_memory, half_precision


def test_free_memory_of_a_cpu_is_what_is_available() -> None:
    free = free_memory(torch.device("cpu"))
    assert free is not None and 0 < free <= psutil.virtual_memory().total


def test_without_psutil_nobody_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert free_memory(torch.device("cpu")) is None


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_free_memory_of_an_accelerator_is_its_own(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(getattr(torch, kind), "mem_get_info", lambda device: (asked.append(device), (5, 8))[1])
    assert free_memory(torch.device(kind, 1)) == 5
    assert asked == [torch.device(kind, 1)]


def test_half_precision_is_bf16_where_the_device_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert half_precision(torch.device("cpu")) == "bf16"
    for has, expected in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(devices.torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        assert half_precision(torch.device("cuda")) == expected
