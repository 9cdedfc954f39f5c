"""The released numbers of every task through one multi-task model, and through the multi-head one."""

from typing import Any

import pytest
import torch

from lavender.config.schema import Config
from lavender.data.samples import SampleKey
from lavender.tasks.multi_task import MultiTask, MultiTaskMultiHeadTask

ENTRIES: list[dict[str, Any]] = [
    {"type": "retrieval", "task": "toy-retrieval", "dataset": "toy"},
    {"type": "qamc", "task": "toy-action", "dataset": "toy", "size_txt": 100},
    {"type": "qamc", "task": "toy-mc", "dataset": "toy", "dataset_type": "retmc"},
    {"type": "qaoe", "task": "toy-qa", "dataset": "toy", "size_vocab": 4},
    {"type": "qaoe", "task": "toy-fib", "dataset": "toy", "dataset_type": "fib", "size_vocab": 4},
]
CASES = {  # task → cases of the MLM way, of the baseline, and how many items of the test split
    "toy-retrieval": ("retrieval_mlm_{}", "retrieval_task_specific", 4),
    "toy-action": ("qamc_mlm_append_{}", "qamc_task_specific", 0),
    "toy-mc": ("retmc_mlm_{}", "retmc_task_specific", 0),
    "toy-qa": ("qaoe_mlm_{}", "qaoe_task_specific", 0),
    "toy-fib": ("qaoe_mlm_fib{}", "", 0),
}


@pytest.fixture
def together(kit):
    """`together(class, variant)`: the tasks on the kit's test splits, and one model for all of them."""

    def build(kind: type[MultiTask], variant: str = "plain"):
        bert = str(kit.bert)
        config = Config(
            type="multi-task",
            task="all",
            datasets=[dict(entry) for entry in ENTRIES],
            data_dir=str(kit.data),
            size_frame=5,
            size_txt=25,
            size_epoch=0,
            txt_backbone=bert,
            fusion_encoder=bert,
            on_bad_sample="zero",
            enable_prompt=variant == "prompt",
            enable_task_token=variant == "task_token",
        )
        task = kind(config)
        return task, kit.model(task.heads)

    return build


def loss_of(task: MultiTask, model, name: str) -> float:
    dataset = task.tasks[name].evaluation_sets()["test"]
    samples = range(CASES[name][2] or len(dataset))  # type: ignore[arg-type]
    batch = dataset.collate([dataset[SampleKey(0, number)] for number in samples])
    with torch.inference_mode():
        figures = task.loss(model, {**batch, "task": name})  # type: ignore[dict-item]
    assert figures[f"{name}/loss"] == figures["loss"]
    return float(figures["loss"])


@pytest.mark.parametrize("variant", ["plain", "prompt", "task_token"])
def test_losses_of_one_model(kit, together, variant: str):
    task, model = together(MultiTask, variant)
    for name, (case, _, _) in CASES.items():
        ending = variant if name != "toy-fib" else {"plain": ""}.get(variant, f"_{variant}")
        reference = kit.case(case.format(ending))
        assert kit.loss_agrees(loss_of(task, model, name), reference["ls"]), name


def test_losses_of_the_multi_head_model(kit, together):
    """Its heads have names of their own, and so, in the kit, values of their own: they are given those of `fc`."""
    task, model = together(MultiTaskMultiHeadTask)
    for name, (_, case, _) in CASES.items():
        if not case:
            continue
        (head,) = task.tasks[name].heads.classifiers
        alone = kit.model(task.tasks[name].heads.__class__(False, False, {"fc": task.heads.classifiers[head]}))
        model.get_submodule(head).load_state_dict(alone.fc.state_dict())
        temp = task.tasks[name].config.temp if "retrieval" in case else 1.0  # the others' scores are not divided by it
        assert kit.loss_agrees(loss_of(task, model, name), kit.case(case)["ls"], temp), name
