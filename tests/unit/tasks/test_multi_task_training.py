"""Losses, gradients and data of several tasks that train together: those of each task alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lavender.data.samples import SampleKey
from lavender.models.lavender import Lavender
from lavender.runtime.errors import DataError
from lavender.tasks.multi_task import MultiTask, MultiTaskMultiHeadTask
from tests.unit.tasks.several_tasks import (
    BOTH,
    ENTRIES,
    IN_FRONT,
    OWN_HEADS,
    batch_of,
)

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
    for task.clock.step in (2, 3):
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
    drawn = part.loader()._epochs.probs
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
    assert task.tasks["toy-mc"].metrics(records, "val") == {"acc": 0.25}
    assert task.tasks["toy-qa"].metrics(records, "val") == {"acc_1": 0.25, "acc_5": 0.75}


@BOTH
@pytest.mark.parametrize("name", ENTRIES)
def test_predictions_are_those_of_the_task_alone(options, model_of, kind, name: str):
    task = kind(options())
    model, dataset = model_of(task), task.evaluation_sets()[f"{name}/val"]
    single, own_model, _ = alone(task, name, model, model_of)
    batch = dataset.collate([dataset[SampleKey(0, number)] for number in (0, 1)])
    with torch.inference_mode():
        records = task.responsible(f"{name}/val")[0].predict(model, batch)
        assert records == single.predict(own_model, batch)


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
