from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lavender.config.schema import Config
from lavender.data.caption import CaptionDataset, read_predictions, write_predictions
from lavender.data.caption_folder import CaptionFolder
from lavender.data.samples import SampleKey
from lavender.data.tsv import TSVWriter
from lavender.runtime.errors import DataError
from lavender.text.masking import IGNORED
from lavender.text.tokens import TextTokenizer


@pytest.fixture
def make(config: Config, kit: Path):
    """`make(training, **options)`: the kit's training split: 6 videos, 12 captions."""

    def build(training: bool, **options) -> CaptionDataset:
        changed = replace(config, **{"size_img": 32, "size_txt": 12, **options})
        folder = CaptionFolder(kit / "data" / "CAP" / "train.yaml")
        return CaptionDataset(changed, TextTokenizer(kit / "bert_micro"), folder, training)

    return build


def test_training_is_of_captions_and_evaluation_of_videos(make):
    captions, videos = make(True), make(False)
    assert (len(captions), len(videos)) == (12, 6)
    assert Counter(captions.video_ids()) == dict.fromkeys(videos.video_ids(), 2)
    assert set(videos[SampleKey(0, 3)]) == {"index", "epoch", "img", "present", "faults", "video"}


def test_every_token_but_pads_may_be_hidden(make):
    tokenizer = make(True).tokenizer
    for p_mask in (0.0, 0.4, 1.0):
        dataset = make(True, p_mask=p_mask)
        samples = [dataset[SampleKey(epoch, n)] for epoch in range(1, 30) for n in range(12)]
        ids, mask, labels = (np.stack([sample[name] for sample in samples]) for name in ("ids", "mask", "labels"))
        hidden = labels != IGNORED
        assert not hidden[mask == 0].any()
        assert ((ids == tokenizer.mask_id) == hidden).all()
        for kind in (tokenizer.cls_id, tokenizer.sep_id):
            share = hidden[np.where(hidden, labels, ids) == kind].mean()
            assert share == pytest.approx(p_mask, abs=0.08)
        assert hidden[mask == 1].mean() == pytest.approx(p_mask, abs=0.04)


def test_a_share_is_of_captions(make):
    few, half = make(True, data_ratio=5), make(True, data_ratio=0.5)
    assert (len(few), len(half)) == (5, 6)
    assert len(set(map(tuple, few.samples.tolist()))) == 5
    assert make(True, data_ratio=5).samples.tolist() == few.samples.tolist()
    assert len(make(False, data_ratio=2)) == 6


def test_numbers_to_draw_words_with_are_a_samples_own(make):
    dataset = make(False, do_sample=True, max_gen_length=7)
    first, again, other = (dataset[SampleKey(epoch, n)]["draws"] for epoch, n in ((0, 1), (5, 1), (0, 2)))
    assert first.shape == (7,)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_predictions_come_back_as_they_were(tmp_path: Path):
    captions = [
        ("vid 0", [{"caption": "ein roter Stern – ★\twith a tab", "conf": 0.1 + 0.2}]),
        ("vid1", [{"caption": "", "conf": 1e-30}, {"caption": 'quoted "so"', "conf": 1.0}]),
    ]
    write_predictions(tmp_path / "p.tsv", captions)
    assert read_predictions(tmp_path / "p.tsv") == captions
    assert (tmp_path / "p.lineidx").is_file()


@pytest.mark.parametrize(
    "row", [["a"], ["a", "[{"], ["a", '[{"caption": "x"}]'], ["a", '[{"caption": 1, "conf": "x"}]']]
)
def test_a_file_that_is_none_is_told(tmp_path: Path, row: list[str]):
    with TSVWriter(tmp_path / "p.tsv") as writer:
        writer.write(row)
    with pytest.raises(DataError, match=r"p\.tsv, line 1: this is no prediction file"):
        read_predictions(tmp_path / "p.tsv")
