"""Questions as rows of token ids, with the `[MASK]` at which the answer is read (paper, section 3.2)."""

from collections.abc import Sequence

import numpy as np

from lavender.text.tokens import TextTokenizer

NOWHERE = -1  # position of a `[MASK]` that truncation removed
_INSERT_AT = 10  # index of `[MASK]` with `mask_pos: insert`


def answer_at_mask(tokenizer: TextTokenizer, question: str, length: int) -> tuple[np.ndarray, int]:
    """`[CLS] question answer: [MASK] [SEP] [PAD] …`; the question is cut to `length` − 1 wordpieces.

    Returns:
        ids (length + 5,) int64 with BERT's vocabulary, where "answer:" is two tokens; and the position of `[MASK]`.
    """
    kept = tokenizer.wordpieces(question)[: length - 1]
    suffix = [*tokenizer.wordpieces("answer:"), tokenizer.mask_id]
    ids = [tokenizer.cls_id, *kept, *suffix, tokenizer.sep_id, *_pads(tokenizer, length - len(kept))]
    return np.array(ids, dtype=np.int64), len(kept) + len(suffix)


def choice_at_mask(tokenizer: TextTokenizer, text: str, length: int, mask_pos: str) -> tuple[np.ndarray, int]:
    """A question with its options, cut to `length` − 1 wordpieces, and one `[MASK]`.

    Args:
        mask_pos: `append` `[CLS] … [MASK] [SEP]`, `prepend` `[MASK] [CLS] … [SEP]`, `replace` `[MASK] … [SEP]`, or
            `insert`: `[CLS] … [SEP]` with `[MASK]` inserted at index 10. Padding follows.

    Returns:
        ids (length + 3,) int64, one fewer for `replace`; and the position of `[MASK]`.
    """
    kept = tokenizer.wordpieces(text)[: length - 1]
    cls, sep, mask = tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id
    pads = _pads(tokenizer, length - len(kept))
    if mask_pos == "append":
        ids, position = [cls, *kept, mask, sep, *pads], 1 + len(kept)
    elif mask_pos == "prepend":
        ids, position = [mask, cls, *kept, sep, *pads], 0
    elif mask_pos == "replace":
        ids, position = [mask, *kept, sep, *pads], 0
    else:
        ids = [cls, *kept, sep, *pads]
        position = min(_INSERT_AT, len(ids))
        ids.insert(position, mask)
    return np.array(ids, dtype=np.int64), position


def blank_in_place(tokenizer: TextTokenizer, sentence: str, length: int) -> tuple[np.ndarray, int]:
    """`[CLS] sentence [SEP] [PAD] …` for a sentence that contains its `[MASK]`.

    Returns:
        ids (length,) int64; and the position of the first `[MASK]`, `NOWHERE` if truncation removed it.
    """
    ids, _ = tokenizer.encode(sentence, length)
    found = np.flatnonzero(ids == tokenizer.mask_id)
    return ids, int(found[0]) if len(found) else NOWHERE


def with_options(question: str, options: Sequence[str]) -> str:
    """`question [SEP] option 0: … [SEP] option 1: …`, the text of a multiple-choice question."""
    return " ".join([question, *(f"[SEP] option {number}: {option}" for number, option in enumerate(options))])


def _pads(tokenizer: TextTokenizer, number: int) -> list[int]:
    return [tokenizer.pad_id] * number
