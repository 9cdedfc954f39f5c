"""Tokenizer of a BERT folder: texts to fixed-length rows of ids."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer

from lavender.runtime.errors import WeightsError
from lavender.runtime.files import looked_from, read_text
from lavender.text.bert_folder import lowercases


class TextTokenizer:
    """BERT's WordPiece tokenizer, built from the `vocab.txt` of a folder.

    Args:
        folder: folder with `vocab.txt` and, optionally, `tokenizer_config.json` with `do_lower_case`.

    Raises:
        WeightsError: the vocabulary is missing, or lacks BERT's special tokens or the words "true" and "false".
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        vocabulary = self.folder / "vocab.txt"
        if not vocabulary.is_file():
            raise WeightsError(
                f"{folder}: no vocab.txt{looked_from(folder)}; give the folder of a BERT model, vocabulary included"
            )
        words = read_text(vocabulary, WeightsError).rstrip().split("\n")  # blank lines at the end are not words
        ids = {word.rstrip(): number for number, word in enumerate(words)}
        try:
            wordpiece = BertWordPieceTokenizer(ids, lowercase=lowercases(self.folder))
        except TypeError as error:
            raise WeightsError(f"{vocabulary}: no vocabulary of a BERT model ({error})") from error
        self._tokenizer: Tokenizer = wordpiece._tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.size = self._tokenizer.get_vocab_size()
        self.pad_id, self.unknown_id, self.cls_id, self.sep_id, self.mask_id = (
            self.word_id(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        )
        self.true_id, self.false_id = self.word_id("true"), self.word_id("false")

    def word_id(self, word: str) -> int:
        """Id of a vocabulary word."""
        found = self.find(word)
        if found is None:
            raise WeightsError(f'{self.folder / "vocab.txt"}: the vocabulary has no "{word}"')
        return found

    def find(self, word: str) -> int | None:
        """Id of a word that is a vocabulary entry unchanged; else None."""
        return self._tokenizer.token_to_id(word)

    def answer_id(self, text: str) -> int | None:
        """Id of a text that is one vocabulary entry, unchanged or after tokenization; else None."""
        found = self.find(text)
        if found is None:
            ids = self.wordpieces(text)
            found = ids[0] if len(ids) == 1 else None
        return None if found == self.unknown_id else found

    def word(self, token_id: int) -> str:
        """Vocabulary word of an id; "" for an id past the end."""
        return self._tokenizer.id_to_token(token_id) or ""

    def wordpieces(self, text: str) -> list[int]:
        """Ids of the text's wordpieces, without added tokens; "[MASK]" and "[SEP]" in the text become those tokens."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def text(self, ids: Sequence[int]) -> str:
        """Decodes token ids: joins wordpieces, drops special tokens, no space before a full stop or in "man's"."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True).replace(" ' ", "'").strip()

    def prompt(self, text: str) -> np.ndarray:
        """Encodes a prompt as `[CLS] … [SEP]`: (P,) int64."""
        return np.array([self.cls_id, *self.wordpieces(text), self.sep_id], dtype=np.int64)

    def encode(self, text: str, length: int, append_mask: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Encodes a text as `[CLS] … [SEP] [PAD] …`, truncated or padded to `length`.

        Args:
            length: number of tokens, including special tokens.
            append_mask: append a `[MASK]` after the padding (position `length`), for matching.

        Returns:
            ids and mask, (length,) or (length + 1,) int64; the mask is 0 for padding.
        """
        kept = self.wordpieces(text)[: length - 2]
        row = np.full(length + append_mask, self.pad_id, dtype=np.int64)
        row[: len(kept) + 2] = [self.cls_id, *kept, self.sep_id]
        if append_mask:
            row[-1] = self.mask_id
        return row, (row != self.pad_id).astype(np.int64)
