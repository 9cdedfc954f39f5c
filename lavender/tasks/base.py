"""Interface of a task: data, loss, prediction, metrics. The engine depends on this file, not on any task."""

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
from lavender.text.masking import IGNORED, label_positions
from lavender.text.prompts import PROMPTS
from lavender.text.tokens import TextTokenizer

Record = dict[str, Any]  # prediction of one sample, with its `index` in the split
Metrics = dict[str, float]
BatchT = TypeVar("BatchT", bound=Batch)  # batch type of its data sets


@dataclass(frozen=True)
class TrainingPart:
    """Part of an epoch: after each part the run validates and saves.

    Args:
        dataset: name of the data set; number: number of the part, from 0.
        samples: number of samples.
        open: opens the data; called when the part begins, so that only one part is open at a time.
    """

    dataset: str
    number: int
    samples: int
    open: Callable[[], ClipDataset]

    def batches(self, size_batch: int) -> int:
        """Number of batches of the part on each process."""
        return steps_in_epoch(self.samples, size_batch)

    def loader(self) -> Loader:
        """Loader of this process's share."""
        return training_loader(self.open())


@dataclass
class Clock:
    """Progress of training: the trainer counts, and its tasks read it."""

    step: int = 0  # optimizer steps done


class Trainable(ABC, Generic[BatchT]):
    """Interface between the engine and a task or several tasks.

    Args:
        clock: clock of the enclosing multi-task; None: a new one.
    """

    config_type: str  # the `type` of its configurations
    dataset_types: tuple[str, ...] = ()  # allowed values of `dataset_type`; empty for all
    related_types: tuple[str, ...] = ()  # other types whose checkpoints may be evaluated on this task, as released
    heads: Heads
    token = "vtm"  # default of `task_token`

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
        """Prompt before the texts with `enable_prompt`."""
        return PROMPTS["vtm"]

    def prefix(self, model: Lavender) -> Encoded | None:
        """Prompt or task token before the text, (1, P, D); None with neither option."""
        if self._prompt is not None:
            return model.prompt(self._prompt.to(model.enc_img.emb_cls.device))
        return model.task_token(self.config.task_token or self.token) if self.config.enable_task_token else None

    @abstractmethod
    def training_parts(self) -> list[TrainingPart]:
        """Parts of one epoch, in order."""

    @cached_property
    def parts(self) -> list[TrainingPart]:
        """Parts of one epoch, cached; empty if nothing is trained."""
        return self.training_parts() if self.config.size_epoch else []

    def check_frames(self) -> None:
        """Raises DataError if videos have fewer frames than `size_frame`; checks a few of each data set."""
        first = {part.dataset: part for part in reversed(self.parts)}  # one part is open at a time
        for part in first.values():
            part.open().check_frames()
        for dataset in self.evaluation_sets().values():
            dataset.check_frames()

    @abstractmethod
    def evaluation_sets(self, part: TrainingPart | None = None) -> dict[str, ClipDataset]:
        """Split → data set, for the evaluation after `part`; None: all splits."""

    @abstractmethod
    def responsible(self, key: str) -> tuple["Task", str]:
        """Task that predicts and scores an entry of `evaluation_sets`, and its name for the split."""

    @abstractmethod
    def choice_of(self, task: str) -> tuple[str, Callable]:
        """Validation metric that selects the best epoch, and `min` or `max`."""

    @abstractmethod
    def loss(self, model: Lavender, batch: BatchT) -> dict[str, Tensor]:
        """`loss` and its parts, as scalars, with gradients if differentiable."""

    def unused_parameters(self) -> tuple[str, ...]:
        """Name prefixes of parameters that no loss of this task reaches; they are frozen."""
        return ("enc_img.emb_odr",) if self.config.enable_task_token else ("enc_img.emb_odr", "emb_task")

    def run_name(self) -> str:
        """Middle part of the output folder's name."""
        return self.config.task or self.config_type

    def checkpoint_name(self, epoch: int, part: TrainingPart | None) -> str:
        """Released name of a checkpoint; epoch 0 is before training (`part` is None then)."""
        return f"ckpt_violet_{self.config.task}_{epoch}.pt"

    @abstractmethod
    def curves(self, epochs: list[dict[str, Any]]) -> dict[str, Any]:
        """Content of `log.json` under the released keys, from the entries of `results.json`."""


class Task(Trainable[BatchT]):
    """A task of the released recipe. Another task needs one file with a subclass, one JSON and one script."""

    best_metric: tuple[str, Callable] = ("acc", max)  # validation metric that selects the best epoch

    def responsible(self, key: str) -> tuple["Task", str]:
        return self, key

    def choice_of(self, task: str) -> tuple[str, Callable]:
        return self.best_metric

    @abstractmethod
    def predict(self, model: Lavender, batch: BatchT) -> list[Record]:
        """Predicts one record per sample."""

    @abstractmethod
    def metrics(self, records: list[Record], split: str) -> Metrics:
        """Metrics of a split from all its records, in the split's order."""

    def earlier_records(self, split: str, checkpoint: Path, weights: Callable[[], str]) -> list[Record] | None:
        """Records stored beside a checkpoint, if made with the same weights and options; else None.

        Args:
            checkpoint: file of the weights, which may not exist yet; weights: returns their digest.
        """
        return None

    def publish(
        self, split: str, checkpoint: Path, weights: Callable[[], str], records: list[Record], metrics: Metrics
    ) -> None:
        """Writes the files that users of the released code expect beside a checkpoint; arguments: `earlier_records`."""
        return None

    def curves(self, epochs: list[dict[str, Any]]) -> dict[str, Any]:
        curves: dict[str, Any] = {"ls_tr": [entry["train"]["loss"] for entry in epochs]}
        for split, key in (("val", "ac_vl"), ("test", "ac_ts")):
            curves[key] = [entry[split].get(self.best_metric[0]) for entry in epochs if split in entry]
        return curves


class GalleryTask(Task[RetrievalBatch]):
    """Task whose evaluation scores every text of a split with every video of it."""

    gallery: Gallery  # captions and videos of the split

    @abstractmethod
    def encode_caption(self, caption: str) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and mask of a caption, (X,) each."""

    @abstractmethod
    def pair_scores(self, model: Lavender, video: Encoded, text: Encoded) -> Tensor:
        """Scores of P pairs of a video and a text, (P,); texts are without padding."""


def labelled_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over labelled rows (K, V), (K,); 0 with zero gradients if there are none."""
    if labels.numel() == 0:
        return logits.sum() * 0.0
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)


@torch.no_grad()
def training_metrics(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Training metrics beside the loss: `acc` over labelled rows (K, n), (K,), and whether there are none."""
    known = (labels != IGNORED).sum()
    right = (logits.argmax(dim=-1) == labels).sum() / known.clamp(min=1)
    return {"acc": right.float(), "count_unlabelled_batches": (known == 0).float()}


def select_labelled(states: Tensor, labels: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Selects the K labelled positions of states (B, X, D) and labels (B, X): (K, D), (K,), row by row.

    Args:
        positions: flat positions, (K,), as given by a batch; None: they are computed.
    """
    positions = label_positions(labels) if positions is None else positions
    return states.flatten(0, 1).index_select(0, positions), labels.flatten().index_select(0, positions)
