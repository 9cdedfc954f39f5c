import json
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch

from lavender.config.schema import Config
from lavender.data.frames import evaluation_indices, training_indices
from lavender.data.items import Item, ItemFile, open_frames
from lavender.data.loaders import evaluation_loader
from lavender.data.retrieval import Gallery, RetrievalDataset, RetrievalTextDataset, check_captions, paragraph
from lavender.data.samples import SampleKey
from lavender.data.tsv import TSVReader, TSVWriter
from lavender.runtime.errors import DataError
from lavender.text.tokens import TextTokenizer

SENTENCES = ["red circle", "blue square", "it stops"]
EVERY_PARAGRAPH = {" ".join(order) for size in (1, 2, 3) for order in permutations(SENTENCES, size)}


@pytest.fixture
def tokenizer(kit: Path) -> TextTokenizer:
    return TextTokenizer(kit / "bert_micro")


@pytest.fixture
def changed(config: Config, kit: Path, tmp_path: Path) -> Callable[..., Config]:
    """A configuration over the kit's six videos; `items` are every split of its text file."""

    def build(*items: Any, **changes: Any) -> Config:
        (tmp_path / "txt_mine.json").write_text(json.dumps(dict.fromkeys(("train", "val", "test"), items)))
        folders = {"data_dir": str(kit / "data"), "txt_dir": str(tmp_path)}
        return replace(config, **{"type": "retrieval", "dataset": "toy", "task": "mine", **folders, **changes})

    return build


@pytest.fixture
def make(changed: Callable[..., Config], tokenizer: TextTokenizer) -> Callable[..., RetrievalDataset]:
    def build(*items: Item, kind: type = RetrievalDataset, split: str = "test", **changes: Any) -> RetrievalDataset:
        options = changed(*items, **changes)
        return kind(options, tokenizer, open_frames(options), ItemFile(options), split)

    return build


@pytest.fixture
def gallery(changed: Callable[..., Config]) -> Callable[..., Gallery]:
    def build(*items: Any, **changes: Any) -> Gallery:
        options = changed(*items, **changes)
        return Gallery(options, open_frames(options), ItemFile(options), "test")

    return build


def captions(*pairs: tuple[str, Any]) -> list[Item]:
    return [{"video": video, "caption": caption} for video, caption in pairs]


def sample(dataset: RetrievalDataset | Gallery, index: int = 0, epoch: int = 0) -> dict[str, Any]:
    found = dataset[SampleKey(epoch, index)]
    assert isinstance(found, dict), found
    return found


# --- captions ---------------------------------------------------------------------------------------------------------

FAULTS: list[tuple[Any, str]] = [
    (None, '"caption" is missing'),
    ([], "the list of captions is empty"),
    ("", "the caption is empty"),
    (" \n", "the caption is empty"),
    (["a dog", ""], "the caption is empty"),
    (7, "the caption is not text"),
    (["a dog", None], "the caption is not text"),
    (["a dog", "half \ud800"], r"the caption holds invalid Unicode \(a lone surrogate\)"),
    (["word " * 600, "word " * 401], "the paragraph has 1,001 words"),
]


@pytest.mark.parametrize(("caption", "fault"), FAULTS, ids=[fault for _, fault in FAULTS])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_bad_caption_is_named_before_the_run(make, caption: Any, fault: str, split: str):
    with pytest.raises(DataError, match=rf"txt_mine\.json, {split}, item 1 \(counted from 0\): {fault}"):
        make(*captions(("vid0", "a dog"), ("vid1", caption)), split=split)


@pytest.mark.parametrize("caption", ["a dog", ["a dog"], ["a dog", "it jumps"], ["word " * 600, "word " * 400]])
def test_a_good_one_is_taken(caption: Any):
    check_captions({"video": "vid0", "caption": caption}, "x")


def test_a_paragraph_is_its_sentences_in_order():
    assert paragraph(SENTENCES) == "red circle blue square it stops"


@pytest.mark.parametrize("kind", [RetrievalDataset, RetrievalTextDataset])
def test_the_tokens_of_a_text(make, tokenizer: TextTokenizer, kind: type):
    found = sample(make(*captions(("vid0", "a red circle")), kind=kind, size_txt=7))
    appended = kind is RetrievalDataset
    words = " ".join(tokenizer.word(int(token)) for token in found["ids"])
    assert words == "[CLS] a red circle [SEP] [PAD] [PAD]" + " [MASK]" * appended
    assert found["mask"].tolist() == [1] * 5 + [0, 0] + [1] * appended


def test_training_takes_any_part_of_a_paragraph_in_any_order(make):
    dataset = make(*captions(("vid0", SENTENCES)), split="train")
    drawn = [sample(dataset, epoch=epoch)["caption"] for epoch in range(300)]
    assert set(drawn) == EVERY_PARAGRAPH
    lengths = [sum(sentence in text for sentence in SENTENCES) for text in drawn]
    assert all(70 < lengths.count(size) < 130 for size in (1, 2, 3)), "each length is as likely"


def test_the_same_epoch_draws_the_same_part_and_tokens_fit_the_text(make, tokenizer: TextTokenizer):
    dataset = make(*captions(("vid0", SENTENCES)), split="train")
    first = sample(dataset, epoch=3)
    assert first["caption"] == sample(dataset, epoch=3)["caption"]
    assert first["ids"].tolist() == tokenizer.encode(first["caption"], 12, True)[0].tolist()
    assert dataset.items[0]["caption"] == SENTENCES, "the file's own list is left in order"


def test_evaluation_takes_all_of_it_in_order(make):
    dataset = make(*captions(("vid0", SENTENCES)))
    assert {sample(dataset, epoch=epoch)["caption"] for epoch in range(20)} == {" ".join(SENTENCES)}


# --- a batch ----------------------------------------------------------------------------------------------------------

TWICE = captions(("vid0", "one"), ("vid1", "two"), ("clips/vid0.mp4", "three"), ("vid2", "four"), ("vid1.avi", "five"))


@pytest.mark.parametrize("split", ["val", "test"])
def test_validation_keeps_the_first_caption_of_each_video(make, split: str):
    kept = [(item["video"], item["caption"]) for item in make(*TWICE, split=split).items]
    assert kept == [("vid0", "one"), ("vid1", "two"), ("vid2", "four")]


def test_training_keeps_them_all_or_a_share_of_the_videos(make):
    assert len(make(*TWICE, split="train")) == 5
    share = [item["caption"] for item in make(*TWICE, split="train", data_ratio=2).items]
    assert share in (["one", "two", "three", "five"], ["one", "three", "four"], ["two", "four", "five"])


def test_which_samples_of_a_batch_show_the_same_video(make):
    dataset = make(*TWICE, split="train")
    batch = dataset.collate([sample(dataset, index) for index in range(5)])
    assert isinstance(batch, dict)
    expected = torch.eye(5, dtype=torch.bool)
    expected[0, 2] = expected[2, 0] = expected[1, 4] = expected[4, 1] = True
    assert torch.equal(batch["is_match"], expected)
    assert batch["video"] == [item["video"] for item in TWICE]


def test_which_videos_of_a_batch_have_one_text(make):
    """As the tokenizer reads it: case and blanks make no difference."""
    items = captions(("vid0", "red circle"), ("vid1", " Red  CIRCLE "), ("vid2", "circle red"), ("vid0", "red circle"))
    for kind in (RetrievalDataset, RetrievalTextDataset):
        dataset = make(*items, kind=kind, split="train")
        batch = dataset.collate([sample(dataset, index) for index in range(4)])
        shared = [[0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]  # not the same video's, which is `same`
        assert batch["shared_text"].int().tolist() == shared


def test_as_released_equal_texts_are_false(make):
    dataset = make(*captions(("vid0", "red"), ("vid1", "red")), split="train", vtm_negatives="released")
    assert "shared_text" not in dataset.collate([sample(dataset, 0), sample(dataset, 1)])


def test_a_bad_sample_of_a_batch_stays_a_fault(make, tmp_path: Path):
    with TSVWriter(tmp_path / "img_toy.tsv") as writer:
        writer.write(["vid0", "{}", "/9j/broken"])
    with pytest.raises(DataError, match=r"img_toy\.tsv, line 1"):
        list(evaluation_loader(make(*TWICE[:1], img_tsv_dir=str(tmp_path), repeat_frames=True)))


# --- the gallery ------------------------------------------------------------------------------------------------------


def test_a_gallery_has_all_captions_and_each_video_once(gallery, log):
    found = gallery(*captions(("vid3", "x"), ("vid1", SENTENCES), ("vid3.mp4", "y"), ("vid0", "z"), ("vid1", "x")))
    assert found.videos == ["vid3", "vid1", "vid0"], "in the order of their first captions"
    assert found.captions == [("x", 0), (" ".join(SENTENCES), 1), ("y", 0), ("z", 2), ("x", 1)]
    assert (len(found), found.missing, log.text) == (3, [], "")
    assert [batch["video"] for batch in evaluation_loader(found, 2)] == [["vid3", "vid1"], ["vid0"]]


BROKEN = captions(("vid0", "x"), ("nobody", "y"), ("vid1", []), ("vid2", ""), ("nobody", "z"), ("vid2", "w"))


def test_what_is_missing_is_counted_named_and_refused(gallery, tmp_path: Path):
    with pytest.raises(DataError) as raised:
        gallery(*BROKEN)
    message, path = str(raised.value), tmp_path / "txt_mine.json"
    assert message.startswith(f"{path}, test: 4 of 6 captions cannot be evaluated: ")
    assert f"{path}, test, item 1 (counted from 0): video 'nobody' is not in" in message
    for number, fault in ((2, "the list of captions is empty"), (3, "the caption is empty"), (4, "video 'nobody'")):
        assert f"test, item {number} (counted from 0): {fault}" in message
    assert "--allow_missing true" in message


def test_or_left_out_and_told(gallery, log):
    found = gallery(*BROKEN, allow_missing=True)
    assert (found.videos, found.captions) == (["vid0", "vid2"], [("x", 0), ("w", 1)])
    assert len(found.missing) == 4
    assert "test: 4 of 6 captions left out (allow_missing): " in log.text
    assert all(fault in log.text for fault in found.missing)


def test_zeros_in_the_place_of_bad_samples_are_no_leave_for_a_smaller_gallery(gallery):
    with pytest.raises(DataError, match="4 of 6 captions cannot be evaluated"):
        gallery(*BROKEN, on_bad_sample="zero")


def test_ten_are_named_at_most(gallery):
    with pytest.raises(DataError, match="12 of 13 captions") as raised:
        gallery(*captions(("vid0", "x"), *((f"lost{number}", "x") for number in range(12))))
    assert str(raised.value).count("lost") == 10
    assert "; …." in str(raised.value)


def test_nothing_left_to_evaluate(gallery):
    with pytest.raises(DataError, match=r"txt_mine\.json, test: no captions to evaluate"):
        gallery(*captions(("nobody", "x")), allow_missing=True)


def test_videos_left_out_later_take_their_captions_along(gallery):
    found = gallery(*captions(("vid3", "a"), ("vid1", "b"), ("vid3", "c"), ("vid0", "d"), ("vid2", "e")))
    assert found.without({1, 2}) == {0: 0, 3: 1}
    assert (found.videos, found.captions) == (["vid3", "vid2"], [("a", 0), ("c", 0), ("e", 1)])
    with pytest.raises(DataError, match="no captions are left"):
        found.without({0, 1})


# --- its clips --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "size", "clips"), [("toy10", 4, 3), ("toy10", 5, 2), ("toy", 5, 1), ("toy", 2, 3)])
@pytest.mark.parametrize("multi", [False, True])
def test_the_clips_of_a_video(gallery, frames: str, size: int, clips: int, multi: bool):
    found = gallery(*captions(("vid1", "x")), dataset=frames, size_frame=size, multi_clip_testing=multi)
    stored = {"toy": 5, "toy10": 10}[frames]
    chosen = [training_indices(stored, size, start) for start in range(clips)]
    chosen = chosen if multi else [evaluation_indices(stored, size)]
    whole = gallery(*captions(("vid1", "x")), dataset=frames, size_frame=stored)
    assert torch.equal(sample(found)["img"], sample(whole)["img"][0][torch.tensor(chosen)])


def test_a_batch_of_videos_with_different_numbers_of_clips(gallery, kit: Path, tmp_path: Path):
    rows = [TSVReader(kit / "data" / "img_toy10.tsv").row(number) for number in range(2)]
    with TSVWriter(tmp_path / "img_toy.tsv") as writer:
        writer.write(rows[0][:3])  # one frame
        writer.write(rows[1])
        writer.write(["vid2", "{}", "/9j/broken"])
    options = {"img_tsv_dir": str(tmp_path), "size_frame": 4, "multi_clip_testing": True, "repeat_frames": True}
    (batch,) = evaluation_loader(gallery(*captions(("vid0", "x"), ("vid1", "x"), ("vid2", "x")), **options))
    assert batch["clips"].tolist() == [1, 3, 1]
    assert batch["img"].shape == (5, 4, 3, 64, 64)
    assert batch["present"].tolist() == [True, True, False], "all that cannot be read is told together"
    assert not batch["img"][4].any()
    assert len(batch["faults"]) == 1


def test_ids_with_dots_of_their_own_are_told_apart_by_their_rows(changed, kit: Path, tmp_path: Path):
    rows = (kit / "data" / "img_toy.tsv").read_text().splitlines()
    names = ("a.b.mp4", "a.c.mp4")
    lines = ["\t".join([name, *row.split("\t")[1:]]) + "\n" for name, row in zip(names, rows, strict=False)]
    (tmp_path / "img_dots.tsv").write_text("".join(lines))
    pairs = captions(("a.b", "one"), ("a.c", "two"), ("a.b.mp4", "one again"))
    options = changed(*pairs, dataset="dots", img_tsv_dir=str(tmp_path))
    found = Gallery(options, open_frames(options), ItemFile(options), "test")
    assert found.videos == ["a.b", "a.c"]
    assert found.captions == [("one", 0), ("two", 1), ("one again", 0)]
    dataset = RetrievalDataset(options, TextTokenizer(kit / "bert_micro"), found.frames, ItemFile(options), "train")
    batch = dataset.collate([sample(dataset, number) for number in range(3)])
    assert batch["is_match"].tolist() == [[True, False, True], [False, True, False], [True, False, True]]
