from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavender.metrics.retrieval import rank_metrics, retrieval_metrics, text_ranks, video_ranks

Case = tuple[np.ndarray, list[int]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Up to 6 texts and 5 videos, scores of few values so that most of them tie; some videos have no text."""
    texts, videos = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    row = st.lists(st.integers(-1, 2), min_size=videos, max_size=videos)
    scores = draw(st.lists(row, min_size=texts, max_size=texts))
    own = draw(st.lists(st.integers(0, videos - 1), min_size=texts, max_size=texts))
    return np.array(scores, dtype=np.float32), own


def mean_place(own: float, others: list[float]) -> float:
    """Where the own one stands, on average over all orders in which a sort may leave what is equal."""
    places = []
    for order in permutations([(own, True), *((score, False) for score in others)]):
        best_first = sorted(order, key=lambda candidate: -candidate[0])  # a stable sort keeps the order of ties
        places.append(1 + [is_own for _, is_own in best_first].index(True))
    return float(Fraction(sum(places), len(places)))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_a_text_stands_where_the_average_order_of_ties_puts_it(case: Case):
    scores, own = case
    expected = [mean_place(row[video], list(np.delete(row, video))) for row, video in zip(scores, own, strict=True)]
    assert text_ranks(scores, own).tolist() == pytest.approx(expected)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_a_video_stands_where_its_best_text_does_among_those_of_other_videos(case: Case):
    scores, own = case
    expected = []
    for video in sorted(set(own)):
        mine = [scores[text, video] for text, of in enumerate(own) if of == video]
        others = [scores[text, video] for text, of in enumerate(own) if of != video]
        expected.append(mean_place(max(mine), others))
    assert video_ranks(scores, own).tolist() == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(cases(), st.randoms())
def test_the_order_of_texts_and_videos_does_not_matter(case: Case, random):
    scores, own = case
    texts, videos = (random.sample(range(size), size) for size in scores.shape)
    shuffled = scores[texts][:, videos]
    moved = [videos.index(own[text]) for text in texts]
    assert retrieval_metrics(shuffled, moved) == pytest.approx(retrieval_metrics(scores, own))


@settings(max_examples=50, deadline=None)
@given(cases())
def test_one_caption_a_video_makes_the_two_directions_one_another(case: Case):
    scores, _ = case
    size = min(scores.shape)
    square, own = scores[:size, :size], list(range(size))
    assert np.array_equal(video_ranks(square, own), text_ranks(square.T, own))


@pytest.mark.parametrize("number", [0.0, -7.5, 3e38])
def test_a_model_that_says_one_number_for_all_is_never_lucky(number: float):
    scores, own = np.full((101, 101), number, dtype=np.float32), list(range(101))
    metrics = retrieval_metrics(scores, own)
    for prefix in ("", "v2t_"):
        assert (metrics[f"{prefix}median_rank"], metrics[f"{prefix}mean_rank"]) == (51, 51)
        assert [metrics[f"{prefix}r@{k}"] for k in (1, 5, 10)] == [0, 0, 0]
    assert metrics["ties"] == 101


def test_a_tie_for_the_first_place_is_half_a_rank_behind():
    scores = np.array([[2.0, 2.0, 1.0], [0.0, 5.0, 0.0], [3.0, 3.0, 3.0]])
    assert text_ranks(scores, [0, 1, 2]).tolist() == [1.5, 1, 2]
    assert retrieval_metrics(scores, [0, 1, 2])["r@1"] == pytest.approx(1 / 3)


def test_several_captions_of_a_video_and_a_video_without():
    scores = np.array(
        [
            [0.9, 0.1, 0.5],  # of video 0
            [0.2, 0.8, 0.9],  # of video 0
            [0.8, 0.4, 0.7],  # of video 2
        ]
    )
    own = [0, 0, 2]
    assert text_ranks(scores, own).tolist() == [1, 3, 2]
    assert video_ranks(scores, own).tolist() == [1, 2], "nobody asks for video 1, and the second caption is no rival"


def test_a_video_with_all_the_captions_has_no_rivals():
    assert video_ranks(np.array([[0.0, 9.0], [0.0, 9.0]]), [0, 0]).tolist() == [1]


def test_figures_from_ranks():
    metrics = rank_metrics(np.array([1, 1.5, 5, 5.5, 10, 10.5, 40, 2]), "x_")
    assert metrics == {
        **{"x_r@1": 1 / 8, "x_r@5": 4 / 8, "x_r@10": 6 / 8},
        **{"x_median_rank": 5.25, "x_mean_rank": pytest.approx(75.5 / 8)},
    }


def test_every_figure_is_a_plain_number():
    metrics = retrieval_metrics(np.eye(3, dtype=np.float32), [0, 1, 2])
    assert all(type(value) is float for value in metrics.values()), "json takes no numpy"
    names = ["r@1", "r@5", "r@10", "median_rank", "mean_rank"]
    assert list(metrics) == [*names, *(f"v2t_{name}" for name in names), "ties"]
    assert (metrics["ties"], metrics["mean_rank"]) == (0, 1)


def test_ties_count_only_where_the_own_video_shares_its_score():
    assert retrieval_metrics(np.array([[3.0, 1.0, 1.0], [1.0, 1.0, 0.0]]), [0, 0])["ties"] == 1


def test_what_differs_by_rounding_ties():
    scores = np.full((5, 5), 2.0, np.float32) + np.arange(5, dtype=np.float32) * np.float32(2.5e-7)
    assert len(np.unique(scores)) > 1
    metrics = retrieval_metrics(scores, range(5))
    assert (metrics["mean_rank"], metrics["v2t_mean_rank"], metrics["ties"]) == (3, 3, 5)
    assert retrieval_metrics(scores + np.eye(5, dtype=np.float32) * 1e-4, range(5))["r@1"] == 1
