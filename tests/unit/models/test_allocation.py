"""Freed memory is kept for the next tensor inside, and only there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tincture.models import allocation
from tincture.models.allocation import keeping_freed_memory, usual_memory

has_glibc = pytest.mark.skipif(allocation._glibc() is None, reason="the C library is another than glibc")
MADE = 40 * 2**20
# A fresh process, whose heap nothing has touched: pages that it is handed for blocks made again and again.
PROGRAM = f"""
import contextlib, json, resource, sys
from tincture.models.allocation import keeping_freed_memory, usual_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        bytearray({MADE})[::4096] = bytes({MADE // 4096})
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / {MADE}
outside = faults()
with keeping_freed_memory():
    faults()
    inside = faults()
    with usual_memory():
        faults()
        beside = faults()
    faults()
    again = faults()
print(json.dumps([outside, inside, beside, again, faults()]))
"""


def measured(**environment: str) -> list[float]:
    clean = {name: value for name, value in os.environ.items() if name not in allocation._VARIABLES}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True, timeout=120)
    values: list[float] = json.loads(done.stdout)
    return values


@has_glibc
def test_blocks_are_handed_out_once_inside_and_each_time_outside() -> None:
    outside, inside, beside, again, afterwards = measured()
    assert max(inside, again) < 0.5
    assert min(outside, beside, afterwards) > 2 * max(inside, again, 0.01)


@has_glibc
@pytest.mark.parametrize("variable", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_a_user_who_bounds_the_heap_is_not_overruled(variable: str) -> None:
    outside, inside, *_ = measured(**{variable: "131072"})
    assert inside > outside / 2


class Library:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def mallopt(self, *arguments: int) -> int:
        self.calls.append(arguments)
        return 1

    def malloc_trim(self, pad: int) -> int:
        self.calls.append(("trim", pad))
        return 1


def test_after_an_exception_too_memory_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(allocation, "_glibc", lambda: library)
    for name in allocation._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ZeroDivisionError), keeping_freed_memory(), usual_memory():
        raise ZeroDivisionError
    assert library.calls[-1] == ("trim", 0)
    assert set(library.calls[-3:-1]) == {*allocation._USUAL.items()}


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with keeping_freed_memory(), usual_memory():
        assert allocation._glibc() is None
