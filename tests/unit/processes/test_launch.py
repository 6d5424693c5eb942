from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest

from tincture.errors import UsageError
from tincture.processes.launch import USUAL_PORT, Launch, find_launch

MEETING = {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "1234"}
TORCHRUN = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", **MEETING}
SRUN = {"SLURM_JOB_ID": "123456", "SLURM_STEP_ID": "0", "SLURM_PROCID": "2", "SLURM_LOCALID": "0"}
SRUN |= {"SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURM_STEP_NUM_NODES": "2"}
SRUN |= {"SLURM_STEP_NODELIST": "node[03-04]", "SLURM_NTASKS": "3"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (TORCHRUN, Launch(3, 4, 1, 2, "10.0.0.7", 1234, "WORLD_SIZE")),
        ({"WORLD_SIZE": "2", "RANK": "1", **MEETING}, Launch(1, 2, 1, 2, "10.0.0.7", 1234, "WORLD_SIZE")),
        (
            {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
            | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
            Launch(1, 2, 1, 2, "127.0.0.1", USUAL_PORT, "OMPI_COMM_WORLD_SIZE"),
        ),
        (
            {"MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_RANK": "0", "MV2_COMM_WORLD_LOCAL_RANK": "0"}
            | {"MV2_COMM_WORLD_LOCAL_SIZE": "1", **MEETING},
            Launch(0, 2, 0, 1, "10.0.0.7", 1234, "MV2_COMM_WORLD_SIZE"),
        ),
        ({"PMI_SIZE": "2", "PMI_RANK": "1"}, Launch(1, 2, 1, 2, "127.0.0.1", USUAL_PORT, "PMI_SIZE")),
        (SRUN, Launch(2, 3, 0, 2, "node03", 18456, "SLURM_STEP_NUM_TASKS")),
        # srun brings PMI too
        ({**SRUN, "PMI_SIZE": "3", "PMI_RANK": "2"}, Launch(2, 3, 0, 2, "node03", 18456, "SLURM_STEP_NUM_TASKS")),
        (
            {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", **MEETING},
            Launch(1, 2, 1, 2, "10.0.0.7", 1234, "SLURM_NTASKS"),
        ),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, Launch(1, 2, 1, 2, "127.0.0.1", USUAL_PORT, "SLURM_NTASKS")),
    ],
    ids=["torchrun", "bare", "ompi", "mvapich", "pmi", "srun", "srun with pmi", "tasks", "tasks of one machine"],
)
def test_each_launcher_is_known(variables: Mapping[str, str], expected: Launch) -> None:
    assert find_launch(variables) == expected


@pytest.mark.parametrize(
    "variables",
    [{}, {"WORLD_SIZE": "1", "RANK": "0"}, {"WORLD_SIZE": ""}, {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}],
    ids=["none", "one", "empty", "one task"],
)
def test_one_process_is_no_launch(variables: Mapping[str, str]) -> None:
    assert find_launch(variables) is None


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": "2", **MEETING}, "RANK does not say which"),
        ({"WORLD_SIZE": "2", "RANK": "2", **MEETING}, "RANK, by which a launcher numbers its processes, is '2'"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE, by which a launcher numbers its processes, is 'two'"),
        ({"WORLD_SIZE": "0", "RANK": "0"}, "must be a whole number from 1"),
        ({"WORLD_SIZE": "2", "RANK": "-1", **MEETING}, "'-1'"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR does not say where"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "70000"}, "MASTER_PORT"),
        ({"PMI_SIZE": "2"}, "PMI_RANK does not say which"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, "MASTER_ADDR"),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "was not started by srun"),
    ],
    ids=[
        "rank",
        "large rank",
        "word",
        "zero",
        "minus",
        "address",
        "port",
        "pmi",
        "ompi on two machines",
        "batch script",
    ],
)
def test_what_a_launcher_leaves_open_is_refused(variables: Mapping[str, str], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        find_launch(variables)
    assert words in refused.value.sentence
    assert "\n" not in refused.value.sentence


def test_a_batch_script_of_slurm_may_start_processes_itself() -> None:
    assert find_launch({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, asked="4") is None
    assert find_launch(SRUN, asked="3") is not None


def test_no_torch_is_loaded_to_find_it() -> None:
    program = "import sys, tincture.recipe; print('torch' in sys.modules or 'accelerate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.split() == [b"False"]
