"""How the tests are run: their order, their threads and their seeds."""

from __future__ import annotations

import os
import random
import zlib

import hypothesis.core
import pytest
import torch

from tests.conftest import HEAVIEST_FIRST, pytest_report_header


def test_the_heaviest_files_are_there_and_named_once() -> None:
    names = HEAVIEST_FIRST.read_text().split()
    assert [name for name in names if not (HEAVIEST_FIRST.parent / name).is_file()] == []
    assert len(set(names)) == len(names)


def test_the_heaviest_come_first(request: pytest.FixtureRequest) -> None:
    place = {f"tests/{name}": number for number, name in enumerate(HEAVIEST_FIRST.read_text().split())}
    files = list(dict.fromkeys(item.nodeid.split("::")[0] for item in request.session.items))
    places = [place.get(name, len(place)) for name in files]
    assert places == sorted(places)


def test_torch_has_the_threads_that_its_children_get() -> None:
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])


def test_what_is_random_follows_from_the_seed_in_the_header(request: pytest.FixtureRequest) -> None:
    seed = request.config.getoption("--hypothesis-seed")
    assert pytest_report_header(request.config) == f"random seed: {seed} (again by --hypothesis-seed)"
    assert hypothesis.core.global_force_seed == int(seed)
    assert random.random() == random.Random(f"{seed} {request.node.nodeid}").random()
    assert torch.initial_seed() == zlib.crc32(request.node.nodeid.encode())  # whatever ran before, and in every run
