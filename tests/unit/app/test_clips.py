"""Uploads are read from their own folder alone, and removed; clips are kept within bounds."""

from pathlib import Path

import numpy as np
import pytest

from lavender.app.clips import Clip, ClipCache, Uploads
from lavender.app.decoding import Limits
from lavender.runtime.errors import DataError


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    (tmp_path / "uploads").mkdir()
    return Uploads(tmp_path / "uploads", Limits(upload=1))


def put(uploads: Uploads, name: str, size: int = 10) -> dict:
    folder = uploads.folder / "0123"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(bytes(size))
    return {"path": str(folder / name), "orig_name": name}


def test_an_upload(uploads: Uploads):
    payload = put(uploads, "a clip.MP4")
    path, name = uploads.find(payload)
    assert name == "a clip.MP4"
    uploads.remove(payload)
    assert not path.exists()
    assert list(uploads.folder.iterdir()) == []
    uploads.remove(payload)


def test_other_files_are_neither_read_nor_removed(uploads: Uploads, tmp_path: Path):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"x")
    payload = put(uploads, "a.mp4")
    (uploads.folder / "0123" / "link.mp4").symlink_to(secret)
    for path in (
        str(secret),
        f"{uploads.folder}/../secret.mp4",
        f"{uploads.folder}/0123/../../secret.mp4",
        f"{uploads.folder}/0123/link.mp4",
        f"{uploads.folder}x/secret.mp4",
        str(uploads.folder),
        "secret.mp4",
        "http://example.org/a.mp4",
        "",
        "a\0b",
        "x" * 100_000,
        None,
        7,
        ["a"],
    ):
        assert not uploads.holds(path)
        with pytest.raises(DataError, match="no such upload"):
            uploads.find({"path": path})
        uploads.remove({"path": path})
    for other in (None, "a.mp4", [payload]):
        with pytest.raises(DataError):
            uploads.find(other)
    assert secret.read_bytes() == b"x"
    assert uploads.holds(payload["path"])


def test_type_and_size(uploads: Uploads):
    for name in ("a.txt", "a.jpg", "mp4", "a.mp4.exe"):
        with pytest.raises(DataError, match="type"):
            uploads.find(put(uploads, name))
    with pytest.raises(DataError, match=r"big\.mp4.*2 MB.*at most 1 "):
        uploads.find(put(uploads, "big.mp4", 2 * 2**20))


def test_kept_clips():
    kept = ClipCache(megabytes=1)
    clip = Clip("a", np.zeros((1, 400, 400, 3), np.uint8))
    keys = [kept.add(clip) for _ in range(2)]
    kept.get(keys[0])
    keys.append(kept.add(clip))  # a third does not fit: the one that was used longest ago goes
    assert kept.get(keys[0]) is clip
    for key, message in ((keys[1], "choose it again"), ("x", "choose it again"), (None, "first")):
        with pytest.raises(DataError, match=message):
            kept.get(key)
    kept.remove(keys[0])
    kept.remove(None)
    assert len(kept) == 1
    large = Clip("b", np.zeros((1, 1000, 1000, 3), np.uint8))
    assert kept.get(kept.add(large)) is large
    assert len(kept) == 1
