"""LSMDC 2016: retrieval, multiple choice and fill-in-the-blank, in tab-separated tables without a header."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

from lavender.prepare.public.outputs import Choices, Item, Output, Questions, Retrieval
from lavender.prepare.public.source import Row, Source
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown

CLIP = ["clip", "start_aligned", "end_aligned", "start_extracted", "end_extracted"]
OPTIONS = [f"sentence {number}" for number in range(1, 6)]
RETRIEVAL = {
    "train": "LSMDC16_annos_training.csv",
    "val": "LSMDC16_annos_val.csv",
    "test": "LSMDC16_challenge_1000_publictect.csv",
}
CHOICE = {
    "train": "LSMDC16_multiple_choice_train.csv",
    "val": "LSMDC16_multiple_choice_valid.csv",
    "test": "LSMDC16_multiple_choice_test_randomized.csv",
}
BLANK = {
    "train": "LSMDC16_annos_training_FIB.csv",
    "val": "LSMDC16_annos_val_FIB.csv",
    "test": "LSMDC16_annos_test_FIB.csv",
}
_TIME = re.compile(r"\d\d\.\d\d\.\d\d\.\d{3}")
_GAP = re.compile(r"_{2,}")


def read_lsmdc(source: Source, split: str) -> list[Output]:
    """Reads `lsmdc-retrieval`: a clip and its sentence; the test split is the public set of 1,000."""
    items: list[Item] = []
    for name, file in RETRIEVAL.items():
        rows = _rows(source, source.find(file), [*CLIP, "sentence"])
        pairs = source.convert(rows, lambda row: (row.video("clip"), row.text("sentence")))
        items += [{"video": clip, "caption": text, "split": name} for clip, text in pairs]
    return [Retrieval("lsmdc-retrieval", items)]


def read_lsmdc_mc(source: Source, split: str) -> list[Output]:
    """Reads `lsmdc-mc`: five sentences per clip.

    In training and validation files the right sentence comes first; they are shuffled here with a fixed seed. The test
    file is already shuffled, and its answers count from 1.
    """
    items: list[Item] = []
    for name, file in CHOICE.items():
        tested = name == "test"
        columns = [*CLIP, *OPTIONS, *(["answer"] if tested else [])]
        for row in source.convert(_rows(source, source.find(file), columns), _choice):
            if not tested:
                order = random.Random(f"{name} {len(items)}").sample(range(len(OPTIONS)), len(OPTIONS))
                row = {**row, "options": [row["options"][number] for number in order], "answer": order.index(0)}
            items.append({**row, "split": name})
    return [Choices("lsmdc-mc", items)]


def read_lsmdc_fib(source: Source, split: str) -> list[Output]:
    """Reads `lsmdc-fib`: the gap, written _____, becomes `[MASK]`."""
    items: list[Item] = []
    for name, file in BLANK.items():
        rows = _rows(source, source.find(file), [*CLIP, "sentence", "fill_in", "blank"])
        items += [{**item, "split": name} for item in source.convert(rows, _blank)]
    several = sum(item["question"].count("[MASK]") > 1 for item in items)
    if several:
        source.note(f"lsmdc-fib: {several:,} sentences have more than one gap; each is a [MASK]")
    return [Questions("lsmdc-fib", items, size_vocab=908)]


def _rows(source: Source, path: Path, columns: list[str]) -> Iterator[Row]:
    for number, row in enumerate(source.bare_tsv(path, columns)):
        starts = row.values.get("start_extracted", "").strip()
        if number == 0 and starts and not _TIME.fullmatch(starts):
            raise DataError(
                f"{row.where}: {shown(starts)} is no time such as 00.01.27.034; LSMDC's files have no header and the "
                f"columns {', '.join(columns)}"
            )
        yield row


def _choice(row: Row) -> Item:
    answer = row.number("answer", 1, len(OPTIONS)) - 1 if "answer" in row.values else 0
    options = [row.text(name) for name in OPTIONS]
    return {"video": row.video("clip"), "question": "", "options": options, "answer": answer}


def _blank(row: Row) -> Item:
    question, gaps = _GAP.subn("[MASK]", row.text("fill_in"))
    if not gaps:
        raise DataError(f'{row.where}: "fill_in" has no gap _____: {shown(question)}')
    return {"video": row.video("clip"), "question": question, "answer_text": row.text("blank")}
