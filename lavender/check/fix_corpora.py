"""Repaired copies of pretraining data sets."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lavender.check.copies import Repaired, link, own_folder
from lavender.check.splits import Split
from lavender.config.schema import Config
from lavender.data import corpora
from lavender.data.annotations import CaptionTable, read_splits
from lavender.data.sources.tsv import TSVSource
from lavender.data.tsv import TSVReader, TSVWriter
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file


def write_corpora(
    config: Config, splits: Sequence[Split], usable: Sequence[Sequence[bool]], folder: Path
) -> list[Repaired]:
    """Writes the data sets without videos that are broken or have no caption.

    TSV files with such rows are copied without them; other TSV files and the captions are linked. For a source of
    videos or shards only the captions are copied: a video without caption is not read.

    Args:
        usable: for each sample of each split, whether its video is usable.

    Raises:
        DataError: a split would be empty, or `folder` is the folder of the originals.
    """
    kept: dict[Path, set[int]] = {}  # TSV → rows usable by every split that reads it
    removed: dict[str, int] = defaultdict(int)
    captions: dict[str, dict[str, dict[str, list[str]]]] = defaultdict(dict)
    for split, good in zip(splits, usable, strict=True):
        by_source: dict[int, set[int]] = {number: set() for number in range(len(split.sources))}
        for (source, row), is_good in zip(split.places.tolist(), good, strict=True):
            if is_good:
                by_source[source].add(row)
        if not any(by_source.values()):
            raise DataError(f"{split.title}: no video would be left; nothing is written")
        if all(isinstance(source, TSVSource) for source in split.sources):
            for number, rows in by_source.items():
                path = split.sources[number].path
                kept[path] = kept.get(path, rows) & rows
        else:
            captions[split.task][split.name] = _captions(config, split, good)
            removed[split.task] += len(split.malformed) + list(good).count(False)
    return [
        _write(config, name, Path(place), kept, captions[name], removed[name], folder)
        for name, place in corpora.folders_of(config).items()
    ]


def _captions(config: Config, split: Split, good: Sequence[bool]) -> dict[str, list[str]]:
    """Training caption of each usable video."""
    place = corpora.folders_of(config)[split.task]
    table = None
    try:
        path = corpora.text_file(place, split.task)
        if texts := read_splits(path, "pretrain").get(split.name):
            table = CaptionTable(texts, f"{path}, {split.name}")
    except DataError:
        if not split.sources[0].has_captions:
            raise
    found = {}
    for at, (source, row) in enumerate(split.places.tolist()):
        if good[at]:
            video = split.videos[at]
            found[video] = [split.sources[source].caption(row) if table is None else table.caption(video)]
    return found


def _write(
    config: Config,
    name: str,
    place: Path,
    kept: dict[Path, set[int]],
    captions: dict[str, dict[str, list[str]]],
    removed: int,
    folder: Path,
) -> Repaired:
    several = isinstance(config.dataset, dict)
    target = own_folder(folder / name if several else folder, place)
    if captions:
        with atomic_file(target / f"txt_{name}.json") as file:
            file.write((json.dumps(captions, ensure_ascii=False) + "\n").encode())
    else:
        text = corpora.text_file(place, name)
        link(target / text.name, text)
    for path, rows in kept.items():
        if path.is_relative_to(place):
            removed += _copy(path, rows, target / path.relative_to(place))
    option = json.dumps({name: str(target)})
    return Repaired(
        target, removed, f"videos of {name}", f"--dataset '{option}'" if several else f"--data_dir {target}"
    )


def _copy(path: Path, kept: set[int], target: Path) -> int:
    """Links a TSV, or copies it without removed rows; returns their number."""
    reader = TSVReader(path)
    if len(kept) == len(reader):
        link(target, path)
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with TSVWriter(target) as writer:
        for row in sorted(kept):
            writer.write(reader.row(row))
    return len(reader) - len(kept)
