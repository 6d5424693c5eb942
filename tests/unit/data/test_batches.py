from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tincture.data.batches import BatchPlan, Piece
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


@st.composite
def plans(draw: st.DrawFn) -> tuple[BatchPlan, list[tuple[int, int]], list[int]]:
    """A plan with its sizes and repeats."""
    sizes = draw(st.lists(st.sampled_from([(8, 8), (8, 16), (16, 8)]), min_size=1, max_size=20))
    repeats = draw(st.lists(st.integers(1, 4), min_size=len(sizes), max_size=len(sizes)))
    return BatchPlan(sizes, draw(st.integers(1, sum(repeats))), draw(st.integers()), repeats), sizes, repeats


@settings(max_examples=60, deadline=None)
@given(planned=plans(), epoch=st.integers(0, 1000))
def test_each_epoch_holds_each_sample_once_per_repeat(
    planned: tuple[BatchPlan, list[tuple[int, int]], list[int]], epoch: int
) -> None:
    plan, sizes, repeats = planned
    batches = epoch_of(plan, epoch)
    assert Counter(index for batch in batches for index in batch) == dict(enumerate(repeats))
    assert all(len({sizes[index] for index in batch}) == 1 for batch in batches)
    assert all(1 <= len(batch) <= plan.batch_size for batch in batches)


@settings(max_examples=60, deadline=None)
@given(planned=plans(), accumulation=st.integers(1, 6), first=st.integers(0, 20))
def test_steps_with_accumulation_see_each_sample_once_per_repeat_and_epoch(
    planned: tuple[BatchPlan, list[tuple[int, int]], list[int]], accumulation: int, first: int
) -> None:
    """So many steps that they make up whole epochs: their micro-batches, joined, are those epochs."""
    plan, _, repeats = planned
    per_epoch = plan.micro_batches_per_epoch
    steps = range(first * per_epoch, (first + 1) * per_epoch)
    pieces = [piece for step in steps for piece in plan.step(step, accumulation)]
    assert [piece.indices for piece in pieces] == [
        plan.micro_batch(m + first * per_epoch * accumulation) for m in range(len(pieces))
    ]
    seen = Counter(index for piece in pieces for index in piece.indices)
    assert seen == {index: count * accumulation for index, count in enumerate(repeats)}


def slots(pieces: list[Piece]) -> list[tuple[int, int]]:
    """(slot, sample) of all that the pieces hold."""
    return [(piece.first_slot + at, index) for piece in pieces for at, index in enumerate(piece.indices)]


@settings(max_examples=150, deadline=None)
@given(planned=plans(), accumulation=st.integers(1, 9), step=st.integers(0, 1000), world_size=st.integers(1, 9))
def test_the_shares_of_all_processes_make_up_the_step_of_one(
    planned: tuple[BatchPlan, list[tuple[int, int]], list[int]], accumulation: int, step: int, world_size: int
) -> None:
    plan, sizes, _ = planned
    whole = plan.step(step, accumulation)
    shares = [plan.step(step, accumulation, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [pair for share in shares for pair in slots(share)] == slots(whole)
    for piece in (piece for share in shares for piece in share):
        assert piece.indices
        assert len({sizes[index] for index in piece.indices}) == 1
        assert any(
            set(slots([piece])) <= set(slots([batch])) and len(piece.indices) <= plan.batch_size for batch in whole
        )


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "world_size", "loads"),
    [
        (4, 1, 2, [[2], [2]]),
        (4, 1, 3, [[1], [1], [2]]),
        (1, 4, 2, [[1, 1], [1, 1]]),
        (2, 2, 2, [[2], [2]]),
        (3, 2, 4, [[1], [2], [1], [2]]),
        (1, 1, 3, [[], [], [1]]),
        (2, 3, 2, [[2], [2, 2]]),
    ],
)
def test_processes_get_as_much_as_each_other(
    batch_size: int, accumulation: int, world_size: int, loads: list[list[int]]
) -> None:
    plan = BatchPlan([(8, 8)] * 12, batch_size, seed=0)
    shares = [plan.step(0, accumulation, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [[len(piece.indices) for piece in share] for share in shares] == loads


def test_one_process_has_whole_micro_batches_with_running_slots() -> None:
    plan = BatchPlan(SIZES, 3, seed=5)
    pieces = plan.step(7, 4)
    assert [piece.indices for piece in pieces] == [plan.micro_batch(m) for m in range(28, 32)]
    assert [slot for slot, _ in slots(pieces)] == list(range(sum(len(piece.indices) for piece in pieces)))


def test_repeats_of_one_change_nothing() -> None:
    plain, repeated = BatchPlan(SIZES, 3, seed=5), BatchPlan(SIZES, 3, seed=5, repeats=[1] * len(SIZES))
    assert [plain.micro_batch(m) for m in range(50)] == [repeated.micro_batch(m) for m in range(50)]


def test_the_order_is_the_one_that_earlier_versions_drew() -> None:
    """Runs that were begun with an earlier version go on with the pictures they would have had."""
    plan = BatchPlan(SIZES, 3, seed=5)
    assert [plan.micro_batch(m) for m in range(5)] == [[2, 3, 1], [6, 5, 4], [8, 9, 7], [0], [10]]


def test_repeats_allow_larger_batches() -> None:
    assert sorted(BatchPlan([(8, 8)], 3, seed=0, repeats=[3]).micro_batch(0)) == [0, 0, 0]
    with pytest.raises(UsageError, match="batch size is 4"):
        BatchPlan([(8, 8)], 4, seed=0, repeats=[3])


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


def test_an_epoch_is_put_in_order_once_however_many_micro_batches_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ordered: list[int] = []
    order = BatchPlan._epoch

    def counted(plan: BatchPlan, epoch: int) -> list[list[int]]:
        ordered.append(epoch)
        return order(plan, epoch)

    monkeypatch.setattr(BatchPlan, "_epoch", counted)
    plan = BatchPlan([(8, 8)] * 200, 1, seed=0)
    for m in range(400):
        plan.micro_batch(m)
    assert ordered == [0, 1]
