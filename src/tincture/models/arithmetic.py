"""What the last bits of a computation on a processor depend on, and how they come out the same each time.

On x86 torch multiplies matrices with Intel's MKL, which chooses among its kernels by where in memory the numbers happen
to lie: the same training, made twice, may end in other last bits. With the variable ``MKL_CBWR`` it chooses the same
ones each time, for the same number of threads (Intel's oneMKL developer guide, "Obtaining Numerically Reproducible
Results"). MKL reads it at its first computation and never again, so the package asks for it as soon as it is imported.
Nothing here loads torch before it is called.
"""

from __future__ import annotations

import itertools
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VARIABLE = "MKL_CBWR"
REPRODUCIBLE = "AUTO,STRICT"
"""The best kernels of this processor, those that do not depend on alignment. On the EPYC where it was measured, these
are the kernels that MKL takes without it."""
OFF, UNKNOWN, NO_MKL = "OFF", "unknown", "none"
TORCH_CAME_FIRST = "torch" in sys.modules
"""Whether torch was there before this package, and may have computed before ``MKL_CBWR`` was set."""

# What mkl_cbwr_get answers: MKL_CBWR_BRANCH_OFF and so on of mkl_types.h.
_MODES = {1: OFF, 2: "AUTO", 3: "COMPATIBLE", 4: "SSE2", 6: "SSSE3", 7: "SSE4_1", 8: "SSE4_2", 9: "AVX", 10: "AVX2"}
_MODES |= {11: "AVX512_MIC", 12: "AVX512", 13: "AVX512_MIC_E1", 14: "AVX512_E1"}
_STRICT = 0x10000
_ALL = -1
# The first is public and there where MKL is a library of its own; torch's wheels have it built in, and show the second.
_QUESTIONS = ("MKL_CBWR_Get", "mkl_serv_cbwr_get")


@dataclass(frozen=True)
class Arithmetic:
    """On what the same training gives the same bits.

    Attributes:
        device: the kind of device, such as ``cpu``.
        processor: its name and the instructions that torch uses of it.
        threads: those that torch spreads an operation over.
        torch: its version.
        mkl: MKL's mode; ``OFF`` when results may differ from time to time, ``none`` without MKL.
    """

    device: str
    processor: str
    threads: int
    torch: str
    mkl: str

    @classmethod
    def current(cls, device: str = "cpu") -> Arithmetic:
        """That of now: threads can be changed between one run of a process and the next."""
        import torch

        return cls(device, processor(), torch.get_num_threads(), torch.__version__, mkl_mode())

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def place(self) -> str:
        """Where numbers come out alike with one version of torch; of other devices than a processor, their kind."""
        if self.device != "cpu":
            return self.device
        return f"{self.device}, {self.processor}, {self.threads} threads, MKL {self.mkl}"

    def remarks(self, before: object = None) -> list[str]:
        """In sentences, why a run's weights may not be, bit for bit, those of a run that was never stopped.

        Nothing is said of runs that stay on other devices than a processor: these promise no such thing.

        Args:
            before: what ``to_dict`` gave in the process that the run goes on from; None, or a value that is none, for
                a run that begins or was recorded by an older version.
        """
        began = before if isinstance(before, Mapping) else {}
        if "cpu" not in (self.device, began.get("device")):
            return []
        found = (self._irreproducible() if self.device == "cpu" else "", self._changed(began))
        return [remark for remark in found if remark]

    def _irreproducible(self) -> str:
        if self.mkl not in (OFF, UNKNOWN):
            return ""
        given = os.environ.get(VARIABLE, "")
        by_user = given not in ("", REPRODUCIBLE)
        cause = f"{VARIABLE} is {given}" if by_user else "torch was used before tincture was imported"
        return (
            f"MKL computes without its reproducible mode, since {cause}, so this run may end in other last bits when "
            f"it is stopped and resumed; import tincture before torch is used, or set {VARIABLE}={REPRODUCIBLE} before "
            "the program starts."
        )

    def _changed(self, began: Mapping[str, Any]) -> str:
        now = self.to_dict()
        changes = [
            f"{name}: {now[name]} instead of {then}" for name, then in began.items() if now.get(name, then) != then
        ]
        if not changes:
            return ""
        return (
            f"The run goes on under other arithmetic ({'; '.join(changes)}), so its weights will be close to those of "
            "a run that was never stopped, but not the same bit for bit."
        )


def precision_remarks(device: str, precision: str) -> list[str]:
    """In a sentence, that a precision makes steps slower on this processor; nothing where that is not known."""
    flags = _cpuinfo().get("flags", "").split()
    if device != "cpu" or precision != "bf16" or not flags or "amx_bf16" in flags:
        return []
    return [
        "--precision bf16 makes a step slower on this processor, which has no AMX: 0.6 to 0.8 of the speed of fp32 was "
        "measured. It saves memory only; leave it out where that is not short."
    ]


def ask_for_reproducible_results() -> None:
    """Sets ``MKL_CBWR`` for this process and those that it starts, unless the user has set it."""
    if not os.environ.get(VARIABLE):
        os.environ[VARIABLE] = REPRODUCIBLE


def mkl_mode() -> str:
    """The mode that MKL computes in, as ``MKL_CBWR`` names it; ``OFF``, ``none`` without MKL, ``unknown``."""
    import torch

    if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return NO_MKL
    code = _mkl_code(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")
    if code is None:
        # It takes the variable's word, unless it may have been set too late.
        return UNKNOWN if TORCH_CAME_FIRST else os.environ.get(VARIABLE) or OFF
    branch = _MODES.get(code & ~_STRICT, str(code & ~_STRICT))
    return f"{branch},STRICT" if code & _STRICT else branch


def _mkl_code(library: Path) -> int | None:
    """What MKL itself answers; None where nobody can ask it, as on Windows."""
    import ctypes

    try:
        loaded = ctypes.CDLL(str(library))
    except OSError:
        return None
    for name in _QUESTIONS:
        if question := getattr(loaded, name, None):
            return int(question(_ALL))
    return None


def processor() -> str:
    """The processor, as far as its arithmetic can tell it from another: name, family, model, and instructions."""
    import torch

    info = _cpuinfo()
    marks = [f"{key} {info[key]}" for key in ("cpu family", "model", "CPU implementer", "CPU part") if key in info]
    return ", ".join([processor_name(), *marks, torch.backends.cpu.get_cpu_capability()])


def processor_name() -> str:
    """The processor's name as the system tells it."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _cpuinfo() -> dict[str, str]:
    """What Linux tells of the first processor; empty elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            pairs = [line.partition(":") for line in itertools.takewhile(str.strip, file)]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in pairs}
