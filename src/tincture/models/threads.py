"""Over how many threads torch spreads an operation on the processor: chosen once, by what the machine is.

As many as there are cores that this process may use, and no more than its share of processor time allows: more threads
only wait for each other, on a small or busy machine for most of the time. What happens to run beside counts for
nothing, so that the number, which results depend on to the last bit, is the same each time on one machine.

The variable OMP_NUM_THREADS says it to torch and to the libraries beside it, which read it when they are loaded. So the
package sets it as soon as it is imported, unless the user has. Nothing here loads torch before it is called.

Threads that are done with their part wait for the others. GNU's OpenMP, which torch brings, has them turn for
milliseconds before they sleep. If something else computes on one of the cores, they keep the rest of it from those who
are waited for, and a step takes forty times as long. GOMP_SPINCOUNT has them turn for some microseconds, which costs
nothing where nothing else computes (docs/performance.md).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "OMP_NUM_THREADS"
CHOSEN = "TINCTURE_CHOSEN_THREADS"
"""The number that this package chose, here or in the process that started this one; another one is the user's."""
SPIN_VARIABLE, SPINS = "GOMP_SPINCOUNT", "5000"
_WAITING = "OMP_WAIT_POLICY"
_USERS = (VARIABLE, "MKL_NUM_THREADS")
_DIGITS = 5  # of any number of threads that is meant
_PROCESSORS = Path("/sys/devices/system/cpu")
_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def choose_threads(total: int = 0, shares: int = 1) -> int:
    """Chooses the number for the processes that this one starts, and for itself if torch is not loaded yet.

    Args:
        total: threads for all together; 0 takes what ``OMP_NUM_THREADS`` of the user says for each, else the cores.
        shares: among so many processes that compute at a time.
    """
    if not total and (given := given_threads()):
        return given
    if shares > 1:
        # Threads that wait for each other go to sleep rather than keep the cores from the other processes.
        os.environ.setdefault(_WAITING, "PASSIVE")
        if os.environ.get(SPIN_VARIABLE) == SPINS:  # it would overrule that
            del os.environ[SPIN_VARIABLE]
    chosen = max(1, (total or available_cores()) // shares)
    os.environ[VARIABLE] = os.environ[CHOSEN] = str(chosen)
    return chosen


def ask_for_threads() -> None:
    """Chooses the number unless this is done, by the user, a process above, or torch, which came first.

    And how long threads turn before they sleep, unless the user has said how they wait.
    """
    if not os.environ.get(_WAITING):
        os.environ.setdefault(SPIN_VARIABLE, SPINS)
    inherited = os.environ.get(VARIABLE) and os.environ.get(VARIABLE) == os.environ.get(CHOSEN)
    if not inherited and not given_threads() and "torch" not in sys.modules:
        choose_threads()


def given_threads() -> int:
    """What the user's variables say of the number; 0 where they say nothing."""
    if os.environ.get(VARIABLE) and os.environ.get(VARIABLE) == os.environ.get(CHOSEN):
        return 0
    for name in _USERS:
        first = os.environ.get(name, "").partition(",")[0].strip()  # further ones are for threads within threads
        if first.isascii() and first.isdigit() and len(first) <= _DIGITS and int(first) > 0:
            return int(first)
    return 0


def thread_count() -> int:
    """The number that holds for this process: the user's, or the one that was chosen."""
    return given_threads() or int(os.environ.get(CHOSEN) or available_cores())


@contextlib.contextmanager
def computing_threads(number: int) -> Iterator[None]:
    """Inside, torch spreads its operations over so many threads; 0 leaves the number as it is."""
    if not number:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def available_cores() -> int:
    """Cores that this process may use, each counted once though it runs two threads, and as far as its quota goes."""
    processors = _allowed_processors()
    cores = {_core_of(processor) for processor in processors}
    return max(1, min(len(cores), quota() or len(cores)))


def available_processors() -> int:
    """Processors that this process may use, threads of a core counted, as far as its quota goes."""
    processors = len(_allowed_processors())
    return max(1, min(processors, quota() or processors))


def quota() -> int:
    """Whole processors whose time the control groups of this process allow, at least 1; 0 where there is no limit."""
    limits = [limit for folder in _own_folders() if (limit := _limit(folder))]
    return max(1, int(min(limits))) if limits else 0


def sentence() -> str:
    """Why the number is what it is, for a person."""
    if given := given_threads():
        return f"{given}, as {' or '.join(_USERS)} says"
    processors, cores, limit = len(_allowed_processors()), available_cores(), quota()
    limited = f", of which this process may use the time of {limit}" if limit else ""
    chosen = os.environ.get(CHOSEN) or "torch's own number"
    return f"{chosen}, chosen for {cores} cores ({processors} processors{limited})"


def _allowed_processors() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _core_of(processor: int) -> str:
    """What the threads of one core have in common; of processors that nothing is known of, each is a core."""
    return _read(_PROCESSORS / f"cpu{processor}" / "topology" / "thread_siblings_list") or str(processor)


def _own_folders() -> Iterator[Path]:
    """Folders in which limits of this process stand: its control groups' own, and those above them."""
    for line in _read(_OWN_CGROUPS).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        root = _CGROUPS / controllers if controllers else _CGROUPS
        inner = root / path.strip("/")
        # Inside of a container the path may be that of the machine around it, and only the root is there.
        yield from dict.fromkeys((inner, *(place for place in inner.parents if place.is_relative_to(root))))


def _limit(folder: Path) -> float:
    """Processors that the control group allows; 0 where it says nothing."""
    new = _read(folder / "cpu.max").split()
    old = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
    try:
        time, period = (int(text) for text in (new or old))
    except ValueError:  # "max", or no such file
        return 0.0
    return time / period if time > 0 and period > 0 else 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
