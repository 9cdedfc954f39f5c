"""Configuration of a BERT model, read from an untrusted file."""

from dataclasses import asdict, dataclass, fields
from typing import Any

MOST_WEIGHTS = 10_000_000_000  # limit for one BERT model, ten times the largest published one
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "max_position_embeddings")
COUNTS = (*SIZES, "num_attention_heads", "type_vocab_size")
PARTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")  # probabilities, from 0 to 1


@dataclass
class BertConfig:
    """Values of a `config.json` that the layers use, under the names of transformers; default: BERT base."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0

    def to_dict(self) -> dict[str, Any]:
        """The values as in `config.json`."""
        return {"model_type": "bert", **asdict(self)}


def read_bert(values: dict[str, Any]) -> BertConfig:
    """Reads the configuration from the object in a `config.json`; other keys are ignored.

    Raises:
        ValueError: a value of the wrong type, a size below 1, or a model larger than any machine can hold.
    """
    known = {field.name: field for field in fields(BertConfig)}
    config = BertConfig(**{name: value for name, value in values.items() if name in known})
    for name, field in known.items():
        value = getattr(config, name)
        if not _is_of(value, field.type):
            kind = {int: "a whole number", float: "a number", str: "a name"}.get(field.type, "a whole number or null")  # type: ignore[arg-type]
            raise ValueError(f"{name} is {value!r:.40}; it must be {kind}")
    for name in COUNTS:
        size = getattr(config, name)
        if size < 1:
            raise ValueError(f"{name} is {size}; it must be 1 or more")
    _check(config)
    return config


def _is_of(value: object, kind: object) -> bool:
    if isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind)  # type: ignore[arg-type]


def _check(config: BertConfig) -> None:
    for name in PARTS:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name} is {getattr(config, name)}; it must lie between 0 and 1")
    width = config.hidden_size
    if width % config.num_attention_heads:
        raise ValueError(f"hidden_size is {width}, no multiple of num_attention_heads, {config.num_attention_heads}")
    if config.pad_token_id is not None and not 0 <= config.pad_token_id < config.vocab_size:
        raise ValueError(f"pad_token_id is {config.pad_token_id}, outside of the vocabulary of {config.vocab_size}")
    tables = (config.vocab_size + config.max_position_embeddings) * width
    layers = config.num_hidden_layers * (4 * width * width + 2 * width * config.intermediate_size)
    if (weights := tables + layers) > MOST_WEIGHTS:
        sizes = ", ".join(f"{name} {getattr(config, name):,}" for name in SIZES)
        raise ValueError(f"a model of these sizes has {weights:,} weights: {sizes}")
