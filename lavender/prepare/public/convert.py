"""Conversion of published annotations to the text files of the tasks, with a report."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from lavender.data.ids import VideoIds
from lavender.data.index import index_of
from lavender.prepare.clips import Clips
from lavender.prepare.public.names import NAMES, SPLITS_OF_MSRVTT
from lavender.prepare.public.outputs import Captions, Items, Output, Presence, Questions, hold_out
from lavender.prepare.public.source import Source
from lavender.runtime.errors import DataError
from lavender.runtime.files import looked_from


def convert(
    name: str,
    folder: Path,
    output: Path,
    *,
    videos: str = "",
    frames: Path | None = None,
    drop_missing: bool = False,
    split: str = "",
    share: float = 0.0,
    seed: int = 42,
    size_vocab: int = 0,
    encoding: str = "",
    skip_bad: bool = False,
    overwrite: bool = False,
) -> bool:
    """Writes the text files of a public data set and prints a summary.

    Args:
        name: a key of `NAMES`; folder: folder of its annotation files; output: folder for the text files.
        videos: path as for `Clips`, or frames: a frame TSV; the videos are looked up there.
        drop_missing: leave out items whose video is missing.
        split: split of MSR-VTT retrieval, one of `SPLITS_OF_MSRVTT`; by default the first.
        share: fraction of training videos held out for validation; seed: seed of that draw.
        size_vocab: classes of the task-specific head; 0: as in the released configuration.
        encoding: encoding of the annotation files, if not UTF-8.
        skip_bad: leave out malformed rows; overwrite: replace existing files.

    Returns:
        whether all videos exist (or were not looked up) and no row was left out

    Raises:
        DataError: a file is missing or malformed, would be overwritten, or an option has no effect.
    """
    where, ids = _look(videos, frames, NAMES[name].dataset)
    source = Source(folder, encoding, skip_bad)
    outputs = NAMES[name].read(source, split or SPLITS_OF_MSRVTT[0])
    _hold_out(outputs, share, seed, name)
    _resize(outputs, size_vocab, name)
    there = [path for made in outputs for path in made.files(output) if path.exists()]
    if there and not overwrite:
        raise DataError(f"{', '.join(map(str, there))}: there already; --overwrite replaces what is there")

    output.mkdir(parents=True, exist_ok=True)
    reports, complete = [], True
    for made in outputs:
        presence = Presence(ids, drop_missing)
        lines = made.write(output, presence)
        reports.append([*lines, *presence.report()])
        complete = complete and not presence.missing
    print(*source.notes, sep="\n", end="\n" if source.notes else "")
    if source.bad:
        print(f"{source.bad:,} malformed rows are left out; the first: {source.first_bad}", file=sys.stderr)
    for made, report in zip(outputs, reports, strict=True):
        paths = made.paths(output)
        print(f"\n{', '.join(map(str, paths))}{' (replaced)' if set(made.files(output)) & set(there) else ''}")
        print(*(f"  {line}" for line in report), sep="\n")
        command = _command(made, NAMES[name].dataset, output, where, size_vocab)
        print(f"  next, in the repository's folder: python {command}")
    stored = f"img_{NAMES[name].dataset}.tsv" if NAMES[name].dataset else f"{outputs[0].task}_train_0.tsv"
    if not where and not (output / stored).exists():
        print(
            f"\nframes: {output / stored} is not there yet, see README.md, Prepare frames; to read the videos instead,"
        )
        print("add --frame_source videos --video_dir FOLDER to the command")
    return complete and not source.bad


def _look(videos: str, frames: Path | None, dataset: str) -> tuple[list[str], VideoIds | None]:
    """Options with which a run finds the frames, and the ids of existing videos; None if not looked up."""
    if videos:
        clips = Clips(videos)
        options = {key: value for key, value in clips.options(0).items() if key != "stored_frames"}
        return [word for key, value in options.items() for word in (f"--{key}", value)], VideoIds(clips, videos)
    if frames is None:
        return [], None
    if not frames.is_file():
        raise DataError(f"{frames}: no such file{looked_from(frames)}; check --frames")
    named = frames.name == f"img_{dataset}.tsv"  # the name that a run expects
    return ["--img_tsv_dir", str(frames.parent.resolve())] if named else [], VideoIds(index_of(frames), frames)


def _hold_out(outputs: Sequence[Output], share: float, seed: int, name: str) -> None:
    if not share:
        return
    divided = [made for made in outputs if isinstance(made, Items | Captions)]
    if not any(item["split"] == "train" for made in divided for item in made.items):
        raise DataError(f"--hold_out {share}: {name} has no training items to divide")
    for made in divided:
        hold_out(made.items, share, seed)


def _resize(outputs: Sequence[Output], size_vocab: int, name: str) -> None:
    asked = [made for made in outputs if isinstance(made, Questions)]
    if size_vocab and not asked:
        raise DataError(f"--size_vocab {size_vocab}: {name} has no open-ended questions")
    for made in asked:
        made.size_vocab = size_vocab or made.size_vocab


def _command(made: Output, dataset: str, folder: Path, where: list[str], size_vocab: int) -> str:
    """Training command for an output."""
    words = [*made.command, "--data_dir", str(folder.resolve())]
    if "--img_tsv_dir" not in where or isinstance(made, Items):  # others have their own option for a frame TSV
        words += where
    if size_vocab:
        words += ["--size_vocab", str(size_vocab)]
    return shlex.join([*words, *(["--path_ckpt", "CHECKPOINT"] if dataset else [])])
