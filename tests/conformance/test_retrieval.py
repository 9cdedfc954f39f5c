"""Retrieval against the released code: tokens, pair labels, logits, losses, and all pairs of an evaluation."""

import numpy as np
import pytest
import torch

from lavender.config.schema import Config
from lavender.data.samples import SampleKey
from lavender.engine.gallery import encode_videos, score_pairs
from lavender.engine.gallery_output import ScoreFile
from lavender.models.all_pairs import encode_texts
from lavender.runtime.device import PRECISIONS
from lavender.tasks.retrieval import RetrievalTask, RetrievalTaskSpecificTask

EVALUATIONS = [  # frames, texts, clips, frames a clip, size_txt
    ("toy", "toy-retrieval", False, 5, 25),
    ("toy", "toypar-retrieval", False, 5, 60),
    ("toy10", "toy-retrieval", False, 5, 25),
    ("toy10", "toy-retrieval", True, 5, 25),
    ("toy10", "toy-retrieval", True, 4, 25),
]


@pytest.mark.parametrize("variant", ["plain", "prompt", "task_token"])
def test_all_pairs_of_a_batch(kit, load, variant):
    case = kit.case(f"retrieval_mlm_{variant}")
    run = load(RetrievalTask, "toy-retrieval", items=4, size_txt=25, variant=variant)
    assert np.array_equal(run.batch["ids"], case["txt"])
    assert np.array_equal(run.batch["mask"], case["mask"])
    labels = torch.where(run.batch["is_match"], run.task.tokenizer.true_id, run.task.tokenizer.false_id)
    assert np.array_equal(labels, case["ans_at_mask"])
    with torch.inference_mode():
        words = run.task.true_false(run.model, run.task.answer_states(run.model, run.batch))
        true, false = words.view(*run.batch["is_match"].shape, 2).unbind(-1)
        loss = run.task.loss(run.model, run.batch)["loss"]
    assert kit.agrees(true, case["logit_true"])
    assert kit.agrees(false, case["logit_false"])
    assert kit.loss_agrees(float(loss), case["ls"])


def test_a_video_that_stands_twice_in_a_batch(kit, load):
    case = kit.case("retrieval_mlm_duplicate_video")
    run = load(RetrievalTask, "toy-retrieval", items=case["items"].tolist(), size_txt=25)
    words = torch.where(run.batch["is_match"], run.task.tokenizer.true_id, run.task.tokenizer.false_id)
    assert np.array_equal(words, case["ans_at_mask"])
    with torch.inference_mode():
        assert kit.loss_agrees(run.task.loss(run.model, run.batch)["loss"], case["ls"])


def test_the_task_specific_head(kit, load, monkeypatch):
    case = kit.case("retrieval_task_specific")
    run = load(RetrievalTaskSpecificTask, "toy-retrieval", items=4, size_txt=25, temp=0.05)
    assert np.array_equal(run.batch["ids"], case["txt"])
    with torch.inference_mode():
        assert kit.agrees(run.task.match_matrix(run.model, run.batch), case["out"], terms=3.8)  # they cancel to 0.14
        assert kit.loss_agrees(run.task.loss(run.model, run.batch)["loss"], case["ls"], temp=0.05)
        # The loss of the released scores themselves carries no rounding of the model.
        monkeypatch.setattr(run.task, "match_matrix", lambda *_: torch.from_numpy(case["out"]).to(kit.device))
        assert kit.loss_agrees(run.task.loss(run.model, run.batch)["loss"], case["ls"])


def test_cut_texts(kit, load, truncated):
    case = kit.case("truncated_retrieval")
    run = load(RetrievalTask, "toy-retrieval", truncated("toy-retrieval", ("caption",)), items=3, size_txt=25)
    assert np.array_equal(run.batch["ids"], case["txt"])
    assert np.array_equal(run.batch["mask"], case["mask"])


@pytest.mark.parametrize(("frames", "texts", "clips", "size_frame", "size_txt"), EVALUATIONS)
def test_an_evaluation(kit, tmp_path, frames, texts, clips, size_frame, size_txt):
    case = kit.case(f"retrieval_eval_{frames}_{texts}_clip{int(clips)}_f{size_frame}")
    options = {"size_frame": size_frame, "size_txt": size_txt, "multi_clip_testing": clips}
    config = Config(
        data_dir=str(kit.data),
        dataset=frames,
        task=texts,
        n_workers=0,
        size_batch=4,
        path_output=str(tmp_path),
        txt_backbone=str(kit.bert),
        fusion_encoder=str(kit.bert),
        **options,
    )
    task = RetrievalTask(config)
    tokens = [task.encode_caption(text) for text, _ in task.gallery.captions]
    assert np.array_equal(np.stack([ids for ids, _ in tokens]), case["txt"])
    assert np.array_equal(np.stack([mask for _, mask in tokens]), case["mask"])
    assert len(task.gallery[SampleKey(0, 0)]["img"]) == case["n_clips"]
    model = kit.model(task.heads)
    with torch.inference_mode():
        share = encode_videos(model, task.gallery, kit.device, kit.precision)
        groups = encode_texts(
            model, (task.encode_caption(text) for text, _ in task.gallery.captions), kit.device, kit.precision
        )
        model.trsfr.to(PRECISIONS[kit.precision])  # as an evaluation does

        def scored(name: str) -> torch.Tensor:
            file = ScoreFile(config, name, (6, 6), share.columns)
            score_pairs(task, model, share, groups, file, kit.device, size_pairs=5)
            return torch.from_numpy(file.collect())

        margin = scored("margin")
        for number, name in enumerate(("logit_true", "logit_false")):
            task.scores = lambda model, states, n=number: task.true_false(model, states)[:, n]
            assert kit.agrees(scored(name), case[name])
        del task.scores
        assert kit.agrees(margin, case["logit_true"] - case["logit_false"], 1e-4)
        config.score_fn = "upstream"
        assert kit.agrees(scored("upstream"), case["upstream_ratio"], 1e-4)  # a ratio near its pole: its error grows


def test_the_kit_has_every_evaluation(kit):
    names = {path.stem for path in (kit.folder / "cases").glob("retrieval_eval_*.npz")}
    assert names == {f"retrieval_eval_{d}_{t}_clip{int(c)}_f{f}" for d, t, c, f, _ in EVALUATIONS}
