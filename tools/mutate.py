"""Puts small faults into the code, one at a time, and tells which of them no test notices.

    python tools/mutate.py --count 120                        # of the trainer, adapters, formats and the queue
    python tools/mutate.py --only formats/files.py --count 0  # every fault of one file (or folder)

Faults are drawn by ``--seed``, as many from each room. Each is tried in a process of its own, on a copy of the project,
with the tests of its file: ``tests/unit/ROOM/test_NAME.py`` for ``src/tincture/ROOM/NAME.py`` and what ``MORE`` names.
A fault is killed when a test fails, or when the tests take far longer than they did without it. What survives is
explained in tools/mutation_survivors.toml, or lacks a test. Exit code 1: fewer than 90 % were killed, or a survivor is
not explained.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tools.mutations import Mutation, mutations  # noqa: E402

PACKAGE, UNIT = Path("src/tincture"), Path("tests/unit")
ROOMS = ("training", "adapters", "kinds", "formats", "server/queue")
COPIED = ("src", "tests", "tools", "bench", "examples", "pyproject.toml", "README.md")
SURVIVORS = Path(__file__).with_name("mutation_survivors.toml")
AIM = 0.9
# Loaded before processes fork, since that takes far longer than most tests.
PRELOADED = (
    *("torch", "diffusers", "transformers", "peft", "pytest", "hypothesis", "PIL.Image", "safetensors.torch", "typer"),
    *("diffusers.models.autoencoders.autoencoder_kl", "diffusers.models.unets.unet_2d_condition"),
    *("transformers.models.clip.modeling_clip", "transformers.models.clip.tokenization_clip"),
    *("diffusers.schedulers.scheduling_ddpm", "diffusers.loaders"),
)
MORE: dict[str, tuple[str, ...]] = {
    "formats/tensor_names.py": ("models/loading/test_default_model.py",),
    "training/step_data.py": ("training/test_noise.py",),
    "training/guidance.py": ("run/test_negative_prompt.py",),
    "training/optimizer_state.py": ("run/test_optimizer_file.py", "run/test_library_optimizers.py"),
    "adapters/adapter.py": (
        "adapters/test_embedding.py",
        "adapters/test_hypernetwork.py",
        "run/test_optimizer_file.py",
    ),
    "kinds/embedding.py": ("adapters/test_adapter.py", "adapters/test_embedding.py", "run/test_train_data.py"),
    "kinds/hypernetwork.py": ("adapters/test_adapter.py", "adapters/test_hypernetwork.py"),
    "kinds/registry.py": ("adapters/test_third_adapter.py", "run/test_train_data.py"),
    "adapters/with_fixed.py": ("run/test_fixed_adapters.py",),
    "adapters/wrapper.py": ("adapters/test_wrapping_adapters.py", "run/test_averages.py"),
    "adapters/evaluated.py": ("run/test_library_optimizers.py",),
    "adapters/averaged.py": ("adapters/test_wrapping_adapters.py", "run/test_averages.py"),
    "adapters/files/warnings.py": ("adapters/files",),
    **dict.fromkeys(
        (f"adapters/merging/{name}.py" for name in ("activations", "merged_networks", "merged_vectors", "pruning")),
        ("adapters/merging",),
    ),
    "adapters/lora_probe.py": ("adapters/test_lora.py", "adapters/test_lora_in_diffusers.py"),
    "formats/embedding_content.py": ("formats/test_embedding_file.py", "formats/test_hostile_embeddings.py"),
    "formats/field_values.py": ("formats/test_pickled_numpy.py", "formats/test_hypernetwork_file.py"),
    "formats/hypernetwork_file.py": ("formats/test_hypernetwork_safetensors.py", "formats/test_round_trips.py"),
    "formats/hypernetwork_states.py": ("formats/test_hypernetwork_file.py", "formats/test_hypernetwork_safetensors.py"),
    "formats/integrity.py": ("formats/test_bit_flips.py",),
    "formats/lora_file.py": ("formats/test_round_trips.py", "adapters/test_lora.py", "adapters/files"),
    "formats/pickle_values.py": ("formats/test_pickled_numpy.py", "formats/test_pickle_check.py"),
    "formats/software.py": ("adapters/files/test_conversion.py",),
    "formats/user_cache.py": ("formats/test_hash_cache.py", "formats/test_timings.py"),
    "server/queue/attempt.py": ("server/queue/test_supervisor.py",),
    **dict.fromkeys(
        (f"server/queue/cluster/{name}.py" for name in ("connection", "keeper")),
        ("server/queue/cluster/test_watched.py",),
    ),
    "server/queue/cluster/relay.py": ("server/queue/cluster/test_host.py",),
    "server/queue/jobs.py": ("server/queue/test_store.py", "server/queue/test_supervisor.py"),
    "server/queue/queue.py": ("server/test_service.py", "server/test_api_v1.py"),
    "server/queue/rows.py": ("server/queue/test_store.py",),
    "server/queue/sqlite_errors.py": ("server/queue/test_store.py",),
    "server/queue/worker_process.py": ("server/queue/test_supervisor.py", "server/queue/test_worker.py"),
    "server/queue/workers.py": ("server/queue/test_supervisor.py",),
    "training/conditioning.py": ("training/test_trainer.py",),
}
"""By file, paths within tests/unit that cover it beside the file's own tests, the quickest first."""


@dataclass(frozen=True)
class Fault:
    """A mutation of ``path``, relative to src/tincture, and the tests that ought to notice it."""

    path: str
    mutation: Mutation
    tests: tuple[Path, ...]

    def __str__(self) -> str:
        where = f" ({self.mutation.where})" if self.mutation.where else ""
        return f"{self.path}:{self.mutation.line}{where}: {self.mutation.change}"


def covering(path: str) -> tuple[Path, ...]:
    """The tests of a file of src/tincture, relative to the project.

    Raises:
        SystemExit: it has none.
    """
    file = Path(path)
    names = [f"{file.parent}/test_{file.name}", *MORE.get(path, ())]
    found = [UNIT / name for name in names if (ROOT / UNIT / name).exists()]
    if not found:
        raise SystemExit(f"No test covers {path}; name one in MORE of tools/mutate.py.")
    return tuple(found)


def faults(only: Sequence[str], count: int, seed: int) -> list[Fault]:
    """``count`` faults, as many of each of the files and folders ``only``; 0 for all there are."""
    chosen: list[Fault] = []
    for number, name in enumerate(only):
        base = ROOT / PACKAGE / name
        paths = sorted(base.rglob("*.py")) if base.is_dir() else [base]
        there = []
        for path in paths:
            relative = path.relative_to(ROOT / PACKAGE).as_posix()
            there += [(relative, mutation) for mutation in mutations(path.read_text(encoding="utf-8"))]
        share = len(there) if not count else min(len(there), count // len(only) + (number < count % len(only)))
        drawn = random.Random(f"{seed} {name}").sample(range(len(there)), share)
        chosen += [Fault(*there[index], covering(there[index][0])) for index in sorted(drawn)]
    return chosen


# --- running ----------------------------------------------------------------------------------------------------------


class Copy:
    """A copy of the project, in which tests run in processes that fork from this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy2(source, folder / name)

    def passes(self, tests: Sequence[Path], cpu_limit: float) -> bool:
        """Whether the tests pass within ``cpu_limit`` seconds of the processor and ten times as long by the clock."""
        process = os.fork()
        if not process:
            os._exit(self._run(tests, cpu_limit))
        ends = time.monotonic() + 10 * cpu_limit + 60
        while time.monotonic() < ends:
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                _end_group(process)
                return os.waitstatus_to_exitcode(status) == 0
            time.sleep(0.05)
        _end_group(process)
        os.waitpid(process, 0)
        return False

    def _run(self, tests: Sequence[Path], cpu_limit: float) -> int:
        import pytest

        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_limit) + 1, int(cpu_limit) + 5))
        log = os.open(self.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        os.chdir(self.folder)
        os.environ["PYTHONPATH"] = str(self.folder / "src")
        sys.path[:] = [str(self.folder / "src"), str(self.folder), *(p for p in sys.path if p != str(ROOT))]
        for name in [name for name in sys.modules if name.split(".")[0] in ("tools", "tests", "tincture")]:
            del sys.modules[name]
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", "--hypothesis-seed=0"]
        return int(pytest.main([*options, *map(str, tests)]))

    def survives(self, fault: Fault, cpu_limit: float) -> bool:
        """Whether the tests pass with the fault in the code."""
        path = self.folder / PACKAGE / fault.path
        source = path.read_text(encoding="utf-8")
        path.write_text(fault.mutation.applied(source), encoding="utf-8")
        try:
            return self.passes(fault.tests, cpu_limit)
        finally:
            path.write_text(source, encoding="utf-8")


def _end_group(process: int) -> None:
    """Ends what a test left running, and the test."""
    try:
        os.killpg(process, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def limits(project: Copy, chosen: Sequence[Fault]) -> dict[tuple[Path, ...], float]:
    """Seconds of the processor that each group of tests may take: three times what it takes without a fault, and 20.

    Raises:
        SystemExit: tests fail without a fault.
    """
    found = {}
    for tests in dict.fromkeys(fault.tests for fault in chosen):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        if not project.passes(tests, 900):
            shown = (project.folder / "log.txt").read_text(errors="replace")[-3000:]
            raise SystemExit(f"{shown}\nTests fail without any fault: {', '.join(map(str, tests))}.")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found[tests] = 20 + 3 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        print(f"{(found[tests] - 20) / 3:6.1f} s  {' '.join(map(str, tests))}", flush=True)
    return found


# --- what survives ----------------------------------------------------------------------------------------------------


def explained(path: Path = SURVIVORS) -> dict[tuple[str, str, str], str]:
    """Why faults need no test, by file, function and change.

    Raises:
        SystemExit: an entry lacks something.
    """
    found = {}
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("survivor", []):
        if not all(entry.get(name) for name in ("file", "change", "why")):
            raise SystemExit(f"{path.name}: every survivor needs file, where, change and why; {entry} does not.")
        found[entry["file"], entry.get("where", ""), entry["change"]] = entry["why"]
    return found


def tried(project: Copy, chosen: Sequence[Fault], until: float) -> Iterator[tuple[Fault, bool]]:
    """Each fault, and whether it survived; ends when the clock says ``until``."""
    allowed = limits(project, chosen)
    # in a mixed order, so that a run that ends early has seen something of every room
    for fault in random.Random(0).sample(chosen, len(chosen)):
        if time.monotonic() > until:
            return
        yield fault, project.survives(fault, allowed[fault.tests])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=120, help="faults to try; 0 for all")
    parser.add_argument("--only", nargs="+", default=list(ROOMS), help="files or folders within src/tincture")
    parser.add_argument("--match", default="", help="of those drawn, try only faults with this text in their line")
    parser.add_argument("--minutes", type=float, default=60, help="begin no further fault after so many")
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    chosen = [fault for fault in faults(args.only, args.count, args.seed) if args.match in str(fault)]
    reasons = explained()
    for name in PRELOADED:
        importlib.import_module(name)
    until = time.monotonic() + 60 * args.minutes
    survivors, count = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for fault, survived in tried(Copy(Path(folder)), chosen, until):
            count += 1
            print(f"{count}/{len(chosen)} {'SURVIVED' if survived else 'killed'}  {fault}", flush=True)
            if survived:
                survivors.append(fault)
    return _reported(survivors, count, reasons)


def _reported(survivors: Sequence[Fault], count: int, reasons: dict[tuple[str, str, str], str]) -> int:
    """Prints what survived and why; returns the exit code."""
    open_ones = 0
    for fault in survivors:
        why = reasons.get((fault.path, fault.mutation.where, fault.mutation.change))
        open_ones += why is None
        print(f"{fault}\n    {why or 'NOT EXPLAINED: write a test, or say why in ' + SURVIVORS.name}")
    killed = (count - len(survivors)) / max(count, 1)
    print(f"{count - len(survivors)} of {count} faults were killed ({killed:.1%}); {open_ones} survivors unexplained.")
    return int(killed < AIM or open_ones > 0)


if __name__ == "__main__":
    sys.exit(main())
