"""Video encoder, fusion and names against the released code."""

import json

import numpy as np
import pytest
import torch

from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.bert_config import BertConfig
from lavender.models.fusion import full_attention, seq2seq_attention
from lavender.models.lavender import Heads, Lavender

VIDEO_CASES = ["b1_t1_s224", "b1_t3_s192", "b1_t5_s224", "b1_t6_s256", "b2_t4_s224", "b1_t10_s64"]


@pytest.mark.parametrize("name", VIDEO_CASES)
def test_video_encoder(kit, micro, name):
    case = kit.case(f"video_{name}")
    batch, time, size = (int(part[1:]) for part in name.split("_"))
    model = kit.model(max_size_frame=int(case["max_size_frame"])) if "max_size_frame" in case else micro
    img = kit.images(case["seed"], batch, time, size)
    with torch.inference_mode():
        swin = model.enc_img.swin(img).permute(0, 4, 1, 2, 3)
        video = model.encode_video(img)
    assert kit.agrees(swin, case["swin"])
    assert kit.agrees(video.states, case["feat_img"])
    assert np.array_equal(video.mask.numpy(), case["mask_img"])


def test_video_training_graph_gives_the_same_features(kit, micro):
    """With gradients the attention takes another kernel: the same numbers."""
    case = kit.case("video_b1_t5_s224")
    assert kit.agrees(micro.encode_video(kit.images(case["seed"], 1, 5, 224)).states.detach(), case["feat_img"])


def test_frame_order(kit, micro):
    case = kit.case("video_frame_order")
    with torch.inference_mode():
        video = micro.encode_video(kit.images(case["seed"], 2, 4, 224), frame_order=torch.from_numpy(case["odr"]))
    assert kit.agrees(video.states, case["feat_img"])


def test_token_mask(kit, micro):
    case = kit.case("video_vt_mask")
    with torch.inference_mode():
        video = micro.encode_video(kit.images(case["seed"], 2, 4, 224), token_mask=torch.from_numpy(case["vt_mask"]))
    assert np.array_equal(video.mask.numpy(), case["mask_img"])


@pytest.mark.parametrize("mode", ["full", "seq2seq"])
@pytest.mark.parametrize("masked", [False, True])
def test_fusion(kit, micro, mode, masked):
    case = kit.case("fusion_masked_video" if masked else "fusion")
    token_mask = torch.from_numpy(case["vt_mask"]) if masked else None
    with torch.inference_mode():
        video = micro.encode_video(kit.images(case["seed"], 2, 4, 224), token_mask=token_mask)
        text = micro.encode_text(torch.from_numpy(case["txt"]), torch.from_numpy(case["mask"]))
        states = micro.fuse(video, text, attention=mode)
    if not masked:
        assert kit.agrees(text.states, case["feat_txt"])
    assert kit.agrees(states, case[f"out_{mode}"])


def test_fusion_behind_a_prefix(kit, micro):
    case = kit.case("fusion")
    with torch.inference_mode():
        video = micro.encode_video(kit.images(case["seed"], 2, 4, 224))
        text = micro.encode_text(torch.from_numpy(case["txt"]), torch.from_numpy(case["mask"]))
        prefix = micro.prompt(torch.from_numpy(case["pretxt"][0]))
        states = micro.fuse(video, text, prefix, attention="seq2seq")
    assert kit.agrees(states, case["out_seq2seq_pretxt"])


@pytest.mark.parametrize(("key", "context"), [("attn_seq2seq", 200), ("attn_seq2seq_pretxt", 203)])
def test_seq2seq_mask(kit, key, context):
    case = kit.case("fusion")
    ones = torch.ones(2, context, dtype=torch.long)
    visible = seq2seq_attention(ones, torch.from_numpy(case["mask"]))
    assert np.array_equal(visible.numpy(), case[key])


def test_full_mask_hides_pads_alone(kit):
    text = torch.from_numpy(kit.case("fusion")["mask"])
    visible = full_attention(torch.ones(2, 5, dtype=torch.long), text)
    assert visible.shape == (2, 1, 13)
    assert torch.equal(visible[:, 0, 5:], text)


def test_drop_path_rates(kit, micro):
    blocks = [block for layer in micro.enc_img.swin.layers for block in layer.blocks]
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx(kit.json("drop_path")["micro"], abs=1e-8)


@pytest.mark.parametrize(
    ("task", "heads"),
    [
        ("pretrain_mlm", Heads()),
        ("pretrain_task_specific", Heads(mlm=True, task_tokens=False, classifiers={"fc": 1})),
        ("qamc_task_specific", Heads(mlm=False, task_tokens=False, classifiers={"fc": 5})),
        ("captioning", Heads()),
    ],
)
def test_micro_names(kit, task, heads):
    ours = {name: list(tensor.shape) for name, tensor in kit.model(heads).state_dict().items()}
    assert ours == kit.json("state_dict_micro")[task]


def test_base_names(kit):
    with torch.device("meta"):
        model = Lavender(VideoSwin("base"), BertConfig(), BertConfig(), Heads())
    ours = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert ours == json.loads((kit.folder / "state_dict_base.json").read_text())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(221.5e6, abs=0.1e6)
