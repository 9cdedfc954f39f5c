"""Running means of training metrics."""

from collections import defaultdict

from lavender.runtime import distributed
from lavender.tasks.base import Metrics
from lavender.tasks.splits import of_task

COUNT = "count_"  # prefix of metrics that are summed


class RunningMeans:
    """Sums of metrics by name, each with the number of steps that had it: not every step belongs to every task."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._steps: dict[str, int] = defaultdict(int)

    def add(self, metrics: Metrics) -> None:
        """Adds the metrics of a step, which are means over the processes."""
        for name, value in metrics.items():
            self._sums[name] += value
            self._steps[name] += 1

    def state(self) -> dict[str, dict[str, float]]:
        """Sums and step counts, for `restore`."""
        return {"sums": dict(self._sums), "steps": dict(self._steps)}

    def restore(self, state: dict[str, dict[str, float]]) -> None:
        """Restores what `state` returned."""
        self._sums.update(state["sums"])
        self._steps.update({name: int(steps) for name, steps in state["steps"].items()})

    def means(self) -> Metrics:
        """Mean of each metric that is not a count."""
        return {name: total / self._steps[name] for name, total in self._sums.items() if not name.startswith(COUNT)}

    def counts(self) -> Metrics:
        """Sum of each count over all processes."""
        return {name: sum_ * distributed.world_size() for name, sum_ in self._sums.items() if name.startswith(COUNT)}

    def of_task(self, task: str) -> dict[str, str]:
        """Mean loss and accuracy of one of several tasks, for the progress bar."""
        means, digits = self.means(), {of_task(task, "loss"): 3, of_task(task, "acc"): 2}
        shown = [f"{means[name]:.{digits[name]}f}" for name in digits if task and name in means]
        return {task: "/".join(shown)} if task else {}
