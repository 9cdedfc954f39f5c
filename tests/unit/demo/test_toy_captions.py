from pathlib import Path

import pytest

from lavender.data.caption_folder import CaptionFolder
from lavender.data.tsv import TSVWriter
from lavender.demo.toy import both_captions, caption, make_clips
from lavender.demo.toy_captions import write_caption_split


@pytest.fixture
def folder(tmp_path: Path) -> CaptionFolder:
    """Two clips with two captions each, and their frames."""
    with TSVWriter(tmp_path / "frames.tsv") as writer:
        for video in ("one", "two"):
            writer.write([video, "/9j/"])
    captions = {"one": ["a red star spins", "the red star spins"], "two": ["a blue cross", "the blue cross"]}
    write_caption_split(tmp_path / "CAP", "train", "../frames.tsv", captions)
    return CaptionFolder(tmp_path / "CAP" / "train.yaml")


def test_the_first_caption_is_trained_on_and_all_are_references(folder: CaptionFolder):
    samples = folder.training_samples().tolist()
    assert [folder.caption(*sample) for sample in samples] == ["a red star spins", "a blue cross"]
    assert folder.references([1]) == [["a blue cross", "the blue cross"]]
    assert (folder.video(1).video_id, folder.video(1).images) == ("two", ["/9j/"])


def test_captions_of_a_clip_are_its_own_and_that_with_the_other_article():
    for clip in make_clips(20, 0, 0, 88)["train"]:
        own, other = both_captions(clip)
        assert own == caption(clip)
        assert {own.split()[0], other.split()[0]} == {"a", "the"}
        assert own.split()[1:] == other.split()[1:]
