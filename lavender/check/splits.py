"""Data that a configuration reads: the samples of each split with videos, texts and answers."""

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lavender.config.schema import Config
from lavender.data import corpora
from lavender.data.annotations import CaptionTable, ItemTable, read_splits
from lavender.data.caption import open_captions
from lavender.data.formats import format_of
from lavender.data.items import Item, ItemDataset, ItemFile, Items, open_frames
from lavender.data.pretrain_frames import CorpusFrames, Piece
from lavender.data.qamc import MultipleChoiceDataset
from lavender.data.qaoe import ClosedVocabularyDataset, FillInTheBlankDataset, OpenEndedDataset, QuestionDataset
from lavender.data.retmc import MatchingChoiceDataset
from lavender.data.retrieval import RetrievalDataset, paragraph
from lavender.data.samples import Guard
from lavender.data.sources.base import FrameSource
from lavender.runtime.errors import ConfigError, DataError
from lavender.runtime.logging import progress
from lavender.text.bert_folder import bert_of
from lavender.text.tokens import TextTokenizer

SPLITS = ("train", "val", "test")
LONGEST = 512  # maximum tokens counted of a text
MISSING = -1  # replaces source and number of a missing video
KINDS: dict[str, type[ItemDataset]] = {
    "qaoe": OpenEndedDataset,
    "fib": FillInTheBlankDataset,
    "qamc": MultipleChoiceDataset,
    "retmc": MatchingChoiceDataset,
    "retrieval": RetrievalDataset,
}


@dataclass
class Split:
    """Split of a task: N readable samples, and the faults of the others.

    Args:
        task: name of the task; name: train, val or test; where: file of its texts; config: configuration of the task.
        videos: video id of each sample; sources: frame sources.
        places: (N, 2) source and number of each video, or `MISSING`.
        lengths: (N,) tokens of each sample's longest text, including special tokens, counted up to `LONGEST`.
        answers: right answer → number of samples, for answers in words.
        malformed: number of a sample → why it cannot be read.
        unanswerable: why samples can never be right; outside: number of answers without a task-specific class.
        repeated: numbers of samples that repeat an earlier one.
        numbers: numbers of the N samples in their file; empty if they are all of the file.
    """

    task: str
    name: str
    where: str
    config: Config
    videos: list[str]
    sources: list[FrameSource]
    places: np.ndarray
    lengths: np.ndarray
    answers: Counter[str] = field(default_factory=Counter)
    malformed: dict[int, str] = field(default_factory=dict)
    unanswerable: list[str] = field(default_factory=list)
    outside: int = 0
    repeated: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    hints: dict[str, str] = field(default_factory=dict)  # id of a missing video → id probably meant

    @property
    def title(self) -> str:
        """Name in the report."""
        return f"{self.task} {self.name}"


def open_splits(config: Config) -> list[Split]:
    """Opens every split that a run of this configuration reads.

    Raises:
        ConfigError, DataError, WeightsError: a file is missing or malformed.
    """
    if config.datasets:
        return [split for entry in config.entries() for split in open_splits(entry)]
    tokenizer = TextTokenizer(bert_of(config, "txt_backbone"))
    if config.type == "pretrain":
        return list(_corpora(config, tokenizer))
    if config.type == "captioning":
        return list(_captions(config, tokenizer))
    if format_of(config) not in KINDS:
        raise ConfigError(
            f"type {config.type} is a task of your own: only {', '.join(KINDS)}, captioning and pretrain are known"
        )
    return list(_items(config, tokenizer))


def _items(config: Config, tokenizer: TextTokenizer) -> Iterator[Split]:
    file, frames = ItemFile(config), open_frames(config)
    lenient = dataclasses.replace(config, on_bad_sample="zero", data_ratio=1)
    named: dict[str, list[Any]] = {}  # split → items that name a video
    for name in SPLITS:
        if not isinstance(items := file.content.get(name) or [], list):
            file.items(name)  # raises
        named[name] = [item for item in items if isinstance(item, dict) and isinstance(item.get("video"), str)]
    texts = Items(file.path, {**file.content, **named})
    for name in SPLITS:
        if items := file.content.get(name):
            split = _item_split(config, lenient, tokenizer, frames, texts, name)
            yield _with_nameless(split, items, file.where)


def _with_nameless(split: Split, items: list[Any], where: Callable[[str, int], str]) -> Split:
    """Split with sample numbers counted in the file, if some items have no video id."""
    has_name = [isinstance(item, dict) and isinstance(item.get("video"), str) for item in items]
    places = [number for number, named in enumerate(has_name) if named]
    split.numbers = [places[number] for number in split.numbers]
    split.malformed = {places[number]: fault for number, fault in split.malformed.items()}
    nameless = (number for number, named in enumerate(has_name) if not named)
    split.malformed |= {n: f'{where(split.name, n)}: an object with a "video" (text) is expected' for n in nameless}
    return split


def _item_split(
    config: Config, lenient: Config, tokenizer: TextTokenizer, frames: FrameSource, texts: Items, name: str
) -> Split:
    items, malformed = texts.items(name), Faults()
    words = (lenient, tokenizer, frames, texts, name)
    try:
        dataset = KINDS[format_of(config)](*words, malformed.add)
    except DataError as fault:  # no item can be learned
        split = _split(config, name, str(texts.path), [], [frames])
        split.malformed = dict.fromkeys(range(len(items)), str(fault))
        return split
    numbers = [number for number in range(len(items)) if number not in malformed]
    good = [items[number] for number in numbers]
    split = _split(config, name, str(texts.path), [item["video"] for item in good], [frames])
    split.malformed, split.numbers = malformed, numbers
    split.lengths = _lengths(dataset, good)
    split.repeated = _repeated(good)
    if isinstance(dataset, QuestionDataset):
        split.unanswerable = list(dataset.unanswerable.values())
        split.answers = Counter(filter(None, (dataset.answer(item, "").lower() for item in good)))
        if format_of(config) != "fib" and config.size_vocab and "ans2label" in texts.content:
            split.outside = _outside(ClosedVocabularyDataset(*words, Faults().add), len(good))
    return split


class Faults(dict[int, str]):
    """Number of a sample → fault."""

    def add(self, number: int, fault: DataError) -> None:
        """Records a fault."""
        self[number] = str(fault)


def _outside(closed: ClosedVocabularyDataset, samples: int) -> int:
    """Number of questions of all `samples` whose answer has no class in the task-specific head."""
    return samples - sum(closed.answer_id(closed.items[number], "") >= 0 for number in range(len(closed)))


def _lengths(dataset: ItemDataset, items: list[Item]) -> np.ndarray:
    """Tokens of each item's longest text, as the task would encode it with length `LONGEST`."""
    whole = copy.copy(dataset)
    whole.config = dataclasses.replace(dataset.config, size_txt=LONGEST)
    if isinstance(dataset, RetrievalDataset):  # training uses a random part of a paragraph
        texts = (paragraph(item["caption"]) for item in items)
        return np.array([_tokens(dataset.tokenizer, text) for text in texts], np.int64)
    whole.items = ItemTable(items)
    rng, guard = np.random.default_rng(0), Guard(True)
    return np.array([whole.text(number, rng, guard)["mask"].sum(-1).max() for number in range(len(items))], np.int64)


def _captions(config: Config, tokenizer: TextTokenizer) -> Iterator[Split]:
    for name in SPLITS:
        if not getattr(config, f"{name}_yaml"):
            continue
        captions = open_captions(config, name, tolerant=True)
        split = Split(
            *(config.task, name, str(captions.path), config, captions.videos, captions.frames, captions.frame_rows),
            lengths=np.array(
                [
                    max((_tokens(tokenizer, text) for text in row["captions"]), default=0)
                    for row in map(captions.rows.__getitem__, range(len(captions.rows)))
                ],
                np.int64,
            ),
        )
        try:
            if name == "train":
                captions.training_samples()
            else:
                captions.references(captions.evaluation_rows().tolist())
        except DataError as fault:
            split.malformed[len(captions.videos)] = str(fault)
        yield split


def _corpora(config: Config, tokenizer: TextTokenizer) -> Iterator[Split]:
    for name, folder in corpora.folders_of(config).items():
        frames = CorpusFrames(config, name, folder)
        try:
            path: Path | None = corpora.text_file(folder, name)
        except DataError:
            if not frames.has_captions:
                raise
            path = None
        content = read_splits(path, "pretrain") if path else {}
        for split in ("train", "val"):
            table = CaptionTable(content[split], f"{path}, {split}") if content.get(split) else None
            if split == "train":
                size = config.size_part[name] if isinstance(config.size_part, dict) else config.size_part
                yield _corpus(config, name, split, frames.parts(size, table), table, tokenizer)
            elif table is not None:
                yield _corpus(config, name, split, [frames.validation(table)], table, tokenizer)


def _corpus(
    config: Config,
    name: str,
    split: str,
    pieces: Sequence[Piece],
    table: CaptionTable | None,
    tokenizer: TextTokenizer,
) -> Split:
    videos: list[str] = []
    places: list[tuple[int, int]] = []
    lengths: list[int] = []
    malformed: dict[int, str] = {}
    sources = [piece.open() for piece in pieces]
    for number, (piece, source) in enumerate(zip(pieces, sources, strict=True)):
        rows = range(len(source)) if piece.rows is None else piece.rows.tolist()
        for row in progress(rows, desc=f"{name} {split} texts", unit="text"):
            try:
                video = source.video_id(row)
                caption = source.caption(row) if table is None else table.caption(video)
            except DataError as fault:
                malformed[len(videos) + len(malformed)] = str(fault)
                continue
            videos.append(video)
            places.append((number, row))
            lengths.append(_tokens(tokenizer, caption))
    where = str(sources[0].path) if table is None else table.where.rpartition(",")[0]
    return Split(
        *(name, split, where, config, videos, sources),
        places=np.array(places, np.int64).reshape(-1, 2),
        lengths=np.array(lengths, np.int64),
        malformed=malformed,
    )


def _split(config: Config, name: str, where: str, videos: list[str], sources: list[FrameSource]) -> Split:
    """Split whose videos are looked up in one source."""
    (source,) = sources
    numbers: dict[str, int] = {}
    hints: dict[str, str] = {}
    for video in dict.fromkeys(videos):
        try:
            found = source.place(video)
        except DataError as fault:  # the id is ambiguous
            found, hints[video] = None, str(fault)
        if found is None and len(hints) < 3:
            hints.setdefault(video, source.hint(video))
        numbers[video] = MISSING if found is None else found
    places = np.array([(MISSING if numbers[video] == MISSING else 0, numbers[video]) for video in videos], np.int64)
    return Split(
        *(config.task, name, where, config, videos, sources),
        places=places.reshape(-1, 2),
        lengths=np.zeros(len(videos), np.int64),
        hints=hints,
    )


def _tokens(tokenizer: TextTokenizer, text: str) -> int:
    return min(len(tokenizer.wordpieces(text)) + 2, LONGEST)  # with [CLS] and [SEP]


def _repeated(items: Sequence[Item]) -> list[int]:
    seen: set[str] = set()
    repeated = []
    for number, item in enumerate(items):
        facts = repr(sorted(item.items(), key=lambda pair: pair[0]))
        if facts in seen:
            repeated.append(number)
        seen.add(facts)
    return repeated
