"""Samplers and loaders: which process gets which samples, in which order."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, Sampler

from lavender.data.samples import ClipDataset, Failure, SampleKey
from lavender.data.workers import METHOD, POLL, SharedDataset, batches_of, prepare_worker, worker_killed
from lavender.runtime import distributed
from lavender.runtime.errors import DataError


class EpochSampler(DistributedSampler):
    """This process's share of a shuffled epoch, as keys; shares are equally long (a few samples may stand twice)."""

    def __init__(self, dataset: ClipDataset, seed: int):
        super().__init__(dataset, distributed.world_size(), distributed.rank(), shuffle=True, seed=seed)

    def __iter__(self) -> Iterator[SampleKey]:
        return (SampleKey(self.epoch, index) for index in super().__iter__())


class WholeBatchSampler(Sampler[list[SampleKey]]):
    """The batches of a single process, dealt whole to the processes: each sample once, in the same company."""

    def __init__(self, length: int, size_batch: int):
        self.length, self.size_batch = length, size_batch
        self.starts = range(0, length, size_batch)[distributed.rank() :: distributed.world_size()]

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for start in self.starts:
            yield [SampleKey(0, index) for index in range(start, min(start + self.size_batch, self.length))]

    def __len__(self) -> int:
        return len(self.starts)


class FromBatch(Sampler):
    """The batches of a sampler from number `first` on: those before it were seen by a run that was stopped."""

    def __init__(self, batches: Sampler | BatchSampler):
        self.batches, self.first = batches, 0

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self.batches), self.first, None)

    def __len__(self) -> int:
        return len(self.batches) - self.first  # type: ignore[arg-type]


class Loader:
    """Batches of a dataset, as dictionaries; a fault met in a worker process is raised here.

    Args:
        dataset: a `ClipDataset`, or several of them together, with `config` and `collate`.
        title: what messages call it.
        epochs: what has to know the epoch, with `set_epoch`.
    """

    def __init__(self, dataset: Any, batches: Sampler | BatchSampler, title: str, epochs: Any = None):
        self.dataset, self.title, self._epochs, self._batches = dataset, title, epochs, FromBatch(batches)
        self._shared, workers = SharedDataset(dataset), dataset.config.n_workers
        self._loader: DataLoader = DataLoader(
            self._shared,
            batch_sampler=self._batches,
            collate_fn=self._shared.collate,
            num_workers=workers,
            multiprocessing_context=METHOD if workers else None,
            timeout=POLL if workers else 0,
            worker_init_fn=prepare_worker,
            pin_memory=distributed.uses_cuda(),
            generator=torch.Generator(),  # of the seed of its workers: the process's own is left alone
        )

    def set_epoch(self, epoch: int) -> None:
        """A new order and new random choices."""
        if self._epochs is not None:
            self._epochs.set_epoch(epoch)

    def start_at(self, batch: int) -> None:
        """Leaves out the first batches of the next pass, without reading them."""
        self._batches.first = batch

    def __len__(self) -> int:
        return len(self._batches.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[dict]:
        try:
            for batch in self._pass():
                if isinstance(batch, Failure):
                    raise DataError(batch.message)
                yield batch
        except RuntimeError as error:
            if fault := lost_worker(error):
                raise fault from error
            raise

    def _pass(self) -> Iterator[Any]:
        if not self._loader.num_workers:
            return iter(self._loader)
        return batches_of(self._loader, self._shared, self.title, self.dataset.config.loader_timeout)


def lost_worker(error: RuntimeError) -> DataError | None:
    """What to tell where torch reports that a worker process has gone; it may do so at any place of the main one."""
    if "DataLoader worker" not in str(error):
        return None
    return worker_killed(error)


def training_loader(dataset: ClipDataset) -> Loader:
    """Shuffled batches of this process's share."""
    sampler = EpochSampler(dataset, dataset.config.seed)
    batches = BatchSampler(sampler, dataset.config.size_batch, drop_last=False)
    return Loader(dataset, batches, f"training loader ({_content(dataset)})", sampler)


def evaluation_loader(dataset: ClipDataset, size_batch: int = 0) -> Loader:
    """Every sample once, over all processes; in batches of `size_batch`, by default that of the configuration."""
    batches = WholeBatchSampler(len(dataset), size_batch or dataset.config.size_batch)
    return Loader(dataset, batches, f"evaluation loader ({_content(dataset)})")


def _content(dataset: ClipDataset) -> str:
    return f"{type(dataset).__name__}, {len(dataset)} samples"


def steps_in_epoch(samples: int, size_batch: int) -> int:
    """Batches that each process sees of a training set of so many samples."""
    share = -(-samples // distributed.world_size())
    return -(-share // size_batch)
