import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from lavender.config.schema import Config
from lavender.data.items import Item
from lavender.data.samples import SampleKey
from lavender.models.encoders import Encoded
from lavender.models.lavender import Heads, Lavender
from lavender.runtime.errors import ConfigError, DataError
from lavender.tasks.retrieval import RetrievalTask, RetrievalTaskSpecificTask

BOTH = pytest.mark.parametrize("kind", [RetrievalTask, RetrievalTaskSpecificTask])
MLM = [(RetrievalTask, option) for option in ("", "enable_prompt", "enable_task_token")]
NAMES = ("ids", "mask")
PREFIXES = pytest.mark.parametrize(("kind", "option"), [*MLM, (RetrievalTaskSpecificTask, "")])


@pytest.fixture
def make(config: Config, kit: Path, tmp_path: Path) -> Callable[..., RetrievalTask]:
    """A task over the kit's retrieval text, or over `items` as each split."""

    def build(kind: type[RetrievalTask], items: list[Item] | None = None, **changes: Any) -> RetrievalTask:
        folders, task = {"data_dir": str(kit / "data")}, "toy-retrieval"
        if items is not None:
            (tmp_path / "txt_mine.json").write_text(json.dumps(dict.fromkeys(("train", "val", "test"), items)))
            folders, task = {**folders, "txt_dir": str(tmp_path)}, "mine"
        return kind(replace(config, **{"type": "retrieval", "dataset": "toy", "task": task, **folders, **changes}))

    return build


def batch_of(task: RetrievalTask, *numbers: int, split: str = "test") -> dict[str, Any]:
    dataset = task.datasets[split]
    batch = dataset.collate([dataset[SampleKey(0, number)] for number in numbers])
    assert isinstance(batch, dict), batch
    return batch


def one(batch: dict[str, Any], names: tuple[str, ...], number: int) -> list[torch.Tensor]:
    return [batch[name][[number]] for name in names]


# --- all pairs of a batch ---------------------------------------------------------------------------------------------


@PREFIXES
def test_each_text_meets_each_video(make, make_model, kind, option: str):
    task = make(kind, **({option: True} if option else {}))
    model, batch = make_model(task.heads), batch_of(task, 0, 3, 4)
    place = -1 if kind is RetrievalTask else -batch["ids"].shape[1]
    with torch.inference_mode():
        together = task.answer_states(model, batch).view(3, 3, -1)
        for row in range(3):
            video = model.encode_video(*one(batch, ("img", "present"), row))
            for column in range(3):
                text = model.encode_text(*one(batch, ("ids", "mask"), column))
                alone = model.fuse(video, text, task.prefix(model))[0, place]
                assert torch.allclose(together[row, column], alone, atol=1e-4)


@BOTH
def test_videos_and_texts_are_encoded_once(make, make_model, monkeypatch, kind):
    task = make(kind)
    model, batch = make_model(task.heads), batch_of(task, 0, 1, 2)
    sizes: list[tuple[str, int]] = []
    for name in ("encode_video", "encode_text"):
        plain = getattr(Lavender, name)

        def watch(model: Lavender, data: torch.Tensor, *more: Any, name: str = name, plain: Any = plain) -> Encoded:
            sizes.append((name, len(data)))
            return plain(model, data, *more)

        monkeypatch.setattr(Lavender, name, watch)
    with torch.inference_mode():
        task.loss(model, batch)
    assert sorted(sizes) == [("encode_text", 3), ("encode_video", 3)]


# --- losses -----------------------------------------------------------------------------------------------------------

TWICE = [{"video": video, "caption": f"a {word} circle"} for video, word in (("vid0", "red"), ("vid1", "blue"))]
TWICE += [{"video": "vid0.mp4", "caption": "it moves"}]
LOST = [*TWICE[:2], {"video": "nobody", "caption": "a green square"}]


def test_true_where_a_pair_is_of_one_video_and_false_elsewhere(make, make_model):
    task = make(RetrievalTask, TWICE)
    model, batch = make_model(task.heads), batch_of(task, 0, 1, 2, split="train")
    true, false = task.tokenizer.true_id, task.tokenizer.false_id
    labels = torch.tensor([[true, false, true], [false, true, false], [true, false, true]])
    with torch.inference_mode():
        words = model.fc_mtm(task.answer_states(model, batch))
        losses = task.loss(model, batch)
        trues, falses = task.true_false(model, task.answer_states(model, batch)).view(3, 3, 2).unbind(-1)
    assert float(losses["loss"]) == pytest.approx(float(F.cross_entropy(words, labels.flatten())), rel=1e-5)
    assert torch.allclose(trues, words.view(3, 3, -1)[..., true], atol=1e-5)
    assert torch.allclose(falses, words.view(3, 3, -1)[..., false], atol=1e-5)


def test_the_task_specific_pairs_compete_both_ways(make, make_model):
    task = make(RetrievalTaskSpecificTask, temp=0.05)
    assert task.heads == Heads(mlm=False, task_tokens=False, classifiers={"fc": 1})
    model, batch = make_model(task.heads), batch_of(task, 0, 1, 2)
    with torch.inference_mode():
        scores, losses = task.match_matrix(model, batch), task.loss(model, batch)
    sharp = scores / 0.05
    expected = -sharp.log_softmax(1).diag().mean() - sharp.log_softmax(0).diag().mean()
    assert float(losses["loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_a_video_that_is_missing_has_no_label(make, make_model):
    task = make(RetrievalTask, LOST, on_bad_sample="zero")
    model, batch = make_model(task.heads), batch_of(task, 0, 1, 2)
    with torch.inference_mode():
        words, losses = model.fc_mtm(task.answer_states(model, batch)).view(3, 3, -1), task.loss(model, batch)
    known = torch.where(batch["is_match"], task.tokenizer.true_id, task.tokenizer.false_id)[:2]
    expected = F.cross_entropy(words[:2].flatten(0, 1), known.flatten())
    assert float(losses["loss"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(losses["count_unlabelled_batches"]) == 0


def test_nor_has_its_text_in_the_task_specific_way(make, make_model):
    task = make(RetrievalTaskSpecificTask, LOST, on_bad_sample="zero")
    model, batch = make_model(task.heads), batch_of(task, 0, 1, 2)
    with torch.inference_mode():
        scores, losses = task.match_matrix(model, batch), task.loss(model, batch)
    both = (scores.log_softmax(dim).diag()[:2].mean() for dim in (0, 1))
    assert float(losses["loss"]) == pytest.approx(-float(sum(both)), rel=1e-5)


@BOTH
def test_a_batch_of_missing_videos_is_counted_and_has_a_gradient_of_0(make, make_model, kind):
    task = make(kind, [{**item, "video": f"no {item['video']}"} for item in TWICE], on_bad_sample="zero")
    model = make_model(task.heads)
    losses = task.loss(model, batch_of(task, 0, 1))
    assert (float(losses["loss"].detach()), float(losses["count_unlabelled_batches"])) == (0, 1)
    losses["loss"].backward()
    assert not any(parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


@PREFIXES
def test_the_loss_reaches_every_parameter_but_those_named(make, make_model, kind, option: str):
    task = make(kind, **({option: True} if option else {}))
    model = make_model(task.heads)
    task.loss(model, batch_of(task, 0, 1))["loss"].backward()
    unused = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert unused == {name for name, _ in model.named_parameters() if name.startswith(task.unused_parameters())}


# --- predictions ------------------------------------------------------------------------------------------------------


@BOTH
def test_the_best_text_of_the_batch_for_each_video(make, monkeypatch, kind):
    """The second video's best text is another one of the same video; the last one's own is, but nobody saw it."""
    items = [*TWICE, {"video": "nobody", "caption": "a green square"}]
    task = make(kind, items, on_bad_sample="zero", size_epoch=1)
    batch = batch_of(task, 1, 0, 2, 3, split="train")
    scores = torch.tensor([[1.0, 2, 0, 0], [0, 1, 5, 0], [1, 3, 2, 0], [0, 0, 0, 9]])
    monkeypatch.setattr(task, "answer_states", lambda model, batch: None)
    monkeypatch.setattr(task, "scores", lambda model, states: scores.flatten())
    records = task.predict(None, batch)
    assert [record["right"] for record in records] == [False, True, True, False]
    chosen = batch["caption"]
    assert [record["prediction"] for record in records] == [chosen[1], chosen[2], chosen[1], chosen[3]]
    assert [record["score"] for record in records] == [2, 5, 3, 9]
    assert [(record["index"], record["video"]) for record in records] == [
        *[(1, "vid1"), (0, "vid0"), (2, "vid0.mp4"), (3, "nobody")]
    ]
    assert task.metrics(records, "val") == {"acc": 0.5}


@pytest.mark.parametrize(("score_fn", "best"), [("probability", [1, 0]), ("upstream", [0, 1])])
def test_what_ranks_is_the_chance_or_the_released_ratio(make, monkeypatch, score_fn: str, best: list[int]):
    task = make(RetrievalTask, score_fn=score_fn)
    words = torch.tensor([[1.0, 1.0], [-1.0, -3.0], [20.0, 0.0], [19.0, -0.5]])
    monkeypatch.setattr(task, "answer_states", lambda model, batch: None)
    monkeypatch.setattr(task, "true_false", lambda model, states: words)
    records = task.predict(None, batch_of(task, 0, 1))
    captions = [task.datasets["test"].items[number]["caption"] for number in (0, 1)]
    assert [captions.index(record["prediction"]) for record in records] == best


def test_scores_are_in_full_precision_under_autocast(make, make_model):
    """In bf16 many pairs would share a score."""
    task = make(RetrievalTask)
    model, states = make_model(task.heads), torch.randn(5, 64)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = task.scores(model, states)
    with torch.inference_mode():
        words = model.fc_mtm(states)
    assert found.dtype == torch.float32
    expected = words[:, task.tokenizer.true_id] - words[:, task.tokenizer.false_id]
    assert torch.allclose(found, expected, atol=1e-5)


# --- the gallery ------------------------------------------------------------------------------------------------------


@PREFIXES
def test_a_pair_without_pads_scores_as_in_a_batch(make, make_model, kind, option: str):
    task = make(kind, **({option: True} if option else {}))
    model, batch = make_model(task.heads), batch_of(task, 0, 1)
    with torch.inference_mode():
        expected = task.scores(model, task.answer_states(model, batch)).view(2, 2)
        for row in range(2):
            video = model.encode_video(*one(batch, ("img", "present"), row))
            for column in range(2):
                text = model.encode_text(*one(batch, ("ids", "mask"), column))
                real = text.mask[0].bool()
                assert not real.all(), "there are pads to drop"
                text = Encoded(text.states[:, real], text.mask[:, real])
                assert torch.allclose(task.pair_scores(model, video, text), expected[row, column], atol=1e-4)


def test_the_gallery_is_that_of_the_split_asked_for(make, tmp_path: Path):
    texts = {"val": TWICE, "test": TWICE[:1], "train": []}
    task = make(RetrievalTask, TWICE)
    (tmp_path / "txt_mine.json").write_text(json.dumps(texts))
    assert len(task.gallery.captions) == 1
    assert task.gallery is task.gallery, "files are read once"
    assert len(make(RetrievalTask, TWICE, eval_split="val").gallery.captions) == 3
    task = make(RetrievalTask, TWICE, eval_split="train")
    (tmp_path / "txt_mine.json").write_text(json.dumps(texts))
    with pytest.raises(ConfigError, match=r'txt_mine\.json: no "train" items to evaluate; see --eval_split'):
        _ = task.gallery


def test_a_split_of_the_gallery_under_another_name_is_told(make, tmp_path: Path):
    task = make(RetrievalTask, TWICE, eval_split="val")
    (tmp_path / "txt_mine.json").write_text(json.dumps({"validation": TWICE}))
    with pytest.raises(ConfigError) as raised:
        _ = task.gallery
    assert all(word in str(raised.value) for word in ("txt_mine.json", "--eval_split", '"validation"', 'it "val"'))


@BOTH
def test_a_caption_of_the_gallery_is_encoded_as_one_of_a_batch(make, kind):
    task = make(kind)
    batch = batch_of(task, 2)
    ids, mask = task.encode_caption(batch["caption"][0])
    assert (ids.tolist(), mask.tolist()) == (batch["ids"][0].tolist(), batch["mask"][0].tolist())


@BOTH
def test_a_bad_caption_stops_the_run_before_it_begins(make, kind):
    with pytest.raises(DataError, match=r"txt_mine\.json, train, item 1 \(counted from 0\): the list of captions"):
        make(kind, [TWICE[0], {"video": "vid1", "caption": []}]).evaluation_sets()


@BOTH
@pytest.mark.parametrize("part", ["fusion", "all"])
def test_low_precision_of_the_fusion_or_of_all_weights(make, make_model, kind, part: str):
    """The gallery fuses in bf16 under full-precision heads; DeepSpeed trains the whole model in bf16."""
    task = make(kind)
    model, batch = make_model(task.heads), batch_of(task, 0, 3, 4)
    with torch.inference_mode():
        expected = task.match_matrix(model, batch)
        (model.trsfr if part == "fusion" else model).bfloat16()
        if part == "fusion":
            low = torch.bfloat16
            video, text = model.encode_video(batch["img"], batch["present"]), model.encode_text(*one(batch, NAMES, 0))
            real = [(each.states[:1, each.mask[0].bool()].to(low), each.mask[:1]) for each in (video, text)]
            pairs = [Encoded(states, mask[:, : states.shape[1]]) for states, mask in real]
            found, expected = task.pair_scores(model, *pairs), expected[:1, 0]
        else:
            found = task.match_matrix(model, batch)
            assert len(task.predict(model, batch)) == 3
    assert torch.allclose(found.float(), expected, atol=0.1 * float(expected.abs().max()))
