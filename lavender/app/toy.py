"""The model and the clips that `make demo` leaves, for a page without a checkpoint."""

from pathlib import Path

from lavender.runtime.errors import ConfigError

FOLDER = Path("_demo")
# The runs of the demo, the one that can do most first.
_RUNS = ("_toy-all_*", "_toy-qa_*", "_toy-cap_*", "_toy-retrieval_*", "_toy-mc_*", "_pretrain-toy_*")
_CLIPS = "_toy_test"


def find_toy(folder: Path = FOLDER) -> tuple[Path, Path]:
    """The run folder of a toy model, and the folder of its test clips.

    Raises:
        ConfigError: the demo has left no model here.
    """
    for pattern in _RUNS:
        runs = sorted(run for run in (folder / "_snapshot").glob(pattern) if any(run.glob("ckpt_*.pt")))
        if runs:  # of a task, the first has the masked-language-modelling head; pretraining goes on in the later one
            return runs[-1 if pattern.startswith("_pretrain") else 0], folder / _CLIPS
    raise ConfigError(
        "which checkpoint? Give --path_ckpt (a .pt file, a run's folder, an exported folder, or a hub name), or make a "
        f"toy model in minutes: make demo. ({folder.absolute()} holds none.)"
    )
