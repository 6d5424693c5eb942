"""How fast a run is, what memory it takes, and what its time goes into; told with the losses, and at its end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from tincture.events import Emit, Event, RunEnded, RunMeasured, StepsDone
from tincture.run.duration import TimeLeft

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_STATUS = Path("/proc/self/status")
_FIELDS = {"VmRSS": "process", "VmHWM": "process_peak"}


class Meter:
    """A watcher that emits ``RunMeasured`` with the readings of losses, and with the end of the run.

    It stands before those who are to hear of it first, and behind those whose work at the end counts.

    Args:
        time_left: has watched the run from its loading on.
        pictures: that are trained in a step.
        device: that it is trained on.
        emit: gets the events.

    Attributes:
        latest: what was told last; None before there was anything.
    """

    def __init__(self, time_left: TimeLeft, pictures: int, device: torch.device, emit: Emit) -> None:
        self._time_left, self._pictures, self._device, self._emit = time_left, pictures, device, emit
        self.latest: RunMeasured | None = None

    def on_event(self, event: Event) -> None:
        if isinstance(event, StepsDone | RunEnded):
            self.latest = self.measured(event.global_step)
            self._emit(self.latest)

    def measured(self, global_step: int) -> RunMeasured:
        """As of now; nothing waits for the device."""
        step_s = self._time_left.step_s or None
        speed = self._pictures / step_s if step_s else None
        return RunMeasured(global_step, step_s, speed, memory_in_use(self._device), self._time_left.phases())


def memory_in_use(device: torch.device) -> dict[str, int]:
    """Bytes, see ``RunMeasured.memory``."""
    return {**dict(_of_process()), **dict(_of_device(device))}


def _of_process() -> Iterator[tuple[str, int]]:
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        if resource is not None:
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            yield "process_peak", most * (1 if sys.platform == "darwin" else 1024)
        return
    for line in lines:
        name, _, size = line.partition(":")
        if name in _FIELDS and size.split()[:1]:
            yield _FIELDS[name], int(size.split()[0]) * 1024


def _of_device(device: torch.device) -> Iterator[tuple[str, int]]:
    if device.type in ("cuda", "xpu"):
        module = getattr(torch, device.type)
        yield "device", module.memory_allocated(device)
        yield "device_peak", module.max_memory_allocated(device)
    elif device.type == "mps":
        yield "device", torch.mps.current_allocated_memory()
