import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lavender.config.schema import Config
from lavender.data.samples import SampleKey
from lavender.runtime.errors import ConfigError
from lavender.tasks.caption import CaptionTask, caption_loss

YAMLS = {f"{split}_yaml": f"CAP/{split}.yaml" for split in ("train", "val", "test")}


@pytest.fixture
def make(config: Config, kit: Path):
    def build(**options: Any) -> CaptionTask:
        ground = {"type": "captioning", "task": "toy-cap", "dataset": "", "size_img": 32, "size_txt": 12, **YAMLS}
        return CaptionTask(replace(config, **{**ground, "data_dir": str(kit / "data"), **options}))

    return build


def batch_of(task: CaptionTask, *numbers: int, split: str = "train") -> dict[str, Any]:
    dataset = task.datasets[split]
    batch = dataset.collate([dataset[SampleKey(1, number)] for number in numbers])
    assert isinstance(batch, dict)
    return batch


def test_splits_without_a_yaml_are_left_out_and_said(make, log):
    task = make(val_yaml="")
    assert list(task.evaluation_sets()) == ["test"]
    assert "val_yaml is empty, so no evaluation on val" in log.text
    assert [part.samples for part in task.training_parts()] == [12]
    with pytest.raises(ConfigError, match="train_yaml is empty"):
        _ = make(train_yaml="").datasets
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        _ = make(val_yaml="", test_yaml="", size_epoch=0).datasets


def test_the_loss_is_a_plain_loop():
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 5), torch.tensor([0, 4, 2, 2, 1, 3, 0])
    for smoothing, drop in ((0.0, 0.0), (0.1, 0.0), (0.2, 0.4)):
        losses = []
        for row, label in zip(logits.double(), labels, strict=True):
            probs = row.softmax(-1)
            targets = [1 - smoothing if word == label else smoothing / 4 for word in range(5)]
            losses.append(sum(q * float(torch.tensor(q).log() - p.log()) for q, p in zip(targets, probs) if q > 0))  # noqa: B905
        kept = sorted(losses)[: int(7 * (1 - drop))]
        assert caption_loss(logits, labels, smoothing, drop).item() == pytest.approx(sum(kept) / len(kept), rel=1e-5)
    assert caption_loss(logits, labels).item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits, labels).item()
    )


def test_one_word_is_never_dropped():
    assert caption_loss(torch.randn(1, 5), torch.tensor([2]), drop_worst=0.9).item() > 0


def test_the_worst_are_dropped_after_so_many_steps(make, make_model):
    task = make(drop_worst_ratio=0.5, drop_worst_after=3, p_mask=1.0)
    model, batch = make_model(task.heads), batch_of(task, 0, 1)
    losses = []
    with torch.inference_mode():
        for task.clock.step in (0, 2, 3, 9):
            losses.append(task.loss(model, batch)["loss"].item())
    assert losses[0] == losses[1] > losses[2] == losses[3]


def test_nothing_hidden_is_no_loss_and_is_counted(make, make_model):
    task = make(p_mask=0.0)
    model = make_model(task.heads)
    figures = task.loss(model, batch_of(task, 0, 1))
    figures["loss"].backward()
    assert (figures["loss"].item(), figures["count_unlabelled_batches"].item()) == (0, 1)
    assert not model.fc_mtm.predictions.decoder.weight.grad.any()


def test_a_word_sees_no_later_one(make, make_model):
    """Changing the last token changes the logits of none before it."""
    task = make(p_mask=1.0)
    model, batch = make_model(task.heads), batch_of(task, 1)
    end = int(batch["mask"][0].sum()) - 1
    with torch.inference_mode():
        before, labels = task.outputs(model, batch)
        batch["ids"][0, end] = task.tokenizer.true_id
        after, _ = task.outputs(model, batch)
    assert len(labels) == end + 1
    assert torch.equal(before[:end], after[:end])
    assert not torch.equal(before[end], after[end])


@pytest.mark.parametrize("option", ["", "enable_prompt", "enable_task_token"])
def test_the_loss_reaches_every_parameter_but_those_named(make, make_model, option: str):
    task = make(p_mask=0.5, **({option: True} if option else {}))
    model = make_model(task.heads)
    task.loss(model, batch_of(task, 0, 1, 2))["loss"].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith(task.unused_parameters()), name


# --- predictions beside a checkpoint ----------------------------------------------------------------------------------

METRICS = {"CIDEr": 1.5}


def records(task: CaptionTask) -> list[dict[str, Any]]:
    captions = [{"caption": "a star", "conf": 0.25}]
    videos = task.datasets["val"].video_ids()
    return [{"index": n, "video": video, **captions[0], "captions": captions} for n, video in enumerate(videos)]


def test_captions_of_the_same_weights_and_options_are_used_again(make, tmp_path: Path, log):
    task, checkpoint = make(), tmp_path / "ckpt_3.pt"
    assert task.earlier_records("val", checkpoint, lambda: "w") is None
    task.publish("val", checkpoint, lambda: "w", records(task), METRICS)
    path = tmp_path / "ckpt_3.pred.CAP.val.beam1.max20.tsv"
    assert path.is_file()
    assert json.loads(path.with_suffix(".eval.json").read_text()) == METRICS
    assert make().earlier_records("val", checkpoint, lambda: "w") == records(task)
    assert "its captions are used again" in log.text
    assert task.earlier_records("val", checkpoint, lambda: "other") is None
    assert task.earlier_records("test", checkpoint, lambda: "w") is None
    assert make(size_frame=3).earlier_records("val", checkpoint, lambda: "w") is None
    assert make(repetition_penalty=1.5).earlier_records("val", checkpoint, lambda: "w") is None
    assert make(seed=5).earlier_records("val", checkpoint, lambda: "w") is not None, "nothing was drawn"
    path.write_text("cut")
    path.with_suffix(".lineidx").unlink()
    assert make().earlier_records("val", checkpoint, lambda: "w") is None
    assert "is not used again" in log.text


def test_captions_of_bad_samples_are_made_again(make, tmp_path: Path):
    task = make()
    task.publish("val", tmp_path / "x.pt", lambda: "w", records(task), {**METRICS, "bad_samples": 1})
    assert list(tmp_path.glob("*.tsv"))
    assert task.earlier_records("val", tmp_path / "x.pt", lambda: "w") is None


def test_a_folder_that_cannot_be_written_is_no_end(make, tmp_path: Path, log):
    task = make()
    task.publish("val", tmp_path / "nowhere" / "x.pt", lambda: "w", records(task), METRICS)
    assert "could not be written" in log.text


def test_predicting_gives_texts_and_confidence(make, make_model):
    task = make(num_beams=3, num_keep_best=2, max_gen_length=6)
    model = make_model(task.heads)
    with torch.inference_mode():
        found = task.predict(model, batch_of(task, 0, 1, split="val"))
    assert [(record["index"], record["video"]) for record in found] == [(0, "vid0"), (1, "vid1")]
    for record in found:
        assert record["captions"][0] == {"caption": record["caption"], "conf": record["conf"]}
        assert len(record["captions"]) == 2
        assert all(0 < one["conf"] <= 1 for one in record["captions"])


@pytest.mark.parametrize(("texts", "missing"), [([[], []], 2), ([["a dog"], []], 1), ([["a dog"], ["a cat"]], 0)])
def test_metrics_are_those_of_the_videos_with_references(monkeypatch, log, texts: list[list[str]], missing: int):
    scored = []

    def metrics(captions, references, spice):
        scored.extend(zip(captions, references, strict=True))
        return {"CIDEr": 1.0}

    monkeypatch.setattr("lavender.tasks.caption.caption_metrics", metrics)
    task = SimpleNamespace(references={"test": texts}, config=SimpleNamespace(spice=False))
    found = CaptionTask.metrics(task, [{"caption": "first"}, {"caption": "second"}], "test")
    expected = {2: {}, 1: {"CIDEr": 1.0, "no_reference": 1}, 0: {"CIDEr": 1.0}}
    assert found == expected[missing]
    assert scored == list(zip(["first", "second"], texts, strict=True))[: 2 - missing]
    assert ("no reference" in log.text or "no video has a reference" in log.text) == bool(missing)
