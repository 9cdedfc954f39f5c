"""Index of a folder of clips, encoded once for search. It holds numbers and text, no pickles."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lavender.data.sources.base import stamp
from lavender.data.video_folders import find_videos
from lavender.inference.predictor import Predictor
from lavender.inference.results import Found
from lavender.inference.shortlist import CaptionRanking
from lavender.models.all_pairs import unpadded
from lavender.models.weights import weights_digest
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file, lock_file, looked_from
from lavender.runtime.logging import progress

HEAD, CLIPS, FEATURES = "index.json", "clips.jsonl", "features.f16"
GONE = "it is no longer in the folder"


@dataclass(frozen=True)
class Entry:
    """Clip of an index; if a path has several lines, the last one counts.

    Args:
        path: its file; size, changed: size and modification time of the encoded file; row: row of its features.
        caption: generated caption, None if not requested; fault: reason why it has no features.
    """

    path: str
    size: int
    changed: int
    row: int = -1
    caption: str | None = None
    fault: str = ""


class GalleryIndex:
    """Index folder of three files: the model's identity, one line per clip, and the features in 16 bits.

    Clips are appended, features before their line. The next command removes partial data of a killed one.

    Args:
        folder: folder of the index.

    Raises:
        DataError: the index is missing or damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            self.head: dict[str, Any] = json.loads((folder / HEAD).read_text(encoding="utf-8"))
            self.shape = (int(self.head["shape"][0]), int(self.head["shape"][1]))  # (V, D)
            text = (folder / CLIPS).read_bytes() if (folder / CLIPS).is_file() else b""
            self.bytes_of_lines = text.rfind(b"\n") + 1  # a truncated last line does not count
            lines = text[: self.bytes_of_lines].decode().split("\n")
            entries = [Entry(**json.loads(line)) for line in lines if line]
        except FileNotFoundError:
            raise DataError(
                f"{folder}: there is no index here{looked_from(folder)}; make one: python -m lavender.predict index"
            ) from None
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(f"{folder}: the index is damaged ({error}); remove it, and make it again") from None
        self.rows = 1 + max((entry.row for entry in entries), default=-1)
        self.entries = {entry.path: entry for entry in entries}
        self.clips = [entry for entry in self.entries.values() if not entry.fault]

    def features(self, numbers: Sequence[int] | None = None) -> np.ndarray:
        """Features of all `clips`, or of those with these numbers, float16 (M, V, D). DataError if some are missing."""
        path, shape = self.folder / FEATURES, (self.rows, *self.shape)
        clips = self.clips if numbers is None else [self.clips[number] for number in numbers]
        if not clips:
            return np.zeros((0, *self.shape), np.float16)
        if path.stat().st_size < 2 * self.rows * self.shape[0] * self.shape[1]:
            raise DataError(f"{path}: features are missing at its end; remove the index, and make it again")
        stored = np.memmap(path, np.float16, "r", shape=shape)
        return stored[[entry.row for entry in clips]]

    def check_model(self, predictor: Predictor) -> None:
        """Raises DataError if another model made the index."""
        if self.head["weights"] != weights_digest(predictor.model):
            raise DataError(f"{self.folder}: another checkpoint made this index; make one with this checkpoint")

    def search(self, predictor: Predictor, texts: Sequence[str], k: int = 5, shortlist: int = 0) -> list[Found]:
        """Finds the `k` clips that match each text best.

        Args:
            shortlist: number of clips to match with each text, preselected by their captions; 0: all clips.

        Raises:
            DataError: another model made the index, no clip was readable, or a shortlist lacks captions.
        """
        self.check_model(predictor)
        if not self.clips:
            raise DataError(f"{self.folder}: no clip of this index could be read")
        if not shortlist:
            return self._search(predictor, texts, k, range(len(self.clips)))
        ranking = CaptionRanking(self._captions())
        return [one for text in texts for one in self._search(predictor, [text], k, ranking.best(text, shortlist))]

    def _search(self, predictor: Predictor, texts: Sequence[str], k: int, numbers: Sequence[int]) -> list[Found]:
        """Like `search`, among the clips with these numbers."""
        states = unpadded(torch.from_numpy(self.features(numbers)))
        names = [self.clips[number].path for number in numbers]
        found = predictor.search_features(states, names, texts, k)
        return [Found(one.text, [replace(hit, number=numbers[hit.number]) for hit in one.hits]) for one in found]

    def _captions(self) -> list[str]:
        captions = [clip.caption for clip in self.clips if clip.caption is not None]
        if missing := len(self.clips) - len(captions):
            raise DataError(
                f"{self.folder}: {missing} of {len(self.clips)} clips have no caption, by which a shortlist is made; "
                "run index --captions on the same folder first"
            )
        return captions


def build_index(predictor: Predictor, clips: Path, folder: Path, captions: bool = False) -> list[Entry]:
    """Encodes the new and changed videos of a folder; after an interruption the next call continues.

    Args:
        captions: also caption each clip.

    Returns:
        the clips that were unreadable

    Raises:
        DataError: there are no videos, another model made the existing index, or another process is writing it.
    """
    files = sorted(map(str, find_videos(clips).values())) if clips.is_dir() else []
    if not files:
        raise DataError(f"{clips}: no videos are in this folder{looked_from(clips)}")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / HEAD).is_file():
        head = {"weights": weights_digest(predictor.model), "shape": list(predictor.shape_of_features())}
        with atomic_file(folder / HEAD) as file:
            file.write(json.dumps(head).encode())
    with open(folder / CLIPS, "ab") as lines, open(folder / FEATURES, "ab") as features:
        lock_file(lines, folder, DataError)
        index = GalleryIndex(folder)
        index.check_model(predictor)
        rows, size_of_row = index.rows, 2 * index.shape[0] * index.shape[1]
        lines.truncate(index.bytes_of_lines)
        features.truncate(rows * size_of_row)

        def add(entry: Entry, states: np.ndarray | None) -> None:
            if states is not None:
                features.write(states.tobytes())
                features.flush()
            lines.write((json.dumps(asdict(entry), ensure_ascii=False) + "\n").encode())
            lines.flush()
            index.entries[entry.path] = entry

        for path in progress(files, desc="encoding clips", unit="clip"):
            _, size, changed = stamp(Path(path))
            earlier = index.entries.get(path)
            known = earlier and (earlier.size, earlier.changed) == (size, changed)
            if earlier and known and (earlier.fault or earlier.caption is not None or not captions):
                continue
            try:
                states = predictor.features(path).astype(np.float16)
                caption = predictor.caption(path).text if captions else None
            except DataError as fault:
                add(Entry(path, size, changed, fault=str(fault)), None)
                continue
            add(Entry(path, size, changed, rows, caption), states)
            rows += 1
        for path in index.entries.keys() - set(files):
            add(Entry(path, 0, 0, fault=GONE), None)
    return [entry for entry in index.entries.values() if entry.fault not in ("", GONE)]
