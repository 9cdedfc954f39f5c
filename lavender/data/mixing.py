"""Several data sets in one loader: each batch is of one of them, drawn for every step, the same on all processes."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import BatchSampler, Dataset, Sampler

from lavender.config.schema import Config
from lavender.data.batch import Batch
from lavender.data.loaders import EpochSampler, Loader, steps_in_epoch
from lavender.data.samples import ClipDataset, Failure, SampleKey

_PASSES = 2**20  # through a data set in an epoch, at most
_DRAWS = 2**31  # stands for the sample's number in the seed of an epoch's draws


class MixedKey(NamedTuple):
    """Which sample of which data set."""

    name: str
    sample: SampleKey


class MixedDataset(Dataset):
    """Data sets by name, read by the same few worker processes; a batch says under `task` which one it is of.

    So a run of many tasks has `n_workers` processes, not that many for each.
    """

    def __init__(self, config: Config, datasets: Mapping[str, ClipDataset]):
        self.config, self.datasets = config, datasets

    def __getitem__(self, key: MixedKey) -> tuple[str, Any]:
        return key.name, self.datasets[key.name][key.sample]

    def collate(self, samples: list[tuple[str, Any]]) -> Batch | Failure:
        """One batch, by the collation of its data set."""
        (name,) = {name for name, _ in samples}
        batch = self.datasets[name].collate([sample for _, sample in samples])
        return batch if isinstance(batch, Failure) else {**batch, "task": name}

    def check_frames(self) -> None:
        for dataset in self.datasets.values():
            dataset.check_frames()


class MixedBatchSampler(Sampler[list[MixedKey]]):
    """This process's batches of an epoch: as many as all data sets have together, each of one that is drawn.

    A data set of which all was seen starts again, in a new order; one that was drawn less is not seen whole.

    Args:
        datasets: name → data set; each batch has the `size_batch` of its data set's configuration.
        weights: name → how often it is drawn, in relation to the others.
    """

    def __init__(self, datasets: Mapping[str, ClipDataset], weights: Mapping[str, float], seed: int):
        self.datasets, self.seed, self.epoch = datasets, seed, 0
        shares = np.array([weights[name] for name in datasets])
        self.probs = shares / shares.sum()

    def set_epoch(self, epoch: int) -> None:
        """New draws and new orders."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(steps_in_epoch(len(dataset), dataset.config.size_batch) for dataset in self.datasets.values())

    def drawn(self) -> list[str]:
        """The data set of each batch of the epoch: the same on every process."""
        stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self.seed, self.epoch, _DRAWS))))
        names = list(self.datasets)
        return [names[number] for number in stream.choice(len(names), size=len(self), p=self.probs)]

    def __iter__(self) -> Iterator[list[MixedKey]]:
        batches = {name: self._endless(dataset) for name, dataset in self.datasets.items()}
        for name in self.drawn():
            yield [MixedKey(name, key) for key in next(batches[name])]

    def _endless(self, dataset: ClipDataset) -> Iterator[list[SampleKey]]:
        sampler = EpochSampler(dataset, self.seed)
        for number in range(_PASSES):
            sampler.set_epoch(self.epoch * _PASSES + number)  # each pass has an order and crops of its own
            yield from BatchSampler(sampler, dataset.config.size_batch, drop_last=False)  # type: ignore[misc]


def mixed_loader(dataset: MixedDataset, weights: Mapping[str, float]) -> Loader:
    """Batches of several data sets."""
    sampler = MixedBatchSampler(dataset.datasets, weights, dataset.config.seed)
    return Loader(dataset, sampler, f"training loader ({len(dataset.datasets)} data sets)", sampler, lasting=True)


def draw_weights(sizes: Mapping[str, int], sampling: str, temperature: float) -> dict[str, float]:
    """How often each data set is drawn.

    Args:
        sizes: name → samples; sampling: `uniform` draws all alike, as released; `proportional` by size, to the power of
            1 / temperature: the higher it is, the more alike they are drawn.
    """
    if sampling == "uniform":
        return dict.fromkeys(sizes, 1.0)
    return {name: size ** (1 / temperature) for name, size in sizes.items()}
