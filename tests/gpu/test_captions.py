"""Captions on a GPU: the words of a CPU, greedy and with beams; low precision is near."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig

from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.encoders import Encoded
from lavender.models.generation import Decoding, SpecialTokens, generate
from lavender.models.lavender import Heads, Lavender
from lavender.runtime.device import autocast

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
BERT = Path(__file__).parents[2] / "tests" / "conformance" / "kit" / "bert_micro"
TOKENS = SpecialTokens(cls=101, sep=102, pad=0, mask=103)


def captions(device: str, precision: str, beams: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and scores for three videos of made-up states, the same on every device."""
    torch.manual_seed(0)
    bert = BertConfig.from_pretrained(BERT, initializer_range=0.2)
    place = torch.device(device)
    model = Lavender(VideoSwin("micro"), bert, bert, Heads()).eval().to(place)
    states = torch.randn(3, 20, bert.hidden_size)
    video = Encoded(states.to(place), torch.ones(3, 20, dtype=torch.long, device=place))
    with torch.inference_mode(), autocast(precision, place):
        found = generate(model, video, model.task_token("cap"), TOKENS, Decoding(num_beams=beams))
    return found.ids.cpu(), found.scores.cpu()


@pytest.mark.parametrize("beams", [1, 4])
def test_the_words_of_a_cpu(beams: int):
    torch.backends.cuda.matmul.allow_tf32 = False
    (ours, scores), (theirs, expected) = captions("cuda", "fp32", beams), captions("cpu", "fp32", beams)
    assert torch.equal(ours, theirs)
    assert torch.allclose(scores, expected, atol=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_near(precision: str):
    ids, scores = captions("cuda", precision, 1)
    _, expected = captions("cpu", "fp32", 1)
    assert (ids[..., 0] == TOKENS.cls).all()
    assert scores.isfinite().all()
    assert torch.allclose(scores, expected, atol=0.3)
