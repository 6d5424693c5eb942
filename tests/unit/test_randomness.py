from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from tincture.randomness import generator, normal, torch_seed

STREAMS: list[tuple[Any, ...]] = [
    (0, "noise"),
    (0, "noise", 0),
    (0, "noise", 0, 0),
    (0, "noise", 0, 0, 0),
    (0, "noise", 1, 0),
    (0, "noise", 0, 1),
    (0, "noise", 11),
    (0, "noise", 1, 1),
    (0, "noise", -1),
    (0, "noise", 2**64),
    (0, "noise 1"),
    (0, "order"),
    (0, "1:noise"),
    (0, ""),
    (1, "noise"),
    (-1, "noise"),
    (2**64, "noise"),
    (2**64 + 1, "noise"),
]

FROZEN_SEED = 72175481911464063
FROZEN_INTS = [1699426152, 2517807276, 1738295735, 4084274839]
FROZEN_NORMAL = [-0.5437980890274048, 1.0868644714355469, -0.7872439026832581]


def test_the_same_tuple_gives_the_same_stream() -> None:
    assert np.array_equal(generator(3, "order", 1, 2).random(100), generator(3, "order", 1, 2).random(100))


def test_different_tuples_give_unrelated_streams() -> None:
    draws = [generator(*stream).random(2000) for stream in STREAMS]
    for one, other in itertools.combinations(draws, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.12
        assert not np.intersect1d(one, other).size


def test_neighbouring_steps_and_samples_make_up_an_even_distribution() -> None:
    first = np.array([generator(0, "timestep", step, sample).random() for step in range(60) for sample in range(8)])
    counts, _ = np.histogram(first, bins=8, range=(0, 1))
    assert counts.min() > 30
    assert counts.max() < 90


@pytest.mark.parametrize("seed", [0, -1, 2**31, 2**63, 2**64, -(2**200), 16**5000], ids=hex)
def test_a_seed_may_have_any_size(seed: int) -> None:
    assert 0 <= generator(seed, "noise").random() < 1
    torch.Generator().manual_seed(torch_seed(seed, "noise"))


def test_numpy_ints_count_like_ints() -> None:
    five: Any = np.int64(5)
    assert generator(1, "noise", five).random() == generator(1, "noise", 5).random()


def test_floats_are_refused() -> None:
    one: Any = 1.0
    with pytest.raises(TypeError):
        generator(1, "noise", one)


def test_the_numbers_stay_the_same_for_ever() -> None:
    """A change here would break the exact resume of every run that users have under way."""
    assert torch_seed(1234, "noise", 5, 6) == FROZEN_SEED
    assert generator(1234, "noise", 5, 6).integers(0, 2**32, size=4).tolist() == FROZEN_INTS
    assert normal((3,), 1234, "noise", 5, 6).tolist() == pytest.approx(FROZEN_NORMAL, abs=1e-6)


def test_normal_is_standard_normal_float32_on_the_cpu() -> None:
    noise = normal((4, 64, 64), 0, "noise", 1)
    assert noise.shape == (4, 64, 64)
    assert noise.dtype == torch.float32
    assert noise.device.type == "cpu"
    assert abs(noise.mean().item()) < 0.03
    assert abs(noise.std().item() - 1) < 0.03
    assert normal((), 0, "noise").shape == ()


def test_no_global_random_state_is_read_or_moved() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    first = normal((5,), 0, "noise")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(normal((5,), 0, "noise"), first)
