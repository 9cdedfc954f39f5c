"""Experiment trackers for options, metrics and example pictures: TensorBoard, Weights & Biases."""

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from lavender.runtime.errors import ConfigError
from lavender.runtime.logging import LOGGER

EXAMPLES = 8  # samples per picture
_HEIGHT, _LINE = 112, 14  # height of a frame and of a line of text, in pixels
Record = Mapping[str, Any]  # a prediction
_SHOWN_KEYS = ("question", "caption", "answer", "prediction")  # keys of a record that are shown under its frames


class Tracker(ABC):
    """Interface of a tracker. Steps are optimizer steps."""

    @abstractmethod
    def scalar(self, name: str, value: float, step: int) -> None:
        """Logs a point of a curve."""

    @abstractmethod
    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """Logs a picture, uint8 (H, W, 3)."""

    @abstractmethod
    def close(self) -> None:
        """Writes all pending data."""


class TensorBoard(Tracker):
    """Event files in the run's folder; created with the first point, so that a run that fails early leaves none."""

    def __init__(self, folder: Path, options: Mapping[str, Any]):
        self._folder, self._options = folder, options
        self._writer: Any = None

    def _opened(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder))
            self._writer.add_text("options", "    " + json.dumps(self._options, indent=1).replace("\n", "\n    "))
        return self._writer

    def scalar(self, name: str, value: float, step: int) -> None:
        self._opened().add_scalar(name, value, step)

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        self._opened().add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class WandB(Tracker):
    """A run of Weights & Biases; a resumed run continues it. `WANDB_PROJECT`, `WANDB_MODE` and so on are respected.

    Raises:
        ConfigError: wandb is not installed or not logged in.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]):
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(f"report_to wandb: {error}; pip install wandb, or leave it out") from None
        name = folder.name.removeprefix("_")
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "lavender"),
                id=re.sub(r"[^A-Za-z0-9_-]", "-", name),
                name=name,
                dir=str(folder),
                config=dict(options),
                resume="allow",
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            raise ConfigError(
                f"report_to wandb: {error}; log in by `wandb login`, or set WANDB_MODE=offline and `wandb sync` later"
            ) from None
        self._image = wandb.Image
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalar(self, name: str, value: float, step: int) -> None:
        self._run.log({name: value, "step": step})

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        self._run.log({name: self._image(picture), "step": step})

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}


class Trackers:
    """All trackers named by `report_to`. A tracker that fails during a run is dropped; training continues.

    Args:
        names: keys of TRACKERS; folder: the run's folder; options: all options of the run.
    """

    def __init__(self, names: Sequence[str], folder: Path, options: Mapping[str, Any]):
        self._open = [TRACKERS[name](folder, options) for name in names]

    def scalar(self, name: str, value: float, step: int) -> None:
        """Logs a point of a curve."""
        self._each("scalar", name, value, step)

    def examples(self, name: str, frames: Sequence[np.ndarray], records: Sequence[Record], step: int) -> None:
        """Logs a picture of samples and their predictions.

        Args:
            frames: frames of each sample, uint8 (T, H, W, 3); records: their predictions.
        """
        pairs = list(zip(frames, map(record_line, records), strict=False))
        if self._open and pairs:
            self._each("picture", name, draw(pairs), step)

    def close(self) -> None:
        """Writes all pending data."""
        self._each("close")

    def _each(self, method: str, *words: Any) -> None:
        for tracker in list(self._open):
            try:
                getattr(tracker, method)(*words)
            except Exception as error:
                LOGGER.warning("%s: %s; nothing more is reported there", type(tracker).__name__, error)
                self._open.remove(tracker)


def record_line(record: Record) -> str:
    """A record as one line of text."""
    facts = {key: record[key] for key in _SHOWN_KEYS if record.get(key) not in (None, "")}
    facts |= {f"[{word['word']}]": word["prediction"] for word in record.get("words", ())}
    return "   ".join(f"{key}: {value}" for key, value in facts.items())


def draw(samples: Sequence[tuple[np.ndarray, str]]) -> np.ndarray:
    """Draws one sample per row, its frames side by side above its text; returns uint8 (H, W, 3).

    Args:
        samples: frames, uint8 (T, H, W, 3), and a line of text.
    """
    rows = []
    for clip, _ in samples:
        images = [Image.fromarray(frame) for frame in clip]
        images = [image.resize((round(_HEIGHT * image.width / image.height), _HEIGHT)) for image in images]
        row = Image.new("RGB", (sum(image.width + 2 for image in images), _HEIGHT))
        for number, image in enumerate(images):
            row.paste(image, (number * (image.width + 2), 0))
        rows.append(row)
    height = _HEIGHT + _LINE + 4
    sheet = Image.new("RGB", (max(480, *(row.width for row in rows)), height * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (row, (_, text)) in enumerate(zip(rows, samples, strict=True)):
        sheet.paste(row, (0, number * height))
        pen.text((2, number * height + _HEIGHT), text, fill="black")
    return np.asarray(sheet)
