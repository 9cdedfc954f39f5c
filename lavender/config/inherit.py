"""Options inherited from the `args.json` beside a checkpoint, and the task that it was trained on."""

from collections.abc import Collection
from pathlib import Path

from lavender.config.checks import validate
from lavender.config.comparisons import Counts
from lavender.config.load import from_dict, read_object
from lavender.config.options import options
from lavender.config.schema import Config
from lavender.config.values import COMMAND_LINE


def inherit_from_checkpoint(config: Config) -> list[str]:
    """Sets the options of the model in `config` from the `args.json` beside `path_ckpt` (or in it, if a folder).

    Options of the command line take precedence. For a multi-task checkpoint, the entry of `datasets` with the same type
    and task is used.

    Returns:
        a log line for each option in which the two differ.

    Raises:
        ConfigError: the combined options are invalid.
    """
    found = _trained(config)
    if found is None:
        return []
    trained, path = found
    entries = [entry for entry in trained.entries() if (entry.type, entry.task) == (config.type, config.task)]
    inherited = Counts.MODEL
    if config.size_epoch == 0:  # nothing is trained
        inherited |= Counts.INPUT | Counts.PREFIX if entries else Counts.INPUT
    trained = entries[0] if entries else trained
    notices = []
    for name in trained.given:
        ours, theirs = getattr(config, name), getattr(trained, name)
        if not options()[name].counts & inherited or ours == theirs:
            continue
        if config.given.get(name) == COMMAND_LINE:
            notices.append(f"{name}: {ours} from the command line, though the checkpoint was trained with {theirs}")
        else:
            setattr(config, name, theirs)
            config.given[name] = f"{path} (beside the checkpoint)"
            notices.append(f"{name}: {theirs} from {path}, instead of {ours}")
    validate(config, config.config or COMMAND_LINE)
    return notices


def other_task(config: Config, related: Collection[str] = ()) -> str:
    """Warning if an evaluation's checkpoint was trained on another task; else "".

    There is none for a pretrained checkpoint, or a multi-task one that includes the task.

    Args:
        related: other types whose checkpoints may be evaluated on this task.
    """
    found = _trained(config)
    if config.size_epoch or found is None:
        return ""
    trained, path = found
    sources, ours = trained.entries() or [trained], config.entries() or [config]
    if any(source.type in ("", "pretrain", *related) for source in sources):
        return ""
    unseen = [one for one in ours if one.type and not any(_is_same(one, source) for source in sources)]
    if not unseen:
        return ""
    return (
        f"{config.path_ckpt} was trained on {_named(sources)}, as {path} says, but is evaluated on {_named(unseen)}: "
        "the metrics are those of a model that was not trained on this task. Give --path_ckpt a checkpoint of this "
        "task, or train first: --size_epoch 1 or more"
    )


def _trained(config: Config) -> tuple[Config, Path] | None:
    """Training options of the checkpoint and their file, if it has one."""
    checkpoint = Path(config.path_ckpt)
    path = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "args.json"
    if not config.path_ckpt or not path.is_file():
        return None
    return from_dict(read_object(path), str(path), strict=False), path


def _is_same(one: Config, other: Config) -> bool:
    """Whether two configurations have the same task; if one has no task name, only the type counts."""
    return one.type == other.type and (one.task == other.task or not (one.task and other.task))


def _named(tasks: list[Config]) -> str:
    return ", ".join(f"{one.task} ({one.type})" if one.task else one.type for one in tasks)
