"""Where the run computes, in which precision, and what saves memory."""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tincture.settings.checks import cpu_threads, device_name, gigabytes, process_count
from tincture.settings.fields import CheckedSettings, setting

GROUP = "Precision and device"
MEMORY_SETTINGS: Mapping[str, Any] = types.MappingProxyType(
    {
        "offload": False,
        "slicing": False,
        "precision": "fp32",
        "gradient_checkpointing": False,
        "weight_storage": "same",
    }
)
"""Settings that decide on how much memory a run needs, with what they usually are; those that cost least come first."""
COMPUTING_SETTINGS = ("vram", "threads", "processes")
"""Settings beside these that say how a run is computed, and which one that goes on may have otherwise."""


@dataclass(frozen=True, kw_only=True)
class MachineSettings(CheckedSettings):
    """Device, precision and memory."""

    device: str = setting("auto", GROUP, "auto, cpu, cuda, cuda:N, mps, xpu.", device_name)
    threads: int = setting(
        0,
        GROUP,
        "CPU threads to compute with; 0: as many as there are cores to use, or what OMP_NUM_THREADS says.",
        cpu_threads,
    )
    processes: str = setting(
        "",
        GROUP,
        "Processes that compute each step together, each some of its pictures; auto: one for each GPU; empty: one, or "
        "as many as a launcher (torchrun, accelerate launch, srun) starts.",
        process_count,
        number=True,
    )
    vram: str = setting(
        "",
        GROUP,
        "Choose those of the settings below that are not given, so that the run fits: auto (what the device has free), "
        "or its gigabytes; off: none is chosen; empty: auto on a GPU, off on a CPU.",
        gigabytes,
        number=True,
    )
    offload: bool | None = setting(
        None, GROUP, "Text encoders and VAE leave the device while they rest; not given: no."
    )
    slicing: bool | None = setting(
        None,
        GROUP,
        "Encode and draw pictures one at a time, and in tiles where larger than the model's own size; not given: no.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto",
        GROUP,
        "Precision of the frozen model; auto: bf16 on a GPU, or fp16 where it has no bf16; on a CPU fp32, unless "
        "--vram chooses another.",
    )
    gradient_checkpointing: bool | None = setting(
        None, GROUP, "Less memory for about a third more time; not given: no."
    )
    weight_storage: Literal["auto", "same", "float8"] = setting(
        "auto", GROUP, "Keep the U-Net's weights in 8 bits each; auto: same (as they compute), unless --vram chooses."
    )

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        processes = values.get("processes", "")
        pictures = values.get("batch_size", 1) * values.get("gradient_accumulation_steps", 1)
        if {"processes", "batch_size", "gradient_accumulation_steps"} & set(faulty) or not processes.isdecimal():
            return []
        if int(processes) <= pictures:
            return []
        return [
            f"processes is {processes}, but a step has {pictures} picture{'s' if pictures > 1 else ''} "
            "(batch_size times gradient_accumulation_steps), and each process needs one; give fewer processes, or a "
            "larger batch"
        ]
