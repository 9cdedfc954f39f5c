"""Captioning against the released code: its text, its loss, and its words, which it found without a cache."""

import numpy as np
import pytest
import torch

from lavender.config.schema import Config
from lavender.data.caption import CaptionDataset
from lavender.data.samples import SampleKey
from lavender.models.generation import generate
from lavender.tasks.caption import CaptionTask, caption_loss
from lavender.text.masking import IGNORED

SAMPLES = (0, 3, 5, 10)
VARIANTS = ("plain", "prompt", "task_token")


@pytest.fixture
def caption(kit):
    """`caption(variant, **options)`: the task on the kit's captioning folder."""

    def build(variant: str, **options) -> CaptionTask:
        yamls = {f"{split}_yaml": f"CAP/{split}.yaml" for split in ("train", "val", "test")}
        config = Config(
            **{"size_frame": 4, "size_txt": 50, "data_dir": str(kit.data), **yamls, **options},
            txt_backbone=str(kit.bert),
            fusion_encoder=str(kit.bert),
            enable_prompt=variant == "prompt",
            enable_task_token=variant == "task_token",
        )
        return CaptionTask(config)

    return build


def batch_of(dataset, samples) -> dict:
    return dataset.collate([dataset[SampleKey(0, number)] for number in samples])


@pytest.mark.parametrize("variant", VARIANTS)
def test_tokens(kit, caption, variant):
    case = kit.case(f"caption_{variant}_inputs")
    batch = batch_of(caption(variant, p_mask=0.0).datasets["train"], SAMPLES)
    assert np.array_equal(batch["ids"], case["txt"])
    assert np.array_equal(batch["mask"], case["mask"])
    assert batch["video"] == case["keys"].tolist()


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_loss(kit, caption, variant):
    case = kit.case(f"caption_{variant}_train")
    task, model = caption(variant), kit.model()
    captions = task.datasets["train"]
    clips = CaptionDataset(task.config, task.tokenizer, captions.folder, training=False)  # evaluation frames
    batch = batch_of(clips, captions.samples[list(SAMPLES), 0])
    inputs = kit.case(f"caption_{variant}_inputs")
    batch |= {"ids": torch.from_numpy(case["txt_masked"]), "mask": torch.from_numpy(inputs["mask"])}
    labels = case["ans_mtm"][:, -50:]  # the prompt or token in front is never asked about
    assert (case["ans_mtm"][:, :-50] == IGNORED).all()
    batch["labels"] = torch.from_numpy(labels)
    with torch.inference_mode():
        logits, answers = task.outputs(model, batch)
        loss = task.loss(model, batch)["loss"]
    assert answers.tolist() == labels[labels != IGNORED].tolist()
    assert kit.agrees(logits, case["logits_at_masked"])
    assert kit.loss_agrees(loss, case["ls"])


def test_what_was_masked_is_what_we_would_mask(kit, caption):
    """Hidden tokens of the kit are `[CLS]` and words; ours are too, with `[SEP]`, and never a pad."""
    case, inputs = kit.case("caption_plain_train"), kit.case("caption_plain_inputs")
    hidden = case["ans_mtm"] != IGNORED
    assert np.array_equal(np.where(hidden, case["ans_mtm"], case["txt_masked"]), inputs["txt"])
    batch = batch_of(caption("plain", p_mask=1.0).datasets["train"], SAMPLES)
    assert np.array_equal(batch["labels"] != IGNORED, inputs["txt"] != 0)
    assert np.array_equal(batch["labels"][inputs["txt"] != 0], inputs["txt"][inputs["txt"] != 0])


def test_smoothed_and_trimmed_loss(kit):
    case = kit.case("caption_loss")
    logits, labels = torch.from_numpy(case["logits"]), torch.from_numpy(case["target"])
    for name, options in (
        ("plain", {}),
        ("smoothing_0p1", {"smoothing": 0.1}),
        ("smoothing_0p1_drop_worst_0p2", {"smoothing": 0.1, "drop_worst": 0.2}),
    ):
        assert caption_loss(logits, labels, **options).item() == pytest.approx(float(case[name]), rel=1e-6)


@pytest.mark.parametrize(
    ("variant", "ending"), [*((variant, "") for variant in VARIANTS), ("plain", "_ending"), ("prompt", "_ending")]
)
def test_greedy_words_and_their_probability(kit, caption, variant, ending):
    case = kit.case(f"caption_{variant}_generate{ending}")
    task, model = caption(variant), kit.model()
    batch = batch_of(task.datasets["test" if ending else "val"], range(len(case["tokens"])))
    with torch.inference_mode():
        model.fc_mtm.predictions.decoder.bias[task.tokens.sep] += float(case.get("sep_bias_added", 0))
        video = model.encode_video(batch["img"])
        captions = generate(model, video, task.prefix(model), task.tokens, task.decoding)
        records = task.predict(model, batch)
    if not kit.is_exact:  # other words, and so other scores
        return
    assert np.array_equal(captions.ids[:, 0], case["tokens"])
    assert kit.agrees(captions.scores[:, 0], case["mean_logprob"])
    assert [record["conf"] for record in records] == pytest.approx(np.exp(case["mean_logprob"]).tolist(), rel=1e-4)
