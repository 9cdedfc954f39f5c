from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lavender.config.schema import Config
from lavender.tasks.base import at_labels, labelled_loss, text_path


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(3)


def test_labelled_states_row_by_row():
    states = torch.randn(2, 3, 4)
    labels = torch.tensor([[-1, 7, 0], [5, -1, -1]])
    found, answers = at_labels(states, labels)
    assert answers.tolist() == [7, 0, 5], "0 is a label like any other"
    assert torch.equal(found, torch.stack([states[0, 1], states[0, 2], states[1, 0]]))


def test_no_label_at_all():
    states, labels = at_labels(torch.randn(2, 3, 4), torch.full((2, 3), -1))
    assert (states.shape, labels.shape) == ((0, 4), (0,))


def test_the_loss_is_the_mean_over_labelled_positions():
    logits, labels = torch.randn(5, 9), torch.tensor([0, 8, 3, 3, 1])
    expected = -torch.stack([logits[i].log_softmax(0)[label] for i, label in enumerate(labels)]).mean()
    assert torch.allclose(labelled_loss(logits, labels), expected)
    assert labelled_loss(logits.bfloat16(), labels).dtype == torch.float32


def test_without_labels_the_loss_is_0_and_every_weight_still_gets_a_gradient():
    head = torch.nn.Linear(4, 9)
    loss = labelled_loss(head(torch.empty(0, 4)), torch.empty(0, dtype=torch.long))
    loss.backward()
    assert float(loss.detach()) == 0
    assert head.weight.grad is not None
    assert not head.weight.grad.any(), "a gradient of 0, without which other processes would wait"


@pytest.mark.parametrize(("txt_dir", "expected"), [("", "data/txt_a.json"), ("texts", "texts/txt_a.json")])
def test_text_path(txt_dir: str, expected: str):
    assert text_path(Config(data_dir="data", txt_dir=txt_dir), "a") == Path(expected)


def test_the_loss_equals_torchs_on_ignored_labels():
    logits, labels = torch.randn(2, 3, 9), torch.tensor([[-1, 7, 0], [5, -1, -1]])
    found, answers = at_labels(logits, labels)
    reference = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1)
    assert torch.allclose(labelled_loss(found, answers), reference)
