"""THE training loop, for every task: epochs, parts, steps; after each part evaluation, checkpoint, logs."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavender.config.schema import Config
from lavender.data.loaders import Loader, steps_in_epoch, training_loader
from lavender.engine.checkpoint import save_weights
from lavender.engine.evaluator import evaluate, in_words, report_faults
from lavender.engine.optim import set_learning_rates
from lavender.engine.output import RunFolder
from lavender.engine.parallel import Engine
from lavender.runtime import distributed
from lavender.runtime.device import memory_in_use, to_device
from lavender.runtime.errors import ConfigError, TrainingError
from lavender.runtime.logging import LOGGER, progress
from lavender.tasks.base import Metrics, Task, TrainingPart


class Trainer:
    """Runs a task on an engine, from the zero-shot evaluation to the best epoch.

    `results` is what `results.json` holds: `zero_shot`, `epochs` (an entry for each part of each epoch) and `best`.
    """

    def __init__(self, task: Task, engine: Engine, config: Config, device: torch.device, folder: RunFolder):
        self.task, self.engine, self.config, self.device, self.folder = task, engine, config, device, folder
        self.parts = task.training_parts() if config.size_epoch else []
        batches = sum(steps_in_epoch(part.samples, config.size_batch) for part in self.parts) * config.size_epoch
        self.total_steps = batches // config.gradient_accumulation
        if self.parts and not self.total_steps:
            raise ConfigError(
                f"gradient_accumulation is {config.gradient_accumulation}, but the whole run has {batches} batches: "
                "the weights would never be updated"
            )
        self.step = 0  # optimizer steps done
        self.last_checkpoint = ""
        self.results: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """The whole run; returns the results."""
        self.results["epochs"] = []
        self.save(0, None)
        if self.config.path_ckpt or not self.config.size_epoch:
            if not self.config.path_ckpt:
                LOGGER.info("path_ckpt is empty and size_epoch 0: the weights as initialised are evaluated")
            checkpoint = Path(self.config.path_ckpt or self.checkpoint(0, None))
            self.results = {"zero_shot": self.evaluate(self.task.evaluation_sets(), checkpoint), "epochs": []}
            self.write_results()
            self.keep_predictions(self.results["zero_shot"])
        for epoch in range(1, self.config.size_epoch + 1):
            for part in self.parts:
                loader = training_loader(part.open())
                loader.set_epoch(epoch)
                entry: dict[str, Any] = {"epoch": epoch, "dataset": part.dataset, "part": part.number}
                entry["train"] = self.train(
                    loader, f"epoch {epoch}/{self.config.size_epoch}, {part.dataset} {part.number}"
                )
                entry.update(self.evaluate(self.task.evaluation_sets(part), self.checkpoint(epoch, part)))
                self.results["epochs"].append(entry)
                self.save(epoch, part)
                self.keep_predictions(entry)
        self.choose_best()
        return self.results

    def train(self, loader: Loader, description: str) -> Metrics:
        """One pass over a part; returns the mean of each loss over its steps (and `count_*` summed)."""
        self.engine.model.train()
        sums: dict[str, float] = defaultdict(float)
        faults: list[str] = []
        samples = 0
        bar = progress(loader, desc=description, unit="batch")
        for number, batch in enumerate(bar, start=1):
            faults += batch["faults"]
            samples += len(batch["index"])
            rate = set_learning_rates(self.engine.optimizer, self.step, self.total_steps)
            figures = self.train_batch(batch)
            for name, value in figures.items():
                sums[name] += value
            clips = len(batch["index"]) * distributed.world_size() * (bar.format_dict["rate"] or 0)
            bar.set_postfix(
                loss=f"{figures['loss']:.3f}", lr=f"{rate:.1e}", clips_per_second=f"{clips:.1f}", refresh=False
            )
            if number % self.config.logging_steps == 0 or number == len(loader):
                means = {name: value / number for name, value in sums.items() if not name.startswith("count_")}
                LOGGER.info(
                    "%s, step %d/%d: %s; lr %.2e, gradient norm %.2f, %s",
                    *(description, number, len(loader), in_words(means), rate, self.engine.grad_norm),
                    memory_in_use(self.device),
                )
                for name, value in {**figures, "learning_rate": rate, "gradient_norm": self.engine.grad_norm}.items():
                    self.folder.curve(f"train/{name}", value, self.step)
        shares = distributed.gather_objects(samples)
        LOGGER.info("%s: %d samples (%s by process)", description, sum(shares), " + ".join(map(str, shares)))
        bad = report_faults(distributed.gather_objects(faults), description)
        counted = {name: value * distributed.world_size() for name, value in sums.items() if name.startswith("count_")}
        means = {name: value / max(len(loader), 1) for name, value in sums.items() if name not in counted}
        return {**means, **counted, **({"bad_samples": bad} if bad else {})}

    def train_batch(self, batch: dict[str, Any]) -> Metrics:
        """One batch, forward to (perhaps) optimizer step; returns its losses, averaged over the processes."""
        figures: Metrics = {}

        def check(losses: dict[str, Tensor]) -> None:
            mean = distributed.mean(torch.stack([value.detach().float() for value in losses.values()]))
            figures.update(zip(losses, mean.tolist(), strict=True))
            if not math.isfinite(figures["loss"]):
                self.stop("loss", losses, batch)

        ends_step = self.engine.completes_step
        self.task.step = self.step
        losses = self.engine.train_batch(self.task.loss, to_device(batch, self.device), check)
        if not math.isfinite(self.engine.grad_norm):
            self.stop("gradient", losses, batch)
        self.step += ends_step
        return figures

    def stop(self, what: str, losses: dict[str, Tensor], batch: dict[str, Any]) -> None:
        """Ends a run whose loss or gradient is not finite, on all processes."""
        guilty = what == "gradient" or not math.isfinite(float(losses["loss"].detach()))
        mine = batch.get("video", batch["index"].tolist()) if guilty else []
        culprits = [name for share in distributed.gather_objects(mine) for name in share]
        values = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())
        raise TrainingError(
            f"the {what} is not finite at step {self.step + 1} of {self.total_steps} ({values}), in the batch of "
            f"{', '.join(map(str, culprits))}; {self.kept()}. Look at them, or lower --lr, or set --max_grad_norm 1"
        )

    def kept(self) -> str:
        """What there is to go back to."""
        saved = self.last_checkpoint
        return f"the last good checkpoint is {saved}" if saved else "nothing was saved yet"

    def evaluate(self, sets: dict, checkpoint: Path) -> dict[str, Metrics]:
        """Metrics of every split; `checkpoint` is the file of the weights, or what it will be.

        Raises:
            TrainingError: one is not finite: the weights are lost, and are not saved.
        """
        figures = {
            split: evaluate(self.task, self.engine, split, dataset, self.device, self.folder, checkpoint)
            for split, dataset in sets.items()
        }
        for split, metrics in figures.items():
            for name, value in metrics.items():
                if not math.isfinite(value):
                    raise TrainingError(f"{name} on {split} is not finite after step {self.step}; {self.kept()}")
                self.folder.curve(f"{split}/{name}", value, self.step)
        return figures

    def checkpoint(self, epoch: int, part: TrainingPart | None) -> Path:
        """Where the weights after a part of an epoch are saved."""
        return self.folder.path / self.task.checkpoint_name(epoch, part)

    def save(self, epoch: int, part: TrainingPart | None) -> None:
        """A checkpoint under its released name, and the logs so far."""
        path = self.checkpoint(epoch, part)
        state = self.engine.weights()
        if distributed.is_main():
            save_weights(state, path)
            LOGGER.info("saved %s", path)
        self.last_checkpoint = str(path)
        self.write_results()
        distributed.barrier()

    def write_results(self) -> None:
        """`results.json` and `log.json` as they stand."""
        self.folder.write("log.json", self.task.curves(self.results["epochs"]))
        self.folder.write("results.json", self.results)

    def keep_predictions(self, entry: dict[str, Any]) -> None:
        """Leaves, of each split's predictions, those of its best entry so far."""
        for split in entry:
            evaluated = [other for other in self.results["epochs"] if split in other]
            self.folder.settle_predictions(split, keep=not evaluated or self.best_of(evaluated) is entry)

    def best_of(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        """The entry that is best on validation; the last one where there is none."""
        name, better = self.task.best_metric
        scored = {number: _validation(entry, name) for number, entry in enumerate(entries)}
        with_value = [number for number, value in scored.items() if value is not None and math.isfinite(value)]
        return entries[better(with_value, key=lambda number: scored[number]) if with_value else -1]

    def choose_best(self) -> None:
        """The epoch that is best on validation (the last one where there is none), with its test figures."""
        entries = self.results["epochs"]
        if not entries:
            return
        name, better = self.task.best_metric
        best = self.best_of(entries)
        self.results["best"] = {key: value for key, value in best.items() if key != "train"}
        LOGGER.info("best on validation (%s): %s", name, self.results["best"])
        tested = [entry for entry in entries if math.isfinite(entry.get("test", {}).get(name, math.nan))]
        if tested:  # the released code printed this; a choice made on the test split is no result
            chosen = better(tested, key=lambda entry: entry["test"][name])
            LOGGER.info("best on test, chosen on test itself (do not report): %s", chosen["test"])
        self.folder.write("results.json", self.results)


def _validation(entry: dict[str, Any], name: str) -> float | None:
    return next((entry[split].get(name) for split in entry if split.endswith("val")), None)
