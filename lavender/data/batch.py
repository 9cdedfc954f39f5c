"""Contents of a batch: the contract between data sets, whose `collate` makes it, and tasks, which read it.

B samples, T frames, X tokens of a text, O options. Lists and tensors have the batch dimension first. Loaders give CPU
tensors; the engine moves them to the device.
"""

from typing import Any, NotRequired, TypedDict

from torch import Tensor

from lavender.text.masking import label_positions


class Batch(TypedDict):
    """Keys of every batch."""

    index: Tensor  # (B,) int64: number of the sample in its split; predictions are sorted by it
    epoch: Tensor  # (B,) int64
    img: Tensor  # (B, T, 3, H, W) uint8; zeros if the video is missing
    present: Tensor  # (B,) bool: whether the video was read
    video: list[str]  # B video ids, for predictions and messages
    faults: list[str]  # one line per bad sample replaced by zeros (on_bad_sample: zero)
    task: NotRequired[str]  # multi-task: the task of the batch


class TextBatch(Batch):
    """One text per sample."""

    ids: Tensor  # (B, X) int64; with several texts per sample (B, O, X)
    mask: Tensor  # shape of ids, int64: 1 for tokens, 0 for padding


class LabelledBatch(TextBatch):
    """Texts with labels."""

    labels: Tensor  # int64, −1 for none: token ids at `[MASK]`, shape of ids; or (B,) classes (task-specific)
    label_positions: NotRequired[Tensor]  # (K,) int64: positions in flattened `labels` that are not −1


class AnsweredBatch(LabelledBatch):
    """Texts with an answer, which a readout predicts."""

    position: Tensor  # (B,) int64: position at which the answer is read; −1 if truncation removed it


class CaptionBatch(LabelledBatch):
    """Captioning: `ids`, `mask` and `labels` (masked tokens) in training, `draws` for sampling in evaluation."""

    draws: NotRequired[Tensor]  # (B, max_gen_length) float64 in [0, 1): random numbers for do_sample


class PretrainBatch(LabelledBatch):
    """Pretraining: a masked caption with its labels, and the texts of other samples as negatives."""

    caption: list[str]  # B texts
    negatives: Tensor  # (B, N) int64, N = min(B, 4) − 1: indices in the batch of negative texts


class RetrievalBatch(TextBatch):
    """Retrieval: all pairs of B videos and B texts."""

    caption: list[str]  # B texts
    is_match: Tensor  # (B, B) bool: whether two samples show the same video
    shared_text: NotRequired[Tensor]  # (B, B) bool: two videos, one text (unless vtm_negatives is released)


class GalleryBatch(Batch):
    """Retrieval evaluation: videos only. `img` is (ΣC, T, 3, H, W): the clips of all videos, concatenated."""

    clips: Tensor  # (B,) int64: number of clips of each video


class QuestionBatch(AnsweredBatch):
    """Open-ended questions and fill-in-the-blank."""

    answer_id: Tensor  # (B,) int64: token id or class of the answer, −1 for none
    question: list[str]  # B texts
    answer: list[str]  # B texts; "" if not given


class ChoiceBatch(AnsweredBatch):
    """Multiple choice; in the matching format `ids`, `mask`, `labels` are (B, O, X) and `position` is absent.

    A batch for the task-specific head has neither `labels` nor `position`: `answer` is its label.
    """

    answer: Tensor  # (B,) int64: number of the right option, −1 if not given
    question: list[str]  # B texts
    options: list[list[str]]  # B lists of O texts


def with_label_positions(batch: dict[str, Any]) -> dict[str, Any]:
    """Adds the positions of the labels to a batch on the CPU: finding them on a GPU would block the host."""
    return {**batch, "label_positions": label_positions(batch["labels"])} if "labels" in batch else batch
