import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lavender.config.schema import Config
from lavender.data.loaders import evaluation_loader, training_loader
from lavender.data.samples import SampleKey
from lavender.models.lavender import Lavender
from lavender.runtime.errors import ConfigError, DataError
from lavender.tasks.downstream import ChoiceTask, DownstreamTask, at_positions, counted_loss
from lavender.tasks.qamc import QAMCTask, QAMCTaskSpecificTask
from lavender.tasks.qaoe import FillInTheBlankTask, QAOETask, QAOETaskSpecificTask
from lavender.tasks.retmc import RetMCTask, RetMCTaskSpecificTask

TEXTS = {
    **{QAMCTask: "toy-action", RetMCTask: "toy-mc", QAOETask: "toy-qa", FillInTheBlankTask: "toy-fib"},
    **{QAMCTaskSpecificTask: "toy-action", RetMCTaskSpecificTask: "toy-mc", QAOETaskSpecificTask: "toy-qa"},
}
MLM, SPECIFIC = list(TEXTS)[:4], list(TEXTS)[4:]
EVERY = pytest.mark.parametrize("kind", TEXTS)


@pytest.fixture
def texts(kit: Path) -> Callable[[type[DownstreamTask]], dict[str, list]]:
    """The kit's texts of a task; its splits have videos that are there and answers that are words."""

    def read(kind: type[DownstreamTask]) -> dict[str, list]:
        content = json.loads((kit / "data" / f"txt_{TEXTS[kind]}.json").read_text())
        return {**content, **{split: content[split][:4] for split in ("train", "val", "test")}}

    return read


@pytest.fixture
def make(config: Config, kit: Path, tmp_path: Path, texts: Callable) -> Callable[..., DownstreamTask]:
    """A task over its kit texts, with splits changed (None takes one away)."""

    def build(kind: type[DownstreamTask], splits: dict[str, Any] | None = None, **changes: Any) -> DownstreamTask:
        content = {name: split for name, split in {**texts(kind), **(splits or {})}.items() if split is not None}
        (tmp_path / "txt_mine.json").write_text(json.dumps(content))
        folders = {"data_dir": str(kit / "data"), "txt_dir": str(tmp_path)}
        options = {"type": kind.config_type, "dataset": "toy", "task": "mine", "size_txt": 25, "size_vocab": 4}
        return kind(replace(config, **{**options, **folders, **changes}))

    return build


def batch_of(task: DownstreamTask, *numbers: int, split: str = "test") -> dict[str, Any]:
    dataset = task.datasets[split]
    batch = dataset.collate([dataset[SampleKey(0, number)] for number in numbers])
    assert isinstance(batch, dict), batch
    return batch


# --- splits -----------------------------------------------------------------------------------------------------------


@EVERY
def test_the_splits_of_a_task(make, log, tmp_path: Path, kind):
    task = make(kind)
    (part,) = task.training_parts()
    assert (part.dataset, part.number, part.samples) == ("toy", 0, 4)
    assert part.open() is task.datasets["train"]
    assert task.datasets["train"].training
    sets = task.evaluation_sets(part)
    assert list(sets) == list(task.evaluation_sets()) == ["val", "test"]
    assert not any(dataset.training for dataset in sets.values())
    assert f"{tmp_path / 'txt_mine.json'}: train 4, val 4, test 4" in log.text
    assert task.evaluation_sets()["val"] is sets["val"], "files are read once"
    assert sets["val"].frames is sets["test"].frames


@pytest.mark.parametrize("missing", [["val"], ["test"], ["val", "test"]], ids=" and ".join)
@pytest.mark.parametrize("nothing", [None, [], {}], ids=repr)
def test_a_missing_evaluation_is_left_out_and_told(make, log, tmp_path: Path, missing: list[str], nothing: object):
    task = make(QAOETask, dict.fromkeys(missing, nothing))
    assert set(task.evaluation_sets()) == {"val", "test"} - set(missing)
    assert task.training_parts()[0].samples == 4
    for split in ("val", "test"):
        line = f"{tmp_path / 'txt_mine.json'}: no {split} items, so no evaluation on them"
        assert (line in log.text) == (split in missing)


@EVERY
@pytest.mark.parametrize("nothing", [None, []], ids=repr)
def test_missing_training_items_are_an_error(make, tmp_path: Path, kind, nothing: object):
    task = make(kind, {"train": nothing})
    with pytest.raises(DataError) as raised:
        task.evaluation_sets()
    assert str(raised.value) == (
        f'{tmp_path / "txt_mine.json"}: no "train" items to train on; --size_epoch 0 evaluates alone'
    )


@EVERY
@pytest.mark.parametrize("train", [None, [], [{"video": "nobody"}]], ids=repr)
def test_but_not_where_nothing_is_trained(make, kind, train: object):
    task = make(kind, {"train": train}, size_epoch=0)
    assert list(task.datasets) == ["val", "test"]


@pytest.mark.parametrize("nothing", [None, []], ids=repr)
def test_nothing_to_evaluate_is_an_error(make, nothing: object):
    task = make(QAMCTask, {"val": nothing, "test": nothing}, size_epoch=0)
    with pytest.raises(DataError, match=r'txt_mine\.json: neither "val" nor "test" items, so there is nothing'):
        task.evaluation_sets()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_of_another_shape_shows_before_training(make, split: str):
    with pytest.raises(DataError, match=rf'txt_mine\.json: "{split}" is a dict, not a list of items'):
        make(QAMCTask, {split: {"vid0": ["x"]}}).evaluation_sets()


@pytest.mark.parametrize(("ratio", "samples"), [(0.5, 2), (3, 3)])
def test_a_share_of_the_training_videos(make, ratio: float, samples: int):
    task = make(QAMCTask, data_ratio=ratio)
    assert task.training_parts()[0].samples == len(task.datasets["train"]) == samples
    assert [len(dataset) for dataset in task.evaluation_sets().values()] == [4, 4]


@EVERY
def test_loaders_take_every_split(make, kind):
    task = make(kind, size_batch=3)
    trained = [number for batch in training_loader(task.datasets["train"]) for number in batch["index"].tolist()]
    assert sorted(trained) == [0, 1, 2, 3]
    videos = [video for batch in evaluation_loader(task.datasets["val"]) for video in batch["video"]]
    assert videos == ["vid0", "vid1", "vid2", "vid3"]


# --- options ----------------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("other", ["pretrain", "retrieval", "qamc", "qaoe", "captioning", "multi-task"])
def test_the_type_of_another_script_is_refused(make, kind, other: str):
    if other == kind.config_type:
        make(kind, type="")
        return
    with pytest.raises(
        ConfigError, match=rf'^"type" is {other} in the configuration, but this script is for {kind.config_type}$'
    ):
        make(kind, type=other)


@pytest.mark.parametrize("kind", SPECIFIC)
@pytest.mark.parametrize("option", ["enable_prompt", "enable_task_token"])
def test_the_task_specific_ways_refuse_prompts(make, kind, option: str):
    with pytest.raises(ConfigError, match="the task-specific models take no prompt and no task token"):
        make(kind, **{option: True})


@pytest.mark.parametrize(
    ("kind", "prompt", "token"),
    [
        (QAMCTask, "which answer is correct, from [0, 1, 2, 3, 4]?", 0),
        (RetMCTask, "is the video-text matched, true or false?", 0),
        (QAOETask, "answer the question about the video.", 2),
        (FillInTheBlankTask, "fill in the mask to complete the sentence.", 2),
    ],
)
def test_what_stands_before_the_text(make, make_model, kind, prompt: str, token: int):
    task = make(kind, enable_prompt=True)
    model = make_model(task.heads)
    assert task.prompt() == prompt
    ids = torch.from_numpy(task.tokenizer.prompt(prompt))
    assert torch.equal(task.prefix(model).states, model.prompt(ids).states)
    assert torch.equal(make(kind, enable_task_token=True).prefix(model).states[0, 0], model.emb_task[token])
    assert torch.equal(
        make(kind, enable_task_token=True, task_token="mc").prefix(model).states[0, 0], model.emb_task[1]
    )
    assert make(kind).prefix(model) is None


@pytest.mark.parametrize("option", ["", "enable_prompt", "enable_task_token"])
def test_the_states_of_the_text_stand_last(make, make_model, option: str):
    task = make(QAOETask, **({option: True} if option else {}))
    model, batch = make_model(task.heads), batch_of(task, 0, 1)
    with torch.inference_mode():
        video, text = model.encode_video(batch["img"]), model.encode_text(batch["ids"], batch["mask"])
        fused = model.fuse(video, text, task.prefix(model))
        states = task.text_states(model, video, batch["ids"], batch["mask"])
    assert states.shape == (2, 30, 64)
    assert torch.equal(states, fused[:, fused.shape[1] - 30 :])


@EVERY
def test_names_of_runs_and_checkpoints(make, kind):
    task = make(kind)
    assert task.run_name() == "mine"
    assert task.checkpoint_name(0, None) == "ckpt_violet_mine_0.pt"
    assert task.checkpoint_name(3, task.training_parts()[0]) == "ckpt_violet_mine_3.pt"


# --- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "option"),
    [*((kind, option) for kind in MLM for option in ("", "enable_prompt", "enable_task_token"))]
    + [(kind, "") for kind in SPECIFIC],
)
def test_the_loss_reaches_every_parameter_but_those_named(make, make_model, kind, option: str):
    """A parameter without gradient would stop DDP; one that is left out for no reason would never learn."""
    task = make(kind, **({option: True} if option else {}))
    model = make_model(task.heads)
    losses = task.loss(model, batch_of(task, 0, 1))
    assert set(losses) == {"loss", "acc", "count_unlabelled_batches"}
    assert float(losses["count_unlabelled_batches"]) == 0
    losses["loss"].backward()
    unused = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert unused == {name for name, _ in model.named_parameters() if name.startswith(task.unused_parameters())}


def unlabelled(items: list[dict]) -> list[dict]:
    """The same items without their videos; the answers of the open-ended ones are no words."""
    return [{**item, "video": f"not {item['video']}", "answer_text": "zebracorn"} for item in items]


@EVERY
def test_a_batch_without_labels_is_counted_and_has_a_gradient_of_0(make, make_model, texts: Callable, kind):
    task = make(kind, {"test": unlabelled(texts(kind)["test"])}, on_bad_sample="zero")
    model = make_model(task.heads)
    losses = task.loss(model, batch_of(task, 0, 1))
    assert (float(losses["loss"].detach()), float(losses["count_unlabelled_batches"])) == (0, 1)
    losses["loss"].backward()
    for name, parameter in model.named_parameters():
        if not name.startswith(task.unused_parameters()):
            assert parameter.grad is not None, name
            assert not parameter.grad.any(), name


@EVERY
def test_questions_without_label_do_not_count_in_the_loss(make, make_model, texts: Callable, kind):
    items = texts(kind)["test"]
    task = make(kind, {"test": [items[0], *unlabelled(items[1:2]), items[2]]}, on_bad_sample="zero")
    model = make_model(task.heads)
    with torch.inference_mode():
        mixed, whole = (task.loss(model, batch_of(task, *numbers)) for numbers in ((0, 1, 2), (0, 2)))
    assert float(mixed["loss"]) == pytest.approx(float(whole["loss"]), rel=1e-5)
    assert float(mixed["count_unlabelled_batches"]) == 0


def test_the_counted_loss_is_torchs():
    torch.manual_seed(3)
    logits, labels = torch.randn(4, 5), torch.tensor([2, -1, 0, 4])
    losses = counted_loss(logits, labels)
    assert torch.allclose(losses["loss"], torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1))
    assert float(losses["count_unlabelled_batches"]) == 0
    without = counted_loss(logits, torch.full((4,), -1))
    assert [float(value) for value in without.values()] == [0, 0, 1]  # loss, accuracy, count
    assert counted_loss(logits.bfloat16(), labels)["loss"].dtype == torch.float32


def test_states_at_one_position_each():
    states = torch.arange(24.0).view(3, 4, 2)
    found = at_positions(states, torch.tensor([3, 0, -1]))
    assert found.tolist() == [[6, 7], [8, 9], [16, 17]], "there is no -1: the caller has to set that answer aside"


# --- predictions ------------------------------------------------------------------------------------------------------


@EVERY
def test_a_record_of_every_question(make, make_model, texts: Callable, kind):
    items = texts(kind)["test"]
    task = make(kind, {"test": [*items[:2], *unlabelled(items[2:3])]}, on_bad_sample="zero", score_fn="upstream")
    with torch.inference_mode():
        records = task.predict(make_model(task.heads), batch_of(task, 0, 1, 2))
    assert [record["index"] for record in records] == [0, 1, 2]
    assert [record["video"] for record in records] == ["vid0", "vid1", "not vid2"]
    assert [record["question"] for record in records] == [item["question"] for item in items[:3]]
    assert records[2]["right"] is False, "without its video or its word a question is wrong"
    json.dumps(records)  # they are written as they are
    metrics = task.metrics(records, "val")
    assert task.best_metric[0] in metrics
    assert metrics[task.best_metric[0]] == sum(record["right"] for record in records) / 3


@EVERY
def test_the_model_is_told_which_videos_are_missing(make, make_model, texts: Callable, monkeypatch, kind):
    """Their zeros are those of normalised frames: black frames are something to see."""
    items = texts(kind)["test"]
    task = make(kind, {"test": [items[0], *unlabelled(items[1:2])]}, on_bad_sample="zero")
    model, told = make_model(task.heads), []
    encode = Lavender.encode_video

    def watch(model: Lavender, img: Tensor, present: Tensor | None = None) -> Any:
        told.append(None if present is None else present.tolist())
        return encode(model, img, present)

    monkeypatch.setattr(Lavender, "encode_video", watch)
    with torch.inference_mode():
        task.loss(model, batch_of(task, 0, 1))
        task.predict(model, batch_of(task, 0, 1))
    assert told == [[True, False]] * 2


class Chosen(ChoiceTask):
    """Options with the scores and probabilities that a test gives."""

    heads = QAMCTask.heads
    dataset_class = QAMCTask.dataset_class
    scores: Tensor
    probabilities: Tensor

    def loss(self, model: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        raise NotImplementedError

    def option_scores(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return self.scores, self.probabilities


def choice(
    config: Config,
    scores: list[list[float]],
    probabilities: list[list[float]],
    answers: list[int],
    present: list[bool] | None = None,
) -> list:
    task = Chosen(replace(config, type="", dataset="toy", task="mine"))
    task.scores, task.probabilities = torch.tensor(scores), torch.tensor(probabilities)
    questions = len(scores)
    return task.predict(
        None,  # type: ignore[arg-type]
        {
            "index": torch.arange(10, 10 + questions),
            "answer": torch.tensor(answers),
            "present": torch.tensor(present or [True] * questions),
            "video": [f"vid{number}" for number in range(questions)],
            "question": ["what ?"] * questions,
            "options": [[f"option {number}" for number in range(len(scores[0]))]] * questions,
        },
    )


def test_a_record_in_full(config: Config):
    (record,) = choice(config, [[0.5, -2.0, 8.0]], [[0.25, 0.25, 0.5]], [2])
    assert record == {
        "index": 10,
        "video": "vid0",
        "question": "what ?",
        "options": ["option 0", "option 1", "option 2"],
        "answer": 2,
        "prediction": 2,
        "top": [
            {"option": 2, "probability": 0.5},
            {"option": 0, "probability": 0.25},
            {"option": 1, "probability": 0.25},
        ],
        "right": True,
    }


def test_the_best_score_wins_and_not_the_best_probability(config: Config):
    records = choice(config, [[0.0, 1.0], [1.0, 0.0]], [[0.75, 0.25], [0.75, 0.25]], [0, 0])
    assert [(record["prediction"], record["right"]) for record in records] == [(1, False), (0, True)]
    assert records[0]["top"] == [{"option": 1, "probability": 0.25}, {"option": 0, "probability": 0.75}]


def test_of_equal_scores_the_first_option_wins(config: Config):
    (record,) = choice(config, [[0.5, 0.5, 0.5]], [[0.5] * 3], [1])
    assert [entry["option"] for entry in record["top"]] == [0, 1, 2]
    assert record["right"] is False


def test_five_of_more_options_are_listed(config: Config):
    (record,) = choice(config, [[0.0, 1, 2, 3, 4, 5, 6]], [[0.125] * 7], [0])
    assert [entry["option"] for entry in record["top"]] == [6, 5, 4, 3, 2]
    assert len(record["options"]) == 7


def test_without_its_video_no_question_is_right(config: Config):
    records = choice(config, [[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5]] * 2, [0, 1], [False, True])
    assert [record["right"] for record in records] == [False, True]
    assert [record["answer"] for record in records] == [0, 1], "the true answer is kept"


def test_accuracy_is_over_all_questions(make):
    records = [{"right": right} for right in (True, False, True, False, False)]
    for split in ("val", "test"):
        assert make(QAMCTask, size_test=9).metrics(records, split) == {"acc": 0.4}


def test_curves_under_the_released_keys(make):
    epochs = [
        {"train": {"loss": 3.0}, "val": {"acc": 0.1}, "test": {"acc": 0.2}},
        {"train": {"loss": 2.0}, "val": {"acc": 0.3}, "test": {"acc": 0.4}},
    ]
    task = make(QAMCTask)
    assert task.curves(epochs) == {"ls_tr": [3.0, 2.0], "ac_vl": [0.1, 0.3], "ac_ts": [0.2, 0.4]}
    tested = task.curves([{"train": {"loss": 1.0}, "test": {"acc": 0.5}}])
    assert tested == {"ls_tr": [1.0], "ac_vl": [], "ac_ts": [0.5]}


@pytest.mark.parametrize(("right", "acc"), [([None, None], None), ([True, None, False], 0.5), ([True, False], 0.5)])
def test_items_without_an_answer_are_not_counted(right: list[bool | None], acc: float | None):
    records = [{"right": value, "right_in_5": value} for value in right]
    missing = {"no_answer": right.count(None)} if None in right else {}
    assert ChoiceTask.metrics(None, records, "test") == ({} if acc is None else {"acc": acc, **missing})
    task = SimpleNamespace(config=SimpleNamespace(size_test=10), _is_of_this_data=lambda _: True)
    found = QAOETask.metrics(task, records, "test")
    adjusted = {} if missing else {"acc_1_adjusted": 0.1, "acc_5_adjusted": 0.1}
    assert found == ({} if acc is None else {"acc_1": acc, "acc_5": acc, **missing, **adjusted})
    assert QAOETask.curves(task, [{"train": {"loss": 1.0}, "test": found}])["ac_1_ts"] == [
        None if acc is None else adjusted.get("acc_1_adjusted", acc)
    ]


@pytest.mark.parametrize("name", ["validation", "valid", "dev", "Eval"])
def test_a_split_under_another_name_is_told(make, log, name: str):
    task = make(QAOETask, {"val": None, name: [{"video": "vid0"}]})
    assert list(task.evaluation_sets()) == ["test"]
    assert f'found "{name}"; rename it "val"' in log.text


def test_no_split_to_evaluate_but_one_under_another_name(make):
    texts = {"train": None, "val": None, "test": None, "Testing": [{"video": "vid0"}]}
    with pytest.raises(DataError, match='"Testing"; rename it "test"'):
        make(QAOETask, texts, size_epoch=0).evaluation_sets()


def test_a_training_split_under_another_name_is_told(make):
    with pytest.raises(DataError, match='found "training"; rename it "train"'):
        make(QAOETask, {"train": None, "training": [{"video": "vid0"}]}).evaluation_sets()
