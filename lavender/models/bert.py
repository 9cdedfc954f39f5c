"""BERT (Devlin et al., 2019): embeddings, encoder and masked-language-modelling head, with the names of transformers.

Weights of any BERT can be loaded, and outputs equal those of transformers (its `sdpa` attention). The layers are
reimplemented because importing transformers dominates start-up time, and to run parts of a layer (`layer_at`).
"""

from collections.abc import Callable
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from lavender.models.bert_config import BertConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu, "swish": F.silu}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Activation function named by a configuration's `hidden_act`; rare ones come from transformers.

    Raises:
        ValueError: the name is unknown.
    """
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    from lavender.models.transformers_import import transformers

    try:
        return transformers().activations.ACT2FN[name]
    except KeyError as error:
        raise ValueError(f"hidden_act is {name}, which transformers does not know") from error


class BertEmbeddings(nn.Module):
    """Word, position and first-sentence type embeddings, with LayerNorm: ids (B, X) → (B, X, D)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """ids (B, X) and positions (1, X) → (B, X, D)."""
        types = self.token_type_embeddings(ids.new_zeros(ids.shape))
        states = self.word_embeddings(ids) + types + self.position_embeddings(positions)
        return self.dropout(self.LayerNorm(states))


class BertSelfAttention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.attention_head_size = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """States (B, L, D) and additive mask (B, 1, 1 or L, L) → (B, L, D)."""
        query, key, value = (self.heads(project(states)) for project in (self.query, self.key, self.value))
        dropped = self.dropout.p if self.training else 0.0
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropped)
        return context.transpose(1, 2).flatten(2)

    def heads(self, projected: Tensor) -> Tensor:
        """(B, L, D) → (B, heads, L, D / heads)."""
        return projected.unflatten(-1, (-1, self.attention_head_size)).transpose(1, 2)


class Residual(nn.Module):
    """Output of each half of a layer: projection, dropout, residual connection, LayerNorm."""

    def __init__(self, width: int, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, states: Tensor, added: Tensor) -> Tensor:
        """(B, L, width) and (B, L, D) → (B, L, D)."""
        return self.LayerNorm(self.dropout(self.dense(states)) + added)


class BertAttention(nn.Module):
    """Attention half of a layer."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = Residual(config.hidden_size, config)

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """As for `BertSelfAttention`."""
        return self.output(self.self(states, mask), states)


class BertIntermediate(nn.Module):
    """Expansion of the feed-forward half: (B, L, D) → (B, L, intermediate_size)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = activation(config.hidden_act)

    def forward(self, states: Tensor) -> Tensor:
        return self.activation(self.dense(states))


class BertLayer(nn.Module):
    """Layer of the encoder."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output = Residual(config.intermediate_size, config)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """As for `BertSelfAttention`."""
        attended = self.attention(states, mask)
        return self.output(self.intermediate(attended), attended)


class BertEncoder(nn.Module):
    """Stack of layers."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))

    @property
    def layers(self) -> list[BertLayer]:
        """Layers, first to last."""
        return cast(list[BertLayer], list(self.layer))

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """As for `BertSelfAttention`."""
        for layer in self.layers:
            states = layer(states, mask)
        return states


class BertTransform(nn.Module):
    """Hidden layer of the MLM head, (…, D) → (…, D)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = activation(config.hidden_act)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: Tensor) -> Tensor:
        return self.LayerNorm(self.activation(self.dense(states)))


class BertPredictions(nn.Module):
    """States (…, D) → logits over the vocabulary (…, V).

    `bias` and `decoder.bias` are one parameter under two names, as in the released files.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.transform = BertTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = self.decoder.bias

    def forward(self, states: Tensor) -> Tensor:
        return self.decoder(self.transform(states))
