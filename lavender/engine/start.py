"""Start and end of a script: options are read first, heavy modules are imported after that."""

import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lavender.config.load import load_config
from lavender.config.schema import Config
from lavender.runtime.errors import ConfigError, LavenderError, Stopped
from lavender.runtime.files import looked_from
from lavender.runtime.launcher_report import report_end
from lavender.runtime.launchers import find_launch, leave

BAD_INPUT = 2
PEER_LOST = 3
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again later
INTERRUPTED = 130
NAMED = {
    "path_ckpt": "checkpoint",
    "vis_backbone_path": "backbone file",
}  # options whose file or folder must exist


def main(
    task: str | type,
    arguments: Sequence[str] | None = None,
    work: str = "lavender.engine.run:run",
    kind: str = "",
) -> None:
    """Runs a script; faulty input gives a one-line message and exit code 2.

    Args:
        task: the task's class, or its name `module:class`, which is imported after the options are checked.
        arguments: command-line arguments, by default those of this process.
        work: name `module:function` of the function to call with the task and its configuration.
        kind: kind of task whose options `--help` shows; empty for all options.
    """
    guarded(lambda: _start(task, arguments, work, kind))


def _start(task: str | type, arguments: Sequence[str] | None, work: str, kind: str) -> None:
    config = load_config(arguments, kind)
    check_inputs(config)
    do: Callable[[Any, Config], object] = pkgutil.resolve_name(work)
    do(pkgutil.resolve_name(task) if isinstance(task, str) else task, config)


def check_inputs(config: Config) -> None:
    """Checks the input as far as possible before anything heavy is imported.

    Raises:
        ConfigError: a file or folder named by an option is missing, or an evaluation has no checkpoint.
    """
    for name, kind in NAMED.items():
        path = getattr(config, name)
        if path and not path.startswith("timm:") and not Path(path).exists():
            raise ConfigError(f"{path}: no such {kind}{looked_from(path)}; check --{name}")
    refuse_random_weights(config)


def refuse_random_weights(config: Config) -> None:
    """Raises ConfigError for an evaluation without a checkpoint: metrics of random weights would mean nothing."""
    if not (config.size_epoch or config.path_ckpt or config.allow_random):
        raise ConfigError(
            "--path_ckpt is empty and --size_epoch is 0: name the checkpoint to evaluate, or train (--size_epoch 1 or "
            "more); --allow_random true evaluates random weights, for benchmarks"
        )


def guarded(work: Callable[[], object]) -> None:
    """Calls `work`; an expected error ends the process with a one-line message and its exit code."""
    try:
        work()
    except LavenderError as error:
        end(f"error: {error}", BAD_INPUT)
    except RuntimeError as error:
        from lavender.data.loaders import lost_worker
        from lavender.runtime.distributed import is_lost_peer

        if fault := lost_worker(error):
            end(f"error: {fault}", BAD_INPUT)
        if not is_lost_peer(error):
            raise
        end("stopped: another process of this run ended first; its own message says why", PEER_LOST, consequence=True)
    except Stopped as stopped:
        end(str(stopped), STOPPED)
    except KeyboardInterrupt:
        end("interrupted", INTERRUPTED)
    if find_launch(os.environ):
        leave()


def end(message: str, code: int, consequence: bool = False) -> None:
    """Exits at once: waiting for the other processes could hang."""
    report_end(message, consequence)
    with suppress(LavenderError):  # the launcher's variables themselves may be faulty
        launch = find_launch(os.environ)
        if launch and launch.world_size > 1:
            leave(code)
    sys.exit(code)
