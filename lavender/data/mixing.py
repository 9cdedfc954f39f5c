"""Several data sets in one loader: each batch comes from one of them, drawn at random, equal on all processes."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import BatchSampler, Dataset, Sampler

from lavender.config.schema import Config
from lavender.data.batch import Batch
from lavender.data.loaders import EpochSampler, Loader, steps_in_epoch
from lavender.data.samples import ClipDataset, Failure, SampleKey

_PASSES = 2**20  # maximum passes through a data set in an epoch
_DRAWS = 2**31  # replaces the sample's number in the seed of an epoch's draws


class MixedKey(NamedTuple):
    """Key of a sample with its data set."""

    name: str
    sample: SampleKey


class MixedDataset(Dataset):
    """Data sets by name, read by the same worker processes; the key `task` of a batch names its data set.

    A multi-task run therefore has `n_workers` processes in all, not per task.
    """

    def __init__(self, config: Config, datasets: Mapping[str, ClipDataset]):
        self.config, self.datasets = config, datasets

    def __getitem__(self, key: MixedKey) -> tuple[str, Any]:
        return key.name, self.datasets[key.name][key.sample]

    def collate(self, samples: list[tuple[str, Any]]) -> Batch | Failure:
        """Collates one batch with the collate function of its data set."""
        (name,) = {name for name, _ in samples}
        batch = self.datasets[name].collate([sample for _, sample in samples])
        return batch if isinstance(batch, Failure) else {**batch, "task": name}

    def check_frames(self) -> None:
        for dataset in self.datasets.values():
            dataset.check_frames()


class MixedBatchSampler(Sampler[list[MixedKey]]):
    """This process's batches of an epoch: as many as all data sets have together, each from a drawn data set.

    A data set that is used up starts again in a new order; one that is drawn less often is not seen completely.

    Args:
        datasets: name → data set; each batch has the `size_batch` of its data set's configuration.
        weights: name → relative sampling weight.
    """

    def __init__(self, datasets: Mapping[str, ClipDataset], weights: Mapping[str, float], seed: int):
        self.datasets, self.seed, self.epoch = datasets, seed, 0
        shares = np.array([weights[name] for name in datasets])
        self.probs = shares / shares.sum()

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, which determines draws and orders."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(steps_in_epoch(len(dataset), dataset.config.size_batch) for dataset in self.datasets.values())

    def drawn(self) -> list[str]:
        """Data set of each batch of the epoch; equal on all processes."""
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self.seed, self.epoch, _DRAWS))))
        names = list(self.datasets)
        return [names[number] for number in rng.choice(len(names), size=len(self), p=self.probs)]

    def __iter__(self) -> Iterator[list[MixedKey]]:
        batches = {name: self._endless(dataset) for name, dataset in self.datasets.items()}
        for name in self.drawn():
            yield [MixedKey(name, key) for key in next(batches[name])]

    def _endless(self, dataset: ClipDataset) -> Iterator[list[SampleKey]]:
        sampler = EpochSampler(dataset, self.seed)
        for number in range(_PASSES):
            sampler.set_epoch(self.epoch * _PASSES + number)  # each pass has its own order and crops
            yield from BatchSampler(sampler, dataset.config.size_batch, drop_last=False)  # type: ignore[misc]


def mixed_loader(dataset: MixedDataset, weights: Mapping[str, float]) -> Loader:
    """Loader of batches from several data sets."""
    sampler = MixedBatchSampler(dataset.datasets, weights, dataset.config.seed)
    return Loader(dataset, sampler, f"training loader ({len(dataset.datasets)} data sets)", sampler, lasting=True)


def draw_weights(sizes: Mapping[str, int], sampling: str, temperature: float) -> dict[str, float]:
    """Sampling weight of each data set.

    Args:
        sizes: name → number of samples; sampling: `uniform` (released) gives equal weights, `proportional` gives
            size ** (1 / temperature), so a higher temperature is closer to uniform.
    """
    if sampling == "uniform":
        return dict.fromkeys(sizes, 1.0)
    return {name: size ** (1 / temperature) for name, size in sizes.items()}
