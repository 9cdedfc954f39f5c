"""Model and clips of `make demo`, for a page without a checkpoint."""

from pathlib import Path

from lavender.runtime.errors import ConfigError

FOLDER = Path("_demo")
_RUNS = ("_toy-all_*", "_pretrain-toy_*")  # runs of the demo; a stopped demo has only pretrained
_CLIPS = "_toy_test"


def find_toy(folder: Path = FOLDER) -> tuple[Path, Path]:
    """Finds the run folder of a toy model, and the folder of its test clips.

    Raises:
        ConfigError: there is no model of the demo.
    """
    for pattern in _RUNS:
        runs = sorted(run for run in (folder / "_snapshot").glob(pattern) if any(run.glob("ckpt_*.pt")))
        if runs:
            return runs[-1], folder / _CLIPS
    raise ConfigError(
        "which checkpoint? Give --path_ckpt (a .pt file, a run's folder, an exported folder, or a hub name), or make a "
        f"toy model in minutes: make demo. ({folder.absolute()} holds none.)"
    )
