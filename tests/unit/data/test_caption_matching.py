"""Frames and captions of a captioning folder are matched by video id; what does not belong together is told."""

from pathlib import Path

import pytest

from lavender.data.caption_folder import NO_FRAMES, CaptionFolder
from lavender.runtime.errors import DataError
from tests.unit.data.caption_world import Lay, annotations, fault, frames, lay_in


@pytest.fixture
def lay(tmp_path: Path) -> Lay:
    return lay_in(tmp_path)


@pytest.mark.parametrize(
    ("shown", "rows"),
    [
        (["vid0", "vid1"], [[0, 0], [0, 1]]),
        (["vid1", "vid0"], [[0, 1], [0, 0]]),
        (["vid0.mp4", "clips/vid1.mp4"], [[0, 0], [0, 1]]),
        (["vid1.avi", "a/vid0"], [[0, 1], [0, 0]]),
        (["vid1", "vid0", "vid1"], [[0, 1], [0, 0]]),  # a repeated video: the first row that shows it
    ],
    ids=str,
)
def test_frames_are_found_by_the_videos_id(lay: Lay, shown: list[str], rows: list[list[int]]):
    assert CaptionFolder(lay(x_img_tsv=frames(*shown))).frame_rows.tolist() == rows


def test_an_annotation_may_have_the_extension(lay: Lay):
    captions = {"video7010.mp4": ["a"], "video7011.mp4": ["b"]}
    folder = CaptionFolder(lay(x_caption_tsv=annotations(captions), x_img_tsv=frames("video7011", "video7010")))
    assert folder.frame_rows.tolist() == [[0, 1], [0, 0]]
    assert folder.videos == list(captions), "as the annotation calls them"


def test_rows_that_agree_are_taken_as_they_stand(lay: Lay):
    """The same video on two rows, as in splits of clips."""
    rows = annotations({"vid0": ["a"]}) + annotations({"vid0": ["b"]})
    folder = CaptionFolder(lay(x_caption_tsv=rows, x_img_tsv=frames("vid0", "vid0")))
    assert folder.frame_rows.tolist() == [[0, 0], [0, 1]]


LONELY = "{captions}, line 2: video 'vid1' is not in {img} (1 of 2 annotations have no video)"


def test_an_annotation_without_its_video(lay: Lay, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = lay(x_img_tsv=frames("vid0"))
    message = LONELY.format(captions=tmp_path / "x.caption.tsv", img=tmp_path / "x.img.tsv")
    assert fault(path) == f"{message}; --on_bad_sample zero goes on without"
    folder = CaptionFolder(path, tolerant=True)
    assert message in caplog.messages
    assert folder.frame_rows.tolist() == [[0, 0], [NO_FRAMES, NO_FRAMES]]


@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize(
    ("shown", "rows", "unused"),
    [
        (["vid0", "vid7", "vid1"], [[0, 0], [0, 2]], "1 of 3"),
        (["vid7", "vid1", "vid8", "vid0", "vid9"], [[0, 3], [0, 1]], "3 of 5"),
        (["vid1.5", "vid1", "vid0.5", "vid0", "vid", "vid01"], [[0, 3], [0, 1]], "4 of 6"),  # ids alike
        (["a/vid1.mp4", "b/vid2.mp4", "a/vid0.mp4"], [[0, 2], [0, 0]], "1 of 3"),
    ],
    ids=str,
)
def test_frames_of_other_splits_are_not_used(
    lay: Lay, tmp_path: Path, caplog: pytest.LogCaptureFixture, shown, rows, unused: str, tolerant: bool
):
    """One frame TSV for all splits; how many of its rows a split leaves is counted in one line."""
    caplog.set_level("INFO")
    folder = CaptionFolder(lay(x_img_tsv=frames(*shown)), tolerant)
    assert folder.frame_rows.tolist() == rows
    img = str(tmp_path / "x.img.tsv")
    told = [message for message in caplog.messages if img in message and unused in message]
    assert len(told) == 1
    assert [record for record in caplog.records if record.levelname != "INFO"] == []


@pytest.mark.parametrize("shown", [["vid0", "vid7", "vid10"], ["vid7", "vid8", "vid0", "vid1.5"]], ids=str)
def test_among_frames_of_other_splits_a_missing_video_is_an_error(lay: Lay, shown: list[str]):
    assert "'vid1'" in fault(lay(x_img_tsv=frames(*shown)))


def test_two_splits_that_have_a_video_of_one_name(lay: Lay, caplog: pytest.LogCaptureFixture):
    found = fault(lay(x_img_tsv=frames("train/vid0", "test/vid0", "train/vid1")))
    assert "train/vid0" in found
    assert "test/vid0" in found
    caplog.clear()
    CaptionFolder(lay(x_img_tsv=frames("vid0", "vid1", "vid1")))
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "vid1" in warning
    assert "vid0" not in warning


def test_frames_of_an_annotation_without_its_video(lay: Lay, tmp_path: Path):
    folder = CaptionFolder(lay(x_img_tsv=frames("vid0")), tolerant=True)
    captions, img = tmp_path / "x.caption.tsv", tmp_path / "x.img.tsv"
    with pytest.raises(DataError) as raised:
        folder.video(1)
    assert str(raised.value).startswith(f"{captions}, line 2: ")
    assert "'vid1'" in str(raised.value)
    assert str(img) in str(raised.value)


def test_both_faults_are_told(lay: Lay, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    folder = CaptionFolder(lay(x_img_tsv=frames("vid7", "vid1")), tolerant=True)
    assert folder.frame_rows.tolist() == [[NO_FRAMES, NO_FRAMES], [0, 1]]
    assert "x.caption.tsv, line 1: video 'vid0' is not in" in caplog.text
    assert "1 of 2 rows are not used" in caplog.text
