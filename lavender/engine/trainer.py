"""THE training loop for all tasks: epochs, parts and steps, each part followed by evaluation, checkpoint and logs."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavender.config.load import read_object
from lavender.config.schema import Config
from lavender.data.batch import with_label_positions
from lavender.data.loaders import Loader, LoaderCache
from lavender.engine.best import best_number, best_on_test, by_task, evaluated_tasks, has_validation, history
from lavender.engine.checkpoint import save_weights
from lavender.engine.engines import Engine, StepMetrics
from lavender.engine.evaluator import digest_of, evaluate, format_metrics, report_faults
from lavender.engine.optim import set_learning_rates
from lavender.engine.output import RunFolder
from lavender.engine.profile import StepProfile
from lavender.engine.resume import RankState, StateWriter, TrainState, load_state, remove_state, remove_temporaries
from lavender.engine.running import RunningMeans
from lavender.runtime import distributed
from lavender.runtime.device import memory_in_use, to_device
from lavender.runtime.errors import ConfigError, Stopped, TrainingError
from lavender.runtime.logging import BAR_SHOWS_IT, LOGGER, Pace, progress
from lavender.runtime.signals import StopRequest, deferred_stop
from lavender.tasks.base import Metrics, Trainable, TrainingPart
from lavender.tasks.splits import of_task, tasks_of


class Trainer:
    """Runs a task on an engine, from the zero-shot evaluation to the best epoch.

    `results` is what `results.json` holds: `zero_shot`, `epochs` (an entry for each part of each epoch) and `best`.
    """

    def __init__(self, task: Trainable, engine: Engine, config: Config, device: torch.device, folder: RunFolder):
        self.task, self.engine, self.config, self.device, self.folder = task, engine, config, device, folder
        self.parts = task.parts
        batches = sum(part.batches(config.size_batch) for part in self.parts) * config.size_epoch
        self.total_steps = batches // config.gradient_accumulation
        if self.parts and not self.total_steps:
            raise ConfigError(
                f"gradient_accumulation is {config.gradient_accumulation}, but the whole run has {batches} batches: "
                "the weights would never be updated"
            )
        self.clock = task.clock
        self.profile = StepProfile(config.profile, engine, device, folder.path)
        self.batches = 0  # of the whole run
        self.stop_asked = StopRequest()
        self.stop_agreed = False  # on all processes
        self.last_checkpoint = ""
        self.loaders = LoaderCache()
        self.states = StateWriter(folder.path, engine, config.keep_last)
        self.results: dict[str, Any] = {}

    @property
    def step(self) -> int:
        """Number of optimizer steps so far."""
        return self.clock.step

    def run(self) -> dict[str, Any]:
        """Runs the whole training, or the rest of a resumed one; returns the results."""
        try:
            return self.run_parts()
        finally:
            self.states.close()
            self.loaders.close()

    def run_parts(self) -> dict[str, Any]:
        """Like `run`, but leaves the DataLoader workers running."""
        start, process = self.resume(self.folder.state) if self.folder.state else (self.begin(), RankState())
        for epoch, number in product(range(1, self.config.size_epoch + 1), range(len(self.parts))):
            if (epoch, number) < start.place:
                continue
            if (epoch, number) != start.place:
                start, process = TrainState(epoch, number), RankState()
            self.run_part(start, process)
        self.choose_best()
        remove_state(self.folder.path)
        return self.results

    def begin(self) -> TrainState:
        """Saves checkpoint 0 and runs the zero-shot evaluation; a run that only evaluates saves no checkpoint."""
        self.results["epochs"] = []
        if self.config.size_epoch or self.config.save_evaluated:
            self.save(0, None)
        if self.config.path_ckpt or not self.config.size_epoch:
            if not self.config.path_ckpt:
                LOGGER.warning("path_ckpt is empty and size_epoch 0: random weights are evaluated (allow_random)")
            checkpoint = Path(self.config.path_ckpt or self.checkpoint(0, None))
            by_split = self.evaluate(self.task.evaluation_sets(), checkpoint)
            self.results = {"zero_shot": by_task(by_split), "epochs": []}
            self.write_results()
            self.keep_predictions(self.results["zero_shot"])
        return TrainState()

    def resume(self, state: Path) -> tuple[TrainState, RankState]:
        """Resumes a run from a saved state; returns its position and the state of this process."""
        remove_temporaries(self.folder.path)
        self.results = read_object(self.folder.path / "results.json")
        position, process = load_state(state, self.engine)
        self.clock.step, self.batches = position.step, position.all_batches
        self.engine.resume_batches(position.all_batches)
        self.last_checkpoint = str(self.kept_checkpoints()[-1])
        LOGGER.info(
            "resumed from %s: epoch %d, part %d, %d batches of it, step %d of %d",
            *(state, position.epoch, position.part, position.batches, self.step, self.total_steps),
        )
        return position, process

    def _place_of(self, entry: dict[str, Any]) -> tuple[int, TrainingPart]:
        """Epoch and part of an entry of the results."""
        (part,) = (part for part in self.parts if (part.dataset, part.number) == (entry["dataset"], entry["part"]))
        return entry["epoch"], part

    def run_part(self, start: TrainState, process: RankState) -> None:
        """Trains on one part of an epoch from `start` on, then evaluates and saves."""
        epoch, part = start.epoch, self.parts[start.part]
        place: dict[str, Any] = {"epoch": epoch, "dataset": part.dataset, "part": part.number}
        if any(place.items() <= entry.items() for entry in self.results["epochs"]):
            draw_as_loaders(len(self.task.evaluation_sets(part)))
            self.drop_checkpoints()
            return  # the run was stopped after this part was complete
        if start.figures is None:
            with deferred_stop(self.stop_asked):
                start.figures = self.train(part, start, process)
                saved = self.save_state(start, process)
            if saved and any(distributed.gather_objects(self.stop_asked.asked)):  # asked after the last step
                raise self.stopped(saved)
        entry = {**place, "train": start.figures}
        sets = self.task.evaluation_sets(part)
        if self.is_evaluated(start.place):
            entry |= by_task(self.evaluate(sets, self.checkpoint(epoch, part)))
        else:
            draw_as_loaders(len(sets))  # training must not depend on `eval_every`
        self.states.wait()  # results must not be ahead of the state that resumes them
        self.results["epochs"].append(entry)
        self.save(epoch, part)
        self.keep_predictions(entry)

    def is_evaluated(self, place: tuple[int, int]) -> bool:
        """Whether an evaluation follows the part at `place`: every `eval_every` parts, and after the last."""
        done = (place[0] - 1) * len(self.parts) + place[1] + 1
        return done % self.config.eval_every == 0 or done == self.config.size_epoch * len(self.parts)

    def save_state(self, position: TrainState, process: RankState) -> Path | None:
        """Saves a resume state; returns its folder, or None in the middle of an accumulated step."""
        if self.batches % self.config.gradient_accumulation:
            return None
        position.step, position.all_batches = self.step, self.batches
        position.engine, position.processes = self.engine.name, distributed.world_size()
        return self.states.save(position, process)

    def stopped(self, saved: Path | None) -> Stopped:
        """Waits for the state and returns the exception that ends a stopped run; it names the state to resume from."""
        self.states.wait()
        distributed.barrier()  # a process that exits now has the others ended by their launcher
        return Stopped(f"stopped after step {self.step} of {self.total_steps}; to go on: --resume {saved}")

    def train(self, part: TrainingPart, start: TrainState, process: RankState) -> Metrics:
        """Trains one pass over a part; returns each loss's mean over the steps that have it, and sums of `count_*`."""
        loader = self.loaders.of("training", part, part.loader)
        loader.set_epoch(start.epoch)
        loader.start_at(start.batches)
        description = f"epoch {start.epoch}/{self.config.size_epoch}, {part.dataset} {part.number}"
        if not start.batches:
            draw_as_loaders(1)
        running = RunningMeans()
        running.restore(start.running)
        self.train_batches(loader, description, start, running, process)
        shares = distributed.gather_objects(process.samples)
        LOGGER.info("%s: %d samples (%s by process)", description, sum(shares), " + ".join(map(str, shares)))
        bad = report_faults(distributed.gather_objects(process.faults), description)
        return {**running.means(), **running.counts(), **({"bad_samples": bad} if bad else {})}

    def train_batches(
        self, loader: Loader, description: str, position: TrainState, running: RunningMeans, process: RankState
    ) -> None:
        """Trains on the remaining batches of a part, logs, and saves resume states."""
        self.engine.model.train()
        newest: Metrics = {}
        pace = Pace()
        watched = self.profile.batches(loader)
        bar = progress(watched, False, desc=description, unit="batch", initial=position.batches, total=len(loader))
        for number, batch in enumerate(bar, start=position.batches + 1):
            process.faults += batch["faults"]
            process.samples += len(batch["index"])
            rate = set_learning_rates(self.engine.optimizer, self.step, self.total_steps)
            latest = self.train_batch(batch)
            running.add(latest)
            newest |= latest
            clips = len(batch["index"]) * distributed.world_size() * (bar.format_dict["rate"] or 0)
            shown = {"loss": f"{latest['loss']:.3f}", "lr": f"{rate:.1e}", "clips_per_second": f"{clips:.1f}"}
            bar.set_postfix(shown | running.of_task(batch.get("task", "")), refresh=False)
            if number % self.config.logging_steps == 0 or number == len(loader):
                if pace.due() or number == len(loader):
                    LOGGER.info(
                        "%s, step %d/%d: %s; lr %.2e, gradient norm %.2f, %.1f clips/s, %s",
                        *(description, number, len(loader), format_metrics(running.means()), rate),
                        *(self.engine.grad_norm, clips, memory_in_use(self.device)),
                        extra=BAR_SHOWS_IT,
                    )
                for name, value in {**newest, "learning_rate": rate, "gradient_norm": self.engine.grad_norm}.items():
                    self.folder.curve(f"train/{name}", value, self.step)
            position.batches, position.running = number, running.state()
            stepped = self.batches % self.config.gradient_accumulation == 0
            if stepped and self.stop_agreed:
                raise self.stopped(self.save_state(position, process))
            every = self.config.save_steps
            if stepped and every and self.step % every == 0 and number < len(loader):
                self.save_state(position, process)

    def train_batch(self, batch: dict[str, Any]) -> Metrics:
        """Trains on one batch, with an optimizer step if due; returns its losses, averaged over the processes."""
        ends_step = self.engine.completes_step
        metrics = BatchMetrics(self, batch)
        losses = self.engine.train_batch(self.task.loss, to_device(with_label_positions(batch), self.device), metrics)
        if not math.isfinite(self.engine.grad_norm):
            self.stop("gradient", losses, batch)
        self.clock.step += ends_step
        self.batches += 1
        return metrics.means

    def stop(self, what: str, losses: dict[str, Tensor], batch: dict[str, Any]) -> None:
        """Ends the run on all processes because the loss or the gradient is not finite."""
        is_offending = what == "gradient" or not math.isfinite(float(losses["loss"].detach()))
        mine = batch.get("video", batch["index"].tolist()) if is_offending else []
        offending = [name for share in distributed.gather_objects(mine) for name in share]
        values = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())
        raise TrainingError(
            f"the {what} is not finite at step {self.step + 1} of {self.total_steps} ({values}), in the batch of "
            f"{', '.join(map(str, offending))}; {self.describe_weights()}. Look at them, or lower --lr, "
            "or set --max_grad_norm 1"
        )

    def describe_weights(self) -> str:
        """Describes the weights that remain, for error messages."""
        if not self.config.size_epoch:
            return f"the weights are those of {self.config.path_ckpt or 'no checkpoint: they are random'}"
        saved = self.last_checkpoint
        return f"the last good checkpoint is {saved}" if saved else "nothing was saved yet"

    def evaluate(self, sets: dict, checkpoint: Path) -> dict[str, Metrics]:
        """Evaluates every split; `checkpoint` is the file that holds the weights, or will hold them.

        Raises:
            TrainingError: a metric is NaN or Inf; the weights are not saved.
        """
        by_split, weights = {}, digest_of(self.engine)
        for split, dataset in sets.items():
            words = (self.task, self.engine, split, dataset, self.device, self.folder, checkpoint, self.step)
            by_split[split] = evaluate(*words, self.loaders, weights)
        draw_as_loaders(len(sets))
        for split, metrics in by_split.items():
            for name, value in metrics.items():
                if not math.isfinite(value):
                    raise TrainingError(
                        f"{name} on {split} is not finite after step {self.step}; {self.describe_weights()}"
                    )
                self.folder.curve(f"{split}/{name}", value, self.step)
        return by_split

    def checkpoint(self, epoch: int, part: TrainingPart | None) -> Path:
        """Path of the checkpoint after a part of an epoch."""
        return self.folder.path / self.task.checkpoint_name(epoch, part)

    def save(self, epoch: int, part: TrainingPart | None) -> None:
        """Saves a checkpoint under its released name, if `keep_checkpoints` keeps it, and writes the logs so far."""
        path = self.checkpoint(epoch, part)
        if path in self.kept_checkpoints():
            state = self.engine.weights()
            if distributed.is_main():
                save_weights(state, path)
                LOGGER.info("saved %s", path)
            self.last_checkpoint = str(path)
        self.write_results()
        self.drop_checkpoints()
        distributed.barrier()

    def kept_checkpoints(self) -> list[Path]:
        """Paths of the checkpoints that `keep_checkpoints` keeps at this point."""
        first, entries = self.checkpoint(0, None), self.results["epochs"]
        saved = [self.checkpoint(*self._place_of(entry)) for entry in entries]
        if self.config.keep_checkpoints == "all" or not saved:
            return [first, *saved]
        if self.config.keep_checkpoints == "last":
            return saved[-1:]
        best = (best_number(history(entries, task), self.task.choice_of(task)) for task in evaluated_tasks(entries))
        return [saved[number] for number in sorted({*best})] or saved[-1:]

    def drop_checkpoints(self) -> None:
        """Removes checkpoints of this run that `keep_checkpoints` does not keep."""
        kept = self.kept_checkpoints()
        for path in (self.checkpoint(0, None), *(self.checkpoint(*self._place_of(e)) for e in self.results["epochs"])):
            if path not in kept and distributed.is_main():
                path.unlink(missing_ok=True)

    def write_results(self) -> None:
        """Writes the current `results.json` and `log.json`."""
        self.folder.write("log.json", self.task.curves(self.results["epochs"]))
        self.folder.write("results.json", self.results)

    def keep_predictions(self, entry: dict[str, Any]) -> None:
        """Keeps the new predictions of each split if `entry` is its best entry so far, and removes them otherwise."""
        for task, splits in tasks_of(entry).items():
            for split in splits:
                evaluated = [other for other in self.results["epochs"] if split in tasks_of(other).get(task, {})]
                last = len(evaluated) - 1
                keep = not evaluated or best_number(history(evaluated, task), self.task.choice_of(task)) == last
                self.folder.settle_predictions(of_task(task, split), keep)

    def choose_best(self) -> None:
        """Selects the epoch with the best validation metric (the last epoch without validation), with its test metrics.

        With several tasks, each has its own best epoch: `best` is then `{"tasks": {task: …}}`.
        """
        entries = self.results["epochs"]
        if not entries:
            return
        best = {task: self.best_of(task) for task in tasks_of(entries[-1])}
        self.results["best"] = best.get("") or {"tasks": best}
        self.folder.write("results.json", self.results)

    def best_of(self, task: str) -> dict[str, Any]:
        """Returns the best entry of a task, without its training metrics, and logs it."""
        entries, choice = self.results["epochs"], self.task.choice_of(task)
        past = history(entries, task) if task else entries
        best = {key: value for key, value in past[best_number(past, choice)].items() if key != "train"}
        name = f"{task}: " if task else ""
        if has_validation(past, choice):
            LOGGER.info("%sbest on validation (%s): %s", name, choice[0], best)
        else:
            LOGGER.info("%sno validation, so the last epoch counts: %s", name, best)
            best["chosen"] = "the last epoch: there is no validation"
        tested = best_on_test(past, choice)
        if tested is not None:
            LOGGER.info("best on test, chosen on test itself (do not report): %s", tested["test"])
        return best


class BatchMetrics(StepMetrics):
    """Losses of a batch, averaged over the processes; `read` ends a run whose loss is not finite.

    The same all-reduce tells all processes whether one of them was asked to stop.
    """

    def __init__(self, trainer: Trainer, batch: dict[str, Any]):
        self.trainer, self.batch = trainer, batch
        self.losses: dict[str, Tensor] = {}
        self.means: Metrics = {}

    def of(self, losses: dict[str, Tensor]) -> Tensor:
        self.losses = losses
        values = super().of(losses)
        asked = values.new_full((1,), float(self.trainer.stop_asked.asked))
        return distributed.mean(torch.cat([values, asked]))

    def read(self, values: list[float]) -> None:
        *means, asked = values
        self.trainer.stop_agreed = asked > 0
        self.means = dict(zip(self.losses, means, strict=True))
        if not math.isfinite(self.means["loss"]):
            self.trainer.stop("loss", self.losses, self.batch)


def draw_as_loaders(count: int) -> None:
    """Draws one random number for each pass of a loader, as loaders without their own generator did.

    Dropout therefore equals that of earlier versions, also in runs that an earlier version started.
    """
    for _ in range(count):
        torch.empty((), dtype=torch.int64).random_()
