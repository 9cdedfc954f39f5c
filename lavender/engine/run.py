"""Sets up a run: configuration, processes, data, model, weights, engine, training loop."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from lavender.config.inherit import inherit_from_checkpoint, other_task
from lavender.config.load import read_object
from lavender.config.schema import Config
from lavender.data.workers import start_server
from lavender.engine.engines import build_engine, import_deepspeed
from lavender.engine.optim import build_optimizer
from lavender.engine.output import RunFolder
from lavender.engine.resume import claimed_run
from lavender.engine.start import PEER_LOST, end, refuse_random_weights
from lavender.engine.trainer import Trainer
from lavender.models.activation_checkpoint import checkpoint_activations
from lavender.models.compiling import compile_model
from lavender.models.weights import build_model
from lavender.runtime import distributed
from lavender.runtime.device import choose_device, keep_freed_memory
from lavender.runtime.errors import LavenderError
from lavender.runtime.heartbeat import watched_hosts
from lavender.runtime.logging import LOGGER, start_logging, stop_logging
from lavender.runtime.ownership import end_with_launcher
from lavender.runtime.seed import seed_process
from lavender.tasks.base import Trainable

Work = Callable[[Any, Config, torch.device, RunFolder], dict]


def train(task: Trainable, config: Config, device: torch.device, folder: RunFolder) -> dict:
    """Work of a training script: the whole loop, from the zero-shot evaluation to the best epoch."""
    return prepare(task, config, device, folder).run()


def run(task_class: type[Trainable], config: Config, work: Work = train) -> dict:
    """Executes one run from its configuration to its results; can also be called from Python.

    Args:
        work: called once the processes, the task and its folder exist; returns the results.

    Raises:
        LavenderError: the input is faulty.
    """
    refuse_random_weights(config)
    end_with_launcher()
    device = choose_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    start_logging()
    if config.n_workers:
        start_server()  # it imports the workers' modules while the model is built
    if config.deepspeed and distributed.is_launched():
        import_deepspeed()  # before the process group starts: it prints and patches at import
    distributed.start(device)
    notices = inherit_from_checkpoint(config)
    seed_process(config.seed, rank=0)  # the same initial weights on every process
    task = task_class(config)
    lost = partial(end, code=PEER_LOST)
    with claimed_run(config, task.run_name(), lost) as claim:
        if claim.finished:
            LOGGER.info("%s is finished already: there is nothing to resume", claim.run)
            distributed.stop()
            return read_object(claim.run / "results.json")
        failed = False
        folder = RunFolder(
            config.path_output, task.run_name(), claim.run, claim.state, config.report_to, config.to_dict()
        )
        try:
            with watched_hosts(config.host_timeout, lost):
                for notice in [*config.notices(), *notices]:
                    LOGGER.info("%s", notice)
                if warning := other_task(config, task.related_types):
                    LOGGER.warning("%s", warning)
                LOGGER.info("output: %s", folder.path)
                LOGGER.info("options: %s", json.dumps(config.changed()))
                LOGGER.debug("all options: %s", json.dumps(config.to_dict()))
                results = work(task, config, device, folder)
            LOGGER.info("done: %s", folder.path)
        except (LavenderError, RuntimeError):  # not an interrupt: that run may be resumed
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


def prepare(task: Trainable, config: Config, device: torch.device, folder: RunFolder) -> Trainer:
    """Builds model, weights, optimizer, engine and loop of a task, ready to run."""
    task.evaluation_sets()  # a missing file shows now, not after an epoch
    task.check_frames()
    model = build_model(config, task.heads)
    for name, parameter in model.named_parameters():
        if name.startswith(task.unused_parameters()):
            parameter.requires_grad_(False)
    if config.use_checkpoint:
        checkpoint_activations(model, config.checkpoint_offload)
    model.to(device)
    if config.compile:
        compile_model(model, device)
    optimizer = build_optimizer(model, config.lr, config.vis_backbone_lr_mul, config.decay)
    engine = build_engine(model, optimizer, config, device)
    seed_process(config.seed, distributed.rank())  # from here on, dropout differs between processes
    folder.write("args.json", config.to_dict())
    return Trainer(task, engine, config, device, folder)
