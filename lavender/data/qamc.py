"""Multiple choice: a question, its options, and the number of the right one."""

from typing import Any, cast

import numpy as np

from lavender.data.batch import ChoiceBatch
from lavender.data.items import Item, ItemDataset, is_missing, require_index, require_text
from lavender.data.samples import Failure
from lavender.runtime.errors import DataError
from lavender.text.masking import IGNORED
from lavender.text.questions import choice_at_mask, with_options


class MultipleChoiceDataset(ItemDataset):
    """A question and all its options in one text; the answer is an option's number, predicted at `[MASK]`.

    A batch: `img`, `present`, `ids`, `mask`, `labels` (B, X), `position` (B,) of the `[MASK]`, `answer` (B,) number of
    the right option (−1: not given), `video`, `question`: lists of B texts, `options`: a list of B lists.
    """

    def check(self, item: Item, where: str) -> None:
        require_text(item, "question", where)
        size = self.config.size_option
        count = 0
        while item.get(f"option_{count}") is not None:
            count += 1
        if count > size:
            raise DataError(f'{where}: there is an "option_{size}", but size_option is {size}; --size_option {count}')
        if 2 <= count < size and f"option_{count}" not in item:
            raise DataError(f'{where}: "option_{count}" is missing; for {count} options: --size_option {count}')
        for number in range(size):
            require_text(item, f"option_{number}", where)
        if is_missing(item.get("answer")):
            self.allow_blind(item, where)
        else:
            require_index(item, "answer", size, f"size_option is {size}", where)

    def text(self, index: int, rng: np.random.Generator, guard: Any) -> dict[str, Any]:
        item = self.items[index]
        options = [item[f"option_{number}"] for number in range(self.config.size_option)]
        answer = IGNORED if is_missing(item.get("answer")) else item["answer"]
        common = {"video": item["video"], "question": item["question"], "answer": answer}
        return {**common, "options": options, **self.encode(item["question"], options, answer)}

    def encode(self, question: str, options: list[str], answer: int) -> dict[str, Any]:
        """Token ids, mask and labels of an item."""
        text = with_options(question, options)
        ids, position = choice_at_mask(self.tokenizer, text, self.config.size_txt, self.config.mask_pos)
        label = IGNORED if answer == IGNORED else self.tokenizer.word_id(str(answer))
        return {
            "ids": ids,
            "mask": (ids != self.tokenizer.pad_id).astype(np.int64),
            "labels": np.where(ids == self.tokenizer.mask_id, label, IGNORED),
            "position": position,
        }

    def collate(self, samples: list[Any]) -> ChoiceBatch | Failure:
        options = [sample.pop("options") if isinstance(sample, dict) else [] for sample in samples]
        batch = cast(ChoiceBatch | Failure, super().collate(samples))
        if not isinstance(batch, Failure):
            batch["options"] = options
            if "labels" in batch:  # nothing can be learned without a video
                batch["labels"][~batch["present"]] = IGNORED
        return batch


class OptionNumberDataset(MultipleChoiceDataset):
    """Like `MultipleChoiceDataset` without `[MASK]`, for the task-specific head; labels are option numbers."""

    def encode(self, question: str, options: list[str], answer: int) -> dict[str, Any]:
        ids, mask = self.tokenizer.encode(with_options(question, options), self.config.size_txt)
        return {"ids": ids, "mask": mask}
