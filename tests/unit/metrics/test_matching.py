import pytest
import torch

from lavender.metrics.matching import matching_score, ranking_score

TRUE = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
FALSE = torch.tensor([[1.0, -3.0], [0.5, 9.0]])


def test_probability_is_the_softmax_over_the_two_logits():
    scores = matching_score(TRUE, FALSE)
    assert torch.allclose(scores, torch.stack([TRUE, FALSE]).softmax(0)[0])
    assert scores[1, 0] == 0.5
    assert torch.equal(scores, matching_score(TRUE, FALSE, "probability"))


def test_upstream_is_the_ratio_of_raw_logits():
    expected = torch.tensor([[2 / 3, 1 / 4], [1 / 2, 1 / 4]])
    assert torch.allclose(matching_score(TRUE, FALSE, "upstream"), expected)


def test_they_rank_differently():
    true, false = torch.tensor([1.0, -1.0]), torch.tensor([1.0, -3.0])
    assert matching_score(true, false).argmax() == 1
    assert matching_score(true, false, "upstream").argmax() == 0


@pytest.mark.parametrize(("true", "false", "score"), [(1e4, -1e4, 1.0), (-1e4, 1e4, 0.0), (1e4, 1e4, 0.5)])
def test_large_logits_are_no_trouble(true: float, false: float, score: float):
    assert float(matching_score(torch.tensor(true), torch.tensor(false))) == score


def test_what_ranks_does_not_round():
    true, false = torch.tensor([20.0, 30.0]), torch.zeros(2)
    assert matching_score(true, false)[0] == matching_score(true, false)[1] == 1
    assert ranking_score(true, false).argmax() == 1
    assert torch.equal(ranking_score(TRUE, FALSE, "upstream"), matching_score(TRUE, FALSE, "upstream"))
