"""The folder of a run: `args.json`, `stdout.txt`, `log.json`, `results.json`, curves, checkpoints."""

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
    """A folder of this run's own; a run that started in the same second has its name, so the next second is tried."""
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


_BEFORE_RESULTS = {"args.json", "stdout.txt", LOCK}  # files that say what was asked for, and hold no result
LATEST = ".latest"  # predictions that may not be those of the best epoch


class RunFolder:
    """`<path_output>/_<name>_<YYYYmmddHHMMSS>/`; only the first process writes into it.

    Args:
        resumed: the folder of a run that goes on; state: what it goes on from.
        report_to: names of trackers; options: of the run, for them.

    Raises:
        ConfigError: a tracker cannot be opened. TrainingError: the folder cannot be made.
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
        if not self.path.is_dir():  # made by the first process, perhaps on another host
            LOGGER.warning(
                "%s is not the folder of the first host, so what is saved cannot be resumed: --path_output must be one "
                "that all hosts share",
                self.path,
            )
        self._trackers = Trackers(report_to if distributed.is_main() else (), self.path, options or {})
        log_to_file(self.path / "stdout.txt")

    def remove_unused(self) -> None:
        """Removes the folder of a run that failed before it had any result; what stood there before is never touched.

        Call it once the log is closed.
        """
        if not (self._is_new and distributed.is_main() and self.path.is_dir()):
            return
        if {path.name for path in self.path.iterdir()} <= _BEFORE_RESULTS:
            with suppress(OSError):  # it may be on the disk that failed
                for name in _BEFORE_RESULTS:
                    (self.path / name).unlink(missing_ok=True)
                self.path.rmdir()

    def write(self, name: str, value: Any) -> None:
        """A JSON file of the run."""
        if distributed.is_main():
            write_json(value, self.path / name)

    def predictions(self, split: str, state: str = "") -> Path:
        """The file of a split's predictions."""
        return self.path / "predictions" / f"{split}{state}.jsonl"

    def settle_predictions(self, split: str, keep: bool) -> None:
        """Makes the latest predictions of a split those of the run, or drops them."""
        latest = self.predictions(split, LATEST)
        if not distributed.is_main() or not latest.exists():
            return
        if keep:
            latest.replace(self.predictions(split))
        else:
            latest.unlink()

    def curve(self, name: str, value: float, step: int) -> None:
        """A point of a curve."""
        self._trackers.scalar(name, value, step)

    def examples(self, name: str, frames: Sequence[np.ndarray], records: Sequence[Record], step: int) -> None:
        """A picture of samples, uint8 (T, H, W, 3) each, and of their predictions."""
        self._trackers.examples(name, frames, records, step)

    def close(self) -> None:
        """Writes the curves out."""
        self._trackers.close()
