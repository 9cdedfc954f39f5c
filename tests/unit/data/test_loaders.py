import os
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lavender.config.schema import Config
from lavender.data.loaders import (
    EpochSampler,
    LoaderCache,
    evaluation_loader,
    steps_in_epoch,
    training_loader,
    workers_of,
)
from lavender.data.samples import ClipDataset, Guard, SampleKey
from lavender.data.sources.base import StoredVideo
from lavender.runtime import distributed
from lavender.runtime.errors import DataError


class Numbers(ClipDataset):
    """Samples without frames: each is its number and a draw from its stream."""

    def __init__(self, config: Config, length: int, training: bool, bad: int | None = None):
        super().__init__(config, training, size_frame=1)
        self.length, self.bad = length, bad

    def __len__(self) -> int:
        return self.length

    def video(self, index: int) -> StoredVideo:
        raise DataError("a number has no frames")

    def clip(self, index: int, stream: np.random.Generator) -> Tensor:
        if index == self.bad:
            raise DataError(f"numbers.tsv, line {index + 1}: bad")
        return torch.full((1,), int(stream.integers(250)), dtype=torch.uint8)

    def text(self, index: int, stream: np.random.Generator, guard: Guard) -> dict[str, Any]:
        worker = torch.utils.data.get_worker_info() is not None
        return {"draw": stream.random(), "worker": worker, "process": os.getpid()}


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int) -> None:
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world_size", lambda: world_size)


def indices(loader) -> list[list[int]]:
    return [batch["index"].tolist() for batch in loader]


# --- evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 3, 7, 12, 13])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_evaluation_deals_whole_batches_of_a_single_process(config, monkeypatch, length: int, world_size: int):
    dataset = Numbers(config, length, training=False)
    alone = [(batch["index"].tolist(), batch["draw"].tolist()) for batch in evaluation_loader(dataset)]
    assert [index for batch, _ in alone for index in batch] == list(range(length))
    assert all(len(batch) == 3 for batch, _ in alone[:-1])
    shares = []
    for rank in range(world_size):
        as_rank(monkeypatch, rank, world_size)
        loader = evaluation_loader(dataset)
        share = [(batch["index"].tolist(), batch["draw"].tolist()) for batch in loader]
        assert len(loader) == len(share)
        assert share == alone[rank::world_size]
        shares += share
    assert sorted(shares) == sorted(alone), "each sample once, in the same company"


def test_evaluation_has_no_epochs(config: Config):
    loader = evaluation_loader(Numbers(config, 5, training=False))
    first = indices(loader)
    loader.set_epoch(3)
    assert indices(loader) == first == [[0, 1, 2], [3, 4]]


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 5, 12, 13])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_training_shares_are_equally_long_and_cover_everything(config, monkeypatch, length: int, world_size: int):
    dataset = Numbers(config, length, training=True)
    shares = []
    for rank in range(world_size):
        as_rank(monkeypatch, rank, world_size)
        loader = training_loader(dataset)
        loader.set_epoch(1)
        batches = indices(loader)
        assert len(loader) == len(batches) == steps_in_epoch(length, config.size_batch)
        shares.append([index for batch in batches for index in batch])
    assert {len(share) for share in shares} == {-(-length // world_size)}
    seen = [index for share in shares for index in share]
    assert set(seen) == set(range(length))
    assert len(seen) - length < world_size, "few stand twice"


@pytest.mark.parametrize("length", [0, 1, 2, 5, 13, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_the_order_is_that_of_torch(config, monkeypatch, length: int, world_size: int):
    """Runs of the released code, and of earlier versions, go on in the order in which they began."""
    dataset = Numbers(config, length, training=True)
    for rank in range(world_size):
        as_rank(monkeypatch, rank, world_size)
        own = EpochSampler(dataset, config.seed)
        torchs = torch.utils.data.DistributedSampler(dataset, world_size, rank, shuffle=True, seed=config.seed)
        for epoch in (0, 3):
            own.set_epoch(epoch)
            torchs.set_epoch(epoch)
            assert list(own) == [SampleKey(epoch, index) for index in torchs]
            assert own.share().dtype == np.int32
            assert len(own) == len(own.share())


def test_a_share_does_not_keep_the_order_of_all_processes(config, monkeypatch):
    as_rank(monkeypatch, 3, 8)
    assert EpochSampler(Numbers(config, 1000, training=True), 88).share().base is None


def test_epochs_shuffle_anew_and_repeat_themselves(config: Config):
    loader = training_loader(Numbers(config, 12, training=True))
    orders = []
    for epoch in (1, 2, 1):
        loader.set_epoch(epoch)
        orders.append([(b["index"].tolist(), b["draw"].tolist(), b["img"].tolist()) for b in loader])
    assert orders[0] == orders[2]
    assert [batch for batch, _, _ in orders[0]] != [batch for batch, _, _ in orders[1]]
    draws = [{i: d for batch, draw, _ in order for i, d in zip(batch, draw, strict=True)} for order in orders]
    assert all(draws[0][index] != draws[1][index] for index in range(12)), "new draws for every sample"
    config.seed += 1
    other = training_loader(Numbers(config, 12, training=True))
    other.set_epoch(1)
    assert indices(other) != [batch for batch, _, _ in orders[0]]


@pytest.mark.parametrize("training", [False, True])
def test_the_number_of_workers_does_not_change_a_batch(config: Config, training: bool):
    runs = []
    for workers in (0, 2):
        config.n_workers = workers
        dataset = Numbers(config, 8, training)
        loader = training_loader(dataset) if training else evaluation_loader(dataset)
        loader.set_epoch(4)
        batches = list(loader)
        assert {bool(batch["worker"].all()) for batch in batches} == {workers > 0}
        runs.append([[batch[key].tolist() for key in ("index", "draw", "img", "epoch")] for batch in batches])
    assert runs[0] == runs[1]


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_in_a_worker_is_raised_in_one_line(config: Config, workers: int):
    config.n_workers = workers
    with pytest.raises(DataError) as raised:
        list(evaluation_loader(Numbers(config, 8, training=False, bad=4)))
    assert str(raised.value) == "numbers.tsv, line 5: bad"


def test_a_tolerated_fault_is_handed_on(config: Config):
    config.on_bad_sample = "zero"
    config.size_img = 1  # the stand-in has the shape of the other samples' clips
    dataset = Numbers(config, 4, training=False, bad=2)
    dataset.clip = lambda index, stream: (  # type: ignore[method-assign]
        Numbers.clip(dataset, index, stream).view(1, 1, 1, 1).expand(1, 3, 1, 1)
    )
    batches = list(evaluation_loader(dataset))
    assert [batch["faults"] for batch in batches] == [["numbers.tsv, line 3: bad"], []]
    assert batches[0]["present"].tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("samples", "size_batch", "world_size", "steps"),
    [(0, 4, 1, 0), (1, 4, 8, 1), (8, 4, 1, 2), (9, 4, 1, 3), (9, 4, 2, 2), (16, 4, 2, 2), (17, 4, 2, 3)],
)
def test_steps_in_epoch(monkeypatch, samples: int, size_batch: int, world_size: int, steps: int):
    as_rank(monkeypatch, 0, world_size)
    assert steps_in_epoch(samples, size_batch) == steps


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_leaves_the_random_generator_of_the_process_alone(config, workers: int):
    """So training does not depend on how often is evaluated."""
    config.n_workers = workers
    loader = evaluation_loader(Numbers(config, 7, training=False))
    before = torch.get_rng_state()
    assert list(loader)
    assert torch.equal(torch.get_rng_state(), before)


# --- workers ----------------------------------------------------------------------------------------------------------


def test_workers_stay_from_one_pass_to_the_next(config: Config):
    config.n_workers = 1
    loader = training_loader(Numbers(config, 7, training=True))
    passes = []
    for epoch in (1, 2, 1):
        loader.set_epoch(epoch)
        passes.append(list(loader))
    assert len({int(number) for batches in passes for batch in batches for number in batch["process"]}) == 1
    orders = [[batch["index"].tolist() for batch in batches] for batches in passes]
    assert orders[0] == orders[2] != orders[1]
    loader.start_at(2)
    assert indices(loader) == orders[0][2:], "a resumed pass leaves the first batches out"


def test_a_pass_after_one_that_was_left_is_whole(config: Config):
    config.n_workers = 2
    loader = evaluation_loader(Numbers(config, 12, training=False), lasting=True)
    for batch in loader:
        assert batch["index"].tolist() == [0, 1, 2]
        break
    assert indices(loader) == indices(loader) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_a_run_keeps_one_loader_a_use(config: Config):
    first, second = (Numbers(config, 3, training=False) for _ in range(2))
    kept = LoaderCache()
    loader = kept.of("val", first, lambda: evaluation_loader(first))
    assert kept.of("val", first, lambda: evaluation_loader(first)) is loader
    assert kept.of("test", first, lambda: evaluation_loader(first)) is not loader
    assert kept.of("val", second, lambda: evaluation_loader(second)).dataset is second


@pytest.mark.parametrize(
    ("asked", "cores", "processes", "workers"),
    [(-1, 2, 1, 1), (-1, 1, 1, 1), (-1, 16, 1, 8), (-1, 16, 4, 3), (-1, 8, 8, 1), (0, 16, 1, 0), (5, 2, 2, 5)],
)
def test_the_number_of_workers_follows_the_cores_at_hand(monkeypatch, asked, cores, processes, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.setattr(distributed, "processes_here", lambda: processes)
    assert workers_of(Config(n_workers=asked)) == workers


def test_workers_that_do_not_answer_at_once_are_replaced(config: Config, monkeypatch):
    """Torch gives the workers of the last pass as long to answer as it gives a batch: a second, here."""
    config.n_workers = 1
    loader = training_loader(Numbers(config, 7, training=True))
    first = list(loader)
    busy, begin = loader._loader, type(loader._loader).__iter__

    def slowly(one: Any) -> Any:
        if one is busy:
            raise RuntimeError("DataLoader timed out after 1.0 seconds")
        return begin(one)

    monkeypatch.setattr(type(busy), "__iter__", slowly)
    again = list(loader)
    assert [batch["index"].tolist() for batch in again] == [batch["index"].tolist() for batch in first]
    assert {int(n) for batch in again for n in batch["process"]}.isdisjoint(
        int(n) for batch in first for n in batch["process"]
    )
