"""Which words may be drawn, by what chances, and which one a number draws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lavender.models.generation import draw, penalise_repetition, word_probs

HALVES = torch.tensor([[0.125, 0.5, 0.125, 0.25]]).log()  # two words are equally likely


# --- repetition -------------------------------------------------------------------------------------------------------


def test_penalty_by_hand():
    logits = torch.tensor([[2.0, -2.0, 0.0, 3.0], [1.0, -1.0, 4.0, -4.0]])
    before = logits.clone()
    found = penalise_repetition(logits, torch.tensor([[0, 1, 0], [3, 2, 2]]), 2.0)
    assert found.tolist() == [[1.0, -4.0, 0.0, 3.0], [1.0, -1.0, 2.0, -8.0]]
    assert torch.equal(logits, before), "the model's own are still needed"
    assert torch.equal(penalise_repetition(logits, torch.tensor([[0, 1], [2, 3]]), 1.0), before)


# --- chances ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("top_k", "top_p", "expected"),
    [
        *((top_k, 1.0, [0.125, 0.5, 0.125, 0.25]) for top_k in (0, 4, 9)),
        (1, 1.0, [0, 1, 0, 0]),
        (2, 1.0, [0, 2 / 3, 0, 1 / 3]),
        (3, 1.0, [0.125, 0.5, 0.125, 0.25]),  # the third likeliest are two words, and nothing tells them apart
        (0, 1e-9, [0, 1, 0, 0]),
        (0, 0.49, [0, 1, 0, 0]),
        (0, 0.51, [0, 2 / 3, 0, 1 / 3]),
        (0, 0.74, [0, 2 / 3, 0, 1 / 3]),
        (0, 0.76, [1 / 7, 4 / 7, 0, 2 / 7]),  # one of the two is enough
        (0, 0.88, [0.125, 0.5, 0.125, 0.25]),
        (2, 0.6, [0, 1, 0, 0]),  # of the two likeliest the first has 2/3
        (2, 0.7, [0, 2 / 3, 0, 1 / 3]),
    ],
)
def test_words_that_may_be_drawn(top_k: int, top_p: float, expected: list[float]):
    assert word_probs(HALVES, 1.0, top_k, top_p)[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("temperature", "powers"), [(0.5, [1, 16, 1, 4]), (2.0, [1, 2, 1, 2**0.5])])
def test_temperature(temperature: float, powers: list[float]):
    expected = [power / sum(powers) for power in powers]
    assert word_probs(HALVES, temperature, 0, 1.0)[0].tolist() == pytest.approx(expected)


def test_rows_are_cut_each_for_itself():
    logits = torch.cat([HALVES, HALVES.flip(-1), torch.tensor([[9.0, 0, 0, 0]])])
    expected = torch.tensor([[0, 2 / 3, 0, 1 / 3], [1 / 3, 0, 2 / 3, 0], [1, 0, 0, 0]])
    assert torch.allclose(word_probs(logits, 1.0, 2, 0.7).float(), expected)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=12),
    st.floats(0.01, 10),
    st.integers(0, 14),
    st.floats(0.001, 1),
)
def test_any_logits(logits: list[float], temperature: float, top_k: int, top_p: float):
    """Those left are the likeliest, in the proportions they had, no more than asked for and enough."""
    whole = word_probs(torch.tensor([logits]), temperature, 0, 1.0)[0]
    cut = word_probs(torch.tensor([logits]), temperature, top_k, top_p)[0]
    assert whole.sum().item() == pytest.approx(1)
    assert cut.sum().item() == pytest.approx(1)
    inside = (cut > 0).nonzero().flatten().tolist()
    left = whole[inside].sum()
    assert torch.allclose(cut[inside] * left, whole[inside], atol=1e-9)
    allowed = sum(likely for likely in whole.tolist() if not top_k or int((whole > likely).sum()) < top_k)
    assert left >= top_p * allowed - 1e-9
    for word in inside:
        assert not top_k or int((whole > whole[word]).sum()) < top_k
        assert left - whole[word] < top_p * allowed + 1e-9, "without it there would be too little"


# --- drawing ----------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.0, 0.1, 0.3, 1.0]), min_size=1, max_size=9).filter(any))
def test_a_word_without_a_chance_is_never_drawn(weights: list[float]):
    """At 0 the first that has a chance, just below 1 the last one."""
    probs = (torch.tensor([weights], dtype=torch.float64) / sum(weights)).expand(3, -1)
    words = draw(probs, torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)).tolist()
    possible = [word for word, weight in enumerate(weights) if weight > 0]
    assert (words[0], words[2]) == (possible[0], possible[-1])
    assert words[1] in possible


def test_chances_whose_rounded_sum_is_below_1_have_a_last_word():
    probs = torch.tensor([[0.25, 0.5, 0.25 - 1e-9, 0.0]], dtype=torch.float64)
    assert draw(probs, torch.tensor([1 - 1e-12], dtype=torch.float64)).tolist() == [2]


def test_a_number_draws_the_word_in_whose_share_it_lies():
    probs = torch.tensor([0.125, 0.0, 0.5, 0.375], dtype=torch.float64)
    numbers = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    words = draw(probs.expand(1000, -1), numbers)
    assert torch.bincount(words, minlength=4).tolist() == [125, 0, 500, 375]
    assert words.tolist() == sorted(words.tolist())
