"""Names of splits and figures of several tasks and data sets."""

import pytest

from lavender.tasks.splits import is_validation, of_dataset, of_task, task_and_split


@pytest.mark.parametrize(("task", "split", "key"), [("", "val", "val"), ("msvd-qa", "test", "msvd-qa/test")])
def test_a_key_is_made_and_taken_apart(task: str, split: str, key: str):
    assert of_task(task, split) == key
    assert task_and_split(key) == (task, split)


def test_a_tasks_name_may_have_a_slash():
    assert task_and_split(of_task("mine/qa", "val")) == ("mine/qa", "val")


def test_which_splits_are_for_validation():
    assert is_validation("val")
    assert is_validation(of_dataset("webvid2.5m", "val"))
    assert of_dataset("", "val") == "val"
    for split in ("test", "train", "part", "epoch", "tasks", "festival"):
        assert not is_validation(split)
