import pytest

from lavender.models.bert_config import read_bert
from lavender.models.checkpoint_file import UNREADABLE

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


def test_real_ones_are_read():
    assert read_bert({}).hidden_size == 768
    assert read_bert({**LARGE, "vocab_size": 250_037}).vocab_size == 250_037


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, 2_000_000_000) for name in ("vocab_size", "max_position_embeddings", "num_hidden_layers")],
        *[("hidden_size", 1_000_000), ("intermediate_size", 10**12), ("vocab_size", 0), ("hidden_size", -768)],
    ],
)
def test_sizes_that_no_machine_holds_are_named_before_anything_is_made(name: str, value: int):
    with pytest.raises(ValueError, match=name) as raised:
        read_bert({"num_attention_heads": 1, name: value})
    assert f"{value:,}" in str(raised.value) or value < 1


@pytest.mark.parametrize("value", ["768", None, 7.5, True, [768]])
def test_a_size_is_a_whole_number(value: object):
    with pytest.raises(UNREADABLE, match="vocab_size"):
        read_bert({"vocab_size": value})
