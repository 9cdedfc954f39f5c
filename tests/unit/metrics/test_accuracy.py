import pytest
import torch

from lavender.metrics.accuracy import accuracy, option_scores

LOGITS = torch.tensor([[1.0, 3.0, 2.0], [-1.0, -3.0, 1.0]])


@pytest.mark.parametrize(
    ("right", "share"),
    [([True], 1.0), ([False, False], 0.0), ([True, False, False, True, True], 0.6), ([False] * 3 + [True], 0.25)],
)
def test_the_share_of_right_answers(right: list[bool], share: float):
    assert accuracy(right) == share


@pytest.mark.parametrize(("total", "share"), [(4, 0.5), (10, 0.2), (0, 2 / 3)])
def test_over_the_true_size_of_the_split(total: int, share: float):
    assert accuracy([True, False, True], total) == pytest.approx(share)


def test_probabilities_of_the_options():
    scores = option_scores(LOGITS)
    assert torch.allclose(scores, LOGITS.exp() / LOGITS.exp().sum(1, keepdim=True))
    assert torch.equal(scores, option_scores(LOGITS, "probability"))
    assert scores.argmax(1).tolist() == [1, 2]


def test_upstream_divides_by_the_sum():
    scores = option_scores(LOGITS, "upstream")
    assert torch.allclose(scores, torch.tensor([[1 / 6, 3 / 6, 2 / 6], [1 / 3, 1.0, -1 / 3]]))
    assert scores.argmax(1).tolist() == [1, 1], "with a negative sum the worst option wins"


def test_large_logits_are_no_trouble():
    assert option_scores(torch.tensor([[1e4, -1e4]])).tolist() == [[1.0, 0.0]]
