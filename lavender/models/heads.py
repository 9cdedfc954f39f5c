"""Heads: BERT's masked-language-modelling head, and the MLP of the task-specific baselines."""

import torch.nn.functional as F
from torch import Tensor, nn

from lavender.models.bert import BertPredictions
from lavender.models.bert_config import BertConfig

HEADS = ("fc.", "fc_", "emb_task")  # name prefixes that a checkpoint of another task may lack


class MaskedLanguageModelHead(nn.Module):
    """States (…, D) → logits over the vocabulary (…, V). Its decoder is not tied to the word embeddings."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.predictions = BertPredictions(config)

    def forward(self, states: Tensor) -> Tensor:
        return self.predictions(states)

    def logits_for(self, states: Tensor, ids: Tensor) -> Tensor:
        """States (…, D) → logits of the token ids (W,) only: (…, W)."""
        decoder = self.predictions.decoder
        return F.linear(self.predictions.transform(states), decoder.weight[ids], decoder.bias[ids])


def classification_head(hidden_size: int, classes: int) -> nn.Sequential:
    """Task-specific MLP head on the first text token: (…, D) → (…, classes)."""
    return nn.Sequential(
        nn.Dropout(0.1), nn.Linear(hidden_size, 2 * hidden_size), nn.ReLU(), nn.Linear(2 * hidden_size, classes)
    )


def classifier_name(kind: str, task: str) -> str:
    """Name of a task's head in the released multi-head model, such as `fc_qaoe_msvd_qa`."""
    return f"fc_{kind}_{task.replace('-', '_')}"
