"""A new task takes a data file, a task file, a JSON and a script of ten lines: temporal grounding is added by these.

It trains, is stopped and resumed, evaluates, and takes a prompt or a task token, while the house knows nothing of it.
"""

import json
from pathlib import Path

import pytest

from tests.integration.grounding.data import GroundingDataset
from tests.integration.grounding.task import GroundingTask

HERE = Path(__file__).parent
SCRIPT = '''"""Temporal grounding: the number of the segment is the word at `[MASK]`."""

from lavender.engine.start import main

if __name__ == "__main__":
    main("tests.integration.grounding.task:GroundingTask")
'''
RELEASED = ("--config", str(HERE / "args_grounding.json"))
KIT = HERE.parents[1] / "conformance" / "kit"
SMALL = (
    *("--vis_backbone_size", "micro", "--vis_backbone_init", "random", "--size_img", "32", "--n_workers", "0"),
    *("--txt_backbone", str(KIT / "bert_micro"), "--fusion_encoder", str(KIT / "bert_micro")),
)


def items(*segments: int) -> list[dict]:
    return [
        {"video": f"vid{number}", "event": f"a {shape} moves", "segment": segment}
        for number, (shape, segment) in enumerate(zip(("circle", "square", "star") * 2, segments, strict=False))
    ]


@pytest.fixture
def ground(train_here, questions: Path, tmp_path: Path):
    """Starts the task's script, written into a folder that is not the house's."""
    content = {"train": items(0, 1, 2, 3, 0, 1), "val": items(0, 2), "test": items(3, 1, 0)}
    (questions / "txt_toy-when.json").write_text(json.dumps(content))
    script = tmp_path / "main_grounding.py"
    script.write_text(SCRIPT)

    def start(*options: object):
        return train_here(*options, task=str(script), data=questions, released=RELEASED, small=SMALL)

    return start


def test_two_steps_of_training_and_an_evaluation(ground):
    run = ground().check_passed()
    assert run.json("args.json")["type"] == GroundingTask.config_type
    (entry,) = run.results["epochs"]
    assert {"loss", "acc", "count_unlabelled_batches"} <= entry["train"].keys()
    assert entry["train"]["count_unlabelled_batches"] == 0
    assert run.folder.name.startswith("_toy-when_")
    assert "step 2/2: loss" in run.log
    log = run.json("log.json")
    assert (log["ac_vl"], log["ac_ts"]) == ([entry["val"]["acc"]], [entry["test"]["acc"]])
    records = run.predictions("test")
    assert [(record["index"], record["segment"]) for record in records] == [(0, 3), (1, 1), (2, 0)]
    assert entry["test"]["distance"] == sum(abs(one["prediction"] - one["segment"]) for one in records) / 3

    checkpoint = run.folder / "ckpt_violet_toy-when_1.pt"
    again = ground("--size_epoch", "0", "--path_ckpt", checkpoint).check_passed()
    assert again.results["zero_shot"] == {split: entry[split] for split in ("val", "test")}
    assert again.predictions("test") == records


@pytest.mark.parametrize("option", ["--enable_prompt", "--enable_task_token"])
def test_with_a_prefix_and_worker_processes(ground, option: str):
    """Workers get the data set by pickle."""
    run = ground(option, "true", "--n_workers", "2").check_passed()
    assert run.results["epochs"]


def test_a_segment_that_is_not_there_is_named(ground, questions: Path):
    ground("--size_option", "3").check_refused("txt_toy-when.json, train, item 3", '"segment" is 3', "size_option")


def test_the_type_of_another_task_is_refused(ground):
    ground("--type", "qaoe").check_refused("qaoe", GroundingTask.config_type)
    ground("--type", "grounding").check_refused("--type", "own:NAME")


def test_the_house_does_not_know_the_task():
    house = (HERE.parents[2] / "lavender").rglob("*.py")
    assert [path for path in house if "temporal grounding" in path.read_text(encoding="utf-8").lower()] == []
    assert GroundingDataset.__module__.startswith("tests.")
