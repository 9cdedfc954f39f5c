"""Options taken over from the run that a checkpoint came from."""

from pathlib import Path

from lavender.config.load import from_dict, read_object
from lavender.config.schema import Config, validate
from lavender.config.values import COMMAND_LINE

ARCHITECTURE = (
    *("vis_backbone", "vis_backbone_size", "kinetics", "max_size_frame", "max_size_patch"),
    *("txt_backbone", "txt_backbone_embed_only", "fusion_encoder", "swinbert"),
)
INPUT = ("size_frame", "size_txt", "size_img", "img_transform")  # taken over too where nothing is trained
PREFIX = ("enable_prompt", "enable_task_token", "task_token")  # and these of a task among several


def inherit_from_checkpoint(config: Config) -> list[str]:
    """Sets in `config` what the `args.json` beside `path_ckpt` (in it, if it is a folder) says of the model.

    What the command line says wins.
    Where several tasks were trained together, the entry of `datasets` with the same type and task counts.

    Returns:
        a line for the log for each option in which the two differ.

    Raises:
        ConfigError: together they make no configuration.
    """
    checkpoint = Path(config.path_ckpt)
    path = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "args.json"
    if not config.path_ckpt or not path.is_file():
        return []
    trained = from_dict(read_object(path), str(path), strict=False)
    entries = [entry for entry in trained.entries() if (entry.type, entry.task) == (config.type, config.task)]
    names: tuple[str, ...] = ARCHITECTURE
    if config.size_epoch == 0:
        names += INPUT + (PREFIX if entries else ())
    trained = entries[0] if entries else trained
    notices = []
    for name in trained.given:
        ours, theirs = getattr(config, name), getattr(trained, name)
        if name not in names or ours == theirs:
            continue
        if config.given.get(name) == COMMAND_LINE:
            notices.append(f"{name}: {ours} from the command line, though the checkpoint was trained with {theirs}")
        else:
            setattr(config, name, theirs)
            config.given[name] = f"{path} (beside the checkpoint)"
            notices.append(f"{name}: {theirs} from {path}, instead of {ours}")
    validate(config, config.config or COMMAND_LINE)
    return notices
