"""Pretraining's tokens, logits and losses against the released code."""

import numpy as np
import pytest
import torch

from lavender.config.schema import Config
from lavender.data.samples import SampleKey
from lavender.models.lavender import Heads
from lavender.tasks.pretrain import PretrainTask, PretrainTaskSpecificTask


@pytest.fixture
def config(kit):
    return Config(
        data_dir=str(kit.data),
        dataset=["toy"],
        size_part=2,
        task="pretrain",
        txt_backbone=str(kit.bert),
        fusion_encoder=str(kit.bert),
        size_txt=32,
        size_frame=4,
        img_transform=["img_center_crop"],
        temp=0.05,
    )


def first_four(task) -> dict:
    dataset = task.evaluation_sets()["val"]
    return dataset.collate([dataset[SampleKey(0, index)] for index in range(4)])


def test_inputs(kit, config):
    case = kit.case("pretrain_inputs")
    task = PretrainTask(config)
    dataset = task.evaluation_sets()["val"]
    ids, mask = zip(
        *(task.tokenizer.encode(dataset[SampleKey(0, i)]["caption"], 32, True) for i in range(4)), strict=True
    )
    assert np.array_equal(np.stack(ids), case["txt"])
    assert np.array_equal(np.stack(mask), case["mask"])


@pytest.mark.parametrize("variant", ["plain", "prompt", "task_token"])
def test_mlm(kit, micro, config, variant):
    case = kit.case(f"pretrain_mlm_{variant}")
    config.enable_prompt, config.enable_task_token = variant == "prompt", variant == "task_token"
    task = PretrainTask(config)
    batch = first_four(task)
    batch.update(
        ids=torch.from_numpy(case["txt_masked"]),
        mask=torch.from_numpy(case["mask"]),
        labels=torch.from_numpy(case["ans_mtm"]),
        negatives=torch.from_numpy(case["negatives"]),
    )
    with torch.inference_mode():
        outputs, losses = task.outputs(micro, batch), task.loss(micro, batch)
        records = task.predict(micro, batch)
    assert (task.tokenizer.true_id, task.tokenizer.false_id) == (case["true_id"], case["false_id"])
    assert kit.agrees(outputs["words"], case["logits_mtm_at_masked"])
    assert kit.agrees(outputs["matches"].flatten(0, 1), case["logits_vtm_at_mask"])
    assert kit.loss_agrees(float(losses["mtm"]), case["ls_mtm"])
    assert kit.loss_agrees(float(losses["vtm"]), case["ls_vtm"])
    assert kit.loss_agrees(float(losses["loss"]), case["ls_mtm"] + case["ls_vtm"])
    metrics = task.metrics(records, "val")
    assert kit.same(metrics["acc_mtm"], case["ac_mtm"])
    assert kit.loss_agrees(metrics["loss_mtm"], case["ls_mtm"])
    config.score_fn = "upstream"
    with torch.inference_mode():
        assert kit.same(task.metrics(task.predict(micro, batch), "val")["acc_vtm"], case["ac_vtm_upstream"])


def test_task_specific(kit, config, monkeypatch):
    case = kit.case("pretrain_task_specific")
    task = PretrainTaskSpecificTask(config)
    model = kit.model(task.heads)
    batch = first_four(task)
    ids = torch.from_numpy(case["txt_masked"])
    batch.update(ids=ids, mask=ids.ne(0).long(), labels=torch.from_numpy(case["ans_mtm"]))
    batch["negatives"] = torch.from_numpy(case["negatives"])
    with torch.inference_mode():
        outputs, losses = task.outputs(model, batch), task.loss(model, batch)
    assert kit.agrees(outputs["words"], case["logits_mtm_at_masked"])
    assert kit.agrees(task.matching.scores(outputs["matches"]), case["out_vtm"])
    assert kit.loss_agrees(losses["mtm"], case["ls_mtm"])
    assert kit.loss_agrees(losses["vtm"], case["ls_vtm"], config.temp)
    # The loss of the released scores themselves carries no rounding of the model.
    monkeypatch.setattr(task.matching, "scores", lambda _: torch.from_numpy(case["out_vtm"]).to(kit.device))
    with torch.inference_mode():
        assert kit.loss_agrees(task.loss(model, batch)["vtm"], case["ls_vtm"])


def test_a_batch_without_hidden_words_has_loss_zero(kit, micro, config):
    task = PretrainTask(config)
    batch = first_four(task)
    batch["labels"] = torch.full_like(batch["labels"], -1)
    losses = task.loss(kit.model(Heads()), batch)
    assert float(losses["mtm"]) == 0.0
    assert float(losses["count_unlabelled_batches"]) == 1.0
    assert torch.isfinite(losses["loss"])
