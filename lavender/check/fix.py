"""Repaired copies of the data of a configuration, without samples that a run could not use."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavender.check.copies import Repaired, own_folder
from lavender.check.fix_captions import write_captioning
from lavender.check.fix_corpora import write_corpora
from lavender.check.splits import Split
from lavender.check.videos import Decoded, Video, Videos
from lavender.config.schema import Config
from lavender.data.annotations import read_json
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file


def write_repaired(
    config: Config, splits: Sequence[Split], videos: Videos, decoded: Mapping[Video, Decoded], folder: Path
) -> list[Repaired]:
    """Writes copies without malformed and repeated samples, and without those whose video is missing or broken.

    Item files go to `folder`, captioning folders to a folder per task in it, and pretraining data sets keep their
    layout. Frame files are linked; a pretraining TSV with broken rows is copied without them.

    Raises:
        DataError: a copy would overwrite its original, or would be empty.
    """
    usable = [
        [video is not None and not (video in decoded and decoded[video].fault) for video in of] for of in videos.of
    ]
    folder.mkdir(parents=True, exist_ok=True)
    done = []
    for entry in config.entries() if config.datasets else [config]:
        chosen = [place for place, split in enumerate(splits) if _belongs(split, entry)]
        own, kept = [splits[place] for place in chosen], [usable[place] for place in chosen]
        if entry.type == "pretrain":
            done += write_corpora(entry, own, kept, folder)
        elif entry.type == "captioning":
            done.append(write_captioning(entry, own, kept, folder))
        else:
            done += _write_items(own, kept, folder)
    return done


def _belongs(split: Split, entry: Config) -> bool:
    return split.config.type == entry.type and (entry.type == "pretrain" or split.config.task == entry.task)


def _write_items(splits: Sequence[Split], usable: Sequence[Sequence[bool]], folder: Path) -> list[Repaired]:
    """Writes one copy of each text file."""
    copies: dict[str, dict[str, Any]] = {}
    removed: dict[str, int] = {}
    for split, good in zip(splits, usable, strict=True):
        copy = copies.setdefault(split.where, dict(read_json(Path(split.where))))
        repeated = set(split.repeated)
        kept = [number for at, number in enumerate(split.numbers) if good[at] and at not in repeated]
        items = copy[split.name]
        removed[split.where] = removed.get(split.where, 0) + len(items) - len(kept)
        copy[split.name] = [items[number] for number in kept]
        if items and not kept:
            raise DataError(f"{split.where}: no {split.name} item would be left; nothing is written")
    done = []
    for source, copy in copies.items():
        target = own_folder(folder, Path(source).parent) / Path(source).name
        with atomic_file(target) as file:
            file.write((json.dumps(copy, ensure_ascii=False) + "\n").encode())
        done.append(Repaired(target, removed[source], "items", f"--txt_dir {folder}"))
    return done
