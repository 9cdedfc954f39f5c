"""MSRVTT-QA and MSVD-QA: question lists of Xu et al. (2017), `train_qa.json`, `val_qa.json`, `test_qa.json`."""

import re

from lavender.prepare.public.msvd import MAPPING, read_mapping
from lavender.prepare.public.outputs import Item, Output, Questions
from lavender.prepare.public.source import Row, Source
from lavender.prepare.rows import SPLITS
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown


def read_msrvtt_qa(source: Source, split: str) -> list[Output]:
    """Reads `msrvtt-qa`; video ids are `video<video_id>`."""
    return [Questions("msrvtt-qa", _read(source, {}, "video"), size_vocab=1500)]


def read_msvd_qa(source: Source, split: str) -> list[Output]:
    """Reads `msvd-qa`; video ids are YouTube names if the mapping exists, else `vid<video_id>`."""
    names = {}
    if source.look(MAPPING):
        names = read_mapping(source)
    else:
        source.note(f"{source.folder / MAPPING} is not there: the videos are called vid1, vid2, …")
    return [Questions("msvd-qa", _read(source, names, "vid"), size_vocab=1000)]


def _read(source: Source, names: dict[int, str], prefix: str) -> list[Item]:
    items: list[Item] = []
    for split in SPLITS:
        path = source.find(f"{split}_qa.json")

        def question(row: Row, split: str = split) -> Item:
            number = _number(row)
            if names and number not in names:
                raise DataError(f'{row.where}: "video_id" is {number}, and {MAPPING} has no vid{number}')
            common = {"video": names.get(number, f"{prefix}{number}"), "question": row.text("question")}
            answer = row.optional("answer") if split == "test" else row.text("answer")
            return {**common, "answer_text": answer, "split": split}

        items += source.convert(source.entries(path), question)
    return items


def _number(row: Row) -> int:
    text = row.video("video_id")
    match = re.fullmatch(r"(?:video|vid)?(\d{1,6})", text)
    if match is None:
        raise DataError(f'{row.where}: "video_id" is {shown(text)}; the number of a video is expected')
    return int(match[1])
