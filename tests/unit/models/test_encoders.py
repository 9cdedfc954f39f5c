from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig

from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.encoders import IMAGENET_MEAN, IMAGENET_STD, Encoded, TextEncoder, VideoEncoder, normalize_frames


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(3)


@pytest.fixture
def bert(kit) -> BertConfig:
    config = BertConfig.from_pretrained(kit / "bert_micro", initializer_range=0.1)
    return config


def random_bytes(batch: int = 2, time: int = 2, size: int = 64) -> Tensor:
    return torch.randint(0, 256, (batch, time, 3, size, size), dtype=torch.uint8)


# --- frames -----------------------------------------------------------------------------------------------------------


def test_bytes_are_normalised_with_imagenets_figures():
    img = random_bytes()
    frames = normalize_frames(img)
    assert frames.dtype == torch.float32
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        expected = (img[:, :, channel].double() / 255 - mean) / std
        assert (frames[:, :, channel] - expected).abs().max() < 1e-6
    assert (IMAGENET_MEAN, IMAGENET_STD) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_a_sample_without_video_is_all_0_and_not_black():
    frames = normalize_frames(torch.zeros_like(random_bytes()), torch.tensor([True, False]))
    assert (frames[0] < -1.5).all(), "black frames of a video are black"
    assert (frames[1] == 0).all()


def test_floats_are_taken_as_normalised_already():
    frames = torch.randn(1, 2, 3, 32, 32)
    assert normalize_frames(frames) is frames


def test_bytes_and_normalised_floats_give_the_same_states(make_model):
    model, img = make_model(), random_bytes()
    present = torch.tensor([True, False])
    frames = normalize_frames(img)
    frames[1] = 0
    with torch.inference_mode():
        from_bytes, from_floats = model.encode_video(img, present), model.encode_video(frames)
        other = model.encode_video(img)
    assert torch.equal(from_bytes.states, from_floats.states)
    assert not torch.allclose(from_bytes.states[1], other.states[1], atol=1e-2)
    assert torch.equal(from_bytes.mask, torch.ones(2, 2 * 5, dtype=torch.long))


# --- video ------------------------------------------------------------------------------------------------------------


class FixedPatches(nn.Module):
    """In place of Video Swin: the same features for every input."""

    features: Tensor

    def __init__(self, features: Tensor):
        super().__init__()
        self.features = features

    def forward(self, img: Tensor) -> Tensor:
        return self.features


@pytest.fixture
def encoder() -> Any:
    """Features are 16 wide as they come out of the stand-in; tables are random."""
    encoder = VideoEncoder(VideoSwin("micro"), 16, max_size_frame=3, max_size_patch=2)
    encoder.swin = FixedPatches(torch.randn(2, 3, 2, 2, 16))  # type: ignore[assignment]
    encoder.fc = nn.Identity()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter)
    return encoder.eval()


def test_tokens_get_their_place_and_time(encoder: Any):
    states, mask = encoder(torch.zeros(2, 3, 3, 64, 64))
    assert states.shape == (2, 3 * 5, 16)
    assert mask.tolist() == [[1] * 15] * 2
    patches = encoder.swin.features
    for sample, frame, token in [(0, 0, 0), (1, 2, 0), (1, 0, 1), (0, 2, 4), (1, 1, 3)]:
        value = encoder.emb_cls[0, 0, 0] if token == 0 else patches[sample, frame].flatten(0, 1)[token - 1]
        expected = encoder.norm(value + encoder.emb_pos[0, 0, token] + encoder.emb_len[0, frame, 0])
        assert torch.allclose(states[sample, frame * 5 + token], expected, atol=1e-5)


def test_fewer_frames_and_patches_use_the_first_rows(encoder: Any):
    whole = encoder(torch.zeros(2, 3, 3, 64, 64)).states.view(2, 3, 5, 16)
    encoder.swin.features = encoder.swin.features[:, :2, :1, :1]
    states = encoder(torch.zeros(2, 2, 3, 32, 32)).states.view(2, 2, 2, 16)
    assert torch.allclose(states, whole[:, :2, :2], atol=1e-6)


def test_a_frame_out_of_order_gets_the_embedding_for_it(encoder: Any):
    img = torch.zeros(2, 3, 3, 64, 64)
    plain = encoder(img).states.view(2, 3, 5, 16)
    mixed = encoder(img, frame_order=torch.tensor([[0, 2, 1], [0, 1, 2]])).states.view(2, 3, 5, 16)
    assert torch.allclose(mixed[1], plain[1])
    assert torch.allclose(mixed[0, 0], plain[0, 0])
    value = encoder.emb_cls[0, 0, 0] + encoder.emb_pos[0, 0, 0] + encoder.emb_odr[0, 0, 0]
    for frame in (1, 2):
        assert torch.allclose(mixed[0, frame, 0], encoder.norm(value), atol=1e-5)


def test_the_token_mask_is_the_mask(encoder: Any):
    token_mask = torch.randint(0, 2, (2, 3, 5))
    assert torch.equal(encoder(torch.zeros(2, 3, 3, 64, 64), token_mask=token_mask).mask, token_mask.flatten(1))


def test_clips_larger_than_the_tables_name_the_option(encoder: Any):
    with pytest.raises(ValueError, match="4 frames a clip, but the frame table has 3: set max_size_frame"):
        encoder(torch.zeros(2, 4, 3, 64, 64))
    encoder.swin.features = torch.randn(1, 1, 3, 2, 16)
    with pytest.raises(ValueError, match="6 patches a frame, but the table has 4: set max_size_patch"):
        encoder(torch.zeros(1, 1, 3, 96, 64))


def test_widths_are_fitted_only_where_they_differ():
    assert not [name for name in VideoEncoder(VideoSwin("micro"), 128).state_dict() if name.startswith("fc")]
    narrow = {
        name: tuple(t.shape)
        for name, t in VideoEncoder(VideoSwin("micro"), 64).state_dict().items()
        if name[:2] == "fc"
    }
    assert narrow == {"fc.weight": (64, 128), "fc.bias": (64,)}


def test_norms():
    norms = {
        name: m.eps for name, m in VideoEncoder(VideoSwin("micro"), 64).named_modules() if isinstance(m, nn.LayerNorm)
    }
    assert norms["norm"] == 1e-5
    assert set(norms.values()) == {1e-5}


# --- text -------------------------------------------------------------------------------------------------------------


def test_text_is_berts_embeddings_with_positions_from_0(bert: BertConfig):
    encoder = TextEncoder(bert).eval()
    ids = torch.randint(1, 350, (2, 7))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    encoded = encoder(ids, mask)
    table = encoder.emb_txt
    value = table.word_embeddings(ids) + table.position_embeddings.weight[:7] + table.token_type_embeddings.weight[0]
    assert torch.allclose(encoded.states, table.LayerNorm(value), atol=1e-6)
    assert encoded.mask is mask
    assert isinstance(encoded, Encoded)
    assert not any(name.startswith("txt_trsfr") for name in encoder.state_dict())


def test_an_encoder_over_the_text_alone_does_not_see_pads(bert: BertConfig):
    encoder = TextEncoder(bert, embed_only=False).eval()
    ids = torch.randint(1, 350, (2, 7))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    states = encoder(ids, mask).states
    words = encoder.emb_txt(ids, torch.arange(ids.shape[1])[None])
    assert not torch.allclose(states, words, atol=1e-2), "it has layers of its own"
    ids[1, 4:] = 5
    changed = encoder(ids, mask).states
    assert torch.equal(changed[1, :4], states[1, :4])
    assert torch.allclose(changed[0], states[0])
    alone = encoder(ids[1:, :4], mask[1:, :4]).states
    assert torch.allclose(alone[0], states[1, :4], atol=1e-5)


def test_text_drops_out_in_training(bert: BertConfig):
    encoder = TextEncoder(bert)
    ids, mask = torch.randint(1, 350, (4, 40)), torch.ones(4, 40, dtype=torch.long)
    dropped = encoder.train()(ids, mask).states.eq(0).float().mean()
    assert float(dropped) == pytest.approx(0.1, abs=0.02)
    assert not encoder.eval()(ids, mask).states.eq(0).any()


def test_norms_of_the_text(bert: BertConfig):
    norms = [m.eps for m in TextEncoder(bert, embed_only=False).modules() if isinstance(m, nn.LayerNorm)]
    assert norms == [1e-12] * (1 + 2 * 2)
