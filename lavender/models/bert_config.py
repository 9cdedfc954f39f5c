"""The configuration of a BERT model, from a file that may say anything."""

from typing import Any

from transformers import BertConfig

MOST_WEIGHTS = 10_000_000_000  # of one BERT model; the largest that are published have a tenth of it
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "max_position_embeddings")


def read_bert(values: dict[str, Any]) -> BertConfig:
    """The configuration in the object of a `config.json`.

    Raises:
        ValueError: a size below 1, or sizes of a model that no machine holds.
        StrictDataclassFieldValidationError: a size that is not a whole number.
    """
    config = BertConfig.from_dict(values)
    for name in SIZES:
        size = getattr(config, name)
        if size < 1:
            raise ValueError(f"{name} is {size}; it must be 1 or more")
    width = config.hidden_size
    tables = (config.vocab_size + config.max_position_embeddings) * width
    layers = config.num_hidden_layers * (4 * width * width + 2 * width * config.intermediate_size)
    if (weights := tables + layers) > MOST_WEIGHTS:
        sizes = ", ".join(f"{name} {getattr(config, name):,}" for name in SIZES)
        raise ValueError(f"a model of these sizes has {weights:,} weights: {sizes}")
    return config
