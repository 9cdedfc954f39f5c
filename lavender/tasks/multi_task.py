"""Multi-task training with one set of weights, one task per step (paper, section 3.3): with MLM head, and baseline.

It composes the single tasks: every loss, prediction and metric is theirs.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor, nn

from lavender.config.schema import Config
from lavender.data.batch import Batch
from lavender.data.formats import format_of
from lavender.data.ids import HeldOut, without_extension
from lavender.data.loaders import Loader
from lavender.data.mixing import MixedDataset, draw_weights, mixed_loader
from lavender.data.samples import ClipDataset
from lavender.models.heads import classifier_name
from lavender.models.lavender import Heads, Lavender
from lavender.runtime.errors import ConfigError
from lavender.runtime.logging import LOGGER
from lavender.tasks.base import Clock, Task, Trainable, TrainingPart
from lavender.tasks.caption import CaptionTask
from lavender.tasks.qamc import QAMCTask, QAMCTaskSpecificTask
from lavender.tasks.qaoe import FillInTheBlankTask, QAOETask, QAOETaskSpecificTask
from lavender.tasks.retmc import RetMCTask, RetMCTaskSpecificTask
from lavender.tasks.retrieval import RetrievalTask, RetrievalTaskSpecificTask
from lavender.tasks.splits import of_task, task_and_split

RETRIEVAL_TEMPERATURE = 0.05  # default of the baseline


@dataclass(frozen=True)
class MixedPart(TrainingPart):
    """Epoch over several data sets; `open` returns the mixture, `weights` are those of `draw_weights`."""

    weights: Mapping[str, float]

    def batches(self, size_batch: int) -> int:
        return len(self.loader())

    def loader(self) -> Loader:
        return mixed_loader(self.open(), self.weights)  # type: ignore[arg-type]


class MultiTask(Trainable[Batch]):
    """All tasks in `datasets`, sharing the MLM head; losses, predictions and metrics are those of the tasks."""

    config_type = "multi-task"
    classes: ClassVar[Mapping[str, type[Task]]] = {
        "retrieval": RetrievalTask,
        "qamc": QAMCTask,
        "retmc": RetMCTask,
        "qaoe": QAOETask,
        "fib": FillInTheBlankTask,
        "captioning": CaptionTask,
    }

    def __init__(self, config: Config, clock: Clock | None = None):
        if not config.datasets:
            raise ConfigError('"datasets" is empty: list the tasks, each with its type and task name')
        for written in config.datasets:  # also in args.json, for single-task scripts
            if format_of(Config(**written)) == "qamc":
                written.setdefault("task_token", "mc")
        entries = config.entries()
        names = [entry.task for entry in entries]
        self.tasks: dict[str, Task] = {}
        clock = clock or Clock()
        for entry in entries:
            name = entry.task if names.count(entry.task) == 1 else f"{entry.type} {entry.task}"
            self.tasks[name] = self.make_task(entry, clock)
        self.heads = self.all_heads()
        super().__init__(config, clock)

    def make_task(self, entry: Config, clock: Clock) -> Task:
        """Builds the task of an entry of `datasets`."""
        return self.classes[format_of(entry)](entry, clock)

    def all_heads(self) -> Heads:
        """Union of the heads of all tasks."""
        heads = [task.heads for task in self.tasks.values()]
        classifiers = {name: size for each in heads for name, size in each.classifiers.items()}
        mlm, tokens = any(each.mlm for each in heads), all(each.task_tokens for each in heads)
        return Heads(mlm=mlm, task_tokens=tokens, classifiers=classifiers)

    def responsible(self, key: str) -> tuple[Task, str]:
        name, split = task_and_split(key)
        return self.tasks[name], split

    def choice_of(self, task: str) -> tuple[str, Callable]:
        return self.tasks[task].best_metric

    # --- data ---------------------------------------------------------------------------------------------------------

    @cached_property
    def training_sets(self) -> dict[str, ClipDataset]:
        """Task → training data."""
        return {name: part.open() for name, task in self.tasks.items() for part in task.training_parts()}

    def training_parts(self) -> list[TrainingPart]:
        mixture = MixedDataset(self.config, self.training_sets)
        sizes = {name: len(dataset) for name, dataset in mixture.datasets.items()}
        weights = draw_weights(sizes, self.config.task_sampling, self.config.task_temperature)
        for name, dataset in mixture.datasets.items():
            LOGGER.info(
                "%s: %d training samples, batches of %d, %.1f %% of the steps",
                *(name, sizes[name], dataset.config.size_batch, 100 * weights[name] / sum(weights.values())),
            )
        self._warn_of_leaks()
        return [MixedPart(self.run_name(), 0, sum(sizes.values()), lambda: mixture, weights)]  # type: ignore[arg-type, return-value]

    def evaluation_sets(self, part: TrainingPart | None = None) -> dict[str, ClipDataset]:
        return {
            of_task(name, split): dataset
            for name, task in self.tasks.items()
            for split, dataset in task.evaluation_sets(part).items()
        }

    def _warn_of_leaks(self) -> None:
        """Warns of test videos of one task that another task of the same data set is trained on."""
        tested: dict[str, dict[str, HeldOut]] = {}
        for key, dataset in self.evaluation_sets().items():
            name = task_and_split(key)[0]
            tested.setdefault(self._data_set(name), {})[key] = HeldOut(dataset.video_ids())
        for name, dataset in self.training_sets.items():
            trained = {without_extension(video) for video in dataset.video_ids()}
            data_set = self._data_set(name)
            for key, videos in tested.get(data_set, {}).items():
                if shared := [video for video in trained if video in videos]:
                    LOGGER.warning(
                        "%d of the %d training videos of %s are evaluated on by %s; to take them out: "
                        "python _tools/multi_task_vid_filter.py --dataset %s",
                        *(len(shared), len(trained), name, key, data_set),
                    )

    def _data_set(self, name: str) -> str:
        """Data set of a task; captioning has no such option, so there it is the first part of the task's name."""
        config = self.tasks[name].config
        return str(config.dataset or config.task.rpartition("-")[0])

    # --- model --------------------------------------------------------------------------------------------------------

    def loss(self, model: Lavender, batch: Batch) -> dict[str, Tensor]:
        """Loss of the batch's task; its metrics are also reported under its name."""
        name = batch["task"]
        task = self.tasks[name]
        metrics = task.loss(model, batch)
        own = {of_task(name, key): value for key, value in metrics.items() if not key.startswith("count_")}
        idle = [parameter.flatten()[0] * 0.0 for parameter in self.idle_parameters(model, task)]
        return {
            "loss": metrics["loss"] + sum(idle),
            "count_unlabelled_batches": metrics["count_unlabelled_batches"],
            **own,
        }

    def idle_parameters(self, model: Lavender, task: Task) -> list[nn.Parameter]:
        """Parameters of other tasks' heads, which get zero gradients: each step must reach the same parameters.

        DeepSpeed requires this, and it makes steps with and without DDP equal.
        """
        used = (*(f"{name}." for name in task.heads.classifiers), *(("fc_mtm.",) if task.heads.mlm else ()))
        return [
            parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and name.startswith(("fc", "emb_task")) and not name.startswith(used)
        ]

    def unused_parameters(self) -> tuple[str, ...]:
        beginnings = [set(task.unused_parameters()) for task in self.tasks.values()]
        return tuple(sorted(set.intersection(*beginnings)))

    def curves(self, epochs: list[dict[str, Any]]) -> dict[str, Any]:
        """Task → its curves."""
        curves = {}
        for name, task in self.tasks.items():
            losses = [{"loss": entry["train"].get(of_task(name, "loss"))} for entry in epochs]
            own = [entry.get("tasks", {}).get(name, {}) for entry in epochs]
            curves[name] = task.curves([{"train": loss, **splits} for loss, splits in zip(losses, own, strict=True)])
        return curves


class MultiTaskMultiHeadTask(MultiTask):
    """Baseline with a classifier per task; retrieval and multiple choice by matching share `fc`."""

    classes: ClassVar[Mapping[str, type[Task]]] = {
        "retrieval": RetrievalTaskSpecificTask,
        "qamc": QAMCTaskSpecificTask,
        "retmc": RetMCTaskSpecificTask,
        "qaoe": QAOETaskSpecificTask,
        "fib": QAOETaskSpecificTask,
        "captioning": CaptionTask,
    }

    def make_task(self, entry: Config, clock: Clock) -> Task:
        form = format_of(entry)
        if entry.enable_prompt or entry.enable_task_token:  # only captioning would use one
            raise ConfigError("the task-specific models take no prompt and no task token: use the MLM script")
        if form == "retrieval" and "temp" not in entry.given:
            entry = dataclasses.replace(entry, temp=RETRIEVAL_TEMPERATURE)
        task = self.classes[form]
        if issubclass(task, QAMCTaskSpecificTask | QAOETaskSpecificTask):
            return task(entry, clock, classifier_name(entry.type, entry.task))
        return task(entry, clock)

    def all_heads(self) -> Heads:
        return dataclasses.replace(super().all_heads(), task_tokens=False)
