import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavender.data.frames import decode_image
from lavender.data.image_folders import find_images, stored_image
from lavender.runtime.errors import DataError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_folders_are_videos_and_images_their_frames(tmp_path: Path):
    touch(
        tmp_path, "clip.1/10.jpg", "clip.1/2.JPG", "clip.1/1.Png", "S01/clip/a.webp", "S02/clip/a.BMP", "single.1.jpeg"
    )
    touch(tmp_path, "clip.1/notes.txt", "clip.1/._1.png", ".hidden/a.jpg", "clip.1/x.gif", "y.HEIC")
    videos, others = find_images(tmp_path)
    assert {video: [str(file.relative_to(tmp_path)) for file in files] for video, files in videos.items()} == {
        "single.1": ["single.1.jpeg"],
        "S01/clip": ["S01/clip/a.webp"],
        "S02/clip": ["S02/clip/a.BMP"],
        "clip.1": ["clip.1/1.Png", "clip.1/2.JPG", "clip.1/10.jpg"],
    }
    assert sorted(file.name for file in others) == ["x.gif", "y.HEIC"]


@pytest.mark.parametrize("names", [("a.jpg", "a.png"), ("a.jpg", "a/1.jpg")])
def test_two_videos_of_one_id_are_refused(tmp_path: Path, names: tuple[str, str]):
    touch(tmp_path, *names)
    with pytest.raises(DataError) as caught:
        find_images(tmp_path)
    assert all(str(tmp_path / name) in str(caught.value) for name in names)


def test_no_images(tmp_path: Path):
    touch(tmp_path, "a/film.gif")
    with pytest.raises(DataError, match=r"film\.gif"):
        find_images(tmp_path)


def test_a_jpeg_is_stored_untouched_whatever_it_is_called(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png", "JPEG", exif=exif)
    stored = stored_image(tmp_path / "a.png")
    assert base64.b64decode(stored) == (tmp_path / "a.png").read_bytes()
    assert decode_image(stored, "").shape == (40, 30, 3)


@pytest.mark.parametrize("kind", ["png", "webp", "bmp"])
def test_other_kinds_become_jpegs_of_the_quality(tmp_path: Path, kind: str):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.full((30, 40, 3), (200, 100, 50), np.uint8)
    options = {} if kind == "bmp" else {"exif": exif}
    Image.fromarray(pixels).save(tmp_path / f"a.{kind}", **options)
    sizes = []
    for quality in (95, 30):
        data = base64.b64decode(stored_image(tmp_path / f"a.{kind}", quality))
        image = Image.open(io.BytesIO(data))
        assert image.format == "JPEG"
        assert image.size == ((40, 30) if kind == "bmp" else (30, 40))
        assert np.abs(np.asarray(image).astype(int) - (200, 100, 50)).max() <= 8
        sizes.append(image.quantization[0][0])
    assert sizes[0] < sizes[1]


def test_faults_name_the_file(tmp_path: Path):
    touch(tmp_path, "a.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "b.png")
    for name, limit in (("a.png", 10**6), ("missing.png", 10**6), ("b.png", 1199)):
        with pytest.raises(DataError, match=name):
            stored_image(tmp_path / name, max_pixels=limit)


def test_links_to_folders_are_followed_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root, outside = tmp_path / "root", tmp_path / "outside"
    touch(root, "clip/1.jpg")
    touch(outside, "2.jpg", "deep/3.jpg")
    (root / "linked").symlink_to(outside)
    for place, target in ((root / "again", outside), (root / "up", ".."), (root / "clip" / "self", root / "clip")):
        place.symlink_to(target)
    (outside / "back").symlink_to(root)
    videos, _ = find_images(root)
    assert len(videos) == 3
    assert {file.name for files in videos.values() for file in files} == {"1.jpg", "2.jpg", "3.jpg"}
    assert "4 links" in caplog.text


@pytest.mark.parametrize("name", ["a\tb", "a\nb", " ", "\udcff"])
def test_a_folder_whose_name_is_no_id_is_named(tmp_path: Path, name: str):
    touch(tmp_path, f"{name}/1.jpg")
    with pytest.raises(DataError, match=r"1\.jpg.* video id .*rename"):
        find_images(tmp_path)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DataError, match=r"nowhere: the folder cannot be read"):
        find_images(tmp_path / "nowhere")
    touch(tmp_path, "a/1.jpg", "locked/1.jpg")
    scan = os.scandir

    def refuse(path: str):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read all folders
    with pytest.raises(DataError, match=r"locked: the folder cannot be read: Permission denied"):
        find_images(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "1.jpg")
    with pytest.raises(DataError, match=r"1\.jpg.*pipe"):
        stored_image(tmp_path / "1.jpg")
