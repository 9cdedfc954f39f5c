"""What a task is: its data, its loss, its prediction, its metrics. The engine knows this file and no task."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lavender.config.schema import Config
from lavender.data.batch import Batch, RetrievalBatch
from lavender.data.loaders import Loader, steps_in_epoch, training_loader
from lavender.data.retrieval import Gallery
from lavender.data.samples import ClipDataset
from lavender.models.encoders import Encoded
from lavender.models.lavender import Heads, Lavender
from lavender.runtime.errors import ConfigError
from lavender.text.bert_folder import bert_of
from lavender.text.masking import IGNORED, places_of
from lavender.text.prompts import PROMPTS
from lavender.text.tokens import TextTokenizer

Record = dict[str, Any]  # one sample's prediction; holds its `index` in the split
Metrics = dict[str, float]
BatchT = TypeVar("BatchT", bound=Batch)  # what its data sets make


@dataclass(frozen=True)
class TrainingPart:
    """A piece of an epoch: after each, the run validates and saves.

    Args:
        dataset: the data set's name; number: of the part, from 0.
        samples: how many it holds.
        open: reads it; called when its turn comes, so that only one part is open at a time.
    """

    dataset: str
    number: int
    samples: int
    open: Callable[[], ClipDataset]

    def batches(self, size_batch: int) -> int:
        """How many batches each process sees of it."""
        return steps_in_epoch(self.samples, size_batch)

    def loader(self) -> Loader:
        """This process's share of it, in batches."""
        return training_loader(self.open())


@dataclass
class Clock:
    """How far training is: the trainer counts, and its task, or several, read it."""

    step: int = 0  # optimizer steps done


class Trainable(ABC, Generic[BatchT]):
    """What the engine trains: a task, or several together.

    Args:
        clock: of the task that it is a part of; without it, its own.
    """

    config_type: str  # the `type` of its configurations
    dataset_types: tuple[str, ...] = ()  # what `dataset_type` may say; all, where none is named
    related_types: tuple[str, ...] = ()  # types of other tasks whose checkpoints it is evaluated from, as released
    heads: Heads
    token = "vtm"  # its task token, unless `task_token` names another

    def __init__(self, config: Config, clock: Clock | None = None):
        if config.type not in ("", self.config_type):
            raise ConfigError(
                f'"type" is {config.type} in the configuration, but this script is for {self.config_type}'
            )
        if config.dataset_type and self.dataset_types and config.dataset_type not in self.dataset_types:
            raise ConfigError(f'"dataset_type" is {config.dataset_type}, but this script reads {self.dataset_types[0]}')
        if (config.enable_prompt or config.enable_task_token) and not self.heads.task_tokens:
            raise ConfigError("the task-specific models take no prompt and no task token: use the MLM script")
        self.config = config
        self.clock = clock or Clock()
        self.tokenizer = TextTokenizer(bert_of(config, "txt_backbone"))
        self._prompt = torch.from_numpy(self.tokenizer.prompt(self.prompt())) if config.enable_prompt else None

    def prompt(self) -> str:
        """What stands in front of its texts with `enable_prompt`."""
        return PROMPTS["vtm"]

    def prefix(self, model: Lavender) -> Encoded | None:
        """The prompt or task token in front of the text, (1, P, D); None with neither option."""
        if self._prompt is not None:
            return model.prompt(self._prompt.to(model.enc_img.emb_cls.device))
        return model.task_token(self.config.task_token or self.token) if self.config.enable_task_token else None

    @abstractmethod
    def training_parts(self) -> list[TrainingPart]:
        """The parts of one epoch, in order."""

    @cached_property
    def parts(self) -> list[TrainingPart]:
        """The parts of one epoch, looked up once; none where nothing is trained."""
        return self.training_parts() if self.config.size_epoch else []

    def check_frames(self) -> None:
        """Raises DataError where videos have fewer frames than `size_frame`; a few of each data set are looked at."""
        first = {part.dataset: part for part in reversed(self.parts)}  # one part is open at a time
        for part in first.values():
            part.open().check_frames()
        for dataset in self.evaluation_sets().values():
            dataset.check_frames()

    @abstractmethod
    def evaluation_sets(self, part: TrainingPart | None = None) -> dict[str, ClipDataset]:
        """Split → data set, for evaluation after `part`; without one, all of them."""

    @abstractmethod
    def responsible(self, key: str) -> tuple["Task", str]:
        """The task that predicts and scores an entry of `evaluation_sets`, and its name for the split."""

    @abstractmethod
    def choice_of(self, task: str) -> tuple[str, Callable]:
        """By which validation figure the best epoch is chosen, and whether the lowest or the highest is."""

    @abstractmethod
    def loss(self, model: Lavender, batch: BatchT) -> dict[str, Tensor]:
        """`loss` and its parts, as scalars with a gradient where they have one."""

    def unused_parameters(self) -> tuple[str, ...]:
        """Beginnings of the names of parameters that no loss of this task reaches: they are left out of training."""
        return ("enc_img.emb_odr",) if self.config.enable_task_token else ("enc_img.emb_odr", "emb_task")

    def run_name(self) -> str:
        """The middle of the output folder's name."""
        return self.config.task or self.config_type

    def checkpoint_name(self, epoch: int, part: TrainingPart | None) -> str:
        """The released name of a checkpoint; epoch 0 is before training (`part` is None then)."""
        return f"ckpt_violet_{self.config.task}_{epoch}.pt"

    @abstractmethod
    def curves(self, epochs: list[dict[str, Any]]) -> dict[str, Any]:
        """`log.json` from the entries of `results.json`, under the released keys."""


class Task(Trainable[BatchT]):
    """A task of the released recipe. One file with a subclass, one JSON and one script add another."""

    best_metric: tuple[str, Callable] = ("acc", max)  # which validation figure chooses the best epoch

    def responsible(self, key: str) -> tuple["Task", str]:
        return self, key

    def choice_of(self, task: str) -> tuple[str, Callable]:
        return self.best_metric

    @abstractmethod
    def predict(self, model: Lavender, batch: BatchT) -> list[Record]:
        """One record a sample."""

    @abstractmethod
    def metrics(self, records: list[Record], split: str) -> Metrics:
        """Figures of a split from all its records, in the split's order."""

    def earlier_records(self, split: str, checkpoint: Path, weights: Callable[[], str]) -> list[Record] | None:
        """Records that stand beside a checkpoint, where they were made from these very weights and options.

        Args:
            checkpoint: the file of the weights, which may not be written yet; weights: gives their digest.
        """
        return None

    def publish(
        self, split: str, checkpoint: Path, weights: Callable[[], str], records: list[Record], metrics: Metrics
    ) -> None:
        """Files that users of the released code expect beside a checkpoint; arguments as in `earlier_records`."""
        return None

    def curves(self, epochs: list[dict[str, Any]]) -> dict[str, Any]:
        curves: dict[str, Any] = {"ls_tr": [entry["train"]["loss"] for entry in epochs]}
        for split, key in (("val", "ac_vl"), ("test", "ac_ts")):
            curves[key] = [entry[split].get(self.best_metric[0]) for entry in epochs if split in entry]
        return curves


class GalleryTask(Task[RetrievalBatch]):
    """A task whose evaluation scores every text of a split against every video of it."""

    gallery: Gallery  # the split's captions and videos

    @abstractmethod
    def encode_caption(self, caption: str) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and mask of a caption, (X,) each."""

    @abstractmethod
    def pair_scores(self, model: Lavender, video: Encoded, text: Encoded) -> Tensor:
        """Scores of P pairs of a video and a text, (P,); the texts have no pads."""


def labelled_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled rows of (K, V), (K,); 0, with a gradient of 0, where there are none."""
    if labels.numel() == 0:
        return logits.sum() * 0.0
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)


@torch.no_grad()
def training_figures(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What training says beside its loss: `acc` over the labelled rows of (K, n), (K,), and whether there are none."""
    known = (labels != IGNORED).sum()
    right = (logits.argmax(dim=-1) == labels).sum() / known.clamp(min=1)
    return {"acc": right.float(), "count_unlabelled_batches": (known == 0).float()}


def select_labelled(states: Tensor, labels: Tensor, places: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """States (B, X, D) and labels (B, X) → those of the K labelled positions: (K, D), (K,), row by row.

    Args:
        places: of those positions, (K,), as a batch has them; without them they are looked for.
    """
    places = places_of(labels) if places is None else places
    return states.flatten(0, 1).index_select(0, places), labels.flatten().index_select(0, places)
