"""Checks of combinations of options, with the source of each option for messages."""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec

from lavender.config.declare import ENTRY_TYPES
from lavender.config.schema import Config
from lavender.runtime.errors import ConfigError


def validate(config: Config, source: str) -> None:
    """Checks combinations of options.

    Args:
        source: file of the options, or the command line if there is none.

    Raises:
        ConfigError: the first fault; its message begins with the source of the offending options.
    """
    for fault, *names in _faults(config):
        raise ConfigError(f"{origin(config, names, source)}: {fault}")
    named: dict[tuple[str, str], int] = {}
    for number, entry in enumerate(config.entries(), start=1):
        place = entry_place(origin(config, ["datasets"], source), number)
        if entry.type not in ENTRY_TYPES or not entry.task:
            raise ConfigError(f"{place}: give it a task name and a type, one of {', '.join(ENTRY_TYPES)}")
        if named.setdefault((entry.type, entry.task), number) != number:
            raise ConfigError(f"{place}: {entry.type} {entry.task} is entry {named[entry.type, entry.task]} already")
        validate(entry, place)


def origin(config: Config, names: Iterable[str], source: str) -> str:
    """Source of options, in words; `source` is used for the file and for options set nowhere."""
    given = [config.given[name] for name in names if name in config.given]
    return " and ".join(dict.fromkeys(source if where == "file" else where for where in given)) or source


def entry_place(source: str, number: int) -> str:
    """Name of an entry of `datasets` in messages; the first is number 1."""
    return f"{source}: datasets, entry {number}"


def _faults(config: Config) -> Iterator[tuple[str, ...]]:
    """Yields invalid combinations: a message with a remedy, and the names of the offending options."""
    if config.enable_prompt and config.enable_task_token:
        yield ("enable_prompt and enable_task_token are both true; choose one", "enable_prompt", "enable_task_token")
    if config.type == "multi-task" and not config.datasets:
        yield ("type is multi-task, so datasets must list at least one task", "type", "datasets")
    if config.datasets and config.type not in ("", "multi-task"):
        yield (f"datasets is for type multi-task, and type is {config.type}; remove one of them", "datasets", "type")
    if config.type not in ("", "pretrain") and not isinstance(config.dataset, str):
        yield (f"type {config.type} reads one data set; give dataset as one name", "dataset")
    if isinstance(config.size_part, dict) and config.type == "pretrain":
        missing = [name for name in config.dataset if name not in config.size_part]
        if missing:
            yield (
                f"size_part does not name {', '.join(missing)}; give a number for each data set, or one for all",
                "size_part",
                "dataset",
            )
    if not config.pretrain_tasks or len(set(config.pretrain_tasks)) < len(config.pretrain_tasks):
        yield ("pretrain_tasks must name mtm, vtm or both, each once", "pretrain_tasks")
    if not config.img_transform:
        yield ("img_transform is empty; name at least one transform", "img_transform")
    swin = config.vis_backbone == "vidswin"  # only the model itself knows the patch size of other backbones
    if swin and config.size_img % config.size_patch:
        yield (f"size_img is {config.size_img}, which is not a multiple of {config.size_patch}", "size_img")
    if not config.swinbert:  # SwinBERT has no position tables
        patches = config.size_img // config.size_patch
        if swin and patches > config.max_size_patch:
            yield (
                f"size_img {config.size_img} has {patches} patches a side; set max_size_patch to {patches} or more",
                "size_img",
                "max_size_patch",
            )
        if config.size_frame > config.max_size_frame:
            yield (
                f"size_frame {config.size_frame} is more than max_size_frame {config.max_size_frame}; "
                f"set max_size_frame to {config.size_frame} or more",
                "size_frame",
                "max_size_frame",
            )
    if config.num_keep_best > config.num_beams:
        yield (
            f"num_keep_best is {config.num_keep_best}, more than num_beams, {config.num_beams}; raise num_beams",
            "num_keep_best",
            "num_beams",
        )
    yield from _source_faults(config)
    if "wandb" in config.report_to and find_spec("wandb") is None:
        yield "report_to wandb: it is not installed; pip install wandb, or leave it out", "report_to"
    if config.do_sample and config.num_beams > 1:
        yield ("do_sample draws words and num_beams searches for them; choose one", "do_sample", "num_beams")
    if config.checkpoint_offload and not config.use_checkpoint:
        yield ("checkpoint_offload needs use_checkpoint; set it to true", "checkpoint_offload", "use_checkpoint")
    if config.deepspeed_config and not config.deepspeed:
        yield ("deepspeed_config needs deepspeed; set it to true", "deepspeed_config", "deepspeed")


def _source_faults(config: Config) -> Iterator[tuple[str, ...]]:
    """Like `_faults`, for the options of the frame source."""
    source, shards = config.frame_source, config.shards
    if source == "videos" and not config.video_dir:
        yield ("frame_source is videos, so video_dir must name their folder", "frame_source", "video_dir")
    if source == "shards" and not shards:
        yield ("frame_source is shards, so shards must name the tars", "frame_source", "shards")
    if source == "auto" and shards and config.video_dir:
        yield ("video_dir and shards are both given; set frame_source to videos or shards", "video_dir", "shards")
    if isinstance(shards, dict) and source == "shards" and shards and not config.datasets:
        names = [config.dataset] if isinstance(config.dataset, str) else list(config.dataset)
        if missing := [name for name in names if name not in shards]:
            yield (f"shards does not name {', '.join(missing)}; give the tars of each data set", "shards", "dataset")
