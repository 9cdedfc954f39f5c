"""Findings about a data set, sorted by severity."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from lavender.check.splits import LONGEST, MISSING, Split
from lavender.check.videos import Decoded, Video, Videos
from lavender.runtime.quoting import shown

ERROR, WARNING, NOTE = "error", "warning", "note"  # stops a run or spoils its metrics; may do so; is worth knowing
EXAMPLES = 3
_FIX = "; --fix FOLDER writes a copy without them"
_FEW = 0.01  # fraction of truncated texts that gives a warning


@dataclass(frozen=True)
class Finding:
    """One finding.

    Args:
        kind: its name in one or two words, equal for all splits; level: `ERROR`, `WARNING` or `NOTE`.
        where: the split; count, total: affected and all samples or videos; examples: some affected ones.
        advice: what to do.
    """

    kind: str
    level: str
    where: str
    count: int
    total: int
    advice: str
    examples: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Affected fraction, from 0 to 1."""
        return self.count / max(1, self.total)


def find_all(
    splits: Sequence[Split], videos: Videos, decoded: Mapping[Video, Decoded], marks: Mapping[Video, bytes]
) -> list[Finding]:
    """All findings, errors first."""
    found = [
        finding
        for number, split in enumerate(splits)
        for finding in [*of_texts(split), *of_videos(split, videos.of[number], decoded, videos)]
    ]
    found += of_ids(videos)
    found += across_splits(splits, videos, marks)
    levels = (ERROR, WARNING, NOTE)
    return sorted((finding for finding in found if finding.count), key=lambda finding: levels.index(finding.level))


def of_texts(split: Split) -> Iterator[Finding]:
    """Findings about texts: malformed, unanswerable, repeated, truncated."""
    samples, config = len(split.videos), split.config
    faults = list(dict.fromkeys(split.malformed.values()))
    advice = f"mend the file{_FIX}"
    yield _finding("malformed", ERROR, split, len(split.malformed), samples + len(split.malformed), advice, faults)
    count = len(split.unanswerable)
    level = ERROR if split.name == "train" and count == samples else WARNING if 2 * count > samples else NOTE
    advice = "they count as wrong, as in the paper's metrics; the answer must be one word of BERT's vocabulary"
    yield _finding("unanswerable", level, split, count, samples, advice, split.unanswerable)
    advice = "the task-specific head counts them as wrong: it knows the answers that the file lists"
    yield _finding("outside the vocabulary", NOTE, split, split.outside, samples, advice)
    advice = f"each counts as a sample of its own{_FIX}"
    numbers = [split.numbers[number] if split.numbers else number for number in split.repeated[:EXAMPLES]]
    examples = [f"item {number} (counted from 0)" for number in numbers]
    yield _finding("repeated", NOTE, split, len(split.repeated), samples, advice, examples)
    long = split.lengths > config.size_txt
    count = int(long.sum())
    advice = (
        f"the longest has {split.lengths.max(initial=0)} tokens{' or more' * bool((split.lengths >= LONGEST).any())}"
    )
    advice += f"; size_txt is {config.size_txt}"
    level = WARNING if count > _FEW * samples else NOTE
    examples = [f"{split.videos[number]}: {split.lengths[number]} tokens" for number in np.flatnonzero(long)[:EXAMPLES]]
    yield _finding("truncated", level, split, count, samples, advice, examples)


def of_videos(
    split: Split, videos: Sequence[Video | None], decoded: Mapping[Video, Decoded], all_videos: Videos
) -> Iterator[Finding]:
    """Findings about videos: missing, not decodable, with few or small frames."""
    config, samples = split.config, len(split.videos)
    missing = np.flatnonzero(split.places[:, 0] == MISSING).tolist() if samples else []
    names = list(dict.fromkeys(split.videos[number] for number in missing))
    advice = f"{len(names):,} videos; they need frames, or the samples must go{_FIX}"
    examples = [f"{shown(name)}{split.hints.get(name, '')}" for name in names[:EXAMPLES]]
    yield _finding("video missing", ERROR, split, len(missing), samples, advice, examples)
    tried = {video: decoded[video] for video in dict.fromkeys(videos) if video is not None and video in decoded}
    broken = [one.fault for one in tried.values() if one.fault]
    advice = f"of the videos that were tried{_FIX}"
    yield _finding("cannot be decoded", ERROR, split, len(broken), len(tried), advice, broken)
    size_frame = 1 if config.type == "pretrain" and _single(tried.values()) else config.size_frame
    few = [video for video, one in tried.items() if not one.fault and one.frames < size_frame]
    advice = f"size_frame is {size_frame}; --repeat_frames true repeats the last"
    level = NOTE if config.repeat_frames else ERROR
    examples = [f"{all_videos.where(video)}: {tried[video].frames}" for video in few[:EXAMPLES]]
    yield _finding("too few frames", level, split, len(few), len(tried), advice, examples)
    small = [video for video, one in tried.items() if not one.fault and one.side < config.size_img]
    advice = f"they are enlarged to {config.size_img} pixels (size_img)"
    examples = [f"{all_videos.where(video)}: {tried[video].side} pixels" for video in small[:EXAMPLES]]
    yield _finding("small frames", NOTE, split, len(small), len(tried), advice, examples)


def of_ids(videos: Videos) -> Iterator[Finding]:
    """Findings about ids shared by two videos of a source."""
    advice = "which of them is meant is unknown; remove one of the rows"
    for name, source in zip(videos.names, videos.sources, strict=True):
        counts = Counter(map(source.video_id, range(len(source))))
        twice = tuple(shown(video) for video, count in counts.items() if count > 1)
        yield Finding("duplicate ids", ERROR, name, len(twice), len(source), advice, twice[:EXAMPLES])


def across_splits(splits: Sequence[Split], videos: Videos, marks: Mapping[Video, bytes]) -> Iterator[Finding]:
    """Findings about videos in both training and evaluation, within a task or between tasks, and with several ids."""
    names_of = [_names_by_content(*pair, marks) for pair in zip(splits, videos.of, strict=True)]
    for train, trained in zip(splits, names_of, strict=True):
        for held, evaluated in zip(splits, names_of, strict=True):
            if train.name == "train" and held.name != "train":
                yield _leak(train, held, trained, evaluated)
                yield _same_ids(train, held, trained, evaluated)
    for split, names in zip(splits, names_of, strict=True):
        twins = [_equated(alike) for alike in names.values() if len(alike) > 1]
        advice = "their frames are the same; retrieval counts the one as wrong for the other's text"
        yield _finding("same content", WARNING, split, len(twins), len(names), advice, sorted(twins))


def _names_by_content(
    split: Split, videos: Sequence[Video | None], marks: Mapping[Video, bytes]
) -> dict[bytes, set[str]]:
    names: dict[bytes, set[str]] = defaultdict(set)
    for name, video in zip(split.videos, videos, strict=True):
        if video is not None and video in marks:
            names[marks[video]].add(name)
    return names


def _same_ids(
    train: Split, held: Split, trained: Mapping[bytes, set[str]], evaluated: Mapping[bytes, set[str]]
) -> Finding:
    """Finding about ids in both splits with different or unknown contents: perhaps frames of one video in two files."""
    by_content = {name for mark in trained.keys() & evaluated.keys() for name in evaluated[mark]}
    shared = sorted((set(train.videos) & set(held.videos)) - by_content)
    of_one_task = train.task == held.task
    level = ERROR if of_one_task and held.name == "test" else WARNING
    advice = "their frames differ or are missing; if they are one video, it must go from one of the two"
    total = len(set(held.videos))
    where = f"{train.title}, {held.title}"
    return Finding(
        "one id in training and evaluation", level, where, len(shared), total, advice, tuple(shared[:EXAMPLES])
    )


def _equated(names: Set[str]) -> str:
    """Ids of one video as text; of many ids the first."""
    shown = " = ".join(sorted(names)[:EXAMPLES])
    return shown + (f" = … ({len(names):,} ids)" if len(names) > EXAMPLES else "")


def _leak(train: Split, held: Split, trained: Mapping[bytes, set[str]], evaluated: Mapping[bytes, set[str]]) -> Finding:
    shared = [_equated(trained[mark] | evaluated[mark]) for mark in trained.keys() & evaluated.keys()]
    level = ERROR if held.name == "test" else WARNING
    advice = "metrics on training videos are meaningless; remove the videos from one of the two splits"
    if train.task != held.task:
        advice += " (_tools/multi_task_vid_filter.py does so for the public data sets)"
    where = f"{train.title}, {held.title}"
    return Finding(
        "trained and evaluated on", level, where, len(shared), len(evaluated), advice, tuple(sorted(shared)[:EXAMPLES])
    )


def _single(decoded: Iterable[Decoded]) -> bool:
    """Whether a corpus consists of single images."""
    return all(one.frames <= 1 for one in decoded)


def _finding(
    kind: str, level: str, split: Split, count: int, total: int, advice: str, examples: Sequence[str] = ()
) -> Finding:
    return Finding(kind, level, split.title, count, total, advice, tuple(examples[:EXAMPLES]))
