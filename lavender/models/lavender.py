"""The LAVENDER model: video, text and fusion encoders, heads; one model for all tasks (paper, section 3)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lavender.models.backbones.base import VideoBackbone
from lavender.models.bert import BertEncoder
from lavender.models.bert_config import BertConfig
from lavender.models.encoders import Encoded, SwinBertVideoEncoder, TextEncoder, VideoEncoder, normalize_frames
from lavender.models.fusion import ATTENTION_MODES, additive_mask
from lavender.models.heads import MaskedLanguageModelHead, classification_head

TASK_TOKENS = {"vtm": 0, "mc": 1, "oe": 2, "cap": 3}  # rows of `emb_task`
TASK_TOKEN_ROWS = 10


@dataclass(frozen=True)
class Heads:
    """Heads that a task needs.

    Args:
        mlm: whether there is the masked-language-modelling head `fc_mtm`.
        task_tokens: whether there is the table `emb_task` of task embeddings.
        classifiers: name → number of classes of the task-specific heads (`fc`, `fc_<type>_<task>`).
    """

    mlm: bool = True
    task_tokens: bool = True
    classifiers: Mapping[str, int] = field(default_factory=dict)


class Lavender(nn.Module):
    """Multimodal encoder with heads; `state_dict()` has the names of the released checkpoints.

    Args:
        backbone: video backbone.
        text: BERT configuration of the word embeddings (and of the text-only encoder).
        fusion: BERT configuration of the fusion encoder; both have the same hidden size.
        heads: heads of the task.
        swinbert: use SwinBERT's video encoder, which has no position tables: `max_size_frame` and `max_size_patch` are
            ignored.
    """

    enc_img: VideoEncoder | SwinBertVideoEncoder

    def __init__(
        self,
        backbone: VideoBackbone,
        text: BertConfig,
        fusion: BertConfig,
        heads: Heads,
        *,
        embed_only: bool = True,
        max_size_frame: int = 6,
        max_size_patch: int = 14,
        swinbert: bool = False,
    ):
        super().__init__()
        width = fusion.hidden_size
        if swinbert:
            self.enc_img = SwinBertVideoEncoder(backbone, width)
        else:
            self.enc_img = VideoEncoder(backbone, width, max_size_frame, max_size_patch)
        self.enc_txt = TextEncoder(text, embed_only)
        self.trsfr = BertEncoder(fusion)
        self.initializer_range = fusion.initializer_range
        if heads.mlm:
            self.fc_mtm = MaskedLanguageModelHead(fusion)
        if heads.task_tokens:
            self.emb_task = nn.Parameter(torch.zeros(TASK_TOKEN_ROWS, width))
        for name, classes in heads.classifiers.items():
            self.add_module(name, classification_head(width, classes))
        backbone.initialise(self.initializer_range)
        drawn = set(backbone.modules())
        for module in self.modules():
            if module not in drawn:
                self._initialise(module)
        for name, table in self.named_parameters():
            if name.startswith(("enc_img.emb_", "emb_task")):
                nn.init.normal_(table, std=self.initializer_range)

    def _initialise(self, module: nn.Module) -> None:
        """Initializes matrices from N(0, initializer_range): a narrow model needs a larger value than BERT's 0.02."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight.data[module.padding_idx])

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs `function(self, *arguments)`.

        A data-parallel wrapper only tracks calls of `forward`. Tasks pass in their loss function, so that the model
        does not depend on any task.
        """
        return function(self, *arguments)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights, which the frames must share."""
        return self.enc_img.emb_cls.dtype

    @property
    def backbone(self) -> VideoBackbone:
        """The video backbone."""
        return self.enc_img.backbone

    def encode_video(self, img: Tensor, present: Tensor | None = None, **options: Tensor | None) -> Encoded:
        """Frames (B, T, 3, H, W), uint8 or normalised → (B, T·(1 + h·w), D); `present` as for `normalize_frames`."""
        frames = normalize_frames(img, present, self.backbone.mean, self.backbone.std)
        return self.enc_img(frames.to(self.dtype), **options)

    def encode_text(self, ids: Tensor, mask: Tensor, first: int = 0) -> Encoded:
        """Token ids and mask (B, X) → (B, X, D); `first` is the position of the first token."""
        return self.enc_txt(ids, mask, first)

    def prompt(self, ids: Tensor) -> Encoded:
        """Tokens (P,) of a prompt → (1, P, D), embedded separately: positions start at 0 again."""
        return self.encode_text(ids[None], torch.ones_like(ids[None]))

    def task_token(self, name: str) -> Encoded:
        """Embedding of a task → (1, 1, D), without LayerNorm."""
        row = self.emb_task[TASK_TOKENS[name]].view(1, 1, -1)
        return Encoded(row, torch.ones(1, 1, dtype=torch.long, device=row.device))

    def context(self, video: Encoded, prefix: Encoded | None = None) -> Encoded:
        """Context of the text: [video, prefix], (B, V + P, D), with its mask (B, V + P)."""
        if prefix is None:
            return video
        states = prefix.states.expand(len(video.states), -1, -1).to(video.states.dtype)
        mask = prefix.mask.expand(len(video.mask), -1)
        return Encoded(torch.cat([video.states, states], dim=1), torch.cat([video.mask, mask], dim=1))

    def join(self, video: Encoded, text: Encoded, prefix: Encoded | None = None) -> tuple[Tensor, Tensor]:
        """Joint sequence [video, prefix, text], (B, V + P + X, D), and the mask of the context."""
        context = self.context(video, prefix)
        return torch.cat([context.states, text.states], dim=1), context.mask

    def fuse(self, video: Encoded, text: Encoded, prefix: Encoded | None = None, attention: str = "full") -> Tensor:
        """Runs the fusion encoder on [video, prefix, text] → states (B, V + P + X, D); the text is the last X.

        Args:
            prefix: one prompt or task token (1, P, D) for the whole batch.
            attention: a key of `ATTENTION_MODES`.
        """
        joined, context_mask = self.join(video, text, prefix)
        visible = ATTENTION_MODES[attention](context_mask, text.mask)
        return self.trsfr(joined, additive_mask(visible, joined.dtype))

    def classify(self, head: str, states: Tensor) -> Tensor:
        """States (…, D) → logits (…, n) of a task-specific head."""
        return self.get_submodule(head)(states)
