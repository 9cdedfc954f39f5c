import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lavender.config.schema import Config
from lavender.data.loaders import evaluation_loader, training_loader
from lavender.runtime.errors import ConfigError, DataError
from lavender.tasks.base import TrainingPart
from lavender.tasks.pretrain import PretrainTask, PretrainTaskSpecificTask

BOTH = pytest.mark.parametrize("kind", [PretrainTask, PretrainTaskSpecificTask])


def data_folder(kit: Path, folder: Path, name: str = "toy") -> Path:
    """The kit's pretraining files under another name, for a test to change."""
    folder.mkdir(exist_ok=True)
    for source in (kit / "data").glob("toy_*"):
        shutil.copy(source, folder / source.name.replace("toy", name, 1))
    shutil.copy(kit / "data" / "txt_toy.json", folder / f"txt_{name}.json")
    return folder


def rewrite(path: Path, **splits: object) -> None:
    """Changes splits of a text file; None takes one away."""
    content = {**json.loads(path.read_text()), **splits}
    path.write_text(json.dumps({name: split for name, split in content.items() if split is not None}))


def part(name: str, number: int = 0) -> TrainingPart:
    return TrainingPart(name, number, 3, lambda: None)  # type: ignore[arg-type, return-value]


# --- data -------------------------------------------------------------------------------------------------------------


def test_parts_of_an_epoch_in_order(config: Config):
    parts = PretrainTask(config).training_parts()
    assert [(p.dataset, p.number, p.samples) for p in parts] == [("toy", 0, 3), ("toy", 1, 3)]
    videos = [[sample["video"][0] for sample in _batches(p.open(), size_batch=1)] for p in parts]
    assert sorted(videos[0] + videos[1]) == [f"vid{number}" for number in range(6)]


def _batches(dataset, size_batch: int) -> Iterable[dict]:
    dataset.config = replace(dataset.config, size_batch=size_batch)
    return training_loader(dataset)


@pytest.mark.parametrize("form", ["name", "list", "object"])
def test_data_sets_as_name_list_or_object(config: Config, kit: Path, tmp_path: Path, form: str):
    if form == "name":
        config.dataset, expected = "toy", {"toy": config.data_dir}
    elif form == "list":
        config.dataset, expected = ["toy", "toy"], {"toy": config.data_dir}
    else:
        data_folder(kit, tmp_path / "b", "other")
        config.dataset = expected = {"toy": config.data_dir, "other": str(tmp_path / "b")}
        config.size_part = {"toy": 2, "other": 1}
    task = PretrainTask(config)
    assert task.folders == expected
    parts = [(p.dataset, p.number) for p in task.training_parts()]
    assert parts == [("toy", 0), ("toy", 1), *([("other", 0)] if form == "object" else [])]
    assert list(task.evaluation_sets()) == (["toy-val", "other-val"] if form == "object" else ["val"])
    if form == "object":
        assert list(task.evaluation_sets(part("other"))) == ["other-val"]
        assert task.evaluation_sets()["other-val"].video(0).where == f"{tmp_path / 'b' / 'other_val.tsv'}, line 1"


def test_images_have_one_frame(config: Config, kit: Path, tmp_path: Path):
    config.dataset, config.data_dir = ["coco"], str(data_folder(kit, tmp_path / "d", "coco"))
    task = PretrainTask(config)
    assert next(iter(evaluation_loader(task.evaluation_sets()["val"])))["img"].shape[1] == 1
    assert next(iter(training_loader(task.training_parts()[0].open())))["img"].shape[1] == 1


def test_a_missing_part_shows_before_training(config: Config):
    config.size_part = 3
    with pytest.raises(DataError, match=r"toy_train_2\.tsv is missing"):
        PretrainTask(config).training_parts()


def test_a_missing_caption_file_shows_before_training(config: Config, kit: Path, tmp_path: Path):
    config.data_dir = str(data_folder(kit, tmp_path / "d"))
    (tmp_path / "d" / "txt_toy.json").unlink()
    with pytest.raises(DataError, match=r"txt_toy\.json is missing: the captions of toy"):
        PretrainTask(config).evaluation_sets()


@pytest.mark.parametrize("train", [None, {}, [], "text"], ids=repr)
def test_a_missing_training_split_is_an_error(config: Config, kit: Path, tmp_path: Path, train: object):
    config.data_dir = str(data_folder(kit, tmp_path / "d"))
    rewrite(tmp_path / "d" / "txt_toy.json", train=train)
    with pytest.raises(DataError, match=r'txt_toy\.json: no "train" captions \(an object, video id → list'):
        PretrainTask(config).training_parts()[0].open()


@pytest.mark.parametrize("val", [None, {}], ids=repr)
@pytest.mark.parametrize("frames", [True, False])
def test_without_validation_captions_it_is_left_out(config, kit, tmp_path: Path, log, val: object, frames: bool):
    config.data_dir = str(data_folder(kit, tmp_path / "d"))
    rewrite(tmp_path / "d" / "txt_toy.json", val=val)
    if not frames:
        (tmp_path / "d" / "toy_val.tsv").unlink()
    assert PretrainTask(config).evaluation_sets() == {}
    assert "toy: no validation captions, so no validation" in log.text


@pytest.mark.parametrize("name", ["validation", "Dev"])
def test_validation_captions_under_another_name_are_told(config: Config, kit: Path, tmp_path: Path, log, name: str):
    config.data_dir = str(data_folder(kit, tmp_path / "d"))
    rewrite(tmp_path / "d" / "txt_toy.json", **{"val": None, name: {"vid0": ["x"]}})
    assert PretrainTask(config).evaluation_sets() == {}
    (record,) = [record for record in log.records if "no validation" in record.getMessage()]
    assert f'"{name}"' in record.getMessage()
    assert record.levelname == "WARNING"


def test_training_captions_under_another_name_are_told(config: Config, kit: Path, tmp_path: Path):
    config.data_dir = str(data_folder(kit, tmp_path / "d"))
    rewrite(tmp_path / "d" / "txt_toy.json", train=None, training={"vid0": ["x"]})
    with pytest.raises(DataError, match=r'txt_toy\.json: .*"training"'):
        PretrainTask(config).training_parts()


def test_validation_captions_of_another_shape_are_an_error(config: Config, kit: Path, tmp_path: Path):
    config.data_dir = str(data_folder(kit, tmp_path / "d"))
    rewrite(tmp_path / "d" / "txt_toy.json", val=[{"video": "vid0", "caption": "x"}])
    with pytest.raises(DataError, match='no "val" captions'):
        PretrainTask(config).evaluation_sets()


@pytest.mark.parametrize(
    ("name", "read"), [("toy_train_1", PretrainTask.training_parts), ("toy_val", PretrainTask.evaluation_sets)]
)
def test_an_empty_file_is_an_error_that_names_it(config: Config, kit: Path, tmp_path: Path, name: str, read: Callable):
    """Passed over, a part without samples has no losses to log, and a validation without samples the best of all."""
    config.data_dir = str(data_folder(kit, tmp_path / "d"))
    for suffix in ("tsv", "lineidx"):
        (tmp_path / "d" / f"{name}.{suffix}").write_text("")
    task = PretrainTask(config)
    with pytest.raises(DataError, match=rf"{name}\.tsv"):
        read(task)


@pytest.mark.parametrize(("ratio", "samples"), [(1.0, 6), (0.34, 2), (2, 2), (3, 3), (100, 6)])
def test_data_ratio(config: Config, ratio: float, samples: int):
    """Below 1 a fraction of the training videos, above 1 their number."""
    config.data_ratio = ratio
    parts = PretrainTask(config).training_parts()
    assert [len(p.open()) for p in parts] == [p.samples for p in parts]
    assert sum(p.samples for p in parts) == samples
    assert len(PretrainTask(config).evaluation_sets()["val"]) == 4, "the validation is left whole"


# --- model ------------------------------------------------------------------------------------------------------------


def prepared(kind: type[PretrainTask], config: Config, make_model) -> tuple:
    """Task, model and the first four validation samples with half their words hidden."""
    config.p_mask, config.size_batch = 0.5, 4
    task = kind(config)
    batch = next(iter(evaluation_loader(task.evaluation_sets()["val"])))
    return task, make_model(task.heads), batch


@BOTH
@pytest.mark.parametrize("tasks", [["mtm"], ["vtm"], ["vtm", "mtm"]], ids="+".join)
@pytest.mark.parametrize("option", ["", "enable_prompt", "enable_task_token"])
def test_the_loss_reaches_every_parameter_but_those_named(config, make_model, kind, tasks: list[str], option: str):
    """A parameter without gradient would stop DDP; one that is left out for no reason would never learn."""
    if option and kind is PretrainTaskSpecificTask:
        pytest.skip("no prompt, no task token")
    config.pretrain_tasks = tasks
    if option:
        setattr(config, option, True)
    task, model, batch = prepared(kind, config, make_model)
    losses = task.loss(model, batch)
    assert set(losses) == {"loss", *tasks, *(["count_unlabelled_batches"] if "mtm" in tasks else [])}
    assert torch.allclose(losses["loss"], sum(losses[name] for name in tasks))
    losses["loss"].backward()
    unused = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    named = {name for name, _ in model.named_parameters() if name.startswith(task.unused_parameters())}
    assert unused == named


@pytest.mark.parametrize("option", ["enable_prompt", "enable_task_token"])
def test_the_prefix_stands_before_matching_alone(config: Config, make_model, option: str):
    task, model, batch = prepared(PretrainTask, config, make_model)
    changed = replace(config)
    setattr(changed, option, True)
    other = PretrainTask(changed)
    with torch.inference_mode():
        plain, prefixed = task.outputs(model, batch), other.outputs(model, batch)
    assert torch.equal(plain["words"], prefixed["words"])
    assert plain["matches"].shape == prefixed["matches"].shape == (4, 4, 350)
    assert not torch.allclose(plain["matches"], prefixed["matches"], atol=1e-3)


def test_which_task_token(config: Config, make_model):
    config.enable_task_token = True
    task, model, _ = prepared(PretrainTask, config, make_model)
    for token, row in [("", 0), ("oe", 2)]:
        config.task_token = token
        assert torch.equal(task.prefix(model).states[0, 0], model.emb_task[row])


def test_matching_asks_for_true_and_false(config: Config, make_model):
    task, model, batch = prepared(PretrainTask, config, make_model)
    with torch.inference_mode():
        matches, losses = task.outputs(model, batch)["matches"], task.loss(model, batch)
    own = -matches[:, :1].log_softmax(-1)[..., task.tokenizer.true_id]
    others = -matches[:, 1:].log_softmax(-1)[..., task.tokenizer.false_id]
    assert torch.allclose(losses["vtm"], torch.cat([own, others], 1).mean(), atol=1e-5)


def test_task_specific_matching_is_a_choice_among_the_texts(config: Config, make_model):
    config.temp = 0.05
    task, model, batch = prepared(PretrainTaskSpecificTask, config, make_model)
    with torch.inference_mode():
        scores, losses = task.outputs(model, batch)["matches"].squeeze(-1), task.loss(model, batch)
    assert scores.shape == (4, 4)
    assert torch.allclose(losses["vtm"], -(scores / 0.05).log_softmax(1)[:, 0].mean(), atol=1e-4)


@BOTH
def test_a_batch_of_one_and_one_without_labels_have_finite_losses(config: Config, make_model, kind):
    task, model, batch = prepared(kind, config, make_model)
    config.size_batch, config.p_mask = 1, 0.0
    single = next(iter(evaluation_loader(task.evaluation_sets()["val"])))
    with torch.inference_mode():
        losses = task.loss(model, single)
        assert float(losses["mtm"]) == 0
        assert float(losses["count_unlabelled_batches"]) == 1
        assert torch.isfinite(losses["loss"])
        assert float(task.loss(model, batch)["count_unlabelled_batches"]) == 0
        assert task.predict(model, single)[0]["words"] == []


@pytest.mark.parametrize("option", ["enable_prompt", "enable_task_token"])
def test_the_task_specific_way_refuses_prompts(config: Config, option: str):
    setattr(config, option, True)
    with pytest.raises(ConfigError, match="take no prompt and no task token"):
        PretrainTaskSpecificTask(config)
    PretrainTask(config)


# --- evaluation -------------------------------------------------------------------------------------------------------


@BOTH
def test_records(config: Config, make_model, kind):
    task, model, batch = prepared(kind, config, make_model)
    with torch.inference_mode():
        records, losses = task.predict(model, batch), task.loss(model, batch)
    assert [record["index"] for record in records] == [0, 1, 2, 3]
    assert [record["video"] for record in records] == ["vid0", "vid1", "vid2", "vid3"]
    assert records[0]["caption"] == "a red circle moves left"
    json.dumps(records)  # they are written as they are
    for record, labels in zip(records, batch["labels"], strict=True):
        hidden = [task.tokenizer.word(int(label)) for label in labels if label != -1]
        assert [word["word"] for word in record["words"]] == hidden
        assert all(0 < word["probability"] <= 1 and word["loss"] > 0 for word in record["words"])
        assert len(record["matching"]["scores"]) == 4
        assert record["matching"]["right"] == (max(record["matching"]["scores"]) == record["matching"]["scores"][0])
    metrics = task.metrics(records, "val")
    assert metrics["loss_mtm"] == pytest.approx(float(losses["mtm"]), rel=1e-5)
    assert metrics["loss_vtm"] == pytest.approx(float(losses["vtm"]), rel=1e-5)
    assert metrics["loss"] == pytest.approx(float(losses["loss"]), rel=1e-5)


@pytest.mark.parametrize(("tasks", "absent"), [(["mtm"], "matching"), (["vtm"], "words")])
def test_records_of_one_loss_alone(config: Config, make_model, tasks: list[str], absent: str):
    config.pretrain_tasks = tasks
    task, model, batch = prepared(PretrainTask, config, make_model)
    records = task.predict(model, batch)
    assert all(absent not in record for record in records)
    assert set(task.metrics(records, "val")) == {f"acc_{tasks[0]}", f"loss_{tasks[0]}", "loss"}


def word(right: bool, loss: float) -> dict:
    return {"word": "dog", "prediction": "dog" if right else "cat", "probability": 0.5, "loss": loss}


def match(right: bool, losses: list[float]) -> dict:
    return {"scores": [0.5], "losses": losses, "right": right}


def test_metrics_from_records(config: Config):
    records = [
        {"index": 0, "words": [word(True, 1.0), word(False, 4.0)], "matching": match(True, [0.0, 1.0])},
        {"index": 1, "words": [], "matching": match(False, [2.0, 2.0])},
        {"index": 2, "words": [word(True, 1.0)], "matching": match(True, [3.0])},
    ]
    assert PretrainTask(config).metrics(records, "val") == pytest.approx(
        {"acc_mtm": 2 / 3, "loss_mtm": 2.0, "acc_vtm": 2 / 3, "loss_vtm": 8 / 5, "loss": 3.6}
    )


def test_metrics_where_no_word_was_hidden(config: Config):
    metrics = PretrainTask(config).metrics([{"index": 0, "words": [], "matching": match(True, [0.5])}], "val")
    assert metrics == {"acc_vtm": 1.0, "loss_vtm": 0.5, "loss": 0.5}


# --- names ------------------------------------------------------------------------------------------------------------


def test_names_of_runs_and_checkpoints(config: Config):
    task = PretrainTask(config)
    assert task.run_name() == "pretrain-toy"
    assert task.checkpoint_name(0, None) == "ckpt_violet_pretrain_init_0_0.pt"
    assert task.checkpoint_name(3, part("toy", 1)) == "ckpt_violet_pretrain_toy_1_3.pt"
    config.task, config.dataset = "mine", ["toy", "webvid2.5m"]
    assert PretrainTask(config).run_name() == "mine-toy-webvid2.5m"


def test_curves_under_the_released_keys(config: Config):
    config.dataset = ["toy", "other"]
    epochs = [
        {"dataset": "toy", "train": {"mtm": 3.0, "vtm": 1.0}, "toy-val": {"acc_mtm": 0.1, "acc_vtm": 0.5}},
        {"dataset": "other", "train": {"mtm": 5.0, "vtm": 2.0}},
        {"dataset": "toy", "train": {"mtm": 2.0, "vtm": 0.5}, "toy-val": {"acc_vtm": 0.6}},
    ]
    curves = json.loads(json.dumps(PretrainTask(config).curves(epochs)))
    assert curves == {
        "toy": {"ls_mtm": [3.0, 2.0], "ac_mtm": [0.1, None], "ls_vtm": [1.0, 0.5], "ac_vtm": [0.5, 0.6]},
        "other": {"ls_mtm": [5.0], "ls_vtm": [2.0]},
    }
    assert PretrainTask(config).curves([]) == {"toy": {}, "other": {}}
