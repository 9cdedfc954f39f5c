"""Samplers and loaders: which process gets which samples, in which order."""

import itertools
from collections.abc import Iterator
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, Sampler

from lavender.data.samples import ClipDataset, Failure, SampleKey
from lavender.runtime import distributed
from lavender.runtime.errors import DataError
from lavender.runtime.signals import leave_signals_to_parent


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
        epochs: what has to know the epoch, with `set_epoch`.
    """

    def __init__(self, dataset: Any, batches: Sampler | BatchSampler, epochs: Any = None):
        self.dataset, self._epochs, self._batches = dataset, epochs, FromBatch(batches)
        self._loader: DataLoader = DataLoader(
            dataset,
            batch_sampler=self._batches,
            collate_fn=dataset.collate,
            num_workers=dataset.config.n_workers,
            worker_init_fn=leave_signals_to_parent,
            pin_memory=distributed.uses_cuda(),
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
            for batch in self._loader:
                if isinstance(batch, Failure):
                    raise DataError(batch.message)
                yield batch
        except RuntimeError as error:
            if fault := lost_worker(error):
                raise fault from error
            raise


def lost_worker(error: RuntimeError) -> DataError | None:
    """What to tell where torch reports that a worker process has gone; it may do so at any place of the main one."""
    if "DataLoader worker" not in str(error):
        return None
    return DataError(
        f"a data loading worker process was killed ({error}): most often memory ran out; lower --n_workers"
    )


def training_loader(dataset: ClipDataset) -> Loader:
    """Shuffled batches of this process's share."""
    sampler = EpochSampler(dataset, dataset.config.seed)
    return Loader(dataset, BatchSampler(sampler, dataset.config.size_batch, drop_last=False), sampler)


def evaluation_loader(dataset: ClipDataset, size_batch: int = 0) -> Loader:
    """Every sample once, over all processes; in batches of `size_batch`, by default that of the configuration."""
    return Loader(dataset, WholeBatchSampler(len(dataset), size_batch or dataset.config.size_batch))


def steps_in_epoch(samples: int, size_batch: int) -> int:
    """Batches that each process sees of a training set of so many samples."""
    share = -(-samples // distributed.world_size())
    return -(-share // size_batch)
