import pytest

from lavender.engine.running import RunningMeans
from lavender.runtime import distributed

STEPS = [  # of two tasks; `a` has no accuracy at its second step
    {"loss": 4.0, "count_unlabelled_batches": 0.0, "a/loss": 4.0, "a/acc": 0.5},
    {"loss": 1.0, "count_unlabelled_batches": 0.5, "b/loss": 1.0},
    {"loss": 3.0, "count_unlabelled_batches": 1.0, "a/loss": 3.0},
    {"loss": 0.5, "count_unlabelled_batches": 0.0, "b/loss": 0.5},
]


def running(steps: list[dict]) -> RunningMeans:
    means = RunningMeans()
    for figures in steps:
        means.add(figures)
    return means


def test_each_mean_is_over_the_steps_that_have_the_figure():
    assert running(STEPS).means() == {"loss": 2.125, "a/loss": 3.5, "a/acc": 0.5, "b/loss": 0.75}
    assert running(STEPS[:1]).means() == {"loss": 4.0, "a/loss": 4.0, "a/acc": 0.5}
    assert running([]).means() == {}


@pytest.mark.parametrize("processes", [1, 3])
def test_counts_are_sums_over_all_processes(monkeypatch, processes: int):
    """What is added is the mean over the processes."""
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    assert running(STEPS).counts() == {"count_unlabelled_batches": 1.5 * processes}
    assert running(STEPS).means()["loss"] == 2.125
    assert running([{"loss": 1.0}]).counts() == {}


def test_a_task_on_the_bar():
    means = running(STEPS)
    assert means.of_task("a") == {"a": "3.500/0.50"}
    assert means.of_task("b") == {"b": "0.750"}
    assert means.of_task("") == {}


def test_a_task_whose_name_begins_like_another():
    means = running([{"loss": 1.0, "qa/loss": 1.0}, {"loss": 2.0, "qa-2/loss": 2.0, "qa-2/acc": 0.25}])
    assert means.of_task("qa") == {"qa": "1.000"}
    assert means.of_task("qa-2") == {"qa-2": "2.000/0.25"}
