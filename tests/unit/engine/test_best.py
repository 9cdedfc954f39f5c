import math

import pytest

from lavender.engine.best import best_number, best_on_test, by_task, history, tasks_of

ACC, LOSS = ("acc", max), ("loss", min)


def epochs(*values: float | None, split: str = "val", name: str = "acc") -> list[dict]:
    """Entries with one figure each; where it is None, the split was not evaluated."""
    return [
        {"epoch": number, "train": {"loss": 1.0}, **({} if value is None else {split: {name: value}})}
        for number, value in enumerate(values, start=1)
    ]


def test_figures_of_a_task_alone_stay_as_they_are():
    figures = {"val": {"acc": 0.5}, "test": {"acc": 0.25}}
    assert by_task(figures) == figures
    assert by_task({"webvid-val": {"loss": 2.0}}) == {"webvid-val": {"loss": 2.0}}
    assert by_task({}) == {}


def test_figures_of_several_tasks_stand_under_their_names():
    figures = {"msvd-qa/val": {"acc_1": 0.5}, "msvd-qa/test": {"acc_1": 0.25}, "qamc a/b/test": {"acc": 1.0}}
    assert by_task(figures) == {
        "tasks": {
            "msvd-qa": {"val": {"acc_1": 0.5}, "test": {"acc_1": 0.25}},
            "qamc a/b": {"test": {"acc": 1.0}},
        }
    }


def test_what_was_put_by_task_is_found_by_task():
    entry = {"epoch": 1, **by_task({"one/val": {"acc": 0.5}, "two/val": {"CIDEr": 2.0}})}
    assert tasks_of(entry) == {"one": {"val": {"acc": 0.5}}, "two": {"val": {"CIDEr": 2.0}}}
    alone = {"epoch": 1, **by_task({"val": {"acc": 0.5}})}
    assert tasks_of(alone) == {"": alone}


def test_the_history_of_a_task_knows_its_epochs():
    entries = [
        {"epoch": 1, "train": {"loss": 3.0}, "tasks": {"one": {"val": {"acc": 0.5}}, "two": {"val": {"acc": 0.1}}}},
        {"epoch": 2, "train": {"loss": 2.0}, "tasks": {"one": {"val": {"acc": 0.7}}}},
    ]
    assert history(entries, "one") == [{"epoch": 1, "val": {"acc": 0.5}}, {"epoch": 2, "val": {"acc": 0.7}}]
    assert history(entries, "two") == [{"epoch": 1, "val": {"acc": 0.1}}, {"epoch": 2}]
    assert history(epochs(0.5), "")[0]["val"] == {"acc": 0.5}
    assert history([], "one") == []


@pytest.mark.parametrize(
    ("values", "choice", "best"),
    [
        ((0.1, 0.3, 0.2), ACC, 1),
        ((0.1, 0.3, 0.2), ("acc", min), 0),
        ((0.3, 0.3), ACC, 0),  # the first of equal ones
        ((0.0, 0.0), ACC, 0),
        ((None, 0.3, None), ACC, 1),
        ((math.nan, 0.1), ACC, 1),
        ((0.2, math.inf), ACC, 0),
        ((None, None, None), ACC, 2),  # without validation the last
        ((math.nan, math.nan), ACC, 1),
        ((0.1, 0.3), ("another", max), 1),
    ],
)
def test_the_best_on_validation(values: tuple, choice: tuple, best: int):
    assert best_number(epochs(*values), choice) == best


def test_validation_of_a_data_set_among_several_counts_and_test_does_not():
    assert best_number(epochs(2.0, 1.0, 3.0, split="webvid-val", name="loss"), LOSS) == 1
    assert best_number(epochs(0.9, 0.1, split="test"), ACC) == 1


def test_the_best_on_test_itself():
    entries = epochs(0.1, 0.3, 0.2, split="test")
    assert best_on_test(entries, ACC) is entries[1]
    assert best_on_test(entries, ("acc", min)) is entries[0]
    assert best_on_test(epochs(math.nan, 0.3, None, split="test"), ACC)["epoch"] == 2
    for entries in (epochs(0.5), epochs(None), [], epochs(0.5, split="test", name="another")):
        assert best_on_test(entries, ACC) is None
