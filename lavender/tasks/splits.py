"""Names of splits and figures where there are several tasks or data sets: made and taken apart here alone.

`val`: of a task that is alone; `<task>/val`: of one of several tasks; `<dataset>-val`: of one of several data sets.
"""


def of_task(task: str, name: str) -> str:
    """The name of a task's split or figure among those of other tasks; a task that is alone has no name."""
    return f"{task}/{name}" if task else name


def task_and_split(key: str) -> tuple[str, str]:
    """The task ("" for one that is alone) and the split of what `of_task` made."""
    task, _, split = key.rpartition("/")
    return task, split


def of_dataset(dataset: str, split: str) -> str:
    """The name of the split of one of several data sets of a task."""
    return f"{dataset}-{split}" if dataset else split


def is_validation(split: str) -> bool:
    """Whether a split is for validation, of a task's only data set or of one of them."""
    return split == "val" or split.endswith("-val")
