import torch

from lavender.models.encoders import Encoded
from lavender.models.pairs import gather, own_and_negatives


def test_each_video_first_with_its_own_text():
    videos, texts = own_and_negatives(torch.tensor([[2, 1], [0, 2], [1, 0]]))
    assert videos.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert texts.tolist() == [0, 2, 1, 1, 0, 2, 2, 1, 0]


def test_a_batch_of_one_is_paired_with_itself_alone():
    videos, texts = own_and_negatives(torch.empty(1, 0, dtype=torch.long))
    assert (videos.tolist(), texts.tolist()) == ([0], [0])


def test_gather():
    encoded = Encoded(torch.randn(3, 4, 5), torch.randint(0, 2, (3, 4)))
    index = torch.tensor([2, 0, 2, 1])
    pairs = gather(encoded, index)
    assert pairs.states.shape == (4, 4, 5)
    for row, source in enumerate(index):
        assert torch.equal(pairs.states[row], encoded.states[source])
        assert torch.equal(pairs.mask[row], encoded.mask[source])


def test_gradients_of_all_pairs_come_together():
    states = torch.randn(2, 3, 4, requires_grad=True)
    gather(Encoded(states, torch.ones(2, 3)), torch.tensor([1, 1, 0])).states.sum().backward()
    assert states.grad is not None
    assert states.grad[:, 0, 0].tolist() == [1.0, 2.0]
