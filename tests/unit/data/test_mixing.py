import itertools
import multiprocessing
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lavender.config.schema import Config
from lavender.data.loaders import steps_in_epoch
from lavender.data.mixing import MixedBatchSampler, MixedDataset, MixedKey, draw_weights, mixed_loader
from lavender.data.samples import ClipDataset, Guard
from lavender.data.sources.base import StoredVideo
from lavender.runtime import distributed
from lavender.runtime.errors import DataError

SIZES = {"few": (12, 3), "many": (50, 4), "odd": (7, 5)}  # samples, size_batch
EVEN = dict.fromkeys(SIZES, 1.0)


class Numbers(ClipDataset):
    """Samples without frames: each is its number and a draw from its stream."""

    def __init__(self, config: Config, length: int, size_batch: int, bad: int | None = None):
        super().__init__(replace(config, size_batch=size_batch), training=True, size_frame=1)
        self.length, self.bad = length, bad

    def __len__(self) -> int:
        return self.length

    def video(self, index: int) -> StoredVideo:
        raise DataError("a number has no frames")

    def clip(self, index: int, stream: np.random.Generator) -> Tensor:
        if index == self.bad:
            raise DataError(f"numbers.tsv, line {index + 1}: bad")
        return torch.zeros(1, dtype=torch.uint8)

    def text(self, index: int, stream: np.random.Generator, guard: Guard) -> dict[str, Any]:
        worker = torch.utils.data.get_worker_info()
        return {"draw": stream.random(), "worker": -1 if worker is None else worker.id}


@pytest.fixture
def datasets(config: Config) -> dict[str, Numbers]:
    return {name: Numbers(config, *size) for name, size in SIZES.items()}


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int) -> None:
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world_size", lambda: world_size)


def epoch_of(datasets: dict, epoch: int = 1, weights: dict | None = None, seed: int = 88) -> list[list[MixedKey]]:
    sampler = MixedBatchSampler(datasets, weights or EVEN, seed)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    return batches


def names(batches: list[list[MixedKey]]) -> list[str]:
    return [batch[0].name for batch in batches]


def passes(batches: list[list[MixedKey]], name: str) -> list[list[int]]:
    """The samples of a data set, a list for each time that it was begun."""
    keys = [key.sample for batch in batches for key in batch if key.name == name]
    return [[key.index for key in group] for _, group in itertools.groupby(keys, key=lambda key: key.epoch)]


# --- which data set, and which of its samples -------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_epoch_is_as_long_as_all_data_sets_together(datasets, monkeypatch, world_size: int):
    as_rank(monkeypatch, world_size - 1, world_size)
    steps = [steps_in_epoch(*size) for size in SIZES.values()]
    assert sum(steps) == {1: 4 + 13 + 2, 2: 2 + 7 + 1, 3: 2 + 5 + 1}[world_size]
    assert len(epoch_of(datasets)) == sum(steps)


def test_a_batch_is_of_one_data_set_and_of_its_own_size(datasets):
    batches = epoch_of(datasets)
    assert {key.name for batch in batches for key in batch} == set(SIZES)
    for batch in batches:
        assert {key.name for key in batch} == {batch[0].name}
    sizes = {name: {len(batch) for batch in batches if batch[0].name == name} for name in SIZES}
    assert [max(sizes[name]) for name in SIZES] == [3, 4, 5]
    assert sizes["odd"] <= {5, 2}, "the rest of a pass stands alone"


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_every_process_draws_the_same_data_set_and_its_own_samples(datasets, monkeypatch, world_size: int):
    shares = []
    for rank in range(world_size):
        as_rank(monkeypatch, rank, world_size)
        shares.append(epoch_of(datasets, weights={"few": 1, "many": 4, "odd": 1}))
    assert all(names(share) == names(shares[0]) for share in shares)
    for step in zip(*shares, strict=True):
        assert len({len(batch) for batch in step}) == 1
    for name, (length, _) in SIZES.items():
        begun = [passes(share, name) for share in shares]
        assert len({len(share) for share in begun}) == 1
        for parts in zip(*begun, strict=True):
            seen = Counter(index for part in parts for index in part)
            assert sum(seen.values()) - len(seen) < world_size, "only what fills up the last share stands twice"
            if length % world_size == 0:
                assert seen.total() == len(seen)


def test_a_data_set_that_was_seen_whole_starts_again_in_a_new_order(datasets):
    batches = epoch_of(datasets, weights={"few": 30, "many": 1, "odd": 1})
    begun = passes(batches, "few")
    assert len(begun) >= 4
    assert all(sorted(order) == list(range(12)) for order in begun[:-1])
    assert len({tuple(order) for order in begun[:-1]}) == len(begun) - 1
    assert len(set(begun[-1])) == len(begun[-1]) > 0
    keys = [key for batch in batches for key in batch]
    assert len(set(keys)) == len(keys), "so no crop is drawn twice"
    assert len(passes(batches, "many")) <= 1, "what is drawn less is not seen whole"


def test_epochs_differ_and_repeat_themselves_by_seed(datasets):
    first, second, again = (epoch_of(datasets, epoch) for epoch in (1, 2, 1))
    assert first == again
    assert names(first) != names(second)
    assert not {key for batch in first for key in batch} & {key for batch in second for key in batch}
    assert passes(first, "many")[0] != passes(second, "many")[0]
    other = epoch_of(datasets, seed=5)
    assert names(other) != names(first)
    assert passes(other, "many")[0] != passes(first, "many")[0]


def test_reading_ahead_does_not_change_an_epoch(datasets):
    sampler = MixedBatchSampler(datasets, EVEN, seed=88)
    sampler.set_epoch(1)
    next(iter(sampler))
    assert list(sampler) == list(sampler) == epoch_of(datasets)
    assert names(list(sampler)) == sampler.drawn()


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 5), (1e6, 2e6, 1e6), (0.5, 0.25, 8)])
def test_data_sets_are_drawn_as_often_as_their_weights_say(config, weights: tuple):
    datasets = {name: Numbers(config, 4000, 1) for name in SIZES}
    drawn = Counter(MixedBatchSampler(datasets, dict(zip(SIZES, weights, strict=True)), seed=3).drawn())
    steps = drawn.total()
    assert steps == 12000
    for name, weight in zip(SIZES, weights, strict=True):
        chance = weight / sum(weights)
        assert abs(drawn[name] - steps * chance) < 4 * (steps * chance * (1 - chance)) ** 0.5


def test_draws_follow_each_other_without_a_pattern(config):
    """The next one is as likely of the same data set as of the other."""
    datasets = {name: Numbers(config, 5000, 1) for name in "ab"}
    drawn = MixedBatchSampler(datasets, {"a": 1, "b": 1}, seed=3).drawn()
    same = sum(one == other for one, other in itertools.pairwise(drawn))
    assert abs(same - 5000) < 200


def test_weights_of_draws():
    sizes = {"small": 100, "large": 10_000}
    assert draw_weights(sizes, "uniform", 1) == draw_weights(sizes, "uniform", 7) == {"small": 1, "large": 1}
    assert draw_weights(sizes, "proportional", 1) == {"small": 100, "large": 10_000}
    assert draw_weights(sizes, "proportional", 2) == pytest.approx({"small": 10, "large": 100})
    ratios = [
        weights["large"] / weights["small"]
        for weights in (draw_weights(sizes, "proportional", temperature) for temperature in (0.5, 1, 2, 4, 1e6))
    ]
    assert ratios == pytest.approx([10_000, 100, 10, 10**0.5, 1], rel=1e-4)


# --- one loader for all -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 13])
@pytest.mark.parametrize("workers", [0, 2])
def test_many_data_sets_have_no_more_workers_than_one(config: Config, workers: int, count: int):
    config.n_workers = workers
    datasets = {f"set {number}": Numbers(config, 6, 3) for number in range(count)}
    loader = mixed_loader(MixedDataset(config, datasets), dict.fromkeys(datasets, 1.0))
    already, alive, read_by = set(multiprocessing.active_children()), set(), set()
    for batch in loader:
        alive.add(len(set(multiprocessing.active_children()) - already))
        read_by |= set(batch["worker"].tolist())
    assert alive == {workers}
    assert read_by == (set(range(workers)) or {-1})
    loader.close()
    assert set(multiprocessing.active_children()) <= already, "they go when the loader is closed"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_says_of_which_task_it_is(config: Config, datasets, workers: int):
    config.n_workers = workers
    loader = mixed_loader(MixedDataset(config, datasets), EVEN)
    loader.set_epoch(3)
    batches, expected = list(loader), epoch_of(datasets, 3, seed=config.seed)
    assert len(loader) == len(batches) == len(expected)
    assert [batch["task"] for batch in batches] == names(expected)
    assert [batch["index"].tolist() for batch in batches] == [[key.sample.index for key in keys] for keys in expected]
    for batch, keys in zip(batches, expected, strict=True):  # each as its data set alone would give it
        alone = [datasets[key.name][key.sample] for key in keys]
        assert batch["draw"].tolist() == [sample["draw"] for sample in alone]
        assert batch["faults"] == []


def test_each_data_set_collates_its_own_batches(config: Config):
    class Listed(Numbers):
        def collate(self, samples: list[Any]) -> dict[str, Any]:
            return {"index": torch.tensor([sample["index"] for sample in samples]), "faults": [], "listed": True}

    mixed = MixedDataset(config, {"plain": Numbers(config, 9, 3), "listed": Listed(config, 9, 3)})
    batches = list(mixed_loader(mixed, {"plain": 1.0, "listed": 1.0}))
    assert {batch["task"] for batch in batches} == {"plain", "listed"}
    assert all(("listed" in batch) == (batch["task"] == "listed") for batch in batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fault_in_a_worker_is_raised_in_one_line(config: Config, datasets, workers: int):
    config.n_workers = workers
    datasets["odd"] = Numbers(config, *SIZES["odd"], bad=4)
    loader = mixed_loader(MixedDataset(config, datasets), {"few": 1.0, "many": 1.0, "odd": 3.0})
    with pytest.raises(DataError) as raised:
        list(loader)
    loader.close()  # else the test in which it is forgotten waits for its workers
    assert str(raised.value) == "numbers.tsv, line 5: bad"
