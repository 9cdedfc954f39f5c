"""Samplers and loaders: which process gets which samples, in which order."""

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, Sampler

from lavender.config.schema import Config
from lavender.data.samples import ClipDataset, Failure, SampleKey
from lavender.data.workers import METHOD, POLL, SharedDataset, batches_of, prepare_worker, worker_killed
from lavender.runtime import distributed
from lavender.runtime.errors import DataError

AUTO = -1  # n_workers: by the number of available cores
MOST_WORKERS = 8  # per process by default: they decode faster than a model trains
PREFETCH = 2  # batches that a worker reads ahead


class EpochSampler(DistributedSampler):
    """This process's share of a shuffled epoch, as keys; all shares have equal length (a few samples may repeat).

    The order equals that of torch's `DistributedSampler`, which keeps a list of all indices in every process: 1 GB for
    30 million. Here each process keeps an array of its own share only.
    """

    def __init__(self, dataset: ClipDataset, seed: int):
        super().__init__(dataset, distributed.world_size(), distributed.rank(), shuffle=True, seed=seed)

    def __iter__(self) -> Iterator[SampleKey]:
        epoch = self.epoch
        return (SampleKey(epoch, int(index)) for index in self.share())

    def share(self) -> np.ndarray:
        """Indices of this process's samples in this epoch, in order, int32 or int64 (num_samples,)."""
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        length = len(self.dataset)  # type: ignore[arg-type]
        order = torch.randperm(length, generator=generator).numpy()
        kind = np.int32 if length <= np.iinfo(np.int32).max else np.int64
        own = order[self.rank :: self.num_replicas].astype(kind)  # a view would keep the whole permutation
        if len(own) == self.num_samples:
            return own
        places = range(self.rank, self.total_size, self.num_replicas)[len(own) :]
        again = order[np.array(places) % length].astype(kind)  # padded by starting again
        return np.concatenate([own, again])


class DistributedEvalBatchSampler(Sampler[list[SampleKey]]):
    """Distributes the batches of a single-process loader over the processes: each sample once, in the same batch."""

    def __init__(self, length: int, size_batch: int):
        self.length, self.size_batch = length, size_batch
        self.starts = range(0, length, size_batch)[distributed.rank() :: distributed.world_size()]

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for start in self.starts:
            yield [SampleKey(0, index) for index in range(start, min(start + self.size_batch, self.length))]

    def __len__(self) -> int:
        return len(self.starts)


class SkipBatches(Sampler):
    """Batches of a sampler from number `first` on: a resumed run skips those it has trained on."""

    def __init__(self, batches: Sampler | BatchSampler):
        self.batches, self.first = batches, 0

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self.batches), self.first, None)

    def __len__(self) -> int:
        return len(self.batches) - self.first  # type: ignore[arg-type]


def workers_of(config: Config) -> int:
    """Workers per loader: `n_workers`, or by default this process's share of the cores minus one."""
    if config.n_workers != AUTO:
        return config.n_workers
    return min(max(len(os.sched_getaffinity(0)) // distributed.processes_here() - 1, 1), MOST_WORKERS)


class Loader:
    """Batches of a dataset, as dictionaries; a fault in a worker process is raised in the main process.

    Args:
        dataset: a `ClipDataset`, or several of them together, with `config` and `collate`.
        title: its name in messages.
        epochs: objects with `set_epoch`.
        lasting: keep the workers, with the data set of the first pass, for the next passes until `close`.
    """

    def __init__(
        self, dataset: Any, batches: Sampler | BatchSampler, title: str, epochs: Any = None, lasting: bool = False
    ):
        self.dataset, self.title, self._epochs, self._batches = dataset, title, epochs, SkipBatches(batches)
        self._shared, self._lasting = SharedDataset(dataset), lasting
        self._loader = self._make()
        self._in_pass = False

    def _make(self) -> DataLoader:
        workers = workers_of(self.dataset.config)
        return DataLoader(
            self._shared,
            batch_sampler=self._batches,
            collate_fn=self._shared.collate,
            num_workers=workers,
            multiprocessing_context=METHOD if workers else None,
            timeout=POLL if workers else 0,
            worker_init_fn=prepare_worker,
            pin_memory=distributed.uses_cuda(),
            generator=torch.Generator(),  # seeds the workers; the global generator stays untouched
            prefetch_factor=PREFETCH if workers else None,
            persistent_workers=self._lasting and workers > 0,
        )

    def close(self) -> None:
        """Stops the workers; the next pass starts new ones."""
        self._loader, self._in_pass = self._make(), False

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, which determines the order and all random choices."""
        if self._epochs is not None:
            self._epochs.set_epoch(epoch)

    def start_at(self, batch: int) -> None:
        """Skips the first batches of the next pass without reading them."""
        self._batches.first = batch

    def __len__(self) -> int:
        return len(self._batches.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[dict]:
        if self._in_pass:  # the last pass was abandoned: its batches are still arriving
            self.close()
        self._in_pass = True
        try:
            for batch in self._pass():
                if isinstance(batch, Failure):
                    raise DataError(batch.message)
                yield batch
        except RuntimeError as error:
            if fault := lost_worker(error):
                raise fault from error
            raise
        self._in_pass = False

    def _pass(self) -> Iterator[Any]:
        if not self._loader.num_workers:
            return iter(self._loader)
        patience = self.dataset.config.loader_timeout
        return batches_of(self._start, self._loader.num_workers, self._shared, self.title, patience)

    def _start(self) -> Iterator[Any]:
        """Begins a pass; replaces workers of the last pass that do not respond in time, as on a busy machine."""
        try:
            return iter(self._loader)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
            self._loader = self._make()
            return iter(self._loader)


def lost_worker(error: RuntimeError) -> DataError | None:
    """Returns the DataError for torch's report of a dead worker process, which may come at any time; else None."""
    if "DataLoader worker" not in str(error):
        return None
    return worker_killed(error)


def training_loader(dataset: ClipDataset) -> Loader:
    """Loader of shuffled batches of this process's share."""
    sampler = EpochSampler(dataset, dataset.config.seed)
    batches = BatchSampler(sampler, dataset.config.size_batch, drop_last=False)
    return Loader(dataset, batches, f"training loader ({_content(dataset)})", sampler, lasting=True)


def evaluation_loader(dataset: ClipDataset, size_batch: int = 0, lasting: bool = False) -> Loader:
    """Loader of every sample exactly once over all processes; the default `size_batch` is the configuration's."""
    batches = DistributedEvalBatchSampler(len(dataset), size_batch or dataset.config.size_batch)
    return Loader(dataset, batches, f"evaluation loader ({_content(dataset)})", lasting=lasting)


class LoaderCache:
    """Loaders of a run by use; their workers stay alive between passes."""

    def __init__(self) -> None:
        self._loaders: dict[str, tuple[Any, Loader]] = {}

    def of(self, use: str, source: Any, make: Callable[[], Loader]) -> Loader:
        """Returns the loader of a use; `make` creates it at first, and again for another `source`."""
        if use not in self._loaders or self._loaders[use][0] is not source:
            if use in self._loaders:
                self._loaders.pop(use)[1].close()  # before the next one is opened
            self._loaders[use] = source, make()
        return self._loaders[use][1]

    def close(self) -> None:
        """Stops all workers."""
        for _, loader in self._loaders.values():
            loader.close()


def _content(dataset: ClipDataset) -> str:
    return f"{type(dataset).__name__}, {len(dataset)} samples"


def steps_in_epoch(samples: int, size_batch: int) -> int:
    """Number of batches that each process sees in an epoch of `samples` samples."""
    share = -(-samples // distributed.world_size())
    return -(-share // size_batch)
