from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lavender.config.schema import Config
from lavender.data.loaders import evaluation_loader, training_loader
from lavender.runtime.errors import ConfigError, DataError
from lavender.tasks.downstream import DownstreamTask
from lavender.tasks.qamc import QAMCTask
from lavender.tasks.qaoe import FillInTheBlankTask, QAOETask
from lavender.tasks.readouts import at_positions, counted_loss
from lavender.tasks.retmc import RetMCTask
from tests.unit.tasks.downstream_world import EVERY, MLM, SPECIFIC, batch_of, maker, texts_of, unlabelled


@pytest.fixture
def texts(kit: Path) -> Callable[[type[DownstreamTask]], dict[str, list]]:
    return texts_of(kit)


@pytest.fixture
def make(config: Config, kit: Path, tmp_path: Path, texts: Callable) -> Callable[..., DownstreamTask]:
    return maker(config, kit, tmp_path, texts)


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
