"""Repaired copy of a captioning folder."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from lavender.check.copies import Repaired, link, own_folder
from lavender.check.splits import Split
from lavender.config.schema import Config
from lavender.data.caption import open_captions
from lavender.data.caption_folder import CaptionFolder
from lavender.data.coco import coco_id, file_names, read_coco
from lavender.data.ids import VideoIds
from lavender.data.tsv import TSVReader, TSVWriter
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file, read_text

Places = dict[int, tuple[int, int]]  # kept row → file and row in the copy


def write_captioning(
    config: Config, splits: Sequence[Split], usable: Sequence[Sequence[bool]], folder: Path
) -> Repaired:
    """Writes a captioning folder without rows whose video is missing or broken; frames are linked.

    Args:
        usable: for each row of each split, whether its video is usable.

    Raises:
        DataError: a split would be empty, or `folder` is the folder of the originals.
    """
    target = own_folder(folder / Path(config.task or "captioning").name, Path(config.data_dir))
    removed = 0
    for split, good in zip(splits, usable, strict=True):
        captions = open_captions(config, split.name, tolerant=True)
        with_lines = "caption_linelist" in captions.facts
        kept = [
            row
            for row, is_good in enumerate(good)
            if is_good and (split.name != "train" or with_lines or captions.rows[row]["captions"])
        ]
        if not kept:
            raise DataError(f"{captions.path}: no row of {split.name} would be left; nothing more is written")
        removed += len(good) - len(kept)
        _write_split(captions, kept, target / getattr(config, f"{split.name}_yaml"))
    return Repaired(target, removed, "rows", f"--data_dir {target}")


def _write_split(captions: CaptionFolder, kept: Sequence[int], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = path.stem
    places = _places(captions, kept)
    facts: dict[str, Any] = {}
    if "img" in captions.facts:
        facts["img"] = [f"{stem}.{n}.img.tsv" for n in range(len(captions.frames))]
        for name, frames in zip(facts["img"], captions.frames, strict=True):
            if frames.path.is_file():
                link(path.with_name(name), frames.path)
    facts["caption"] = [f"{stem}.{n}.caption.tsv" for n in range(len(captions.texts))]
    _write_texts(captions, kept, [path.with_name(name) for name in facts["caption"]])
    if not captions.composite:
        facts = {key: names[0] for key, names in facts.items()}
    if "caption_linelist" in captions.facts:
        facts["caption_linelist"] = f"{stem}.linelist.tsv"
        lines = list(_lines(captions, places))
        if not lines:
            raise DataError(f"{captions.path}: no line of its line list would be left; nothing more is written")
        _write(path.with_name(facts["caption_linelist"]), "".join(f"{line}\n" for line in lines))
    if (coco := captions.coco_path()) is not None:
        facts["caption_coco_format"] = f"{stem}_caption_coco_format.json"
        content = _references(coco, captions, kept)
        _write(path.with_name(facts["caption_coco_format"]), json.dumps(content, ensure_ascii=False) + "\n")
    others = {key: value for key, value in captions.facts.items() if key in ("composite", "label")}
    _write(path, yaml.safe_dump({**facts, **others}, allow_unicode=True, sort_keys=False))


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as file:
        file.write(text.encode())


def _places(captions: CaptionFolder, kept: Sequence[int]) -> Places:
    places: Places = {}
    counts = [0] * len(captions.texts)
    for row in kept:
        file, _ = captions.place(row)
        places[row] = (file, counts[file])
        counts[file] += 1
    return places


def _write_texts(captions: CaptionFolder, kept: Sequence[int], paths: Sequence[Path]) -> None:
    for number, (path, texts) in enumerate(zip(paths, captions.texts, strict=True)):
        with TSVWriter(path) as writer:
            for row in kept:
                file, line = captions.place(row)
                if file == number:
                    writer.write(texts.row(line) if isinstance(texts, TSVReader) else [captions.videos[row]])


def _lines(captions: CaptionFolder, places: Places) -> Iterable[str]:
    """Lines of a line list that name a kept caption."""
    for text in read_text(captions.linelist_path(), DataError).splitlines():
        try:
            row, caption = captions.parse_line(text, "")
        except DataError:
            continue
        if row in places:
            yield "\t".join(map(str, (*(places[row] if captions.composite else places[row][1:]), caption)))


def _references(path: Path, captions: CaptionFolder, kept: Sequence[int]) -> dict[str, Any]:
    """COCO file without removed videos and without references that are not texts."""
    content, entries = read_coco(path)
    renamed = file_names(content, path, VideoIds(dict.fromkeys(captions.videos), path))
    sound = [
        entry
        for entry in entries
        if isinstance(entry, dict)
        and isinstance(entry.get("image_id"), str | int | float)
        and (captions.blind or (isinstance(entry.get("caption"), str) and entry["caption"].strip()))
    ]
    names = {name: renamed.get(name, name) for name in (coco_id(entry, str(path)) for entry in sound)}
    known = VideoIds(dict.fromkeys(names.values()), path)
    kept_names = {known.find(captions.videos[row]) for row in kept}
    used = {name for name, video in names.items() if video in kept_names}
    images = content.get("images")
    if isinstance(images, list):
        images = [image for image in images if isinstance(image, dict) and str(image.get("id")) in used]
        content = {**content, "images": images}
    return {**content, "annotations": [entry for entry in sound if coco_id(entry, str(path)) in used]}
