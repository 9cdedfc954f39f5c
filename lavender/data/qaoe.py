"""Open-ended question answering and fill-in-the-blank: a question with a one-word answer."""

import logging
from abc import abstractmethod
from typing import Any, ClassVar, cast

import numpy as np

from lavender.config.schema import Config
from lavender.data.annotations import check_text
from lavender.data.batch import QuestionBatch
from lavender.data.items import Item, ItemDataset, Items, OnFault, is_missing, require_index, require_text
from lavender.data.samples import Failure
from lavender.data.sources.base import FrameSource
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown, shown_json
from lavender.text.masking import IGNORED
from lavender.text.questions import NOWHERE, answer_at_mask, blank_in_place
from lavender.text.tokens import TextTokenizer

LOGGER = logging.getLogger("lavender.data")


class AnswerWords:
    """Index → answer word: from `ans2label` of the text file, else `vocab`, else from items that give both.

    Raises:
        DataError: `ans2label` is not an object word → index, or `vocab` is not a list of words.
    """

    def __init__(self, texts: Items):
        self.source, self.words = _listed_words(texts)
        for word in self.words.values():
            check_text(word, f"the word {word!a}", f'{texts.path}, "{self.source}"')
        if not self.source:
            self.words = {
                item["answer"]: item["answer_text"]
                for split in ("test", "val", "train")
                for item in texts.items(split)
                if isinstance(item.get("answer_text"), str)
                and item["answer_text"].strip()
                and type(item.get("answer")) is int
                and item["answer"] != IGNORED
            }

    def of(self, item: Item, where: str) -> str:
        """Answer of an item: its `answer_text`, else the word of its `answer`; "" if neither is given.

        A blank `answer_text` means a withheld answer if the file has no word for `answer`.

        Raises:
            DataError: the index is not an integer or is outside the list, or there is no list.
        """
        if not is_missing(item.get("answer_text")):
            return require_text(item, "answer_text", where)
        index = item.get("answer")
        if is_missing(index):
            return ""
        if not self.source:
            if item.get("answer_text") is not None:
                return ""
            raise DataError(
                f'{where}: no "answer_text", and the file has neither "ans2label" nor "vocab" to fill it in'
            )
        size = max(self.words, default=-1) + 1
        require_index(item, "answer", size, f'"{self.source}" has {len(self.words)} words', where)
        if index not in self.words:
            raise DataError(f'{where}: "answer" is {shown(index)}, which is not an index in "{self.source}"')
        return self.words[index]

    def word(self, index: int) -> str:
        """Word of a class of the task-specific head; its number if the file has no word for it."""
        return self.words.get(index, str(index)) if type(index) is int else str(index)


class QuestionDataset(ItemDataset):
    """Questions with their answers.

    A batch: `img`, `present`, `ids`, `mask` (B, X), `labels` (B, X) for the MLM head or (B,) for the task-specific one,
    `position` (B,) of the answer, `answer_id` (B,) or −1, and `video`, `question`, `answer`: lists of text.
    """

    not_an_answer: ClassVar[str] = "is no word of the vocabulary"  # reason in messages
    labels_without_video: ClassVar[bool] = False  # whether a question without its video keeps its label

    def __init__(
        self,
        config: Config,
        tokenizer: TextTokenizer,
        frames: FrameSource,
        texts: Items,
        split: str,
        on_fault: OnFault | None = None,
    ):
        self.words = AnswerWords(texts)
        self.unanswerable: dict[int, str] = {}  # id of an item → reason
        self._path = texts.path
        super().__init__(config, tokenizer, frames, texts, split, on_fault)

    def kept(self, items: list[Item]) -> list[Item]:
        """As in `ItemDataset`; logs the questions that can never be answered correctly.

        Raises:
            DataError: nothing can be learned from the training items.
        """
        kept = super().kept(items)
        reasons = [self.unanswerable[id(item)] for item in kept if id(item) in self.unanswerable]
        if self.training and kept and len(reasons) == len(kept):
            vocabulary = self.tokenizer.folder / "vocab.txt"
            raise DataError(
                f"{self._path}: nothing can be learned from the {len(kept)} training questions: "
                f"{'; '.join(reasons[:3])}. Check the answers and {vocabulary} (--txt_backbone)"
            )
        if reasons:
            many = 2 * len(reasons) > len(kept)
            LOGGER.log(
                logging.WARNING if many else logging.INFO,
                "%d of %d %s questions can never be right%s; the first: %s",
                *(len(reasons), len(kept), self.split, f" ({len(reasons) / len(kept):.0%})" if many else ""),
                "; ".join(reasons[: 3 if many else 1]),
            )
        return kept

    def check(self, item: Item, where: str) -> None:
        require_text(item, "question", where)
        if not is_missing(item.get("answer_text")):
            require_text(item, "answer_text", where)
        known = not is_missing(item.get("answer_text")) or not is_missing(item.get("answer"))
        if not known or (not self.words.source and not self.answer(item, where)):
            self.allow_blind(item, where)
        elif reason := self.unanswerable_reason(item, where):
            self.unanswerable[id(item)] = f"{where}: {reason}"

    def unanswerable_reason(self, item: Item, where: str) -> str:
        """Why a question can never be answered correctly; "" if it can."""
        if self.answer_id(item, where) == IGNORED:
            return f"its answer, {shown(self.answer(item, where))}, {self.not_an_answer}"
        return ""

    @abstractmethod
    def answer_id(self, item: Item, where: str) -> int:
        """Class of the right answer; −1 if there is none."""

    def answer(self, item: Item, where: str) -> str:
        """Text of the right answer."""
        return self.words.of(item, where)

    @abstractmethod
    def encode(self, question: str) -> tuple[np.ndarray, int]:
        """Token ids (X,) and the position at which the answer is read."""

    def labels(self, ids: np.ndarray, answer_id: int) -> np.ndarray:
        """The answer at every `[MASK]`, −1 elsewhere."""
        return np.where(ids == self.tokenizer.mask_id, answer_id, IGNORED)

    def text(self, index: int, rng: np.random.Generator, guard: Any) -> dict[str, Any]:
        item = self.items[index]
        answer_id = self.answer_id(item, f"item {index}")
        ids, position = self.encode(item["question"])
        return {
            "video": item["video"],
            "question": item["question"],
            "answer": self.answer(item, f"item {index}"),
            "answer_id": answer_id,
            "position": position,
            "ids": ids,
            "mask": (ids != self.tokenizer.pad_id).astype(np.int64),
            "labels": self.labels(ids, answer_id),
        }

    def collate(self, samples: list[Any]) -> QuestionBatch | Failure:
        batch = cast(QuestionBatch | Failure, super().collate(samples))
        if not isinstance(batch, Failure) and not self.labels_without_video:
            for name in ("labels", "answer_id"):
                batch[name][~batch["present"]] = IGNORED
        return batch


class OpenEndedDataset(QuestionDataset):
    """`question answer: [MASK]`; an answer that is not one vocabulary entry has no label."""

    def answer_id(self, item: Item, where: str) -> int:
        found = self.tokenizer.answer_id(self.words.of(item, where))
        return IGNORED if found is None else found

    def encode(self, question: str) -> tuple[np.ndarray, int]:
        return answer_at_mask(self.tokenizer, question, self.config.size_txt)


class FillInTheBlankDataset(OpenEndedDataset):
    """A sentence that contains a `[MASK]`; without its video it keeps its label, as released."""

    labels_without_video = True

    def check(self, item: Item, where: str) -> None:
        if "[MASK]" not in require_text(item, "question", where):
            raise DataError(f"{where}: the question has no [MASK] to fill in: {shown_json(item['question'])}")
        super().check(item, where)

    def unanswerable_reason(self, item: Item, where: str) -> str:
        reason = super().unanswerable_reason(item, where)  # first: it checks the answer
        if self.encode(item["question"])[1] == NOWHERE:
            return f"its [MASK] lies beyond size_txt, {self.config.size_txt} tokens"
        return reason

    def encode(self, question: str) -> tuple[np.ndarray, int]:
        return blank_in_place(self.tokenizer, question, self.config.size_txt)


class ClosedVocabularyDataset(QuestionDataset):
    """The question alone, for the task-specific head; the label is `answer`, one of `size_vocab` classes."""

    not_an_answer: ClassVar[str] = "is no class of the task-specific head (these are the answers that the file lists)"

    def answer_id(self, item: Item, where: str) -> int:
        if item.get("answer") == IGNORED or not self.answer(item, where):
            return IGNORED
        return require_index(item, "answer", self.config.size_vocab, f"size_vocab is {self.config.size_vocab}", where)

    def answer(self, item: Item, where: str) -> str:
        if not is_missing(item.get("answer_text")):
            return item["answer_text"]
        return "" if is_missing(item.get("answer")) else self.words.word(item["answer"])

    def encode(self, question: str) -> tuple[np.ndarray, int]:
        return self.tokenizer.encode(question, self.config.size_txt)[0], 0  # read at [CLS]

    def labels(self, ids: np.ndarray, answer_id: int) -> np.ndarray:
        return np.array(answer_id)


def _listed_words(texts: Items) -> tuple[str, dict[int, str]]:
    """Key of the answer list in a file, and its words."""
    table = texts.content.get("ans2label")
    if table is not None:
        if not isinstance(table, dict) or any(type(index) is not int for index in table.values()):
            raise DataError(f'{texts.path}: "ans2label" must be an object, word → index')
        return "ans2label", {index: word for word, index in table.items()}
    words = texts.content.get("vocab")
    if words is not None:
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise DataError(f'{texts.path}: "vocab" must be a list of words')
        return "vocab", dict(enumerate(words))
    return "", {}
