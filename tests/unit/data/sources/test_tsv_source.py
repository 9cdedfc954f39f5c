import pickle
from pathlib import Path

import numpy as np
import pytest

from lavender.data.annotations import CaptionTable
from lavender.data.frames import decode_image
from lavender.data.pretrain import PretrainDataset
from lavender.data.samples import SampleKey
from lavender.data.sources.tsv import TSVSource
from lavender.data.tsv import TSVReader, split_columns
from lavender.runtime.errors import DataError
from lavender.text.tokens import TextTokenizer


@pytest.fixture
def tsv(kit: Path) -> Path:
    return kit / "data" / "img_toy.tsv"


def test_ids_lengths_places_and_pixels_are_those_of_the_rows(tsv: Path):
    reader, source = TSVReader(tsv), pickle.loads(pickle.dumps(TSVSource(tsv)))
    assert len(source) == len(reader)
    for number in range(len(reader)):
        video_id, _, images = split_columns(reader.row(number), "")
        video = source.video(number)
        assert (video.video_id, video.where, len(video)) == (video_id, f"{tsv}, line {number + 1}", len(images))
        assert (source.video_id(number), source.where(number)) == (video.video_id, video.where)
        for found, image in zip(video.frames([3, 0, 0]), (images[3], images[0], images[0]), strict=True):
            np.testing.assert_array_equal(found, decode_image(image, ""))


def test_a_video_is_found_by_its_id(tsv: Path):
    source = TSVSource(tsv)
    assert "vid1" in source
    assert "vid99" not in source
    assert source.find("vid1.mp4").video_id == "vid1"
    assert source.identity("vid1") == source.identity("vid1.mp4") != source.identity("vid2")
    with pytest.raises(DataError, match="no video 'vid99'"):
        source.find("vid99")


def test_a_damaged_frame_and_a_large_one_are_named(tsv: Path, tmp_path: Path):
    number, line = 1, TSVReader(tsv).row(1)
    (tmp_path / "x.tsv").write_text("\t".join([*line[:3], line[3][:-40]]) + "\n")
    with pytest.raises(DataError, match=r"x\.tsv, line 1, frame 1.*cut"):
        TSVSource(tmp_path / "x.tsv").video(0).frames([0, 1])
    with pytest.raises(DataError, match=rf"line {number + 1}, frame 0.*max_pixels 7"):
        TSVSource(tsv, max_pixels=7).video(number).frames([0])


def test_the_stamps_change_with_the_file(tmp_path: Path):
    (tmp_path / "x.tsv").write_text("a\t/9j/1\n")
    before = TSVSource(tmp_path / "x.tsv").stamps()
    (tmp_path / "x.tsv").write_text("a\t/9j/12\n")
    assert TSVSource(tmp_path / "x.tsv").stamps() != before


def test_pretraining_reads_each_row_once(config, kit: Path, monkeypatch: pytest.MonkeyPatch):
    read = []
    plain = TSVReader._read_row
    monkeypatch.setattr(
        TSVReader, "_read_row", lambda self, number, size: read.append(number) or plain(self, number, size)
    )
    dataset = PretrainDataset(
        *(config, TextTokenizer(kit / "bert_micro"), TSVSource(kit / "data" / "toy_val.tsv")),
        CaptionTable({f"vid{n}": ["a text"] for n in range(10)}, "t"),
        **{"training": False, "size_frame": 2, "append_mask": True},
    )
    read.clear()
    assert [dataset[SampleKey(0, index)]["video"] for index in (2, 0)] == ["vid2", "vid0"]
    assert read == [2, 0]
