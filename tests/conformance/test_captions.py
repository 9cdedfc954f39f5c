"""Decoding with a key/value cache against the released way, which runs the whole sequence for every word."""

import numpy as np
import pytest
import torch

from lavender.config.schema import Config
from lavender.data.frames import decode_image, evaluation_indices
from lavender.data.transforms import ClipTransform
from lavender.data.tsv import TSVReader, split_columns
from lavender.models.generation import SpecialTokens, greedy
from lavender.text.tokens import TextTokenizer

FRAMES = 4


@pytest.fixture
def clips(kit):
    """`clips(split, count)`: frames of the captioning folder, uint8 (B, 4, 3, 224, 224)."""

    def read(split: str, count: int) -> torch.Tensor:
        tsv = TSVReader(kit.data / "CAP" / f"{split}.img.tsv")
        transform = ClipTransform(Config().img_transform, 224, training=False)
        samples = []
        for row in range(count):
            _, _, images = split_columns(tsv.row(row), tsv.where(row))
            chosen = evaluation_indices(len(images), FRAMES)
            frames = [decode_image(images[number], tsv.where(row)) for number in chosen]
            samples.append(transform(frames, np.random.default_rng(0)))
        return torch.stack(samples)

    return read


@pytest.mark.parametrize(
    ("variant", "ending"),
    [("plain", ""), ("prompt", ""), ("task_token", ""), ("plain", "_ending"), ("prompt", "_ending")],
)
def test_greedy_words_and_their_probability(kit, clips, variant, ending):
    case = kit.case(f"caption_{variant}_generate{ending}")
    model, tokenizer = kit.model(), TextTokenizer(str(kit.bert))
    tokens = SpecialTokens(tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, tokenizer.mask_id)
    with torch.inference_mode():
        model.fc_mtm.predictions.decoder.bias[tokens.sep] += float(case.get("sep_bias_added", 0))
        video = model.encode_video(clips("test" if ending else "val", len(case["tokens"])))
        prefix = None
        if variant == "prompt":
            words = tokenizer.prompt("write a description about the video.")
            prefix = model.prompt(torch.from_numpy(words))
        elif variant == "task_token":
            prefix = model.task_token("cap")
        captions = greedy(model, video, prefix, tokens)
    assert np.array_equal(captions.ids, case["tokens"])
    assert kit.agrees(captions.scores, case["mean_logprob"])
