import pytest
import torch
import transformers
from torch import nn

from lavender.models.bert import BertEncoder
from lavender.models.bert_config import read_bert
from lavender.models.encoders import Encoded
from lavender.models.pairs import all_pairs, fuse_at, last_state, own_and_negatives, select_rows


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
    pairs = select_rows(encoded, index)
    assert pairs.states.shape == (4, 4, 5)
    for row, source in enumerate(index):
        assert torch.equal(pairs.states[row], encoded.states[source])
        assert torch.equal(pairs.mask[row], encoded.mask[source])


def test_gradients_of_all_pairs_come_together():
    states = torch.randn(2, 3, 4, requires_grad=True)
    select_rows(Encoded(states, torch.ones(2, 3)), torch.tensor([1, 1, 0])).states.sum().backward()
    assert states.grad is not None
    assert states.grad[:, 0, 0].tolist() == [1.0, 2.0]


def test_every_video_meets_every_text():
    videos, texts = all_pairs(3, torch.device("cpu"))
    assert videos.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert texts.tolist() == [0, 1, 2] * 3


# --- one position of the fusion ---------------------------------------------------------------------------------------


def random_bert(layers: int, heads: int) -> tuple[BertEncoder, nn.Module]:
    """Ours and transformers', with the same weights.

    They are wide enough for attention to be far from even, and biases and norms are not 0 and 1.
    """
    options = {"hidden_size": 48, "intermediate_size": 96, "num_attention_heads": heads, "num_hidden_layers": layers}
    config = transformers.BertConfig(**options)
    torch.manual_seed(layers)
    encoder = transformers.BertModel(config).eval().encoder
    for parameter in encoder.parameters():
        parameter.data += 0.15 * torch.randn_like(parameter)
    own = BertEncoder(read_bert(config.to_dict())).eval()
    own.load_state_dict(encoder.state_dict())
    return own, encoder


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (2, 4), (3, 12)])
def test_the_state_at_a_position_is_that_of_the_whole_encoder(layers: int, heads: int):
    (encoder, theirs), states = random_bert(layers, heads), torch.randn(3, 7, 48)
    with torch.inference_mode():
        whole = theirs(states).last_hidden_state
        assert torch.equal(encoder(states), whole)
        for position in range(7):
            assert torch.allclose(last_state(encoder, states, position), whole[:, position], atol=1e-5), position
    assert not torch.allclose(whole[:, 0], whole[:, 1], atol=0.1), "positions can be told apart"


def test_its_last_layer_runs_for_that_position_alone():
    encoder = random_bert(2, 4)[0]
    lengths: list[int] = []
    for layer in encoder.layer:
        layer.intermediate.register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))
    with torch.inference_mode():
        last_state(encoder, torch.randn(2, 9, 48), 4)
    assert lengths == [9, 1]


@pytest.mark.parametrize("prefix", ["", "prompt", "task token"])
@pytest.mark.parametrize("position", [-1, -2, 0, 2])
def test_a_text_without_pads_is_fused_as_one_with_pads(make_model, prefix: str, position: int):
    """The `[MASK]` stands behind the pads; when they are dropped it keeps its position embedding."""
    torch.manual_seed(5)
    model = make_model()
    ids = torch.randint(5, 300, (2, 9))
    real = torch.tensor([1, 1, 1, 1, 0, 0, 0, 1, 1]).bool()
    before = {"prompt": model.prompt(torch.tensor([2, 30, 40, 3])), "task token": model.task_token("vtm")}.get(prefix)
    video = Encoded(torch.randn(2, 6, 64), torch.ones(2, 6, dtype=torch.long))
    with torch.inference_mode():
        text = model.encode_text(ids, real.long().expand(2, -1))
        whole = model.fuse(video, text, before)[:, -9:][:, position]
        short = Encoded(text.states[:, real], text.mask[:, real])
        found = fuse_at(model, video, short, before, position)
    assert found.shape == (2, 64)
    assert torch.allclose(found, whole, atol=1e-4)
    if before is not None:
        with torch.inference_mode():
            assert not torch.allclose(found, fuse_at(model, video, short, None, position), atol=1e-3)
