from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tincture.data.batches import BatchPlan
from tincture.errors import UsageError

SIZES = [(64, 64)] * 7 + [(64, 96)] * 3 + [(96, 64)]


def epoch_of(plan: BatchPlan, epoch: int) -> list[list[int]]:
    first = epoch * plan.micro_batches_per_epoch
    return [plan.micro_batch(first + position) for position in range(plan.micro_batches_per_epoch)]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([(8, 8), (8, 16), (16, 8)]), min_size=1, max_size=30),
    data=st.data(),
    seed=st.integers(),
    epoch=st.integers(0, 10**6),
)
def test_each_epoch_holds_each_sample_once_in_batches_of_one_size(
    sizes: list[tuple[int, int]], data: st.DataObject, seed: int, epoch: int
) -> None:
    batch_size = data.draw(st.integers(1, len(sizes)))
    batches = epoch_of(BatchPlan(sizes, batch_size, seed), epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(len(sizes)))
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        assert len({sizes[index] for index in batch}) == 1
    smaller = Counter(sizes[batch[0]] for batch in batches if len(batch) < batch_size)
    assert all(count == 1 for count in smaller.values())


def test_any_micro_batch_is_the_same_whether_reached_by_running_or_by_jumping() -> None:
    running = BatchPlan(SIZES, 3, seed=5)
    through = [running.micro_batch(m) for m in range(100)]
    assert [BatchPlan(SIZES, 3, seed=5).micro_batch(m) for m in range(100)] == through
    assert [running.micro_batch(m) for m in reversed(range(100))] == through[::-1]


def test_epochs_and_seeds_differ_in_batches_and_in_their_order() -> None:
    plan = BatchPlan(SIZES, 3, seed=5)
    assert plan.micro_batches_per_epoch == 5
    epochs = [epoch_of(plan, epoch) for epoch in range(20)]
    assert len({str(batches) for batches in epochs}) == 20
    assert len({str(sorted(map(sorted, batches))) for batches in epochs}) > 10
    assert len({[SIZES[batch[0]] for batch in batches].index((96, 64)) for batches in epochs}) == 5
    assert epoch_of(BatchPlan(SIZES, 3, seed=6), 0) != epochs[0]


def test_every_sample_comes_first_about_as_often() -> None:
    plan = BatchPlan([(8, 8)] * 5, 1, seed=0)
    first = Counter(plan.micro_batch(epoch * 5)[0] for epoch in range(500))
    assert sorted(first) == list(range(5))
    assert all(60 < count < 140 for count in first.values())


def test_a_batch_that_is_changed_by_its_reader_stays_as_planned() -> None:
    plan = BatchPlan(SIZES, 3, seed=5)
    before = list(plan.micro_batch(0))
    plan.micro_batch(0).clear()
    assert plan.micro_batch(0) == before


@pytest.mark.parametrize("batch_size", [0, -1, 12])
def test_batch_sizes_beyond_the_number_of_pictures_are_refused(batch_size: int) -> None:
    with pytest.raises(UsageError, match=rf"batch size is {batch_size}, .*from 1 to .* 11\."):
        BatchPlan(SIZES, batch_size, seed=0)


def test_a_micro_batch_of_a_large_set_is_cheap() -> None:
    plan = BatchPlan([(8, 8)] * 20_000, 1, seed=0)
    plan.micro_batch(0)
    started = time.process_time()
    for m in range(10_000):
        plan.micro_batch(m)
    assert time.process_time() - started < 0.5
