"""The folder of a run: `args.json`, `stdout.txt`, `log.json`, `results.json`, curves, checkpoints."""

from datetime import datetime
from pathlib import Path
from typing import Any

from lavender.engine.checkpoint import write_json
from lavender.runtime import distributed
from lavender.runtime.errors import TrainingError
from lavender.runtime.logging import log_to_file


class RunFolder:
    """`<path_output>/_<name>_<YYYYmmddHHMMSS>/`; only the first process writes into it."""

    def __init__(self, path_output: str, name: str):
        stamp = distributed.broadcast_object(datetime.now().strftime("%Y%m%d%H%M%S"))
        self.path = Path(path_output) / f"_{name}_{stamp}"
        self._curves: Any = None
        if distributed.is_main():
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise TrainingError(
                    f"{self.path}: the output folder cannot be made ({error}); see --path_output"
                ) from error
        distributed.barrier()
        log_to_file(self.path / "stdout.txt")

    def write(self, name: str, value: Any) -> None:
        """A JSON file of the run."""
        if distributed.is_main():
            write_json(value, self.path / name)

    def curve(self, name: str, value: float, step: int) -> None:
        """A point of a TensorBoard curve."""
        if not distributed.is_main():
            return
        if self._curves is None:
            from torch.utils.tensorboard import SummaryWriter

            self._curves = SummaryWriter(str(self.path))
        self._curves.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes the curves out."""
        if self._curves is not None:
            self._curves.close()
