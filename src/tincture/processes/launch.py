"""Which launcher started this process as one of several, by the variables that it set. Nothing here loads torch.

torchrun and accelerate launch: ``WORLD_SIZE``, ``RANK``, ``LOCAL_RANK``, ``LOCAL_WORLD_SIZE`` (torch's "Environment
variables" of torchrun). Open MPI: ``OMPI_COMM_WORLD_…``. MPICH and Intel MPI: ``PMI_SIZE``, ``PMI_RANK``,
``MPI_LOCALRANKID``, ``MPI_LOCALNRANKS``. MVAPICH: ``MV2_COMM_WORLD_…``. Slurm's srun: ``SLURM_STEP_NUM_TASKS`` or
``SLURM_NTASKS``, ``SLURM_PROCID``, ``SLURM_LOCALID`` (srun's manual, "Output environment variables").
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tincture.errors import UsageError

USUAL_PORT = 29500
"""Where the processes of a launcher meet that names no port: torch's own."""
_SLURM_PORTS = 15000, 20000  # the first, and how many


@dataclass(frozen=True)
class Launch:
    """Of which processes this one is.

    Attributes:
        rank, world_size: of all of them.
        local_rank, local_world_size: of those on this machine.
        address, port: where they meet.
        by: the variable that says how many there are.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    address: str
    port: int
    by: str

    def environment(self) -> dict[str, str]:
        """The variables by which torch and Accelerate know it."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


@dataclass(frozen=True)
class _Launcher:
    """The names of a launcher's variables."""

    size: str
    rank: str
    local_rank: tuple[str, ...]
    local_size: tuple[str, ...]


_LAUNCHERS = (
    _Launcher("WORLD_SIZE", "RANK", ("LOCAL_RANK",), ("LOCAL_WORLD_SIZE",)),
    _Launcher(
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_RANK",
        ("OMPI_COMM_WORLD_LOCAL_RANK",),
        ("OMPI_COMM_WORLD_LOCAL_SIZE",),
    ),
    _Launcher(
        "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", ("MV2_COMM_WORLD_LOCAL_RANK",), ("MV2_COMM_WORLD_LOCAL_SIZE",)
    ),
    # Under srun they come with Slurm's own, which know more.
    _Launcher("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", ("SLURM_LOCALID",), ("SLURM_STEP_TASKS_PER_NODE",)),
    _Launcher("PMI_SIZE", "PMI_RANK", ("MPI_LOCALRANKID",), ("MPI_LOCALNRANKS",)),
    _Launcher("SLURM_NTASKS", "SLURM_PROCID", ("SLURM_LOCALID",), ("SLURM_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE")),
)
SIZES = tuple(launcher.size for launcher in _LAUNCHERS)
"""The variables that say how many processes there are; without them, a process is one alone."""


def environment_of_one() -> dict[str, str]:
    """This process's variables for one that it starts and that is alone, whatever a launcher says of this one."""
    return {name: value for name, value in os.environ.items() if name not in SIZES}


def find_launch(environment: Mapping[str, str] | None = None, *, asked: str = "") -> Launch | None:
    """What a launcher says of this process; None where it started no more than this one, or there is none.

    Args:
        environment: None: this process's.
        asked: how many processes are asked for, as the setting has it; in a batch script of Slurm, which is one process
            with the variables of all tasks, a number says that it may start them itself.

    Raises:
        UsageError: it says that there are several, but not which of them this one is, or where they meet.
    """
    given = os.environ if environment is None else environment
    launcher = next((each for each in _LAUNCHERS if given.get(each.size)), None)
    if launcher is None:
        return None
    size = _number(given, launcher.size, least=1)
    if size == 1:
        return None
    if launcher.size == "SLURM_NTASKS" and given.get("SLURM_JOB_ID") and not given.get("SLURM_STEP_ID"):
        if asked:
            return None
        raise UsageError(
            f"SLURM_NTASKS is {size}, but this process was not started by srun, so it is not one of {size}; start it "
            "by srun, or give --processes 1 for this process alone, or more for others that it starts here."
        )
    if not given.get(launcher.rank):
        raise UsageError(
            f"{launcher.size} is {size}, so this is one of {size} processes, but {launcher.rank} does not say which; "
            f"start all of them by torchrun, accelerate launch, srun or mpirun, or unset {launcher.size}."
        )
    rank = _number(given, launcher.rank, most=size - 1)
    local_size = _first(given, launcher.local_size, size if not _is_spread(given, launcher) else 1)
    local_rank = _first(given, launcher.local_rank, rank % local_size)
    address, port = _meeting(given, launcher, size, local_size)
    return Launch(rank, size, local_rank, max(local_size, local_rank + 1), address, port, launcher.size)


def _is_spread(given: Mapping[str, str], launcher: _Launcher) -> bool:
    """Whether its processes may be on several machines, where it does not tell how many are on this one."""
    nodes = given.get("SLURM_STEP_NUM_NODES") or given.get("SLURM_NNODES") or "1"
    return launcher.size.startswith("SLURM") and nodes != "1"


def _meeting(given: Mapping[str, str], launcher: _Launcher, size: int, local_size: int) -> tuple[str, int]:
    """Where the processes meet; UsageError where nobody says it."""
    address = given.get("MASTER_ADDR") or _first_host(given)
    if not address and launcher.size != "WORLD_SIZE" and local_size >= size:
        address = "127.0.0.1"
    if not address:
        raise UsageError(
            f"{launcher.size} is {size}, but MASTER_ADDR does not say where the processes meet; set it to the name or "
            "address of the machine of rank 0, and MASTER_PORT to a port that is free there, or start them by torchrun."
        )
    if given.get("MASTER_PORT"):
        return address, _number(given, "MASTER_PORT", least=1, most=65535)
    job = re.sub(r"\D", "", given.get("SLURM_JOB_ID", ""))[-9:]
    step = re.sub(r"\D", "", given.get("SLURM_STEP_ID", ""))[-9:]
    first, count = _SLURM_PORTS
    return address, first + (int(job) + int(step or 0)) % count if job else USUAL_PORT


def _first_host(given: Mapping[str, str]) -> str:
    """The first machine of a list such as ``node[03-05,9],login``; empty where there is none."""
    nodes = given.get("SLURM_STEP_NODELIST") or given.get("SLURM_JOB_NODELIST") or ""
    found = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\]([^,\[]*))?", nodes)
    return f"{found[1]}{found[2] or ''}{found[3] or ''}" if found else ""


def _first(given: Mapping[str, str], names: tuple[str, ...], otherwise: int) -> int:
    name = next((name for name in names if given.get(name)), "")
    if not name:
        return otherwise
    # Slurm writes "4(x2)" and "4,2" of the tasks on its machines; the largest does for all of them.
    numbers = [int(number) for number in re.findall(r"\d+(?![^(]*\))", given[name])]
    return max(numbers, default=otherwise)


def _number(given: Mapping[str, str], name: str, *, least: int = 0, most: int = 10**6) -> int:
    text = given[name].strip()
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise UsageError(
            f"The variable {name}, by which a launcher numbers its processes, is {text[:80]!r}, but must be a whole "
            f"number from {least} to {most}; start all processes by torchrun, accelerate launch, srun or mpirun, or "
            "unset it."
        )
    return int(text)
