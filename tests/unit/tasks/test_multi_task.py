import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lavender.config.load import load_config
from lavender.config.schema import Config
from lavender.models.lavender import Heads
from lavender.runtime.errors import ConfigError
from lavender.tasks.multi_task import MultiTask, MultiTaskMultiHeadTask, format_of
from lavender.tasks.qamc import QAMCTaskSpecificTask
from tests.unit.tasks.several_tasks import (
    BOTH,
    ENTRIES,
    KINDS,
)

# --- which tasks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "form"),
    [
        *[({"type": kind, "task": "any"}, kind) for kind in ("retrieval", "qamc", "qaoe", "captioning")],
        ({"type": "qaoe", "task": "lsmdc-fib"}, "fib"),
        ({"type": "qamc", "task": "lsmdc-mc"}, "retmc"),
        ({"type": "qamc", "task": "msrvtt-mc"}, "retmc"),
        ({"type": "qamc", "task": "tgif-action"}, "qamc"),
        ({"type": "qaoe", "task": "mine", "dataset_type": "fib"}, "fib"),
        ({"type": "qamc", "task": "lsmdc-mc", "dataset_type": "qamc"}, "qamc"),
    ],
)
def test_the_format_of_an_entry(entry: dict, form: str):
    assert format_of(Config(**entry)) == form
    assert form in MultiTask.classes.keys() & MultiTaskMultiHeadTask.classes.keys()


@BOTH
def test_each_entry_is_a_task_that_there_is(options, kind):
    task = kind(options())
    assert list(task.tasks) == list(ENTRIES)
    number = [MultiTask, MultiTaskMultiHeadTask].index(kind)
    for name, each in task.tasks.items():
        assert type(each) is KINDS[name][number]
        assert each.config.task == name
        assert each.config.size_txt == ENTRIES[name].get("size_txt", 25)
        assert each.config.size_batch == ENTRIES[name].get("size_batch", 3)
    assert (task.run_name(), task.checkpoint_name(2, None)) == ("together", "ckpt_violet_together_2.pt")


@BOTH
def test_no_tasks_are_an_error(config: Config, kind):
    with pytest.raises(ConfigError, match=r'^"datasets" is empty: list the tasks, each with its type and task name$'):
        kind(replace(config, type="multi-task", task="nothing"))


@BOTH
def test_a_task_of_another_data_format_is_refused(options, kind):
    with pytest.raises(ConfigError, match='"type" is retrieval in the configuration, but this script is for qaoe'):
        kind(options({"type": "retrieval", "task": "toy-qa", "dataset": "toy", "dataset_type": "fib", "size_vocab": 4}))
    with pytest.raises(ConfigError, match='"type" is qaoe in the configuration, but this script is for multi-task'):
        kind(replace(options(), type="qaoe"))


@BOTH
def test_two_types_of_task_may_have_one_name(options, kind, kit: Path):
    entries = [{"type": kind, "task": "toy-mc", "dataset": "toy"} for kind in ("qamc", "retrieval")]
    task = kind(options("toy-fib", *entries))
    assert list(task.tasks) == ["toy-fib", "qamc toy-mc", "retrieval toy-mc"]
    assert [each.config.type for each in task.tasks.values()] == ["qaoe", "qamc", "retrieval"]
    if kind is MultiTaskMultiHeadTask:
        assert dict(task.heads.classifiers) == {"fc_qaoe_toy_fib": 4, "fc_qamc_toy_mc": 5, "fc": 1}


# --- heads ------------------------------------------------------------------------------------------------------------


def test_one_head_for_all(options):
    task = MultiTask(options())
    assert task.heads == Heads(mlm=True, task_tokens=True, classifiers={})
    assert MultiTask(options("toy-qa")).heads == task.heads


def test_a_head_for_each(options, make_model, kit: Path):
    task = MultiTaskMultiHeadTask(options())
    classes = {"fc": 1, "fc_qamc_toy_action": 5, "fc_qaoe_toy_qa": 4, "fc_qaoe_toy_fib": 4}
    assert task.heads == Heads(mlm=True, task_tokens=False, classifiers=classes)
    names = make_model(task.heads).state_dict().keys()
    tables = json.loads((kit / "cases" / "state_dict_micro.json").read_text())
    body = {name for name in tables["captioning"] if not name.startswith("emb_task")}
    parts = [f"{head}.{layer}" for head in classes for layer in ("1.weight", "1.bias", "3.weight", "3.bias")]
    assert names == body | set(parts)
    assert dict(QAMCTaskSpecificTask(task.tasks["toy-action"].config).heads.classifiers) == {"fc": 5}


def test_released_names_of_heads(options):
    entries = [
        {"type": "qaoe", "task": "msvd-qa", "dataset": "toy", "size_vocab": 1000},
        {"type": "qaoe", "task": "lsmdc-fib", "dataset": "toy", "size_vocab": 908},
        {"type": "qamc", "task": "tgif-action", "dataset": "toy"},
        {"type": "qamc", "task": "lsmdc-mc", "dataset": "toy"},
        {"type": "retrieval", "task": "didemo-retrieval", "dataset": "toy"},
        {"type": "retrieval", "task": "msrvtt-retrieval", "dataset": "toy"},
    ]
    task = MultiTaskMultiHeadTask(options(*entries))
    own = {"fc_qaoe_msvd_qa": 1000, "fc_qaoe_lsmdc_fib": 908, "fc_qamc_tgif_action": 5, "fc": 1}
    assert task.heads == Heads(mlm=False, task_tokens=False, classifiers=own)


@pytest.mark.parametrize(
    ("run", "entry", "temperature"), [({}, {}, 0.05), ({"temp": 0.2}, {}, 0.2), ({"temp": 0.2}, {"temp": 1.0}, 1.0)]
)
def test_the_temperature_of_the_baseline(options, run: dict, entry: dict, temperature: float):
    written = {"task": "toy-retrieval", **ENTRIES["toy-retrieval"], **entry}
    task = MultiTaskMultiHeadTask(options(written, "toy-mc", **run))
    assert task.tasks["toy-retrieval"].config.temp == temperature
    assert task.tasks["toy-mc"].config.temp == run.get("temp", 1.0)
    assert MultiTask(options(written, **run)).tasks["toy-retrieval"].config.temp == entry.get(
        "temp", run.get("temp", 1.0)
    )


# --- what stands in front ---------------------------------------------------------------------------------------------


def test_prompts_are_those_of_each_task(options, model_of):
    task = MultiTask(options(enable_prompt=True))
    model = model_of(task)
    prompts = {
        "toy-retrieval": "is the video-text paired, true or false?",
        "toy-action": "which answer is correct, from [0, 1, 2, 3, 4]?",
        "toy-mc": "is the video-text matched, true or false?",
        "toy-qa": "answer the question about the video.",
        "toy-fib": "fill in the mask to complete the sentence.",
        "toy-cap": "write a description about the video.",
    }
    for name, each in task.tasks.items():
        expected = model.prompt(torch.from_numpy(task.tokenizer.prompt(prompts[name])))
        assert torch.equal(each.prefix(model).states, expected.states), name


def test_task_tokens_are_those_of_each_task(options, model_of):
    task = MultiTask(options(enable_task_token=True))
    model = model_of(task)
    rows = {"toy-retrieval": 0, "toy-action": 1, "toy-mc": 0, "toy-qa": 2, "toy-fib": 2, "toy-cap": 3}
    for name, each in task.tasks.items():
        assert torch.equal(each.prefix(model).states[0, 0], model.emb_task[rows[name]]), name


def test_a_task_may_have_its_own_front(options, model_of):
    fronts = ({"enable_task_token": True, "task_token": "vtm"}, {"enable_prompt": True}, {})
    names = ("toy-action", "toy-qa", "toy-cap")
    pairs = zip(names, fronts, strict=True)
    task = MultiTask(options(*({"task": name, **ENTRIES[name], **front} for name, front in pairs)))
    model = model_of(task)
    token, prompt, nothing = (each.prefix(model) for each in task.tasks.values())
    assert torch.equal(token.states[0, 0], model.emb_task[0])
    assert torch.equal(prompt.states, model.prompt(task.tasks["toy-qa"]._prompt).states)
    assert nothing is None


def test_the_token_of_multiple_choice_is_written_down(options, kit: Path):
    """A single-task script has another one by itself, and finds it in `args.json`."""
    task = MultiTask(options())
    written = {entry["task"]: entry.get("task_token") for entry in task.config.to_dict()["datasets"]}
    assert {name: token for name, token in written.items() if token} == {"toy-action": "mc"}
    entry = json.dumps([{"task": "toy-action", **ENTRIES["toy-action"]}])
    words = ["--type", "multi-task", "--txt_backbone", str(kit / "bert_micro"), "--datasets", entry]
    said = MultiTask(load_config([*words, "--task_token", "cap"]))
    assert said.tasks["toy-action"].config.task_token == "cap"


@pytest.mark.parametrize("option", ["enable_prompt", "enable_task_token"])
def test_the_baseline_refuses_what_stands_in_front(options, option: str):
    for tasks in ((), ("toy-cap",), ("toy-action",)):
        with pytest.raises(ConfigError, match="the task-specific models take no prompt and no task token"):
            MultiTaskMultiHeadTask(options(*tasks, **{option: True}))


@pytest.mark.parametrize("option", ["enable_prompt", "enable_task_token"])
def test_so_it_does_in_an_entry_of_captioning(options, option: str):
    with pytest.raises(ConfigError, match="the task-specific models take no prompt and no task token"):
        MultiTaskMultiHeadTask(options("toy-qa", {"task": "toy-cap", **ENTRIES["toy-cap"], option: True}))
