from __future__ import annotations

import os

# Before torch loads, and for all processes that tests start: workers share the cores, and more threads only wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import random
import secrets
import zlib
from collections import Counter
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from tests.checkpoints import Checkpoints
from tests.support import tiny_model
from tincture.models.stable_diffusion import StableDiffusion

HEAVIEST_FIRST = Path(__file__).parent / "heaviest_first.txt"
MOST_WORKERS = 8
"""Each loads torch and models of its own."""


@pytest.hookimpl(tryfirst=True)  # before hypothesis reads its seed
def pytest_configure(config: pytest.Config) -> None:
    # An example that takes long says something of the machine, nothing of the code.
    hypothesis.settings.register_profile("patient", deadline=None)
    hypothesis.settings.load_profile("patient")
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(secrets.randbelow(2**32))
    # diffusers 0.42's schedulers mix tensors and arrays in ways numpy 2 deprecates; not ours to repair.
    for message in ("__array__ implementation", "__array_wrap__ must accept"):
        config.addinivalue_line("filterwarnings", f"ignore:{message}:DeprecationWarning")


def pytest_report_header(config: pytest.Config) -> str:
    return f"random seed: {config.option.hypothesis_seed} (again by --hypothesis-seed)"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One for every core that this process may use, threads of a core counted."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, MOST_WORKERS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The heaviest files come first, so that no worker begins one when the others have nothing left to do."""
    place = {name: number for number, name in enumerate(HEAVIEST_FIRST.read_text().split())}
    items.sort(key=lambda item: place.get(item.nodeid.split("::")[0].removeprefix("tests/"), len(place)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Where --durations is given, the files that took longest, for keeping the list of the heaviest."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.split("::")[0]] += report.duration
    if config.option.durations:
        terminalreporter.section("slowest files")
        for name, taken in seconds.most_common(2 * config.option.durations):
            terminalreporter.line(f"{taken:7.2f}s {name}")


@pytest.fixture(autouse=True)
def _seeds(request: pytest.FixtureRequest) -> None:
    """What a test draws without a generator of its own does not depend on the tests before it.

    ``random`` differs from run to run, by the seed in the header; torch and numpy draw the same in every run.
    """
    name = request.node.nodeid
    random.seed(f"{request.config.option.hypothesis_seed} {name}")
    torch.manual_seed(zlib.crc32(name.encode()))
    np.random.seed(zlib.crc32(name.encode()))


@pytest.fixture
def model() -> StableDiffusion:
    """A fresh tiny model."""
    return tiny_model()


@pytest.fixture(scope="session")
def shared_model() -> StableDiffusion:
    """One tiny model for tests that only read it."""
    return tiny_model()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Checkpoints of every family, for tests that only read them."""
    return Checkpoints(tmp_path_factory.mktemp("checkpoints"))
