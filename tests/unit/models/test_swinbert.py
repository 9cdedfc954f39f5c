"""SwinBERT: its video encoder, and its checkpoints."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lavender.config.schema import Config
from lavender.data.samples import SampleKey
from lavender.engine.run import run
from lavender.models.convert import from_swinbert, is_swinbert
from lavender.models.encoders import SwinBertVideoEncoder
from lavender.models.lavender import Heads, Lavender
from lavender.models.weights import build_model, load_checkpoint
from lavender.runtime.errors import ConfigError, WeightsError
from lavender.tasks.caption import CaptionTask

TO_SWINBERT = {  # beginnings of our names → of SwinBERT's
    "enc_img.swin.": "swin.backbone.",
    "enc_img.fc.": "fc.",
    "enc_img.img_embedding.": "trans_encoder.bert.img_embedding.",
    "enc_txt.emb_txt.": "trans_encoder.bert.embeddings.",
    "trsfr.": "trans_encoder.bert.encoder.",
    "fc_mtm.": "trans_encoder.cls.",
}
REST = {  # of a SwinBERT checkpoint, without a place here
    "learn_vid_att.weight": torch.zeros(16, 1),
    "trans_encoder.bert.pooler.dense.weight": torch.zeros(64, 64),
    "swin.cls_head.fc_cls.weight": torch.zeros(4, 128),
}


@pytest.fixture
def model(make_model) -> Lavender:
    return make_model(swinbert=True)


@pytest.fixture
def state(model: Lavender) -> dict[str, Tensor]:
    """A made-up SwinBERT checkpoint, as its own code writes it: the decoder of the words has no bias of its own."""
    state = {"trans_encoder.bert.embeddings.position_ids": torch.arange(512)[None], **REST}
    for name, tensor in model.state_dict().items():
        prefix = next((ours for ours in TO_SWINBERT if name.startswith(ours)), "")
        if prefix and not name.endswith("decoder.bias"):
            drawn = torch.randn(tensor.shape) if tensor.is_floating_point() else tensor
            state[TO_SWINBERT[prefix] + name.removeprefix(prefix)] = drawn
    return state


def images(batch: int = 2, time: int = 3, side: int = 64) -> Tensor:
    return torch.randn(batch, time, 3, side, side, generator=torch.Generator().manual_seed(2))


def test_names_and_shapes(model: Lavender, make_model):
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    own = {name: shape for name, shape in ours.items() if name.startswith("enc_img.") and ".swin." not in name}
    assert own == {
        "enc_img.fc.weight": (512, 128),
        "enc_img.fc.bias": (512,),
        "enc_img.img_embedding.weight": (64, 512),
        "enc_img.img_embedding.bias": (64,),
    }
    plain = {name: tuple(tensor.shape) for name, tensor in make_model().state_dict().items()}
    assert {name: shape for name, shape in ours.items() if name not in own} == {
        name: shape for name, shape in plain.items() if ".swin." in name or not name.startswith("enc_img.")
    }


def test_states_and_mask(model: Lavender):
    """A zero token that nobody sees before the patches of each frame, and else two linear layers, no norm."""
    img = images()
    with torch.inference_mode():
        states, mask = model.encode_video(img)
        features = model.enc_img.swin(img)  # (2, 3, 2, 2, 128)
        patches = model.enc_img.img_embedding(model.enc_img.fc(features)).flatten(2, 3)
    assert states.shape == (2, 15, 64)
    assert mask.dtype == torch.long
    assert mask.tolist() == [[0, 1, 1, 1, 1] * 3] * 2
    states = states.view(2, 3, 5, 64)
    assert not states[:, :, 0].any()
    assert torch.allclose(states[:, :, 1:], patches, atol=1e-6)


@pytest.mark.parametrize("attention", ["full", "seq2seq"])
def test_the_zero_token_is_seen_by_nobody(model: Lavender, attention: str):
    ids = torch.tensor([[101, 110, 102, 0], [101, 111, 112, 102]])
    with torch.inference_mode():
        video, text = model.encode_video(images()), model.encode_text(ids, (ids > 0).long())
        fused = model.fuse(video, text, attention=attention)
        video.states.view(2, 3, 5, 64)[:, :, 0] = 5.0
        other = model.fuse(video, text, attention=attention)
    real = torch.cat([video.mask.bool(), torch.ones(2, 4, dtype=torch.bool)], dim=1)
    assert torch.allclose(fused[real], other[real], atol=1e-6)
    assert not torch.allclose(fused[~real], other[~real], atol=1e-2), "the token was there"


def test_any_number_of_frames_and_patches(make_model):
    model = make_model(swinbert=True, max_size_frame=1, max_size_patch=1)
    with torch.inference_mode():
        assert model.encode_video(images(1, 9, 96)).states.shape == (1, 9 * 10, 64)


def test_precision_follows_the_weights(model: Lavender):
    assert model.dtype == torch.float32
    assert model.bfloat16().dtype == torch.bfloat16
    with torch.inference_mode():
        assert model.encode_video(images()).states.dtype == torch.bfloat16


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_a_swinbert_checkpoint_fills_the_whole_model(model: Lavender, state: dict[str, Tensor], tmp_path: Path, log):
    path = tmp_path / "model.bin"
    torch.save(state, path)
    report = load_checkpoint(model, path)
    assert report.missing == ["emb_task"], "SwinBERT has no tasks"
    assert not report.other_shape + report.resized
    assert sorted(report.left_over) == sorted(REST)
    for name, tensor in model.state_dict().items():
        prefix = next((ours for ours in TO_SWINBERT if name.startswith(ours)), "")
        if prefix and "relative_position_index" not in name:
            theirs = TO_SWINBERT[prefix] + name.removeprefix(prefix).replace("decoder.bias", "bias")
            assert torch.equal(tensor, state[theirs]), name
    assert "  left over    learn_vid_att.weight" in log.text
    assert "  left over    trans_encoder.bert" in log.text


def test_every_name_of_the_table_is_translated(state: dict[str, Tensor]):
    assert is_swinbert(state)
    assert not is_swinbert(from_swinbert({name: t for name, t in state.items() if name not in REST}))
    assert from_swinbert({"fc_mtm.x": torch.zeros(1), "fc.x": torch.zeros(1)}).keys() == {"fc_mtm.x", "enc_img.fc.x"}


def test_the_kinds_are_told_apart(model: Lavender, make_model, state: dict[str, Tensor], tmp_path: Path):
    theirs, trained, plain = (tmp_path / f"{name}.pt" for name in ("theirs", "trained", "plain"))
    torch.save(state, theirs)
    torch.save(model.state_dict(), trained)
    torch.save(make_model().state_dict(), plain)
    for path in (theirs, trained):
        with pytest.raises(WeightsError, match=rf"^{path} has SwinBERT's video encoder: add --swinbert true"):
            load_checkpoint(make_model(), path)
    with pytest.raises(WeightsError, match=rf"^{plain} has LAVENDER's own video encoder: set --swinbert false"):
        load_checkpoint(model, plain)
    assert not load_checkpoint(make_model(swinbert=True), trained).missing, "one that was trained further here"


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def captioning(config: Config, kit: Path, tmp_path: Path) -> Config:
    yamls = {f"{split}_yaml": f"CAP/{split}.yaml" for split in ("train", "test")}
    ground = {"type": "captioning", "task": "toy-cap", "dataset": "", "size_img": 32, "swinbert": True}
    options = {"max_gen_length": 6, "path_output": str(tmp_path / "out"), "data_dir": str(kit / "data")}
    return replace(config, **ground, **options, **yamls)


def test_captioning_trains_and_writes(captioning: Config, state: dict[str, Tensor], tmp_path: Path, monkeypatch):
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, *more, **other: name != "java" and which(name, *more, **other))
    torch.save(state, tmp_path / "model.bin")
    captioning.path_ckpt = str(tmp_path / "model.bin")
    results = run(CaptionTask, captioning)
    assert "CIDEr" in str(results)
    (written,) = (tmp_path / "out").glob("*/ckpt_violet_toy-cap_1.pt")
    after = torch.load(written, weights_only=True)
    for name in (
        "fc.weight",
        "trans_encoder.bert.img_embedding.weight",
        "trans_encoder.bert.encoder.layer.0.output.dense.weight",
    ):
        (ours,) = from_swinbert({name: state[name]})
        assert after[ours].shape == state[name].shape
        assert not torch.equal(after[ours], state[name]), "trained"
        assert (after[ours] - state[name]).abs().max() < 0.1, "from the checkpoint"
    assert "enc_img.emb_cls" not in after


@pytest.mark.parametrize("prefix", ["enable_prompt", "enable_task_token"])
def test_a_prompt_or_task_token_in_front(captioning: Config, prefix: str):
    task = CaptionTask(replace(captioning, **{prefix: True}))
    model, dataset = build_model(task.config, task.heads), task.datasets["train"]
    batch = dataset.collate([dataset[SampleKey(1, number)] for number in range(3)])
    loss = task.loss(model, batch)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert model.enc_img.img_embedding.weight.grad.abs().sum() > 0
    assert len(task.predict(model.eval(), batch)) == 3


def test_more_frames_than_the_tables_have_rows(captioning: Config):
    captioning.size_frame, captioning.max_size_frame = 9, 2
    assert isinstance(build_model(captioning, Heads()).enc_img, SwinBertVideoEncoder)


def test_retrieval_is_refused(config: Config):
    retrieval = {"type": "retrieval", "dataset": "toy", "task": "toy-retrieval"}
    together = {"type": "multi-task", "dataset": "", "datasets": [retrieval]}
    for options in (retrieval, together):
        with pytest.raises(WeightsError, match=r'"swinbert" is for captioning: .*set it to false'):
            build_model(replace(config, **options, swinbert=True), Heads())


def test_captions_longer_than_bert_are_refused(config: Config):
    cap = {"type": "captioning", "task": "toy-cap", "max_gen_length": 513}
    for options in ({**cap, "dataset": ""}, {"type": "multi-task", "dataset": "", "datasets": [cap]}):
        with pytest.raises(ConfigError, match=r"max_gen_length is 513, and .* has 512 positions: lower it"):
            build_model(replace(config, **options), Heads())
