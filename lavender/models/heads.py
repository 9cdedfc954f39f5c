"""The heads: BERT's masked-language-modelling head, and the MLP of the task-specific baselines."""

from torch import nn
from transformers.models.bert.modeling_bert import BertConfig, BertOnlyMLMHead


class MaskedLanguageModelHead(BertOnlyMLMHead):
    """States (…, D) → logits over the vocabulary (…, V). Its decoder is not tied to the word embeddings.

    `predictions.bias` and `predictions.decoder.bias` are one parameter under two names, as in the released files.
    """

    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.predictions.bias = self.predictions.decoder.bias


def classification_head(hidden_size: int, classes: int) -> nn.Sequential:
    """The task-specific head on the first text token: (…, D) → (…, classes)."""
    return nn.Sequential(
        nn.Dropout(0.1), nn.Linear(hidden_size, 2 * hidden_size), nn.ReLU(), nn.Linear(2 * hidden_size, classes)
    )
