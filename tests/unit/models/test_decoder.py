"""Decoding over a cache against the plain way: the whole sequence again for every word, one video at a time.

In double precision, for rounding not to choose between words that are all but equally likely.
"""

from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertConfig

from lavender.models import generation
from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.decoder import CachedDecoder
from lavender.models.encoders import Encoded
from lavender.models.generation import Captions, Decoding, SpecialTokens, generate
from lavender.models.lavender import Heads, Lavender

VOCABULARY = 12
TOKENS = SpecialTokens(cls=2, sep=3, pad=0, mask=4)
NEAR_TIE = 1e-6  # where two words are that close, rounding may choose


@dataclass(frozen=True)
class Case:
    """A model with random weights, and what it is asked about."""

    seed: int = 0
    embed_only: bool = True
    prefix: str = ""
    videos: int = 3
    places: int = 5  # tokens of a video
    holes: bool = False  # some of them masked, differently in each video
    length: int = 8
    sep_bias: float = 3.0

    def model(self) -> Lavender:
        """Weights drawn wide, biases and norms that are not 0 and 1: what a step changes is seen at the other end."""
        options = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2}
        bert = BertConfig(vocab_size=VOCABULARY, max_position_embeddings=24, initializer_range=0.4, **options)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = (
                Lavender(VideoSwin("micro"), bert, bert, Heads(), embed_only=self.embed_only)
                .eval()
                .requires_grad_(False)
            )
            for part in (model.enc_txt, model.trsfr, model.fc_mtm):
                for parameter in part.parameters():
                    parameter += 0.1 * torch.randn_like(parameter)
        model.fc_mtm.predictions.decoder.bias[TOKENS.sep] += self.sep_bias
        return model.double()

    def encoded(self, model: Lavender) -> tuple[Encoded, Encoded | None]:
        """Videos and prefix."""
        random = torch.Generator().manual_seed(self.seed)
        mask = torch.ones(self.videos, self.places, dtype=torch.long)
        if self.holes:
            mask = torch.randint(0, 2, mask.shape, generator=random)
        states = torch.randn(self.videos, self.places, 32, generator=random)
        video = Encoded(states.to(model.dtype), mask)
        if self.prefix == "prompt":
            return video, model.prompt(torch.tensor([TOKENS.cls, 7, 9, TOKENS.sep]))
        return video, model.task_token("cap") if self.prefix else None


CASES = st.builds(
    Case,
    seed=st.integers(0, 10_000),
    embed_only=st.sampled_from([True, True, False]),
    prefix=st.sampled_from(["", "task token", "prompt"]),
    videos=st.integers(1, 4),
    places=st.integers(1, 7),
    holes=st.booleans(),
    length=st.integers(2, 10),
    sep_bias=st.sampled_from([-9.0, 0.0, 2.0, 4.0]),
)


def row(video: Encoded, number: int) -> Encoded:
    return Encoded(video.states[[number]], video.mask[[number]])


def plain_logits(model: Lavender, video: Encoded, prefix: Encoded | None, words: list[int]) -> Tensor:
    """Logits (V,) of the word after these: `[MASK]` in its place, and everything computed again."""
    ids = torch.tensor([[*words, TOKENS.mask]])
    text = model.encode_text(ids, torch.ones_like(ids))
    return model.fc_mtm(model.fuse(video, text, prefix, attention="seq2seq")[0, -1])


def plain_greedy(model: Lavender, video: Encoded, prefix: Encoded | None, length: int) -> tuple[list[int], float]:
    """Ids of one video's caption, and the mean log-probability of the words predicted."""
    words, scores = [TOKENS.cls], []
    while len(words) < length:
        logits = plain_logits(model, video, prefix, words)
        best = logits.topk(2)
        assume(float(best.values[0] - best.values[1]) > NEAR_TIE)
        words.append(int(best.indices[0]))
        scores.append(float(logits.log_softmax(-1)[words[-1]]))
        if words[-1] == TOKENS.sep:
            break
    words[-1] = TOKENS.sep
    return words + [TOKENS.pad] * (length - len(words)), sum(scores) / len(scores)


class PlainDecoder:
    """What `CachedDecoder` is, without a cache: everything again at each step."""

    def __init__(self, model: Lavender, video: Encoded, prefix: Encoded | None, max_length: int, beams: int, _: int):
        self.model, self.prefix, self.device, self.rows = model, prefix, video.states.device, len(video.states) * beams
        self.videos = [row(video, number) for number in range(len(video.states)) for _ in range(beams)]

    def logits(self, ids: Tensor, position: int) -> Tensor:
        rows = zip(self.videos, ids[:, :position].tolist(), strict=True)
        return torch.stack([plain_logits(self.model, video, self.prefix, words) for video, words in rows]).float()

    def reorder(self, rows: Tensor) -> None:
        """Nothing is kept that would have to follow."""


def without_cache(*arguments: Any, **options: Any) -> Captions:
    with mock.patch.object(generation, "CachedDecoder", PlainDecoder):
        return generate(*arguments, **options)


# --- logits -----------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(CASES, st.integers(1, 3))
def test_logits_of_any_words_are_those_of_the_plain_way(case: Case, beams: int):
    """Rows go on with the words of others, as beams do."""
    model = case.model()
    video, prefix = case.encoded(model)
    random = torch.Generator().manual_seed(case.seed)
    decoder = CachedDecoder(model, video, prefix, case.length, beams, TOKENS.mask)
    plain = PlainDecoder(model, video, prefix, case.length, beams, TOKENS.mask)
    ids = torch.full((case.videos * beams, case.length), TOKENS.pad)
    ids[:, 0] = TOKENS.cls
    firsts = torch.arange(case.videos * beams) // beams * beams
    for position in range(1, case.length):
        found = decoder.logits(ids, position)
        assert found.shape == (case.videos * beams, VOCABULARY)
        assert torch.allclose(found, plain.logits(ids, position), atol=1e-5)
        rows = firsts + torch.randint(0, beams, firsts.shape, generator=random)
        ids = ids[rows]
        ids[:, position] = torch.randint(0, VOCABULARY, firsts.shape, generator=random)
        decoder.reorder(rows)


@pytest.mark.parametrize("embed_only", [True, False])
def test_what_stands_behind_the_words_so_far_is_not_read(embed_only: bool):
    case = Case(embed_only=embed_only)
    model = case.model()
    video, prefix = case.encoded(model)
    found = []
    for filler in (TOKENS.pad, 7):
        decoder = CachedDecoder(model, video, prefix, case.length, 1, TOKENS.mask)
        ids = torch.full((3, case.length), filler)
        ids[:, :3] = torch.tensor([TOKENS.cls, 8, 9])
        found.append(torch.stack([decoder.logits(ids, position) for position in (1, 2, 3)]))
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize(("embed_only", "tokens"), [(True, [2, 2, 2, 2]), (False, [2, 3, 4, 5])])
def test_a_step_runs_two_tokens_and_the_last_layer_one(embed_only: bool, tokens: list[int]):
    """With a text encoder of its own a step runs the whole text, but still not the video."""
    case = Case(embed_only=embed_only, prefix="prompt")
    model = case.model()
    video, prefix = case.encoded(model)
    decoder = CachedDecoder(model, video, prefix, case.length, 1, TOKENS.mask)
    seen: list[list[int]] = [[], []]
    for layer, lengths in zip(model.trsfr.layer, seen, strict=True):
        layer.intermediate.register_forward_hook(lambda _, inputs, __, seen=lengths: seen.append(inputs[0].shape[1]))
    ids = torch.full((3, case.length), 8)
    for position in range(1, 5):
        decoder.logits(ids, position)
    assert seen == [tokens, [1] * 4]


def test_words_see_video_and_prefix():
    """Else every video would have the same caption, and the comparisons above would say little."""
    case = Case(prefix="prompt", videos=2)
    model = case.model()
    video, prefix = case.encoded(model)
    ids = torch.full((2, case.length), TOKENS.cls)
    with_prompt = CachedDecoder(model, video, prefix, case.length, 1, TOKENS.mask).logits(ids, 1)
    without = CachedDecoder(model, video, None, case.length, 1, TOKENS.mask).logits(ids, 1)
    assert not torch.allclose(with_prompt[0], with_prompt[1], atol=0.1)
    assert not torch.allclose(with_prompt, without, atol=0.1)


# --- captions ---------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(CASES)
def test_greedy_captions_are_those_of_the_plain_way(case: Case):
    model = case.model()
    video, prefix = case.encoded(model)
    expected = [plain_greedy(model, row(video, number), prefix, case.length) for number in range(case.videos)]
    captions = generate(model, video, prefix, TOKENS, Decoding(max_length=case.length))
    assert captions.ids[:, 0].tolist() == [words for words, _ in expected]
    assert captions.scores[:, 0].tolist() == pytest.approx([score for _, score in expected], abs=1e-5)


def test_captions_of_these_models_end_at_different_steps():
    """What the comparison above is about."""
    lengths = []
    for seed in range(4):
        case = Case(seed=seed, videos=6)
        model = case.model()
        captions = generate(model, *case.encoded(model), TOKENS, Decoding(max_length=case.length))
        lengths.append([words.index(TOKENS.sep) for words in captions.ids[:, 0].tolist()])
    assert sum(len(set(group)) >= 3 for group in lengths) >= 2, lengths


DECODINGS = st.builds(
    Decoding,
    max_length=st.just(6),
    num_beams=st.integers(2, 4),
    num_keep_best=st.integers(1, 2),
    length_penalty=st.sampled_from([0.0, 1.0, 2.0]),
    repetition_penalty=st.sampled_from([1.0, 1.5]),
)


@settings(max_examples=15, deadline=None)
@given(CASES, DECODINGS)
def test_beams_with_a_cache_find_what_beams_without_find(case: Case, decoding: Decoding):
    model = case.model()
    video, prefix = case.encoded(model)
    found = generate(model, video, prefix, TOKENS, decoding)
    alone = [generate(model, row(video, number), prefix, TOKENS, decoding) for number in range(case.videos)]
    plain = without_cache(model, video, prefix, TOKENS, decoding)
    assert found.ids.shape == (case.videos, decoding.num_keep_best, 6)
    assert torch.allclose(found.scores, plain.scores, atol=1e-5)
    assert torch.allclose(found.scores, torch.cat([each.scores for each in alone]), atol=1e-5)
    assert torch.equal(found.ids, plain.ids)
    assert torch.equal(found.ids, torch.cat([each.ids for each in alone])), "whatever the company"


@settings(max_examples=8, deadline=None)
@given(CASES)
def test_drawn_words_do_not_depend_on_the_company_or_the_cache(case: Case):
    model = case.model()
    video, prefix = case.encoded(model)
    draws = torch.rand(case.videos, case.length, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    decoding = Decoding(max_length=case.length, do_sample=True, top_k=5, top_p=0.9, repetition_penalty=1.2)
    found = generate(model, video, prefix, TOKENS, decoding, draws)
    plain = without_cache(model, video, prefix, TOKENS, decoding, draws)
    each = range(case.videos)
    alone = [generate(model, row(video, n), prefix, TOKENS, decoding, draws[[n]]).ids for n in each]
    assert torch.equal(found.ids, plain.ids)
    assert torch.allclose(found.scores, plain.scores, atol=1e-5)
    assert torch.equal(found.ids, torch.cat(alone))


# --- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "error"), [("single", 1e-4), ("bf16 weights", 0.1), ("autocast", 0.1)])
def test_logits_in_lower_precision(way: str, error: float):
    """They are handed out in float32: in bf16 many words would tie."""
    case = Case(prefix="prompt")
    model = case.model()
    ids = torch.tensor([[TOKENS.cls, 8, 9, 10, 7, 7, 8, 9]]).expand(3, -1)

    def logits() -> Tensor:
        decoder = CachedDecoder(model, *case.encoded(model), case.length, 1, TOKENS.mask)
        return torch.stack([decoder.logits(ids, position) for position in range(1, case.length)])

    expected = logits()
    model = model.bfloat16() if way == "bf16 weights" else model.float()
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        found = logits()
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=error * float(expected.abs().max()))
    if way == "autocast":
        assert not torch.equal(found, found.bfloat16().float()), "not rounded on the way"
