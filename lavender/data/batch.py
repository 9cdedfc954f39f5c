"""What a batch holds: the contract between data sets, whose `collate` makes it, and tasks, which read it.

B samples, T frames, X tokens of a text, O options. Lists and tensors have the batch in front. Tensors are on the CPU in
the loader; the engine brings them to the device.
"""

from typing import Any, NotRequired, TypedDict

from torch import Tensor

from lavender.text.masking import places_of


class Batch(TypedDict):
    """The keys of every batch."""

    index: Tensor  # (B,) int64: number of the sample in its split; predictions are put in this order
    epoch: Tensor  # (B,) int64
    img: Tensor  # (B, T, 3, H, W) uint8; a sample without its video has zeros
    present: Tensor  # (B,) bool: whether the video could be read
    video: list[str]  # B ids, for predictions and messages
    faults: list[str]  # a line for each bad sample that was replaced (on_bad_sample: zero)
    task: NotRequired[str]  # of several tasks: whose batch it is


class TextBatch(Batch):
    """One text a sample."""

    ids: Tensor  # (B, X) int64; of several texts a sample (B, O, X)
    mask: Tensor  # as ids, int64: 1 for tokens, 0 for pads


class LabelledBatch(TextBatch):
    """Texts with labels."""

    labels: Tensor  # int64, −1 for none: words at `[MASK]`, as ids; or (B,) classes of the task-specific head
    places: NotRequired[Tensor]  # (K,) int64: where `labels`, flattened, are not −1; see `with_places`


class AnsweredBatch(LabelledBatch):
    """Texts with an answer: what a readout reads."""

    position: Tensor  # (B,) int64: the token at which the answer is read; −1 where truncation has cut it away


class CaptionBatch(LabelledBatch):
    """Captioning: `ids`, `mask` and `labels` (the hidden words) in training, `draws` in evaluation by sampling."""

    draws: NotRequired[Tensor]  # (B, max_gen_length) float64 in [0, 1): choose the words of do_sample


class PretrainBatch(LabelledBatch):
    """Pretraining: a caption with hidden words, the labels, and texts of other samples as false pairs."""

    caption: list[str]  # B texts
    negatives: Tensor  # (B, N) int64, N = min(B, 4) − 1: numbers of the samples in the batch whose texts are false


class RetrievalBatch(TextBatch):
    """Retrieval: B videos and B texts, in all pairs."""

    caption: list[str]  # B texts
    same: Tensor  # (B, B) bool: whether two samples show the same video
    shared_text: NotRequired[Tensor]  # (B, B) bool: two videos, one text (unless vtm_negatives is released)


class GalleryBatch(Batch):
    """Retrieval evaluation: videos alone. `img` is (ΣC, T, 3, H, W), the clips of each video one after another."""

    clips: Tensor  # (B,) int64: how many clips each video has


class QuestionBatch(AnsweredBatch):
    """Open-ended questions and fill-in-the-blank."""

    answer_id: Tensor  # (B,) int64: word or class of the answer, −1 for none
    question: list[str]  # B texts
    answer: list[str]  # B texts; "" where none is given


class ChoiceBatch(AnsweredBatch):
    """Multiple choice; by matching, `ids`, `mask` and `labels` are (B, O, X) and there is no `position`.

    A batch for the task-specific head has neither `labels` nor `position`: `answer` is its label.
    """

    answer: Tensor  # (B,) int64: number of the right option, −1 where none is given
    question: list[str]  # B texts
    options: list[list[str]]  # B lists of O texts


def with_places(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch on the CPU with the places of its labels: to look for them on a GPU would stop the host."""
    return {**batch, "places": places_of(batch["labels"])} if "labels" in batch else batch
