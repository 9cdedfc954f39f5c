"""How words are chosen, over tables of logits in place of a model: by hand, and against every caption there is."""

import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lavender.models import generation
from lavender.models.encoders import Encoded
from lavender.models.generation import GREEDY, Captions, Decoding, SpecialTokens, generate

WORDS = 6
CLS, SEP, PAD, MASK = range(4)
TOKENS = SpecialTokens(CLS, SEP, PAD, MASK)
NEAR_TIE = 1e-5  # where captions are that close, rounding may choose
PENALTIES = [0.0, 0.7, 1.0, 2.0, -1.0]
Found = tuple[float, float, list[int]]  # what it ranks by, mean log-probability, ids


class TableDecoder:
    """Logits that follow from the video, the position and the last two words: `table[video, position, w, w, word]`."""

    calls = 0

    def __init__(self, table: Tensor, video: Encoded, prefix: None, max_length: int, beams: int, mask_id: int):
        self.table, self.rows, self.device = table, len(video.states) * beams, torch.device("cpu")
        self.videos = video.states[:, 0, 0].long().repeat_interleave(beams)
        TableDecoder.calls = 0

    def logits(self, ids: Tensor, position: int) -> Tensor:
        TableDecoder.calls += 1
        return self.table[self.videos, position, ids[:, max(0, position - 2)], ids[:, position - 1]]

    def reorder(self, rows: Tensor) -> None:
        assert torch.equal(self.videos[rows], self.videos), "a beam never goes on with another video's words"


@pytest.fixture(scope="module", autouse=True)
def _tables() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "CachedDecoder", TableDecoder)
        yield


def captions(
    table: Tensor, decoding: Decoding, videos: list[int] | None = None, draws: Tensor | None = None
) -> Captions:
    numbers = torch.arange(len(table)) if videos is None else torch.tensor(videos)
    return generate(table, Encoded(numbers.view(-1, 1, 1), numbers), None, TOKENS, decoding, draws)  # type: ignore[arg-type]


def random_table(seed: int, videos: int, length: int, sep_bias: float = 0.0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    table = 2 * torch.randn(videos, length, WORDS, WORDS, WORDS, generator=random)
    table[..., SEP] += sep_bias
    return table


def table_of(*said: list[int], length: int = 6, logit: float = 3.0) -> Tensor:
    """One video a list: its words, one after another, have this logit, and all others 0."""
    table = torch.zeros(len(said), length, WORDS, WORDS, WORDS)
    for number, words in enumerate(said):
        for position, word in enumerate(words, start=1):
            table[number, position, :, :, word] = logit
    return table


SURE = 3 - math.log(math.exp(3) + WORDS - 1)  # log-probability of a word of such a table


def log_probs(table: Tensor, video: int, words: list[int], penalty: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the next word, (V,): with the penalty on what was said, and the model's own."""
    own = table[video, len(words), words[max(0, len(words) - 2)], words[-1]]
    penalised = own.clone()
    for word in set(words):
        penalised[word] = own[word] / penalty if own[word] > 0 else own[word] * penalty
    return penalised.log_softmax(-1), own.log_softmax(-1)


# --- greedy -----------------------------------------------------------------------------------------------------------


def test_an_unfinished_caption_ends_with_sep_in_place_of_its_last_word():
    """Its score is that of the words predicted: the one that was replaced, not the `[SEP]` that nobody predicted."""
    table = table_of([4, 5, 5, 4, 5])
    table[0, 5, :, :, 5] = 9.0
    found = captions(table, Decoding(max_length=6))
    assert found.ids.tolist() == [[[CLS, 4, 5, 5, 4, SEP]]]
    last = 9 - math.log(math.exp(9) + WORDS - 1)
    assert found.scores.tolist() == [[pytest.approx((4 * SURE + last) / 5)]]


def test_ended_captions_are_padded_and_scored_to_their_end():
    found = captions(table_of([4, SEP, 5, 5, 5], [SEP], [5, 4, 5, 4, SEP], [4, 4, 4, 4, 4]), Decoding(max_length=6))
    assert found.ids[:, 0].tolist() == [
        [CLS, 4, SEP, PAD, PAD, PAD],
        [CLS, SEP, PAD, PAD, PAD, PAD],
        [CLS, 5, 4, 5, 4, SEP],
        [CLS, 4, 4, 4, 4, SEP],
    ]
    assert found.scores[:, 0].tolist() == pytest.approx([SURE] * 4)


def test_by_default_captions_have_20_tokens():
    assert captions(table_of([4] * 19, length=20), GREEDY).ids.tolist() == [[[CLS, *[4] * 18, SEP]]]
    assert TableDecoder.calls == 19


@pytest.mark.parametrize(
    ("said", "steps"),
    [([[SEP]], 1), ([[4, SEP], [4, 5, SEP], [SEP]], 3), ([[SEP], [4, 4]], 5), ([[4, 4, 4, 4, SEP]], 5)],
)
def test_it_stops_as_soon_as_all_captions_have_ended(said: list[list[int]], steps: int):
    captions(table_of(*said), Decoding(max_length=6))
    assert TableDecoder.calls == steps


def test_the_shortest_captions():
    found = captions(table_of([5], [SEP]), Decoding(max_length=2))
    assert found.ids[:, 0].tolist() == [[CLS, SEP], [CLS, SEP]]
    assert found.scores[:, 0].tolist() == pytest.approx([SURE, SURE])


def test_a_penalty_on_what_was_said_changes_words_but_no_probability():
    table = torch.zeros(1, 4, WORDS, WORDS, WORDS)
    table[..., 4], table[..., 5] = 2.0, 1.5
    assert captions(table, Decoding(max_length=4)).ids.tolist() == [[[CLS, 4, 4, SEP]]]
    found = captions(table, Decoding(max_length=4, repetition_penalty=2.0))
    assert found.ids.tolist() == [[[CLS, 4, 5, SEP]]]  # 5: 1.5 > 2 / 2; then 4 again: 1 > 1.5 / 2
    total = math.exp(2) + math.exp(1.5) + 4
    assert found.scores.tolist() == [[pytest.approx((2 + 1.5 + 2) / 3 - math.log(total))]]


# --- beam search ------------------------------------------------------------------------------------------------------


def every_caption(table: Tensor, video: int, length: int, penalty: float, words: list[int], sums: float) -> list[Found]:
    """All captions that begin with these words, whose log-probabilities have this sum."""
    found = []
    probs, _ = log_probs(table, video, words)
    position, last = len(words), length - 1
    for word, chance in enumerate(probs.tolist()):
        total = sums + chance
        if word == SEP or position == last:
            ids = [*words, SEP, *[PAD] * (last - position)]
            found.append((total / position**penalty, total / position, ids))
        else:
            found += every_caption(table, video, length, penalty, [*words, word], total)
    return found


def best(found: list[Found], count: int) -> list[Found]:
    ordered = sorted(found, reverse=True)[: count + 1]
    assume(all(one[0] - next_one[0] > NEAR_TIE for one, next_one in pairwise(ordered)))
    return ordered[:count]


def check(found: Captions, expected: list[list[Found]]) -> None:
    assert found.ids.tolist() == [[ids for _, _, ids in each] for each in expected]
    scores = [score for each in expected for _, score, _ in each]
    assert found.scores.flatten().tolist() == pytest.approx(scores, abs=1e-5)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(2, 4),
    st.sampled_from(PENALTIES),
    st.sampled_from([1, 3]),
    st.sampled_from([-2.0, 0.0, 2.0]),
)
def test_with_beams_enough_the_best_of_all_captions_are_found(seed, length, length_penalty, kept, sep_bias):
    """5 words that go on, twice, and then any of 6: no more than 150 captions run together."""
    table = random_table(seed, 2, length, sep_bias)
    decoding = Decoding(max_length=length, num_beams=150, num_keep_best=kept, length_penalty=length_penalty)
    every = [every_caption(table, video, length, length_penalty, [CLS], 0.0) for video in range(2)]
    check(captions(table, decoding), [best(found, kept) for found in every])


def plain_beams(table: Tensor, video: int, decoding: Decoding) -> list[Found]:
    """Beam search of one video to the bitter end.

    The K likeliest captions of a length end, where they do, as results; the K likeliest that do not end go on.
    """
    beams, last = [([CLS], 0.0, 0.0)], decoding.max_length - 1
    finished: list[Found] = []
    for position in range(1, decoding.max_length):
        grown = []
        for words, rank, total in beams:
            steps, own = log_probs(table, video, words, decoding.repetition_penalty)
            grown += [([*words, w], rank + float(steps[w]), total + float(own[w])) for w in range(WORDS)]
        grown.sort(key=lambda beam: -beam[1])
        nearest = grown[: 2 * decoding.num_beams + 1]
        assume(all(one[1] - other[1] > NEAR_TIE for one, other in pairwise(nearest)))
        for words, rank, total in grown[: decoding.num_beams]:
            if words[-1] == SEP or position == last:
                ids = [*words[:-1], SEP, *[PAD] * (last - position)]
                finished.append((rank / position**decoding.length_penalty, total / position, ids))
        beams = [beam for beam in grown if beam[0][-1] != SEP][: decoding.num_beams]
    return best(finished, decoding.num_keep_best)


@st.composite
def decodings(draw: st.DrawFn) -> Decoding:
    beams = draw(st.integers(2, 4))
    return Decoding(
        max_length=draw(st.integers(4, 7)),
        num_beams=beams,
        num_keep_best=draw(st.integers(1, beams)),
        length_penalty=draw(st.sampled_from(PENALTIES)),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 1.5, 0.8])),
    )


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), decodings(), st.sampled_from([-2.0, 0.0, 2.0, 4.0]))
def test_beams_are_those_of_a_plain_search_video_by_video(seed: int, videos: int, decoding: Decoding, sep_bias: float):
    """The plain search never stops early: so nothing better is lost when the search does."""
    table = random_table(seed, videos, decoding.max_length, sep_bias)
    check(captions(table, decoding), [plain_beams(table, video, decoding) for video in range(videos)])


def test_a_video_does_not_depend_on_those_that_are_searched_longer():
    """One is done after a step, one never ends: both are found as they are alone, at any place of the batch."""
    table = table_of([SEP], [4, SEP, 4, 4, 4], [5, 4, 5, 4, 5])
    decoding = Decoding(max_length=6, num_beams=3, length_penalty=0.0)
    alone, steps = [], []
    for video in range(3):
        alone.append(captions(table, decoding, [video]))
        steps.append(TableDecoder.calls)
    assert steps == [1, 2, 5]
    for order in ([0, 1, 2], [2, 0, 1, 0]):
        together = captions(table, decoding, order)
        assert torch.equal(together.ids, torch.cat([alone[video].ids for video in order]))
        assert torch.equal(together.scores, torch.cat([alone[video].scores for video in order]))


@pytest.mark.parametrize(
    ("length_penalty", "ids"), [(0.0, [CLS, SEP, PAD]), (1.0, [CLS, SEP, PAD]), (2.0, [CLS, 4, SEP])]
)
def test_a_length_penalty_favours_long_captions(length_penalty: float, ids: list[int]):
    """`[SEP]` at once has ½; a word and then `[SEP]` ½ · 0.4: log ½ = −0.69 against −1.61, −0.80 and −0.40."""
    table = torch.full((1, 3, WORDS, WORDS, WORDS), -math.inf)
    table[0, 1, :, :, [4, SEP]] = math.log(0.5)
    table[0, 2, :, :, SEP], table[0, 2, :, :, [2, 3, 5]] = math.log(0.4), math.log(0.2)
    found = captions(table, Decoding(max_length=3, num_beams=3, length_penalty=length_penalty))
    assert found.ids.tolist() == [[ids]]
    expected = math.log(0.5) if ids[1] == SEP else math.log(0.2) / 2
    assert found.scores.tolist() == [[pytest.approx(expected)]], "the score is a mean, whatever the penalty"


def test_below_0_a_length_penalty_does_not_end_the_search_too_soon():
    """0.37 at once is −0.994, what goes on stands at −0.462; it ends at twice that, and would be past it by the end."""
    table = torch.full((1, 6, WORDS, WORDS, WORDS), -math.inf)
    table[0, 1, :, :, SEP], table[0, 1, :, :, 4] = math.log(0.37), math.log(0.63)
    table[0, 2:, :, :, SEP] = 0.0
    found = captions(table, Decoding(max_length=6, num_beams=3, length_penalty=-1.0))
    assert found.ids.tolist() == [[[CLS, 4, SEP, PAD, PAD, PAD]]]
    assert TableDecoder.calls == 2


def test_one_beam_is_greedy():
    table = random_table(3, 4, 7, 1.0)
    found = captions(table, Decoding(max_length=7, num_beams=1, length_penalty=2.0))
    assert found.ids.tolist() == captions(table, Decoding(max_length=7)).ids.tolist()


# --- sampling ---------------------------------------------------------------------------------------------------------


def drawn(*numbers: float) -> Tensor:
    """The same numbers for one video; the one of `[CLS]` is never used."""
    return torch.tensor([[0.999, *numbers]], dtype=torch.float64)


def test_a_number_chooses_the_word_of_its_position():
    """Words have chances 1/6 each, in the order of their ids."""
    table = torch.zeros(1, 5, WORDS, WORDS, WORDS)
    decoding = Decoding(max_length=5, do_sample=True)
    found = captions(table, decoding, draws=drawn(0.7, 0.9, 0.2, 0.9))
    assert found.ids.tolist() == [[[CLS, 4, 5, SEP, PAD]]]
    assert found.scores.tolist() == [[pytest.approx(-math.log(6))]]
    assert captions(table, decoding, draws=drawn(0.7, 0.9, 0.4, 0.9)).ids.tolist() == [[[CLS, 4, 5, PAD, SEP]]]


def test_the_score_of_a_drawn_word_is_what_the_model_gives_it():
    """Whatever the temperature, the penalty, and the words that were left out."""
    table = torch.zeros(1, 3, WORDS, WORDS, WORDS)
    table[..., 4], table[..., 5] = 2.0, 1.0
    decoding = Decoding(max_length=3, do_sample=True, temperature=5.0, top_k=2, repetition_penalty=3.0)
    found = captions(table, decoding, draws=drawn(0.9, 0.9))
    total = math.exp(2) + math.exp(1) + 4
    assert found.ids.tolist() == [[[CLS, 5, SEP]]]
    assert found.scores.tolist() == [[pytest.approx((1 + 1) / 2 - math.log(total))]]
    penalised = [math.exp(2 / 5), math.exp(1 / 3 / 5)]  # 0.9 is past the first word, which has 0.58
    assert penalised[0] / sum(penalised) < 0.9


@pytest.mark.parametrize("options", [{"temperature": 1e-9}, {"top_k": 1}, {"top_p": 1e-6}], ids=str)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_where_only_the_likeliest_word_can_be_drawn_it_is_greedy(options: dict, seed: int):
    table = random_table(seed, 4, 7, 2.0)
    greedy = captions(table, Decoding(max_length=7))
    draws = torch.rand(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = captions(table, Decoding(max_length=7, do_sample=True, **options), draws=draws)
    assert torch.equal(found.ids, greedy.ids)
    assert torch.equal(found.scores, greedy.scores)


def test_numbers_spread_evenly_draw_words_as_often_as_the_model_says():
    table = random_table(5, 1, 2)
    draws = ((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000)[:, None].expand(-1, 2)
    found = captions(table.expand(2000, -1, -1, -1, -1), Decoding(max_length=2, do_sample=True), draws=draws)
    logits = log_probs(table, 0, [CLS])[1]
    scores, counts = found.scores.flatten().unique(return_counts=True)
    assert scores.tolist() == pytest.approx(sorted(logits.tolist()))
    assert (counts / 2000).tolist() == pytest.approx(scores.exp().tolist(), abs=1 / 2000)


def test_sampling_stops_when_all_have_ended():
    draws = torch.full((2, 6), 0.5, dtype=torch.float64)
    captions(table_of([4, SEP], [SEP], logit=50.0), Decoding(max_length=6, do_sample=True), draws=draws)
    assert TableDecoder.calls == 2
