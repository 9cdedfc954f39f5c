import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lavender.config.schema import Config
from lavender.data.annotations import CaptionTable, read_json
from lavender.data.loaders import evaluation_loader, training_loader
from lavender.data.pretrain import MAX_PAIRS, PretrainDataset
from lavender.data.samples import Failure, SampleKey
from lavender.data.sources.tsv import TSVSource
from lavender.data.tsv import TSVReader, TSVWriter
from lavender.runtime.errors import DataError
from lavender.runtime.seed import sample_rng
from lavender.text.tokens import TextTokenizer


@pytest.fixture
def tokenizer(kit: Path) -> TextTokenizer:
    return TextTokenizer(kit / "bert_micro")


@pytest.fixture
def make(config: Config, kit: Path, tokenizer: TextTokenizer):
    """Builds the first training part (3 videos) or the validation split (4)."""

    def build(
        training: bool = True,
        *,
        append_mask: bool = True,
        tsv: Path | None = None,
        captions=None,
        frames=2,
        samples=None,
    ):
        split = "train" if training else "val"
        texts = captions if captions is not None else read_json(kit / "data" / "txt_toy.json")[split]
        default = kit / "data" / ("toy_train_0.tsv" if training else "toy_val.tsv")
        return PretrainDataset(
            config,
            tokenizer,
            TSVSource(tsv or default, config.max_pixels),
            CaptionTable(texts, f"txt_toy.json, {split}"),
            training=training,
            size_frame=frames,
            append_mask=append_mask,
            samples=samples,
        )

    return build


def test_a_sample(make, config: Config, tokenizer: TextTokenizer):
    config.p_mask = 0.5
    sample = make(training=False)[SampleKey(0, 2)]
    assert (sample["video"], sample["caption"]) == ("vid2", "a blue triangle moves left")
    whole, mask = tokenizer.encode(sample["caption"], config.size_txt, append_mask=True)
    hidden = sample["labels"] != -1
    assert hidden.any()
    np.testing.assert_array_equal(sample["mask"], mask)
    np.testing.assert_array_equal(np.where(hidden, sample["labels"], sample["ids"]), whole)
    assert (sample["ids"][hidden] == tokenizer.mask_id).all()
    assert sample["ids"][-1] == tokenizer.mask_id
    assert sample["labels"][-1] == -1, "the appended [MASK] asks about the match, not about a word"
    assert sample["img"].shape == (2, 3, config.size_img, config.size_img)


def test_a_share_of_the_rows(make, config: Config):
    config.p_mask = 0.0
    everything = [make()[SampleKey(1, index)] for index in range(3)]
    part = make(samples=2)
    assert len(part) == 2
    samples = [part[SampleKey(1, index)] for index in range(2)]
    names = [sample["video"] for sample in everything]
    rows = [names.index(sample["video"]) for sample in samples]
    assert rows == sorted(set(rows))
    for sample, row in zip(samples, rows, strict=True):
        assert sample["caption"] == everything[row]["caption"]
        assert part.video(rows.index(row)).where.endswith(f"toy_train_0.tsv, line {row + 1}")


def test_without_the_appended_mask(make, config: Config, tokenizer: TextTokenizer):
    sample = make(training=False, append_mask=False)[SampleKey(0, 2)]
    assert sample["ids"].shape == sample["mask"].shape == sample["labels"].shape == (config.size_txt,)
    assert sample["ids"][-1] == tokenizer.pad_id


@pytest.mark.parametrize("p_mask", [0.0, 0.15, 1.0])
def test_p_mask_is_honoured_and_specials_are_kept(make, config: Config, tokenizer: TextTokenizer, p_mask: float):
    config.p_mask = p_mask
    dataset = make()
    special = {tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, tokenizer.mask_id}
    hidden = words = 0
    for epoch in range(60):
        stream = np.random.default_rng(epoch)
        sample = dataset.text(epoch % 3, stream, guard=_Trusting())
        hidden += (sample["labels"] != -1).sum()
        words += len(sample["caption"].split())
        assert not special & set(sample["labels"].tolist())
        assert sample["ids"][0] == tokenizer.cls_id
    assert words == 60 * 5
    assert hidden == words * p_mask if p_mask in (0, 1) else abs(hidden / words - p_mask) < 0.06


class _Trusting:
    @staticmethod
    def attempt(read, replacement):
        return read()


def test_epochs_hide_other_words_and_repeat_themselves(make, config: Config):
    config.p_mask = 0.5
    dataset = make()
    rows = {epoch: dataset[SampleKey(epoch, 1)]["ids"].tolist() for epoch in range(1, 7)}
    assert len({tuple(row) for row in rows.values()}) > 2
    for epoch, row in rows.items():
        assert make()[SampleKey(epoch, 1)]["ids"].tolist() == row


def test_validation_hides_the_same_words_in_every_epoch(make, config: Config):
    config.p_mask = 0.5
    dataset = make(training=False)
    assert len({tuple(dataset[SampleKey(epoch, 1)]["ids"].tolist()) for epoch in range(5)}) == 1


@pytest.mark.parametrize("training", [False, True])
def test_workers_change_nothing(make, config: Config, training: bool):
    batches = []
    for workers in (0, 2):
        config.n_workers = workers
        dataset = make(training)
        loader = training_loader(dataset) if training else evaluation_loader(dataset)
        loader.set_epoch(2)
        batches.append(list(loader))
    for one, other in zip(*batches, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key], key


# --- negatives --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16])
def test_negatives_are_other_samples_each_once(make, size: int):
    dataset = make()
    for epoch in range(20):
        negatives = dataset._negatives([epoch] * size, list(range(100, 100 + size)))
        assert negatives.shape == (size, min(size, MAX_PAIRS) - 1)
        assert negatives.dtype == torch.long
        for own, row in enumerate(negatives.tolist()):
            assert own not in row
            assert len(set(row)) == len(row)
            assert all(0 <= other < size for other in row)


def test_negatives_are_drawn_evenly(make):
    dataset = make()
    counts = torch.zeros(8, 8)
    for epoch in range(400):
        negatives = dataset._negatives([epoch] * 8, list(range(8)))
        counts.scatter_add_(1, negatives, torch.ones_like(negatives, dtype=torch.float))
    assert not counts.diagonal().any()
    shares = counts[~torch.eye(8, dtype=torch.bool)] / 400
    assert (shares - 3 / 7).abs().max() < 0.1


def test_negatives_repeat_and_follow_the_epoch_in_training_alone(make):
    training, validation = make(), make(training=False)
    samples = list(range(16))

    def drawn(dataset: PretrainDataset, epoch: int) -> list:
        return dataset._negatives([epoch] * 16, samples).tolist()

    assert drawn(training, 1) == drawn(make(), 1)
    assert drawn(training, 1) != drawn(training, 2)
    assert drawn(validation, 1) == drawn(validation, 2)


def test_negatives_have_a_stream_of_their_own(make, config: Config):
    """Drawn from the stream of a sample's frames and masks, they would go with what those are."""
    drawn = make()._negatives([1] * 40, list(range(40)))
    numbers = [sample_rng(config.seed, 1, index).choice(39, 3, replace=False) for index in range(40)]
    of_the_masks = torch.tensor([[n + (n >= own) for n in row] for own, row in enumerate(numbers)])
    assert (drawn == of_the_masks).float().mean() < 0.2


def test_a_sample_is_the_same_in_every_batch(make):
    dataset = make()
    batch = dataset.collate([dataset[SampleKey(1, index)] for index in (0, 1, 2)])
    assert batch["negatives"].tolist() == dataset._negatives([1] * 3, [0, 1, 2]).tolist()
    assert batch["negatives"].shape == (3, 2)
    alone = dataset.collate([dataset[SampleKey(1, 1)]])
    assert alone["negatives"].shape == (1, 0)
    assert torch.equal(alone["ids"][0], batch["ids"][1])


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(tmp_path: Path, kit: Path) -> Path:
    """The validation file with video 1 cut short and video 2 under another name."""
    reader = TSVReader(kit / "data" / "toy_val.tsv")
    with TSVWriter(tmp_path / "toy_val.tsv") as writer:
        for number in range(len(reader)):
            video, *frames = reader.row(number)
            if number == 1:
                frames = [frames[0][:200], *frames[1:]]
            writer.write([{2: "stranger"}.get(number, video), *frames])
    return tmp_path / "toy_val.tsv"


def test_bad_samples_stop_the_run(make, spoilt: Path):
    dataset = make(training=False, tsv=spoilt)
    damaged, nameless = dataset[SampleKey(0, 1)], dataset[SampleKey(0, 2)]
    assert isinstance(damaged, Failure)
    assert f"{spoilt}, line 2" in damaged.message
    assert nameless == Failure('txt_toy.json, val: no caption for video "stranger"')
    assert dataset.collate([dataset[SampleKey(0, 0)], damaged]) is damaged
    with pytest.raises(DataError, match="line 2"):
        list(evaluation_loader(dataset))


def test_or_are_counted_and_replaced(make, config: Config, spoilt: Path, tokenizer: TextTokenizer):
    config.on_bad_sample, config.size_batch = "zero", 4
    (batch,) = evaluation_loader(make(training=False, tsv=spoilt))
    assert batch["present"].tolist() == [True, False, True, True]
    assert batch["caption"][2] == ""
    assert batch["ids"][2, :3].tolist() == [tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id]
    assert (batch["labels"][2] == -1).all()
    assert len(batch["faults"]) == 2
    assert batch["video"] == ["vid0", "vid1", "stranger", "vid3"]


def test_a_batch_of_bad_samples_alone(make, config: Config, spoilt: Path):
    config.on_bad_sample, config.size_batch = "zero", 1
    batches = list(evaluation_loader(make(training=False, tsv=spoilt, captions={"nobody": ["x"]})))
    assert [len(batch["faults"]) for batch in batches] == [1, 1, 1, 1]
    assert all((batch["labels"] == -1).all() for batch in batches)


def test_length_and_frames(make, kit: Path, tmp_path: Path):
    assert (len(make()), len(make(training=False))) == (3, 4)
    assert make(training=False, frames=1)[SampleKey(0, 0)]["img"].shape[0] == 1
    with pytest.raises(DataError, match=r"nowhere\.tsv: there is no such file"):
        make(tsv=tmp_path / "nowhere.tsv")
    shutil.copy(kit / "data" / "toy_val.tsv", tmp_path / "copy.tsv")  # without its line index
    assert len(make(training=False, tsv=tmp_path / "copy.tsv")) == 4


def as_released(make) -> PretrainDataset:
    dataset = make()
    dataset.config = replace(dataset.config, vtm_negatives="released")
    return dataset


def test_the_clips_own_text_is_no_negative(make):
    released, distinct = as_released(make), make()
    different, equal = [[1], [2], [3], [4], [5]], [[1], [1], [3], [4], [5]]
    changed = 0
    for index in range(40):
        rows = [index * 5 + number for number in range(5)]
        old = released._negatives([0] * 5, rows, equal)
        assert distinct._negatives([0] * 5, rows, different).tolist() == old.tolist()
        new = distinct._negatives([0] * 5, rows, equal)
        for own, (before, after) in enumerate(zip(old.tolist(), new.tolist(), strict=True)):
            assert all(equal[other] != equal[own] for other in after)
            assert len(set(after)) == 3
            kept = [other for other in before if equal[other] != equal[own]]
            assert set(kept) <= set(after)
            changed += before != after
    assert changed


def test_where_all_texts_are_equal_the_negatives_stay(make):
    same = [[1]] * 4
    released, distinct = (made._negatives([0] * 4, [0, 1, 2, 3], same) for made in (as_released(make), make()))
    assert released.tolist() == distinct.tolist()


def test_a_negative_is_repeated_before_the_own_text_is_taken(make):
    found = make()._negatives([0] * 4, [0, 1, 2, 3], [[1], [1], [2], [3]])
    assert set(found[0].tolist()) == {2, 3}
