import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lavender.config.load import from_dict, load_config
from lavender.config.schema import Config
from lavender.data.mixing import MixedDataset, MixedKey
from lavender.data.samples import SampleKey
from lavender.models.lavender import Heads, Lavender
from lavender.runtime.errors import ConfigError, DataError
from lavender.tasks.caption import CaptionTask
from lavender.tasks.multi_task import MultiTask, MultiTaskMultiHeadTask, format_of
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


@pytest.fixture
def options(config: Config, kit: Path) -> Callable[..., Config]:
    """The configuration of some of the tasks (all, where none is named), with the run's options changed."""
    names = ("data_dir", "n_workers", "size_img", "size_frame", "txt_backbone", "fusion_encoder", "vis_backbone_size")
    run = {name: getattr(config, name) for name in (*names, "size_epoch", "size_batch", "precision", "device")}

    def build(*tasks: str | dict, **changes: Any) -> Config:
        written = [{"task": task, **ENTRIES[task]} if isinstance(task, str) else task for task in tasks or ENTRIES]
        run_options = {**run, "type": "multi-task", "task": "together", "size_txt": 25, "on_bad_sample": "zero"}
        return from_dict({**run_options, "datasets": written, **changes}, "test")

    return build


@pytest.fixture
def texts(kit: Path, tmp_path: Path) -> Callable[..., Path]:
    """`texts(task, train=[…], …)`: the folder with the kit's text of a task, its splits cut to these videos."""

    def write(task: str, **kept: list[str]) -> Path:
        content = json.loads((kit / "data" / f"txt_{task}.json").read_text())
        for split, videos in kept.items():
            content[split] = [item for item in content[split] if item["video"] in videos]
        (tmp_path / f"txt_{task}.json").write_text(json.dumps(content))
        return tmp_path

    return write


@pytest.fixture
def model_of(make_model) -> Callable[..., Lavender]:
    """The model of a task, as a run prepares it; `state` are weights that it takes over."""

    def build(task: Any, state: dict[str, Tensor] | None = None) -> Lavender:
        model = make_model(task.heads)
        model.load_state_dict(state or {}, strict=False)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(task.unused_parameters()))
        return model

    return build


def batch_of(task: MultiTask, name: str, *numbers: int) -> dict[str, Any]:
    mixture = MixedDataset(task.config, task.training_sets)
    batch = mixture.collate([mixture[MixedKey(name, SampleKey(1, number))] for number in numbers or (0, 1)])
    assert isinstance(batch, dict), batch
    return batch


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


# --- losses and gradients: those of the task alone --------------------------------------------------------------------


def alone(task: MultiTask, name: str, shared: Lavender, model_of: Callable) -> tuple[Any, Lavender, str]:
    """The task on its own, its model with the weights that all tasks share, and what its `fc` is called among them."""
    single, head = type(task.tasks[name])(task.tasks[name].config), "fc"
    if isinstance(task, MultiTaskMultiHeadTask):
        head = OWN_HEADS.get(name, "fc")
    state = {key: value for key, value in shared.state_dict().items() if head == "fc" or not key.startswith("fc.")}
    own = {f"fc.{key.removeprefix(f'{head}.')}" if key.startswith(f"{head}.") else key: state[key] for key in state}
    return single, model_of(single, own), head


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize(("option", "kind"), IN_FRONT)
def test_loss_and_gradients_are_those_of_the_task_alone(options, model_of, name: str, option: str, kind):
    """To the last bit; heads of other tasks have a gradient, which is 0."""
    task = kind(options(**({option: True} if option else {})))
    model, batch = model_of(task), batch_of(task, name)
    single, own_model, head = alone(task, name, model, model_of)
    figures, expected = task.loss(model, batch), single.loss(own_model, batch)
    for losses in (figures, expected):
        losses["loss"].backward()
    assert batch["task"] == name
    named = {f"{name}/{key}": expected[key].item() for key in ("loss", "acc")}
    unnamed = {key: expected[key].item() for key in ("loss", "count_unlabelled_batches")}
    assert {key: value.item() for key, value in figures.items()} == {**unnamed, **named}
    assert figures["loss"].item() > 0
    theirs = {
        f"{head}{key.removeprefix('fc')}" if key.startswith("fc.") else key: parameter.grad
        for key, parameter in own_model.named_parameters()
    }
    assert any(gradient is not None and gradient.any() for gradient in theirs.values())
    for key, parameter in model.named_parameters():
        if key.startswith(task.unused_parameters()):
            assert parameter.grad is None, key
        elif theirs.get(key) is not None:
            assert torch.equal(parameter.grad, theirs[key]), key
        else:
            assert key.startswith(("fc", "emb_task"))
            assert not parameter.grad.any(), f"{key} is of another task"


def test_idle_are_the_heads_of_other_tasks(options, model_of):
    heads = {"toy-retrieval": "fc", "toy-qa": "fc_qaoe_toy_qa", "toy-fib": "fc_qaoe_toy_fib", "toy-cap": "fc_mtm"}
    task = MultiTaskMultiHeadTask(options(*heads))
    model = model_of(task)
    names = {id(parameter): name.split(".")[0] for name, parameter in model.named_parameters()}

    def idle(name: str) -> set[str]:
        return {names[id(parameter)] for parameter in task.idle_parameters(model, task.tasks[name])}

    assert {name: idle(name) for name in heads} == {name: set(heads.values()) - {own} for name, own in heads.items()}
    model.fc.requires_grad_(False)
    assert idle("toy-qa") == {"fc_qaoe_toy_fib", "fc_mtm"}


@pytest.mark.parametrize(
    ("run", "entry", "unused"),
    [
        ({}, {}, {"enc_img.emb_odr", "emb_task"}),
        ({"enable_prompt": True}, {}, {"enc_img.emb_odr", "emb_task"}),
        ({"enable_task_token": True}, {}, {"enc_img.emb_odr"}),
        ({}, {"enable_task_token": True}, {"enc_img.emb_odr"}),  # one task alone has a token
    ],
)
def test_what_no_task_reaches_is_not_trained(options, model_of, run: dict, entry: dict, unused: set):
    task = MultiTask(options({"task": "toy-fib", **ENTRIES["toy-fib"], **entry}, "toy-cap", **run))
    assert set(task.unused_parameters()) == unused
    for name in task.tasks:
        model = model_of(task)
        task.loss(model, batch_of(task, name))["loss"].backward()
        without = {key for key, parameter in model.named_parameters() if parameter.grad is None}
        assert without == {key for key, _ in model.named_parameters() if key.startswith(tuple(unused))}


def test_a_task_knows_at_which_step_it_is(options, model_of):
    entry = {"task": "toy-cap", **ENTRIES["toy-cap"], "drop_worst_ratio": 0.5, "drop_worst_after": 3}
    task = MultiTask(options("toy-qa", entry))
    model, batch = model_of(task), batch_of(task, "toy-cap")
    losses = []
    for task.step in (2, 3):
        losses.append(task.loss(model, batch)["loss"].item())
    assert losses[1] < losses[0]


# --- data -------------------------------------------------------------------------------------------------------------


def test_one_part_of_all_tasks(options, log):
    task = MultiTask(options())
    (part,) = task.training_parts()
    sizes = {"toy-retrieval": 6, "toy-action": 6, "toy-mc": 6, "toy-qa": 8, "toy-fib": 6, "toy-cap": 12}
    assert (part.dataset, part.number, part.samples) == ("together", 0, sum(sizes.values()))
    assert {name: len(dataset) for name, dataset in part.open().datasets.items()} == sizes
    assert part.batches(999) == len(part.loader()) == 2 + 2 + 3 + 3 + 2 + 4
    for name, size in sizes.items():
        said = f"{name}: {size} training samples, batches of {2 if name == 'toy-mc' else 3}, 16.7 % of the steps"
        assert said in log.text
    loader = part.loader()
    loader.set_epoch(1)
    batches = list(loader)
    assert {batch["task"] for batch in batches} <= set(sizes)
    assert all(len(batch["index"]) <= (2 if batch["task"] == "toy-mc" else 3) for batch in batches)


@pytest.mark.parametrize(
    ("changes", "weights"),
    [
        ({}, (1, 1)),
        ({"task_sampling": "proportional"}, (8, 12)),
        ({"task_sampling": "proportional", "task_temperature": 2.0}, (8**0.5, 12**0.5)),
        ({"task_temperature": 2.0}, (1, 1)),
    ],
)
def test_how_often_a_task_is_drawn(options, log, changes: dict, weights: tuple):
    (part,) = MultiTask(options("toy-qa", "toy-cap", **changes)).training_parts()
    assert tuple(part.weights.values()) == pytest.approx(weights)
    share = 100 * weights[0] / sum(weights)
    assert f"toy-qa: 8 training samples, batches of 3, {share:.1f} % of the steps" in log.text
    drawn = part.loader()._epochs.chances
    assert drawn.tolist() == pytest.approx([weight / sum(weights) for weight in weights])


def test_each_task_is_evaluated_on_its_own_splits(options):
    task = MultiTask(options())
    sets = task.evaluation_sets()
    assert list(sets) == [f"{name}/{split}" for name in ENTRIES for split in ("val", "test")]
    for key, dataset in sets.items():
        each, split = task.responsible(key)
        assert each is task.tasks[key.rpartition("/")[0]]
        assert each.evaluation_sets()[split] is dataset
        assert dataset.config.size_batch == (2 if "toy-mc" in key else 3)
    assert {name: task.choice_of(name) for name in ENTRIES} == {
        **dict.fromkeys(("toy-retrieval", "toy-action", "toy-mc"), ("acc", max)),
        **dict.fromkeys(("toy-qa", "toy-fib"), ("acc_1", max)),
        "toy-cap": ("CIDEr", max),
    }
    records = [{"index": n, "right": n < 1, "right_in_5": n < 3} for n in range(4)]
    assert task.metrics(records, "toy-mc/val") == {"acc": 0.25}
    assert task.metrics(records, "toy-qa/val") == {"acc_1": 0.25, "acc_5": 0.75}


@BOTH
@pytest.mark.parametrize("name", ENTRIES)
def test_predictions_are_those_of_the_task_alone(options, model_of, kind, name: str):
    task = kind(options())
    model, dataset = model_of(task), task.evaluation_sets()[f"{name}/val"]
    single, own_model, _ = alone(task, name, model, model_of)
    batch = dataset.collate([dataset[SampleKey(0, number)] for number in (0, 1)])
    with torch.inference_mode():
        records = task.responsible(f"{name}/val")[0].predict(model, batch)
        assert records == single.predict(own_model, batch) == task.predict(model, {**batch, "task": name})


def test_a_missing_file_of_one_task_shows_before_training(options):
    task = MultiTask(options("toy-qa", {"type": "qaoe", "task": "nowhere", "dataset": "toy"}))
    with pytest.raises(DataError, match=r"txt_nowhere\.json: there is no such file"):
        task.evaluation_sets()


def test_curves_of_each_task(options):
    task = MultiTask(options("toy-qa", "toy-mc"))
    question, choice = {"acc_1": 0.1, "acc_5": 0.5}, {"acc": 0.2}
    first = {"toy-qa": {"val": question, "test": {**question, "acc_1_adjusted": 0.05}}, "toy-mc": {"val": choice}}
    epochs = [
        {"epoch": 1, "train": {"loss": 2.0, "toy-qa/loss": 3.0, "toy-mc/loss": 1.0}, "tasks": first},
        {"epoch": 2, "train": {"loss": 1.5, "toy-qa/loss": 1.5}, "tasks": first},  # no step drew the other
    ]
    assert task.curves([]) == {
        "toy-qa": {"ls_tr": [], "ac_1_vl": [], "ac_5_vl": [], "ac_1_ts": [], "ac_5_ts": []},
        "toy-mc": {"ls_tr": [], "ac_vl": [], "ac_ts": []},
    }
    assert task.curves(epochs) == {
        "toy-qa": {
            **{"ls_tr": [3.0, 1.5], "ac_1_vl": [0.1, 0.1], "ac_5_vl": [0.5, 0.5]},
            **{"ac_1_ts": [0.05, 0.05], "ac_5_ts": [0.5, 0.5]},
        },
        "toy-mc": {"ls_tr": [1.0, None], "ac_vl": [0.2, 0.2], "ac_ts": []},
    }


# --- test videos of one task in the training of another ---------------------------------------------------------------

LEAK = "training videos of"


@pytest.mark.parametrize(
    ("trained", "dataset", "leaked"),
    [
        (["vid1", "vid2", "vid3"], "toy", {"val", "test"}),
        (["vid0", "vid3"], "toy", {"val"}),
        (["vid1", "vid4"], "toy", set()),  # what the filter leaves
        (["vid1", "vid2", "vid3"], "toy10", set()),  # of another data set
    ],
)
def test_leaked_test_videos_are_told(options, texts, log, trained: list[str], dataset: str, leaked: set[str]):
    texts("toy-retrieval", train=["vid0", "vid1"], val=["vid3"], test=["vid2"])
    folder = texts("toy-qa", train=trained, val=[], test=["vid5"])
    entry = {"task": "toy-qa", **ENTRIES["toy-qa"], "dataset": dataset}
    MultiTask(options("toy-retrieval", entry, txt_dir=str(folder))).training_parts()
    for split in leaked:
        told = f"1 of the {len(trained)} {LEAK} toy-qa are evaluated on by toy-retrieval/{split}; to take them out: "
        assert f"{told}python _tools/multi_task_vid_filter.py --dataset toy" in log.text
    assert log.text.count(LEAK) == len(leaked)


def test_captioning_is_known_by_its_name(options, texts, log):
    """Its three YAMLs show all six videos."""
    folder = texts("toy-retrieval", train=["vid4"], val=["vid3"], test=["vid5"])
    for name, found in (("toy-cap", True), ("other-cap", False)):
        log.clear()
        entry = {**ENTRIES["toy-cap"], "task": name, "val_yaml": "", "test_yaml": ""}
        MultiTask(options("toy-retrieval", entry, txt_dir=str(folder))).training_parts()
        assert (f"training videos of {name} are evaluated on by toy-retrieval/test" in log.text) == found
        assert log.text.count(LEAK) == 2 * found
