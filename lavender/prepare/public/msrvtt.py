"""MSR-VTT: captions with the official splits, retrieval with JSFusion's 1k-A test split, and its multiple choice."""

from collections.abc import Iterator
from typing import Any

from lavender.prepare.public.outputs import Captions, Choices, Item, Output, Retrieval
from lavender.prepare.public.source import Row, Source
from lavender.prepare.rows import split_of
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown

TRAIN_VAL, TEST, WHOLE = "train_val_videodatainfo.json", "test_videodatainfo.json", "MSRVTT_data.json"
TEST_1K = "MSRVTT_JSFUSION_test.csv"
OPTIONS = 5


def read_msrvtt(source: Source, split: str) -> list[Output]:
    """Reads the captioning folder and `msrvtt-retrieval`.

    Args:
        split: split of retrieval. `7k` and `9k` test on the 1,000 pairs of 1k-A and train on the 7,010 videos of the
            official train and val splits, or on the other 9,000; remaining videos are `val`. `full`: official splits.
    """
    official, captions = _read_captions(source)
    everything: list[Item] = [
        {"video": video, "caption": text, "split": official[video]}
        for video, texts in captions.items()
        for text in texts
    ]
    if split == "full":
        pairs = [dict(item) for item in everything]
    else:
        pairs = list(_retrieval(source, split, official, captions))
    return [Captions("msrvtt-cap", "MSRVTT-v2", "msrvtt", everything), Retrieval("msrvtt-retrieval", pairs)]


def read_msrvtt_mc(source: Source, split: str) -> list[Output]:
    """Reads `msrvtt-mc`: a test split of videos with five captions, one of them right."""
    path = source.find(
        "MSR_MC_test.csv", "msrvtt_mc_test.jsonl", "mc_test.jsonl", "msrvtt_mc_test.json", "mc_test.json"
    )
    kind = path.suffix.lower()
    if kind == ".csv":
        columns = [f"a{number}" for number in range(1, OPTIONS + 1)]
        known = ("key", "vid_key", "video_id", "description", "sentence")
        rows = source.tsv(path, [*columns, "answer"], known)
    elif kind == ".jsonl":
        rows = source.json_lines(path)
    else:
        rows = source.entries(path)
    return [Choices("msrvtt-mc", list(source.convert(rows, _choice)))]


def _choice(row: Row) -> Item:
    """One question: tables have `a1` … `a5`, JSON a list under `options` (ClipBERT) or `caption` (ALPRO)."""
    if "a1" in row.values:
        options = [row.text(f"a{number}") for number in range(1, OPTIONS + 1)]
    else:
        options = row.texts("options" if "options" in row.values else "caption", OPTIONS)
    keys = ("video_id", "clip_name", "video", "vid_key")
    key = next((key for key in keys if row.values.get(key) not in (None, "")), keys[0])
    name = row.video(key)
    if key == "vid_key":  # JSFusion's msr9770 is video9770
        name = "video" + name.removeprefix("msr")
    number = row.number("answer", 0, OPTIONS - 1)
    return {"video": name, "question": "", "options": options, "answer": number, "split": "test"}


def _read_captions(source: Source) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Video → official split, and video → captions, in file order."""
    whole = None if source.look(TRAIN_VAL) else source.look(WHOLE)
    paths = [whole] if whole else [source.find(TRAIN_VAL, WHOLE)]
    if whole is None:
        test = source.look(TEST)
        if test is None:
            source.note(f"{source.folder / TEST} is not there: captioning has no test split")
        else:
            paths.append(test)
    official: dict[str, str] = {}
    captions: dict[str, list[str]] = {}
    for path in paths:
        content = source.json(path)
        for row in source.entries(path, content, "videos"):
            video, split = row.video("video_id"), split_of(row.text("split"), row.where)
            if official.setdefault(video, split) != split:
                raise DataError(f"{row.where}: video {shown(video)} is in {official[video]} and in {split}")
        for video, text in source.convert(source.entries(path, content, "sentences"), _sentence):
            if video not in official:
                raise DataError(f'{path}: a sentence is of video {shown(video)}, which is not in "videos"')
            captions.setdefault(video, []).append(text)
    if without := official.keys() - captions.keys():
        source.note(f"{len(without):,} videos have no sentences, such as {shown(min(without))}")
    return official, captions


def _sentence(row: Row) -> tuple[str, str]:
    return row.video("video_id"), row.text("caption")


def _retrieval(source: Source, split: str, official: dict[str, str], captions: dict[str, list[str]]) -> Iterator[Item]:
    path = source.find(TEST_1K)
    rows = source.csv(path, ["video_id", "sentence"], ["key", "vid_key"])
    test = list(source.convert(rows, lambda row: (row.video("video_id"), row.text("sentence"))))
    tested = {video for video, _ in test}
    training = _training_videos(source, split, official, tested)
    used = tested.union(training)
    if both := tested.intersection(training):
        raise DataError(f"{path}: {len(both):,} of its videos are trained on too, such as {shown(min(both))}")
    unknown = [video for video in training if video not in captions]
    if unknown:
        raise DataError(
            f"{source.folder}: {len(unknown):,} training videos of {split} have no sentences, such as "
            f"{shown(unknown[0])}; 9k needs {TEST} (or {WHOLE}) too, else take --split 7k"
        )
    for video in training:
        yield from _items(video, captions[video], "train")
    neither = [video for video in captions if video not in used]
    for video in neither:
        yield from _items(video, captions[video], "val")
    if not neither:
        source.note("msrvtt-retrieval: no video is left to validate on; the best epoch is then the last")
    for video, text in test:
        yield from _items(video, [text], "test")


def _training_videos(source: Source, split: str, official: dict[str, str], tested: set[str]) -> list[str]:
    path = source.look(f"MSRVTT_train.{split}.csv")
    if path is not None:
        return list(dict.fromkeys(source.convert(source.csv(path, ["video_id"]), lambda row: row.video("video_id"))))
    chosen = [video for video, of in official.items() if (split == "9k" or of != "test") and video not in tested]
    what = "all videos that 1k-A does not test" if split == "9k" else "the official train and val splits"
    source.note(f"{source.folder / f'MSRVTT_train.{split}.csv'} is not there: {what} are trained on ({len(chosen):,})")
    return chosen


def _items(video: str, texts: list[str], split: str) -> Iterator[dict[str, Any]]:
    for text in texts:
        yield {"video": video, "caption": text, "split": split}
