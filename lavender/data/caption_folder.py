"""Captioning folder: one YAML per split names the files of frames, captions and references."""

import contextlib
import difflib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lavender.data import official
from lavender.data.annotations import ItemTable, check_caption
from lavender.data.coco import coco_id, file_names, read_coco
from lavender.data.ids import VideoIds, without_extension
from lavender.data.sources.base import FrameSource, StoredVideo
from lavender.data.sources.tsv import TSVSource
from lavender.data.tsv import TSVReader
from lavender.data.yamls import read_yaml
from lavender.runtime.errors import DataError
from lavender.runtime.files import looked_from, read_text
from lavender.runtime.jsons import load_json
from lavender.runtime.quoting import one_line, shown

LOGGER = logging.getLogger("lavender.data")

KEYS = ("img", "caption", "caption_linelist", "caption_coco_format", "label", "composite")
_DIGITS = 18  # maximum digits of a number in a line list
NO_FRAMES = -1  # frame row of an annotation without a video


class CaptionFolder:
    """One split of a captioning folder, checked completely before training reads from it.

    Rows are numbered over all caption TSVs of a composite split. The frames of a row are found by video id: in the row
    of the same number, as released, else in the row that has the id.

    Args:
        path: the YAML; paths in it are relative to it.
        tolerant: skip annotations without a video and references without an annotation with a warning, instead of
            raising an error.
        blind: captions of some or all rows may be missing (evaluation); without `caption` all rows of `img` are used.
        within: folder that no path in the YAML may leave (links in it are followed); None: no limit.
        open_source: opens the frames, given a function that finds the file named by `img`.

    Attributes:
        videos: id of each row; frame_rows: (rows, 2) source and number of its frames, or `NO_FRAMES`.
        texts: the caption TSVs, or the frames if there are none; firsts: first row of each.

    Raises:
        DataError: a missing or malformed file, an annotation without a video, an empty caption; with file and line.
            Videos without annotation (of other splits) are only counted in the log.
    """

    def __init__(
        self,
        path: Path,
        tolerant: bool = False,
        within: Path | None = None,
        blind: bool = False,
        open_source: Callable[[Callable[[], Path]], FrameSource] | None = None,
    ):
        self.path, self.tolerant, self.within, self.blind = path, tolerant, within, blind
        self.facts = _read_yaml(path)
        self.composite = self._flag("composite")
        self.frames = self._open_frames(open_source or (lambda find: TSVSource(find())))
        self.texts: Sequence[TSVReader | FrameSource] = self.frames
        if not blind or "caption" in self.facts:
            self.texts = [_open_captions(file) for file in self._files("caption")]
        if len(self.frames) != len(self.texts):
            raise DataError(f"{path}: {len(self.frames)} img files, but {len(self.texts)} caption files")
        rows = list(self._read_captions())
        if not rows:
            raise DataError(f"{', '.join(str(file.path) for file in self.texts)}: no captions")
        self.videos = [row["video"] for row in rows]
        self.rows = ItemTable(rows)
        self._counts = np.array([len(row["captions"]) for row in rows])
        self.firsts = np.cumsum([0, *(len(file) for file in self.texts)])
        self.frame_rows = self._match()

    def where(self, row: int) -> str:
        """Name of a row in messages: caption TSV and line."""
        file, line = self.place(row)
        return self.texts[file].where(line)

    def place(self, row: int) -> tuple[int, int]:
        """(number of the caption TSV, line in it) of a row, both from 0."""
        file = int(np.searchsorted(self.firsts, row, side="right")) - 1
        return file, row - int(self.firsts[file])

    def caption(self, row: int, number: int) -> str:
        """Returns one caption of a row."""
        return self.rows[row]["captions"][number]

    def video(self, row: int) -> StoredVideo:
        """Stored frames of a row. DataError if it has none."""
        file, line = self.frame_rows[row].tolist()
        if file == NO_FRAMES:
            names = ", ".join(str(source.path) for source in self.frames)
            raise DataError(f"{self.where(row)}: video {shown(self.videos[row])} is not in {names}")
        return self.frames[file].video(line)

    def training_samples(self) -> np.ndarray:
        """Training samples, (samples, 2) row and caption number: the line list, else the first caption of each row.

        Raises:
            DataError: the line list names a missing caption, or a row has no caption.
        """
        if "caption_linelist" in self.facts:
            return self._read_linelist()
        for row in np.flatnonzero(self._counts == 0).tolist():
            raise DataError(f"{self.where(row)}: video {shown(self.videos[row])} has no captions to train on")
        return np.stack([np.arange(len(self.rows)), np.zeros(len(self.rows), dtype=np.int64)], axis=1)

    def evaluation_rows(self) -> np.ndarray:
        """Rows to caption, in order: all rows, or in a composite split those of its line list."""
        if self.composite and "caption_linelist" in self.facts:
            return np.array(list(dict.fromkeys(self._read_linelist()[:, 0].tolist())), dtype=np.int64)
        return np.arange(len(self.rows))

    def references(self, rows: Sequence[int]) -> list[list[str]]:
        """Reference captions of `rows`: from the COCO file, or from the TSV if there is none.

        Raises:
            DataError: a video without references (unless `blind`), references without a video (unless `tolerant`), or
                a broken file.
        """
        path = self.coco_path()
        if path is None:
            references = {row: self.rows[row]["captions"] for row in rows}
            source = self.caption_names
        else:
            references = self._from_coco(path, rows)
            source = str(path)
        for row in rows:
            if not references.get(row) and not self.blind:
                raise DataError(
                    f"{self.where(row)}: video {shown(self.videos[row])} has no reference caption in {source}"
                )
        return [references.get(row, []) for row in rows]

    @property
    def caption_names(self) -> str:
        """Files that list the videos, for messages."""
        return ", ".join(str(file.path) for file in self.texts)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _flag(self, key: str) -> bool:
        value = self.facts.get(key, False)
        if not isinstance(value, bool):
            raise DataError(f'{self.path}: "{key}" is {shown(value)}; write true or false')
        return value

    def _files(self, key: str) -> list[Path]:
        """Files of a key: one, or in a composite split a list."""
        value = self.facts.get(key)
        names: list[Any] = value if isinstance(value, list) and self.composite else [value]
        if not names or not all(isinstance(name, str) and name for name in names):
            kind = "a list of file names" if self.composite else "the name of a file"
            raise DataError(f'{self.path}: "{key}" is {"missing" if value is None else shown(value)}; give {kind}')
        files = [self.path.parent / name for name in names]
        for name, file in zip(names, files, strict=True):
            if self.within is not None and not _stays(name, self.path.parent, self.within):
                raise DataError(
                    f'{self.path}: "{key}" names {one_line(name, 500)}, which leaves {self.within}; where the YAML can '
                    "be trusted, --outside_paths true allows it"
                )
            if not _is_file(file):
                where = f"{one_line(str(file), 500)}, which is not there{looked_from(file)}"
                raise DataError(f'{self.path}: "{key}" names {where}')
        return files

    def _open_frames(self, open_source: Callable[[Callable[[], Path]], FrameSource]) -> list[FrameSource]:
        """Opens the frames of each caption TSV."""
        value = self.facts.get("img", self.facts.get("caption"))
        count = len(value) if isinstance(value, list) and self.composite and value else 1
        return [open_source(lambda n=n: self._files("img")[n]) for n in range(count)]  # type: ignore[misc]

    def _names(self, key: str) -> str:
        return ", ".join(map(str, self._files(key)))

    def _read_captions(self) -> Iterator[dict[str, Any]]:
        for reader in self.texts:
            for number in range(len(reader)):
                if isinstance(reader, FrameSource):
                    yield {"video": reader.video_id(number), "captions": []}
                    continue
                fields, where = reader.row(number), reader.where(number)
                if number == 0 and _is_foreign(fields):
                    _refuse_foreign(reader.path)
                none = self.blind and _are_none(fields)
                yield {"video": fields[0], "captions": [] if none else _parse_captions(fields, where)}

    def _read_linelist(self) -> np.ndarray:
        """(lines, 2) of row and caption number; every line is checked against the captions."""
        path = self.linelist_path()
        lines = read_text(path, DataError).rstrip().splitlines()  # blank lines at the end do not count
        pairs = [self.parse_line(text, f"{path}, line {line}") for line, text in enumerate(lines, start=1)]
        if not pairs:
            raise DataError(f"{path}: the line list is empty")
        return np.array(pairs, dtype=np.int64)

    def parse_line(self, text: str, where: str) -> tuple[int, int]:
        """Parses a line of a line list into row and caption number. DataError if there is no such caption."""
        columns = ("file", "row", "caption number")[0 if self.composite else 1 :]
        numbers = text.split("\t")
        if len(numbers) != len(columns) or not all(map(_is_number, numbers)):
            raise DataError(f"{where}: {shown(text)} is not {', a tab, '.join(columns)}")
        *files, row, caption = map(int, numbers)
        file = files[0] if files else 0
        if file >= len(self.texts) or row >= len(self.texts[file]):
            raise DataError(f"{where}: {shown(text)} is a row that is not in {self._names('caption')}")
        row += int(self.firsts[file])
        if caption >= self._counts[row] and (self._counts[row] or not self.blind):
            raise DataError(
                f"{where}: caption {caption} (counted from 0), but {self.where(row)} has {self._counts[row]} captions"
            )
        return row, caption

    def linelist_path(self) -> Path:
        """File of `caption_linelist`. DataError if it is missing."""
        return self._files("caption_linelist")[0]

    def coco_path(self) -> Path | None:
        """COCO file of the references, or None. DataError if the YAML names a missing file."""
        if "caption_coco_format" in self.facts:
            return self._files("caption_coco_format")[0]
        path = self.path.with_name(f"{self.path.stem}_caption_coco_format.json")
        if path.is_file():
            return path
        LOGGER.info("%s is missing: the references are the captions of %s", path, self.caption_names)
        return None

    def _from_coco(self, path: Path, rows: Sequence[int]) -> dict[int, list[str]]:
        """Row → captions, from a COCO captions file; ids are matched like those of frames."""
        content, entries = read_coco(path)
        renamed = file_names(content, path, VideoIds(dict.fromkeys(self.videos), path))
        by_id: dict[str, list[str]] = {}
        for number, entry in enumerate(entries):
            where = f"{path}, annotation {number} (counted from 0)"
            video, text = coco_id(entry, where), entry.get("caption")
            texts = by_id.setdefault(renamed.get(video, video), [])
            if not (self.blind and (text is None or text == "")):
                texts.append(check_caption(text, where))
        known = VideoIds(by_id, path)
        found = [known.find(video) for video in self.videos]
        unused = by_id.keys() - set(found)
        if unused:
            fault = f"{path}: {len(unused)} of {len(by_id)} videos are not in {self._names('caption')}: {_some(unused)}"
            self._fault(fault + VideoIds(self.videos, path).hint(min(unused)))
        return {row: by_id[name] for row in rows if (name := found[row]) is not None}

    # --- frames and captions together ---------------------------------------------------------------------------------

    def _match(self) -> np.ndarray:
        """Source and row of the frames of each caption row."""
        parts = []
        for file, (frames, first, end) in enumerate(zip(self.frames, self.firsts, self.firsts[1:], strict=False)):
            videos = self.videos[first:end]
            ids = [frames.video_id(number) for number in range(len(frames))]
            if len(ids) == len(videos) and all(map(_same_video, ids, videos)):
                lines: list[int | None] = list(range(len(videos)))
            else:
                places = {name: number for number, name in reversed(list(enumerate(ids)))}
                known = VideoIds(places, frames.path)
                names = [known.find(name) for name in videos]
                lines = [None if name is None else places[name] for name in names]
                lonely = [n for n, line in enumerate(lines) if line is None]
                if lonely:
                    where, video = self.where(int(first) + lonely[0]), videos[lonely[0]]
                    fault = f"{where}: video {shown(video)} is not in {frames.path}{known.hint(video)}"
                    self._fault(f"{fault} ({len(lonely)} of {len(videos)} annotations have no video)")
                self._log_unused(frames, ids, {name for name in names if name is not None}, file)
            parts += [(NO_FRAMES, NO_FRAMES) if line is None else (file, line) for line in lines]
        return np.array(parts, dtype=np.int64)

    def _log_unused(self, frames: FrameSource, shown: list[str], used: set[str], file: int) -> None:
        """Logs the number of unused frames: the same TSV may hold frames of other splits."""
        if unused := sum(name not in used for name in shown):
            captions = self.texts[file].path
            LOGGER.info(
                "%s: %d of %d rows are not used: %s has none of them", frames.path, unused, len(shown), captions
            )
        repeated = [name for name, count in Counter(shown).items() if count > 1 and name in used]
        if repeated:  # if two splits number their videos alike, these may belong to the other
            LOGGER.warning(
                "%s: %d videos are on several rows; the first row of each is used: %s",
                *(frames.path, len(repeated), _some(set(repeated))),
            )

    def _fault(self, message: str) -> None:
        if not self.tolerant:
            raise DataError(f"{message}; --on_bad_sample zero goes on without")
        LOGGER.warning("%s", message)


def _stays(name: str, start: Path, root: Path) -> bool:
    """Whether a relative path never leaves `root` by `..`; links below `root` are trusted."""
    if os.path.isabs(name):
        return False
    place, top = str(start), os.path.realpath(root)
    for part in Path(name).parts:
        if part == "..":  # after a link, ".." is the parent of its target
            place = os.path.dirname(os.path.realpath(place))
            if not Path(place).is_relative_to(top):
                return False
        else:
            place = os.path.join(place, part)
    return True


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # an impossible file name
        return False


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS


def _same_video(one: str, other: str) -> bool:
    return without_extension(one) == without_extension(other)


def _some(names: set[str]) -> str:
    return ", ".join(map(one_line, sorted(names)[:3])) + (", …" if len(names) > 3 else "")


def _read_yaml(path: Path) -> dict[str, Any]:
    """Reads the object in a split's YAML. DataError, with the line, if there is none."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file{looked_from(path)}; check --data_dir and the YAML's name")
    facts = read_yaml(path)
    if not isinstance(facts, dict):
        raise DataError(f"{path}: names of files under {', '.join(KEYS)} are expected, not a {type(facts).__name__}")
    for key in facts:
        if key not in KEYS:
            name = one_line(key) if isinstance(key, str) else shown(key)
            (near, *_) = [*difflib.get_close_matches(name, KEYS, n=1), ""]
            hint = f"; is {near} meant?" if near and near not in facts else ""
            LOGGER.info("%s: %s is not used%s", path, name, hint)
    return {key: value for key, value in facts.items() if value is not None}


def _open_captions(path: Path) -> TSVReader:
    try:
        return TSVReader(path)
    except DataError:  # a table with line ends of an old Mac is one row, which no TSV has
        with contextlib.suppress(OSError, UnicodeError), open(path, encoding="utf-8-sig", newline="\n") as file:
            if _is_foreign(file.readline(1 << 20).rstrip("\n").split("\t")):
                _refuse_foreign(path)
        raise


def _refuse_foreign(path: Path) -> None:
    """Raises DataError if a caption TSV is a known kind of another file."""
    if hint := official.file_advice(path, "captioning"):
        raise DataError(f"{path}: {hint}")


def _is_foreign(fields: list[str]) -> bool:
    """Whether the first row of a caption TSV may be of another kind of file: neither an id alone nor id and list."""
    if len(fields) < 2:
        return fields[0].startswith(("{", "[")) or "," in fields[0] or ";" in fields[0]
    return not fields[1].lstrip().startswith(("{", "[")) and not _are_none(fields)


def _are_none(fields: list[str]) -> bool:
    """Whether the captions of a row are withheld: no field, a blank field, or an empty JSON value."""
    if len(fields) < 2 or not fields[1].strip():
        return True
    with contextlib.suppress(json.JSONDecodeError):
        value = load_json(fields[1])
        entries = value if isinstance(value, list) else [value]
        said = [entry.get("caption") if isinstance(entry, dict) else entry for entry in entries]
        return all(text is None or text != text or (isinstance(text, str) and not text.strip()) for text in said)
    return False


def _parse_captions(fields: list[str], where: str) -> list[str]:
    """The captions in field 1 of a caption TSV: `[{"caption": …}, …]`."""
    if len(fields) < 2:
        raise DataError(f"{where}: no second field; a video id, a tab and a JSON list of captions are expected")
    try:
        entries = load_json(fields[1])
    except json.JSONDecodeError as error:
        quoted = (
            ", in the quotes that Excel puts around them: save the table without" if fields[1].startswith('"') else ""
        )
        raise DataError(f"{where}: the captions are not valid JSON{quoted} ({error})") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f'{where}: the captions are not a JSON list of {{"caption": …}}')
    return [check_caption(entry.get("caption"), f"{where}, caption {n}") for n, entry in enumerate(entries)]
