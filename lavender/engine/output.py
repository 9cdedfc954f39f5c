"""Folder of a run: `args.json`, `stdout.txt`, `log.json`, `results.json`, curves, checkpoints."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from lavender.engine.checkpoint import write_json
from lavender.engine.trackers import Record, Trackers
from lavender.runtime import distributed
from lavender.runtime.errors import TrainingError
from lavender.runtime.files import unwritable_advice
from lavender.runtime.logging import LOGGER, log_to_file
from lavender.runtime.ownership import LOCK


def make_folder(path_output: str, name: str) -> Path:
    """Creates a new run folder; if another run took the name of this second, the next second is tried."""
    started = datetime.now()
    for second in range(60):
        stamp = (started + timedelta(seconds=second)).strftime("%Y%m%d%H%M%S")
        path = Path(path_output) / f"_{name}_{stamp}"
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            if not path.is_dir():
                break
        except OSError as error:
            advice = unwritable_advice(error)
            raise TrainingError(f"{path}: the output folder cannot be made ({error}); {advice}") from error
    raise TrainingError(f"{path_output}: no unused folder name is left there; give another --path_output")


_BEFORE_RESULTS = {"args.json", "stdout.txt", LOCK}  # files that hold no result
LATEST = ".latest"  # suffix of the newest predictions, which may not be the best


class RunFolder:
    """Folder `<path_output>/_<name>_<YYYYmmddHHMMSS>/`; only the first process writes into it.

    Args:
        resumed: folder of the run to resume; state: the state to resume from.
        report_to: names of trackers; options: the run's options, which trackers record.

    Raises:
        ConfigError: a tracker cannot be opened. TrainingError: the folder cannot be created.
    """

    def __init__(
        self,
        path_output: str,
        name: str,
        resumed: Path | None = None,
        state: Path | None = None,
        report_to: Sequence[str] = ("tensorboard",),
        options: Mapping[str, Any] | None = None,
    ):
        self._is_new = state is None
        made = resumed or (make_folder(path_output, name) if distributed.is_main() else Path(path_output))
        self.path: Path = distributed.broadcast_object(made)
        self.state = state
        if not self.path.is_dir():  # created by the first process, perhaps on another host
            LOGGER.warning(
                "%s is not the folder of the first host, so what is saved cannot be resumed: --path_output must be one "
                "that all hosts share",
                self.path,
            )
        self._trackers = Trackers(report_to if distributed.is_main() else (), self.path, options or {})
        log_to_file(self.path / "stdout.txt")

    def remove_unused(self) -> None:
        """Removes the folder of a run that failed before it had a result; never a folder that existed before the run.

        Call it after the log is closed.
        """
        if not (self._is_new and distributed.is_main() and self.path.is_dir()):
            return
        if {path.name for path in self.path.iterdir()} <= _BEFORE_RESULTS:
            with suppress(OSError):  # it may be on the disk that failed
                for name in _BEFORE_RESULTS:
                    (self.path / name).unlink(missing_ok=True)
                self.path.rmdir()

    def write(self, name: str, value: Any) -> None:
        """Writes a JSON file of the run."""
        if distributed.is_main():
            write_json(value, self.path / name)

    def predictions(self, split: str, state: str = "") -> Path:
        """Path of a split's predictions; `state` is `LATEST` or empty."""
        return self.path / "predictions" / f"{split}{state}.jsonl"

    def settle_predictions(self, split: str, keep: bool) -> None:
        """Keeps the latest predictions of a split as the run's predictions, or removes them."""
        latest = self.predictions(split, LATEST)
        if not distributed.is_main() or not latest.exists():
            return
        if keep:
            latest.replace(self.predictions(split))
        else:
            latest.unlink()

    def curve(self, name: str, value: float, step: int) -> None:
        """Adds a point to a curve."""
        self._trackers.scalar(name, value, step)

    def examples(self, name: str, frames: Sequence[np.ndarray], records: Sequence[Record], step: int) -> None:
        """Sends a picture of samples, uint8 (T, H, W, 3) each, and their predictions to the trackers."""
        self._trackers.examples(name, frames, records, step)

    def close(self) -> None:
        """Closes the trackers."""
        self._trackers.close()
