"""The wiring of a run: configuration, processes, data, model, weights, engine, loop."""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lavender.config.inherit import inherit_from_checkpoint, other_task
from lavender.config.load import load_config, read_object
from lavender.config.schema import Config
from lavender.data.loaders import lost_worker
from lavender.data.workers import start_server
from lavender.engine.optim import build_optimizer
from lavender.engine.output import RunFolder
from lavender.engine.parallel import build_engine, import_deepspeed
from lavender.engine.resume import find_run
from lavender.engine.trainer import Trainer
from lavender.models.recompute import checkpoint_activations
from lavender.models.weights import build_model
from lavender.runtime import distributed
from lavender.runtime.device import choose_device, keep_freed_memory
from lavender.runtime.errors import ConfigError, LavenderError, Stopped
from lavender.runtime.heartbeat import watched_hosts
from lavender.runtime.logging import LOGGER, start_logging, stop_logging
from lavender.runtime.ownership import end_with_launcher, owned
from lavender.runtime.seed import seed_process
from lavender.tasks.base import Task

Work = Callable[[Any, Config, torch.device, RunFolder], dict]

BAD_INPUT = 2
PEER_LOST = 3
STOPPED = 75  # of sysexits.h: try again later
INTERRUPTED = 130


def main(task: type[Task], arguments: Sequence[str] | None = None) -> None:
    """A training script's whole body: runs a task; a fault of the input is one line and exit code 2."""
    guarded(lambda: run(task, load_config(arguments)))


def guarded(work: Callable[[], object]) -> None:
    """Does a script's work; what goes wrong is one line and an exit code."""
    try:
        work()
    except LavenderError as error:
        _end(f"error: {error}", BAD_INPUT)
    except RuntimeError as error:
        if fault := lost_worker(error):
            _end(f"error: {fault}", BAD_INPUT)
        if not distributed.is_lost_peer(error):
            raise
        _end("stopped: another process of this run ended first; its own message says why", PEER_LOST)
    except Stopped as stopped:
        _end(str(stopped), STOPPED)
    except KeyboardInterrupt:
        _end("interrupted", INTERRUPTED)
    if distributed.is_launched():
        distributed.leave()


def _end(message: str, code: int) -> None:
    """Leaves at once: waiting for the other processes, which may never come, would hang."""
    try:
        several = distributed.world_size() > 1
    except LavenderError:  # the launcher's variables are what is wrong
        several = False
    if several:
        message = f"{message} [process {distributed.rank()}]"
    print(message, file=sys.stderr, flush=True)
    _report_to_torchrun(message)
    if several:
        distributed.leave(code)
    sys.exit(code)


def _report_to_torchrun(message: str) -> None:
    """Lets the report that torchrun ends with show this message as the cause."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        content = {"message": {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}}
        with suppress(OSError):
            Path(path).write_text(json.dumps(content), encoding="utf-8")


def train(task: Task, config: Config, device: torch.device, folder: RunFolder) -> dict:
    """What a training script does: the loop, from the zero-shot evaluation to the best epoch."""
    return prepare(task, config, device, folder).run()


def run(task_class: type[Task], config: Config, work: Work = train) -> dict:
    """One run from its configuration to its results (also for use from Python).

    Args:
        work: what is done once the processes, the task and its folder are there; returns the results.

    Raises:
        LavenderError: anything wrong with the input.
    """
    refuse_random_weights(config)
    end_with_launcher()
    device = choose_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    start_logging()
    if config.n_workers:
        start_server()  # it imports what workers need while the model is built
    if config.deepspeed and distributed.is_launched():
        import_deepspeed()  # before the processes meet: it prints and patches at import
    distributed.start(device)
    notices = inherit_from_checkpoint(config)
    seed_process(config.seed, rank=0)  # the same fresh weights on every process
    task = task_class(config)
    found = find_run(config, task.run_name()) if config.resume else None
    if found and found.state is None:
        LOGGER.info("%s is finished already: there is nothing to resume", found.run)
        distributed.stop()
        return read_object(found.run / "results.json")
    folder = RunFolder(config.path_output, task.run_name(), *((found.run, found.state) if found else ()))
    failed = False
    try:
        with owned(folder.path), watched_hosts(config.host_timeout, partial(_end, code=PEER_LOST)):
            for notice in [*config.notices(), *notices]:
                LOGGER.info("%s", notice)
            if warning := other_task(config, task.related_types):
                LOGGER.warning("%s", warning)
            LOGGER.info("output: %s", folder.path)
            LOGGER.info("options: %s", json.dumps(config.to_dict()))
            results = work(task, config, device, folder)
        LOGGER.info("done: %s", folder.path)
    except (LavenderError, RuntimeError):  # not an interrupt: what was done may be gone on with
        failed = True
        raise
    finally:
        folder.close()
        stop_logging()
        if failed:
            folder.remove_unused()
    distributed.barrier()
    distributed.stop()
    return results


def refuse_random_weights(config: Config) -> None:
    """Raises ConfigError for an evaluation of no checkpoint: its metrics look like metrics and mean nothing."""
    if not (config.size_epoch or config.path_ckpt or config.allow_random):
        raise ConfigError(
            "--path_ckpt is empty and --size_epoch is 0: name the checkpoint to evaluate, or train (--size_epoch 1 or "
            "more); --allow_random true evaluates random weights, for benchmarks"
        )


def prepare(task: Task, config: Config, device: torch.device, folder: RunFolder) -> Trainer:
    """Model, weights, optimizer, engine and loop of a task, ready to run."""
    task.evaluation_sets()  # a missing file shows now, not after an epoch
    task.check_frames()
    model = build_model(config, task.heads)
    for name, parameter in model.named_parameters():
        if name.startswith(task.unused_parameters()):
            parameter.requires_grad_(False)
    if config.use_checkpoint:
        checkpoint_activations(model, config.checkpoint_offload)
    model.to(device)
    optimizer = build_optimizer(model, config.lr, config.vis_backbone_lr_mul, config.decay)
    engine = build_engine(model, optimizer, config, device)
    seed_process(config.seed, distributed.rank())  # from here on each process drops out its own
    folder.write("args.json", config.to_dict())
    LOGGER.info("model: %.1f M parameters", sum(parameter.numel() for parameter in model.parameters()) / 1e6)
    return Trainer(task, engine, config, device, folder)
