"""Question answering and multiple choice against the released code: tokens, labels, logits, losses, answers."""

import numpy as np
import pytest
import torch

from lavender.tasks.downstream import ChoiceTask
from lavender.tasks.qamc import QAMCTask, QAMCTaskSpecificTask
from lavender.tasks.qaoe import FillInTheBlankTask, QAOETask, QAOETaskSpecificTask
from lavender.tasks.retmc import RetMCTask, RetMCTaskSpecificTask

VARIANTS = ("plain", "prompt", "task_token")
POSITIONS = ("append", "prepend", "insert", "replace")
QAMC_CASES = [(position, variant) for position in POSITIONS for variant in ("plain", "prompt")]


def same_inputs(batch: dict, case: dict[str, np.ndarray], labels: str = "mask_ans") -> None:
    assert np.array_equal(batch["ids"], case["txt"])
    assert np.array_equal(batch["mask"], case["mask"])
    ours = batch["labels"] if labels == "mask_ans" or "labels" in batch else batch["answer"]
    assert np.array_equal(ours, case[labels])


def figures(run) -> tuple[float, list[dict]]:
    with torch.inference_mode():
        return float(run.task.loss(run.model, run.batch)["loss"]), run.task.predict(run.model, run.batch)


OPTIONS = tuple(f"option_{number}" for number in range(5))


@pytest.mark.parametrize(("position", "variant"), [*QAMC_CASES, ("append", "task_token")])
def test_multiple_choice(kit, load, position, variant):
    case, plain = kit.case(f"qamc_mlm_{position}_{variant}"), kit.case(f"qamc_mlm_{position}_plain")
    run = load(QAMCTask, "toy-action", size_txt=100, mask_pos=position, task_token="mc", variant=variant)
    same_inputs(run.batch, plain)
    assert np.array_equal(run.batch["answer"], plain["ans_idx"])
    with torch.inference_mode():
        logits = run.task.logits(run.model, run.batch)
    loss, records = figures(run)
    assert kit.agrees(logits, case["logits_at_mask"])
    assert kit.loss_agrees(loss, case["ls"])
    if "option_logits" in case:
        assert kit.agrees(logits[:, run.task.option_ids], case["option_logits"])
        assert kit.same([record["prediction"] for record in records], case["pred_by_logit"].tolist())
    if "prompt" in case:
        assert run.task.tokenizer.prompt(run.task.prompt()).tolist() == case["prompt"].tolist()


def test_the_released_choice_divides_by_the_sum(kit, load):
    run = load(QAMCTask, "toy-action", size_txt=100, score_fn="upstream")
    logits = kit.case("qamc_mlm_append_plain")["option_logits"]
    _, records = figures(run)
    released = (logits / logits.sum(1, keepdims=True)).argmax(1).tolist()
    assert kit.same([r["prediction"] for r in records], released)


@pytest.mark.parametrize("variant", VARIANTS)
def test_multiple_choice_by_matching(kit, load, variant):
    case = kit.case(f"retmc_mlm_{variant}")
    run = load(RetMCTask, "toy-mc", size_txt=25, variant=variant)
    same_inputs(run.batch, case)
    with torch.inference_mode():
        true, false = run.task.match_logits(run.model, run.batch)
    loss, records = figures(run)
    assert kit.agrees(true, case["logit_true"])
    assert kit.agrees(false, case["logit_false"])
    assert kit.loss_agrees(loss, case["ls"])
    assert kit.same([record["prediction"] for record in records], (true - false).argmax(1).tolist())
    run.task.config.score_fn = "upstream"
    with torch.inference_mode():
        scores, probabilities = run.task.option_scores(run.model, run.batch)
    assert kit.agrees(scores, case["upstream_ratio"], 1e-4)  # a ratio near its pole: its own error grows there
    assert kit.agrees(probabilities, torch.sigmoid(true - false).numpy(), 1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("blank", [False, True], ids=["question", "blank"])
def test_open_ended(kit, load, variant, blank):
    name = f"qaoe_mlm_fib{'' if variant == 'plain' else '_' + variant}" if blank else f"qaoe_mlm_{variant}"
    case, plain = kit.case(name), kit.case("qaoe_mlm_fib" if blank else "qaoe_mlm_plain")
    task_class, texts = (FillInTheBlankTask, "toy-fib") if blank else (QAOETask, "toy-qa")
    run = load(task_class, texts, size_txt=25, variant=variant)
    same_inputs(run.batch, plain)
    with torch.inference_mode():
        logits = run.task.logits(run.model, run.batch)[run.batch["answer_id"] != -1]
    loss, records = figures(run)
    assert kit.agrees(logits, case["logits_at_mask"])
    assert kit.loss_agrees(loss, case["ls"])
    if "ac_1" in case:  # the released lists put the questions without a label last
        metrics = run.task.metrics(records, "test")
        assert kit.same(metrics, {"acc_1": case["ac_1"].mean(), "acc_5": case["ac_5"].mean()})


@pytest.mark.parametrize(
    ("task_class", "texts", "name", "size"),
    [
        (QAMCTaskSpecificTask, "toy-action", "qamc", 100),
        (RetMCTaskSpecificTask, "toy-mc", "retmc", 25),
        (QAOETaskSpecificTask, "toy-qa", "qaoe", 25),
    ],
)
def test_task_specific(kit, load, task_class, texts, name, size):
    case = kit.case(f"{name}_task_specific")
    run = load(task_class, texts, size_txt=size)
    same_inputs(run.batch, case, "ans")
    with torch.inference_mode():
        logits = run.task.logits(run.model, run.batch)
    loss, records = figures(run)
    assert kit.agrees(logits, case["out"])
    assert kit.loss_agrees(loss, case["ls"])
    best = [case["out"][n].argmax() for n in range(len(records))]
    right = [record["right"] for record in records]
    assert kit.same(right, [bool(guess == answer) for guess, answer in zip(best, case["ans"], strict=True)])


@pytest.mark.parametrize("position", POSITIONS)
def test_cut_multiple_choice(kit, load, truncated, position):
    case = kit.case(f"truncated_qamc_{position}")
    data = truncated("toy-action", ("question", *OPTIONS))
    run = load(QAMCTask, "toy-action", data, items=3, size_txt=100, mask_pos=position)
    same_inputs(run.batch, case)
    assert torch.equal(run.batch["ids"][range(3), run.batch["position"]], torch.full((3,), run.task.tokenizer.mask_id))


@pytest.mark.parametrize(
    ("task_class", "texts", "name", "size", "labels"),
    [
        (QAMCTaskSpecificTask, "toy-action", "qamc_task_specific", 100, "ans"),
        (RetMCTask, "toy-mc", "retmc", 25, "mask_ans"),
        (RetMCTaskSpecificTask, "toy-mc", "retmc_task_specific", 25, "ans"),
        (QAOETask, "toy-qa", "qaoe", 25, "mask_ans"),
        (QAOETaskSpecificTask, "toy-qa", "qaoe_task_specific", 25, "ans"),
    ],
)
def test_cut_texts(kit, load, truncated, task_class, texts, name, size, labels):
    keys = ("question", *OPTIONS) if issubclass(task_class, ChoiceTask) else ("question",)
    run = load(task_class, texts, truncated(texts, keys), items=3, size_txt=size)
    same_inputs(run.batch, kit.case(f"truncated_{name}"), labels)
