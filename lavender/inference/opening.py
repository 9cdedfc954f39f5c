"""Opening of any kind of checkpoint: a model in evaluation mode, and its training options."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from lavender.config.load import read_object
from lavender.config.schema import Config
from lavender.inference.heads import refuse_unknown
from lavender.inference.hub import download
from lavender.models.lavender import Lavender
from lavender.models.pretrained import ARGUMENTS_FILE, load_pretrained, read_checkpoint, trained_options
from lavender.models.weights import exported_config, load_state
from lavender.runtime.errors import WeightsError

_CHECKPOINT = re.compile(r"ckpt_.*?(\d+)\.pt")
RESULTS_FILE = "results.json"


def open_checkpoint(path: str | Path, **options: Any) -> tuple[Lavender, Config]:
    """Opens a checkpoint.

    Args:
        path: a `.pt` file (with its training options in `args.json` beside it), a run's folder (its best epoch), an
            exported folder, or the name of one on the Hugging Face hub.
        options: override those of `args.json`, such as `txt_backbone`, `size_frame`, `kinetics`.

    Raises:
        WeightsError: the checkpoint is missing or of another model. ConfigError: an option is unknown.
    """
    place = _find(path)
    arguments = (place if place.is_dir() else place.parent) / ARGUMENTS_FILE
    config = trained_options(arguments, options)
    refuse_unknown(options, config)
    if place.is_dir() and exported_config(place) is not None:
        model = load_pretrained(place)
        if "txt_backbone" not in options:  # the vocabulary is in the folder
            config = dataclasses.replace(config, txt_backbone=str(place), fusion_encoder=str(place))
        return model, config
    state, description = read_checkpoint(place, config)
    model = description.build()
    for name in description.unused:
        state.pop(name, None)
    load_state(model, state, str(place))
    return model.eval(), config


def _find(path: str | Path) -> Path:
    place = Path(path)
    if place.is_dir() and exported_config(place) is None and (place / RESULTS_FILE).is_file():
        return _best(place)
    if place.is_dir() and (runs := _runs_in(place)):
        raise WeightsError(f"{place}: this folder holds {len(runs)} runs: name one, such as the newest: {runs[-1]}")
    if place.exists():
        return place
    return download(str(path))


def _runs_in(folder: Path) -> list[Path]:
    """Runs in an output folder or in the demo's, newest last; empty if the folder itself holds weights."""
    if any(folder.glob("*.pt")) or any(folder.glob("*.safetensors*")) or any(folder.glob("*.bin")):
        return []
    results = [*folder.glob(f"*/{RESULTS_FILE}"), *folder.glob(f"*/*/{RESULTS_FILE}")]
    runs = [path for path in results if any(path.parent.glob("ckpt_*.pt"))]
    return [path.parent for path in sorted(runs, key=lambda path: path.stat().st_mtime)]


def _best(run: Path) -> Path:
    """Checkpoint of a run's best epoch, or the last existing one if that was not kept."""
    epochs = {int(match[1]): file for file in run.iterdir() if (match := _CHECKPOINT.fullmatch(file.name))}
    if not epochs:
        raise WeightsError(f"{run}: no checkpoint (ckpt_….pt) is in this run's folder")
    best = read_object(run / RESULTS_FILE).get("best")
    number = best.get("epoch") if isinstance(best, dict) else None
    return epochs.get(number, epochs[max(epochs)])  # type: ignore[arg-type]
