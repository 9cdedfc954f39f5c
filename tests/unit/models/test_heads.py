import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig

from lavender.models.heads import MaskedLanguageModelHead, classification_head


@pytest.fixture
def head(kit) -> MaskedLanguageModelHead:
    torch.manual_seed(3)
    head = MaskedLanguageModelHead(BertConfig.from_pretrained(kit / "bert_micro"))
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3)
    return head.eval()


def test_it_is_dense_gelu_norm_decoder(head: MaskedLanguageModelHead):
    states = torch.randn(5, 64)
    transform, decoder = head.predictions.transform, head.predictions.decoder
    expected = decoder(transform.LayerNorm(F.gelu(transform.dense(states))))
    assert torch.allclose(head(states), expected, atol=1e-5)
    assert head(states.view(5, 1, 64)).shape == (5, 1, 350)
    assert transform.LayerNorm.eps == 1e-12


def test_its_bias_is_one_parameter_under_two_names(head: MaskedLanguageModelHead):
    names = [name for name, _ in head.named_parameters() if name.endswith("predictions.bias")]
    assert names == ["predictions.bias"]
    assert {"predictions.bias", "predictions.decoder.bias"} <= set(head.state_dict())
    for one in (head, copy.deepcopy(head), copy.deepcopy(head).double()):
        assert one.predictions.bias is one.predictions.decoder.bias
    nn.init.constant_(head.predictions.bias, 0.0)
    without = head(torch.zeros(1, 64)).detach()
    nn.init.constant_(head.predictions.bias, 1.0)
    assert torch.allclose(head(torch.zeros(1, 64)), without + 1, atol=1e-5), "it is added once"


def test_the_bias_of_the_decoder_wins_where_a_file_disagrees(head: MaskedLanguageModelHead):
    state = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    state["predictions.bias"].fill_(1)
    state["predictions.decoder.bias"].fill_(2)
    for order in (list(state), list(reversed(state))):
        head.load_state_dict({name: state[name] for name in order})
        assert (head.predictions.bias == 2).all()


def test_the_decoder_is_not_tied_to_the_word_embeddings(make_model):
    model = make_model()
    decoder, words = model.fc_mtm.predictions.decoder.weight, model.enc_txt.emb_txt.word_embeddings.weight
    assert decoder.shape == words.shape
    assert decoder.data_ptr() != words.data_ptr()
    assert not torch.equal(decoder, words)


def test_classification_head():
    head = classification_head(16, 3)
    assert [type(module) for module in head] == [nn.Dropout, nn.Linear, nn.ReLU, nn.Linear]
    assert {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()} == {
        "1.weight": (32, 16),
        "1.bias": (32,),
        "3.weight": (3, 32),
        "3.bias": (3,),
    }
    states = torch.randn(4, 16)
    dropout = head[0]
    assert float(dropout.train()(torch.ones(20000)).eq(0).float().mean()) == pytest.approx(0.1, abs=0.02)
    assert not torch.equal(head.train()(states.repeat(50, 1)), head(states.repeat(50, 1)))
    expected = head[3](head[1](states).clamp(min=0))
    assert torch.allclose(head.eval()(states), expected)
