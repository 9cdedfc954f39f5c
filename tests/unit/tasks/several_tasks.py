"""Several tasks over the kit's data, for the tests of their training together."""

from typing import Any

import pytest

from lavender.data.mixing import MixedDataset, MixedKey
from lavender.data.samples import SampleKey
from lavender.tasks.caption import CaptionTask
from lavender.tasks.multi_task import MultiTask, MultiTaskMultiHeadTask
from lavender.tasks.qamc import QAMCTask, QAMCTaskSpecificTask
from lavender.tasks.qaoe import FillInTheBlankTask, QAOETask, QAOETaskSpecificTask
from lavender.tasks.retmc import RetMCTask, RetMCTaskSpecificTask
from lavender.tasks.retrieval import RetrievalTask, RetrievalTaskSpecificTask

YAMLS = {f"{split}_yaml": f"CAP/{split}.yaml" for split in ("train", "val", "test")}
ENTRIES: dict[str, dict[str, Any]] = {
    "toy-retrieval": {"type": "retrieval", "dataset": "toy"},
    "toy-action": {"type": "qamc", "dataset": "toy", "size_txt": 100},
    "toy-mc": {"type": "qamc", "dataset": "toy", "dataset_type": "retmc", "size_batch": 2},
    "toy-qa": {"type": "qaoe", "dataset": "toy", "size_vocab": 4},
    "toy-fib": {"type": "qaoe", "dataset": "toy", "dataset_type": "fib", "size_vocab": 4},
    "toy-cap": {"type": "captioning", **YAMLS, "p_mask": 0.5},
}
KINDS = {
    "toy-retrieval": (RetrievalTask, RetrievalTaskSpecificTask),
    "toy-action": (QAMCTask, QAMCTaskSpecificTask),
    "toy-mc": (RetMCTask, RetMCTaskSpecificTask),
    "toy-qa": (QAOETask, QAOETaskSpecificTask),
    "toy-fib": (FillInTheBlankTask, QAOETaskSpecificTask),
    "toy-cap": (CaptionTask, CaptionTask),
}
OWN_HEADS = {"toy-action": "fc_qamc_toy_action", "toy-qa": "fc_qaoe_toy_qa", "toy-fib": "fc_qaoe_toy_fib"}
BOTH = pytest.mark.parametrize("kind", [MultiTask, MultiTaskMultiHeadTask])
IN_FRONT = [
    ("", MultiTask),
    ("enable_prompt", MultiTask),
    ("enable_task_token", MultiTask),
    ("", MultiTaskMultiHeadTask),
]


def batch_of(task: MultiTask, name: str, *numbers: int) -> dict[str, Any]:
    mixture = MixedDataset(task.config, task.training_sets)
    batch = mixture.collate([mixture[MixedKey(name, SampleKey(1, number))] for number in numbers or (0, 1)])
    assert isinstance(batch, dict), batch
    return batch
