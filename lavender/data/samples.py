"""Base of all datasets: a random generator per sample, frames from a source, and the handling of bad samples."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from lavender.config.schema import Config
from lavender.data.batch import Batch
from lavender.data.frames import evaluation_indices, number_of_clips, training_indices
from lavender.data.sources.base import StoredVideo
from lavender.data.transforms import ClipTransform
from lavender.runtime.errors import DataError
from lavender.runtime.seed import EVALUATION, sample_rng

Value = TypeVar("Value")


@dataclass(frozen=True)
class SampleKey:
    """Index and epoch of a sample, which determine all its random choices."""

    epoch: int
    index: int


PROBED = 4  # videos of a data set that are checked before a run


@dataclass(frozen=True)
class Failure:
    """Fault in a worker process, sent to the main process to be raised there."""

    message: str


class ClipDataset(Dataset, ABC):
    """Samples of one split. Subclasses define their number, texts and frames.

    Args:
        config: size_frame, size_img, img_transform, exact_transforms, max_pixels, seed, on_bad_sample, repeat_frames.
        training: random clips and crops instead of those of evaluation.
        size_frame: frames per clip.
    """

    def __init__(self, config: Config, training: bool, size_frame: int):
        self.config, self.training, self.size_frame = config, training, size_frame
        self.tolerant = config.on_bad_sample == "zero"
        self.transform = ClipTransform(
            config.img_transform, config.size_img, training, str(config.exact_transforms).lower()
        )

    @abstractmethod
    def __len__(self) -> int: ...

    def video_ids(self) -> Iterable[str]:
        """Ids of all videos; an id may repeat."""
        return (self.video(number).video_id for number in range(len(self)))

    @abstractmethod
    def video(self, index: int) -> StoredVideo:
        """Stored frames of a sample. DataError if there are none."""

    @abstractmethod
    def text(self, index: int, rng: np.random.Generator, guard: "Guard") -> dict[str, Any]:
        """Text of a sample: arrays and strings by name."""

    def check_frames(self) -> None:
        """Checks the number of frames of a few videos, spread over the data set, before a run.

        Other faults of a video are reported when it is read.

        Raises:
            DataError: a video has fewer frames than `size_frame`, and no option allows it.
        """
        if self.config.repeat_frames or self.config.on_bad_sample == "zero":
            return
        for number in np.unique(np.linspace(0, len(self) - 1, PROBED).astype(int)) if len(self) else ():
            try:
                video = self.video(int(number))
            except DataError:
                continue
            evaluation_indices(len(video), self.size_frame, where=video.where)

    def collate(self, samples: list[Any]) -> Batch | Failure:
        """Collates samples into one batch of tensors, batch dimension first; `faults` has one entry per bad sample."""
        for sample in samples:
            if isinstance(sample, Failure):
                return sample
        faults = ["; ".join(dict.fromkeys(found)) for sample in samples if (found := sample.pop("faults"))]
        clips = [sample.pop("img") for sample in samples]
        batch: Batch = {**default_collate(samples), "faults": faults, **self.joined(clips)}  # type: ignore[typeddict-item]
        return batch

    def joined(self, clips: list[Tensor]) -> dict[str, Tensor]:
        """Key `img` with the clips of a batch, and related keys."""
        if clips[0].dim() != 4:
            return {"img": default_collate(clips)}
        # Stacked in memory order (channels last): a transposing copy takes a tenth of the decoding time.
        return {"img": default_collate([clip.permute(0, 2, 3, 1) for clip in clips]).permute(0, 1, 4, 2, 3)}

    def __getitem__(self, key: SampleKey) -> dict[str, Any] | Failure:
        rng = sample_rng(self.config.seed, key.epoch if self.training else EVALUATION, key.index)
        guard = Guard(self.tolerant)
        blank = torch.zeros(self.size_frame, 3, self.config.size_img, self.config.size_img, dtype=torch.uint8)
        try:
            img = guard.attempt(lambda: self.clip(key.index, rng), blank)
            present = img is not blank
            sample = self.text(key.index, rng, guard)
        except DataError as error:
            return Failure(str(error))
        return {
            "index": key.index,
            "epoch": key.epoch,
            "img": img,
            "present": present,
            "faults": guard.faults,
            **sample,
        }

    def clip(self, index: int, rng: np.random.Generator) -> Tensor:
        """Clip of a sample, uint8 (T, 3, size_img, size_img)."""
        video = self.video(index)
        return self.transform(video.frames(self.chosen_frames(video, rng)), rng)

    def chosen_frames(self, video: StoredVideo, rng: np.random.Generator) -> list[int]:
        """Indices of the `size_frame` frames of a clip: a random clip in training, else spread over the video."""
        repeat = self.config.repeat_frames
        if not self.training:
            return evaluation_indices(len(video), self.size_frame, repeat, where=video.where)
        start = int(rng.integers(number_of_clips(len(video), self.size_frame)))
        return training_indices(len(video), self.size_frame, start, repeat, where=video.where)


def split_share(lengths: list[int], ratio: float) -> list[int]:
    """Number of samples used of each part: `data_ratio` up to 1 is a fraction, above 1 a total number."""
    total = sum(lengths)
    wanted = max(1, round(ratio * total)) if ratio <= 1 else min(total, round(ratio))
    ends = [round(wanted * end / total) for end in np.cumsum(lengths)]
    return [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def draw_share(length: int, samples: int, seed: int) -> np.ndarray:
    """Draws `samples` of `length` rows; returns their sorted indices, int64."""
    if samples >= length:
        return np.arange(length)
    return np.sort(np.random.Generator(np.random.PCG64(seed)).permutation(length)[:samples])


class Guard:
    """Reads with a fallback: a fault is raised or, if `tolerant`, recorded and replaced."""

    def __init__(self, tolerant: bool):
        self.tolerant = tolerant
        self.faults: list[str] = []

    def attempt(self, read: Callable[[], Value], replacement: Value) -> Value:
        """Returns `read()`; on a DataError the replacement, if `tolerant`."""
        try:
            return read()
        except DataError as error:
            if not self.tolerant:
                raise
            self.faults.append(str(error))
            return replacement
