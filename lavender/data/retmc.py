"""Multiple choice by matching: one text per option, each matched with the video (MSRVTT-MC, LSMDC-MC)."""

from typing import Any

import numpy as np

from lavender.data.qamc import MultipleChoiceDataset
from lavender.text.masking import IGNORED


class MatchingChoiceDataset(MultipleChoiceDataset):
    """Texts `question option`, each with a `[MASK]` after its padding; label "true" if right, else "false".

    A batch equals that of `MultipleChoiceDataset`, but `ids`, `mask`, `labels` are (B, O, X) for O options.
    """

    append_mask = True

    def encode(self, question: str, options: list[str], answer: int) -> dict[str, Any]:
        tokenizer = self.tokenizer
        texts = [f"{question} {option}" if question else option for option in options]
        rows = [tokenizer.encode(text, self.config.size_txt, self.append_mask) for text in texts]
        ids, mask = (np.stack(column) for column in zip(*rows, strict=True))  # (O, X)
        if not self.append_mask:
            return {"ids": ids, "mask": mask}
        right = np.arange(len(options))[:, None] == answer
        words = np.where(right, tokenizer.true_id, tokenizer.false_id)  # (O, 1)
        if answer == IGNORED:
            words[:] = IGNORED
        elif self.config.vtm_negatives == "distinct":  # the right option's text is not a negative elsewhere
            read = [tokenizer.wordpieces(text) for text in texts]
            is_same = np.array([text == read[answer] for text in read])[:, None]
            words[~right & is_same] = IGNORED
        return {"ids": ids, "mask": mask, "labels": np.where(ids == tokenizer.mask_id, words, IGNORED)}


class MatchingTextDataset(MatchingChoiceDataset):
    """Like `MatchingChoiceDataset` without `[MASK]`, for the task-specific head."""

    append_mask = False
