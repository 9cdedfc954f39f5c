"""THE training loop, for every task: epochs, parts, steps; after each part evaluation, checkpoint, logs."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavender.config.schema import Config
from lavender.data.loaders import Loader
from lavender.engine.best import best_number, best_on_test, by_task, history, tasks_of
from lavender.engine.checkpoint import save_weights
from lavender.engine.evaluator import evaluate, in_words, report_faults
from lavender.engine.optim import set_learning_rates
from lavender.engine.output import RunFolder
from lavender.engine.parallel import Engine
from lavender.engine.running import RunningMeans
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
        batches = sum(part.batches(config.size_batch) for part in self.parts) * config.size_epoch
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
            figures = self.evaluate(self.task.evaluation_sets(), checkpoint)
            self.results = {"zero_shot": by_task(figures), "epochs": []}
            self.write_results()
            self.keep_predictions(self.results["zero_shot"])
        for epoch in range(1, self.config.size_epoch + 1):
            for part in self.parts:
                loader = part.loader()
                loader.set_epoch(epoch)
                entry: dict[str, Any] = {"epoch": epoch, "dataset": part.dataset, "part": part.number}
                entry["train"] = self.train(
                    loader, f"epoch {epoch}/{self.config.size_epoch}, {part.dataset} {part.number}"
                )
                entry |= by_task(self.evaluate(self.task.evaluation_sets(part), self.checkpoint(epoch, part)))
                self.results["epochs"].append(entry)
                self.save(epoch, part)
                self.keep_predictions(entry)
        self.choose_best()
        return self.results

    def train(self, loader: Loader, description: str) -> Metrics:
        """One pass over a part; returns the mean of each loss over the steps that have it (and `count_*` summed)."""
        self.engine.model.train()
        figures: Metrics = {}
        running = RunningMeans()
        faults: list[str] = []
        samples = 0
        bar = progress(loader, desc=description, unit="batch")
        for number, batch in enumerate(bar, start=1):
            faults += batch["faults"]
            samples += len(batch["index"])
            rate = set_learning_rates(self.engine.optimizer, self.step, self.total_steps)
            latest = self.train_batch(batch)
            running.add(latest)
            figures |= latest
            clips = len(batch["index"]) * distributed.world_size() * (bar.format_dict["rate"] or 0)
            shown = {"loss": f"{latest['loss']:.3f}", "lr": f"{rate:.1e}", "clips_per_second": f"{clips:.1f}"}
            bar.set_postfix(shown | running.of_task(batch.get("task", "")), refresh=False)
            if number % self.config.logging_steps == 0 or number == len(loader):
                LOGGER.info(
                    "%s, step %d/%d: %s; lr %.2e, gradient norm %.2f, %s",
                    *(description, number, len(loader), in_words(running.means()), rate, self.engine.grad_norm),
                    memory_in_use(self.device),
                )
                for name, value in {**figures, "learning_rate": rate, "gradient_norm": self.engine.grad_norm}.items():
                    self.folder.curve(f"train/{name}", value, self.step)
        shares = distributed.gather_objects(samples)
        LOGGER.info("%s: %d samples (%s by process)", description, sum(shares), " + ".join(map(str, shares)))
        bad = report_faults(distributed.gather_objects(faults), description)
        return {**running.means(), **running.counts(), **({"bad_samples": bad} if bad else {})}

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
        for task, splits in tasks_of(entry).items():
            for split in splits:
                evaluated = [other for other in self.results["epochs"] if split in tasks_of(other).get(task, {})]
                last = len(evaluated) - 1
                keep = not evaluated or best_number(history(evaluated, task), self.task.choice_of(task)) == last
                self.folder.settle_predictions(f"{task}/{split}" if task else split, keep)

    def choose_best(self) -> None:
        """The epoch that is best on validation (the last one where there is none), with its test figures.

        Of several tasks each has its own: `best` is then `{"tasks": {task: …}}`.
        """
        entries = self.results["epochs"]
        if not entries:
            return
        best = {task: self.best_of(task) for task in tasks_of(entries[-1])}
        self.results["best"] = best.get("") or {"tasks": best}
        self.folder.write("results.json", self.results)

    def best_of(self, task: str) -> dict[str, Any]:
        """The best entry of a task, without what training said; the log tells it."""
        entries, choice = self.results["epochs"], self.task.choice_of(task)
        past = history(entries, task) if task else entries
        best = {key: value for key, value in past[best_number(past, choice)].items() if key != "train"}
        LOGGER.info("%sbest on validation (%s): %s", f"{task}: " if task else "", choice[0], best)
        tested = best_on_test(past, choice)
        if tested is not None:
            LOGGER.info("best on test, chosen on test itself (do not report): %s", tested["test"])
        return best
