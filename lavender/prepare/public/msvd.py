"""MSVD (Microsoft Research Video Description): captions for captioning and retrieval, and video names."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from lavender.data.ids import without_extension
from lavender.prepare.public.outputs import Captions, Item, Output, Retrieval
from lavender.prepare.public.source import Row, Source
from lavender.prepare.rows import SPLITS
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown

CAPTIONS = (
    *("AllVideoDescriptions.txt", "video_corpus.csv"),
    *("MSR Video Description Corpus.csv", "MSR_Video_Description_Corpus.csv"),
)
MAPPING = "youtube_mapping.txt"
CORPUS = ("VideoID", "Start", "End", "Language", "Description")
LAST = {"train": 1200, "val": 1300, "test": 1970}  # last vidN of each split


def read_msvd(source: Source, split: str) -> list[Output]:
    """Reads the captioning folder, and `msvd-retrieval` with the same splits and all captions."""
    of = _splits(source)
    path = source.find(*CAPTIONS)
    items: list[Item] = []
    unknown: dict[str, None] = {}
    pairs = _from_csv(source, path) if path.suffix.lower() == ".csv" else _from_text(source, path, of)
    for video, text in pairs:
        if video in of:
            items.append({"video": video, "caption": text, "split": of[video]})
        else:
            unknown[video] = None
    if unknown:
        names = ", ".join(map(shown, list(unknown)[:3]))
        source.note(f"{path}: {len(unknown):,} names are those of no video of the splits: left out ({names})")
    if without := of.keys() - {item["video"] for item in items}:
        source.note(f"{path}: {len(without):,} videos of the splits have no caption, such as {shown(min(without))}")
    return [
        Captions("msvd-cap", "MSVD", "msvd", items),
        Retrieval("msvd-retrieval", [dict(item) for item in items]),
    ]


def read_mapping(source: Source) -> dict[int, str]:
    """N → YouTube name of vidN."""
    path = source.find(MAPPING)
    names: dict[int, str] = {}
    for line, text in source.lines(path):
        words = text.split()
        if len(words) != 2 or not (match := re.fullmatch(r"(?:vid|video)(\d{1,6})", words[1])):
            raise DataError(f'{path}, line {line}: {shown(text)}; "NAME vidN" is expected')
        names[int(match[1])] = words[0]
    return names


def _splits(source: Source) -> dict[str, str]:
    """Video → split: from the three lists, else by the numbers of the mapping."""
    lists = {split: source.look(f"{split}_list.txt", f"{split}list.txt") for split in SPLITS}
    of: dict[str, str] = {}
    if all(path is None for path in lists.values()):
        if source.look(MAPPING) is None:
            source.find("train_list.txt", MAPPING)
        for number, name in sorted(read_mapping(source).items()):
            split = next((split for split in SPLITS if number <= LAST[split]), None)
            if split is None:
                raise DataError(
                    f"{source.folder / MAPPING}: vid{number} is there, but MSVD has {LAST['test']:,} videos"
                )
            of[name] = split
        source.note(f"the lists of the splits are not there: vid1 to vid{LAST['train']} train, to vid{LAST['val']} val")
        return of
    for split, path in lists.items():
        if path is None:
            raise DataError(f"{source.folder / f'{split}_list.txt'}: no such file, but the other lists are there")
        for line, text in source.lines(path):
            name = without_extension(Row(f"{path}, line {line}", {"video": text}).video("video"))
            if of.setdefault(name, split) != split:
                raise DataError(f"{path}, line {line}: video {shown(name)} is in {of[name]} too")
    return of


def _from_text(source: Source, path: Path, of: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Reads `NAME caption` lines. A comment precedes them: its first words are not videos."""

    def pair(row: Row) -> tuple[str, str]:
        name, *text = row.text("line").split(maxsplit=1)
        if (name := without_extension(name)) in of and not text:
            raise DataError(f"{row.where}: video {shown(name)} has no caption")
        return name, "".join(text)

    return source.convert((Row(f"{path}, line {line}", {"line": text}) for line, text in source.lines(path)), pair)


def _from_csv(source: Source, path: Path) -> Iterator[tuple[str, str]]:
    """Reads one description per row; blank and non-English ones are left out."""
    rows = source.csv(path, CORPUS, ("WorkerID", "Source", "AnnotationTime"))
    left_out: Counter[str] = Counter()
    for reason, video, text in source.convert(rows, _description):
        if reason:
            left_out[reason] += 1
        else:
            yield video, text
    for reason, count in left_out.items():
        source.note(f"{path}: {count:,} descriptions are {reason}: left out")


def _description(row: Row) -> tuple[str, str, str]:
    """Reason for leaving a row out, or "", and its video and text."""
    if row.text("Language").lower() != "english":
        return "in other languages", "", ""
    if not row.optional("Description"):
        return "blank", "", ""
    return "", f"{row.video('VideoID')}_{row.text('Start')}_{row.text('End')}", row.text("Description")
