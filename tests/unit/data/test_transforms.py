import numpy as np
import pytest
import torch
from PIL import Image

from lavender.data.transforms import ClipTransform, crop, pad_resize
from lavender.runtime.errors import ConfigError, DataError
from lavender.runtime.torchvision_ops import ensure_torchvision

SIZES = [(48, 64), (64, 48), (50, 50), (33, 57), (20, 31), (16, 16)]


def ramp(height: int, width: int) -> np.ndarray:
    """A frame whose red tells the row and whose green tells the column."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 0] = np.arange(height)[:, None]
    frame[..., 1] = np.arange(width)
    return frame


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Soft shapes with some noise, as a camera sees."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return np.clip(np.asarray(coarse).astype(int) + rng.integers(-6, 7, (height, width, 3)), 0, 255).astype(np.uint8)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_equal_to_torchvision_on_pil_images(size: tuple[int, int]):
    ensure_torchvision()
    ensure_torchvision()
    from torchvision.transforms import functional

    frame = noise(*size)
    image = Image.fromarray(frame)
    height, width = size
    centred = functional.center_crop(functional.resize(image, 24), [24, 24])
    np.testing.assert_array_equal(crop(frame, 24), np.asarray(centred))
    border = [0, (width - height) // 2] if width > height else [(height - width) // 2, 0]
    np.testing.assert_array_equal(
        pad_resize(frame, 24), np.asarray(functional.resize(functional.pad(image, border), [24, 24]))
    )


def test_a_clip_is_uint8_channels_first():
    clip = ClipTransform(["img_center_crop"], 16, training=False)(
        [noise(20, 30), noise(30, 20)], np.random.default_rng()
    )
    assert clip.shape == (2, 3, 16, 16)
    assert clip.dtype == torch.uint8
    assert clip.is_contiguous(memory_format=torch.channels_last), "colours lie side by side, as they are decoded"
    np.testing.assert_array_equal(clip[1].permute(1, 2, 0), crop(noise(30, 20), 16))


def corners(clip: torch.Tensor) -> list[tuple[int, int]]:
    return [tuple(frame[:2, 0, 0].tolist()) for frame in clip]


def test_random_crops_reach_every_place_and_only_those():
    frames = [ramp(16, 20)] * 400
    seen = set(corners(ClipTransform(["img_rand_crop"], 16, training=True)(frames, np.random.default_rng(0))))
    assert seen == {(0, left) for left in range(5)}


def test_vid_rand_crop_is_one_for_the_clip_and_differs_between_clips():
    transform, rng = ClipTransform("vid_rand_crop", 16, training=True), np.random.default_rng(0)
    clips = [corners(transform([ramp(40, 16)] * 4, rng)) for _ in range(20)]
    assert all(len(set(clip)) == 1 for clip in clips)
    assert len({clip[0] for clip in clips}) > 5


def test_chance_comes_from_the_generator_alone():
    transform = ClipTransform(["img_rand_crop", "pad_resize", "vid_rand_crop"], 16, training=True)
    frames = [noise(30, 50)] * 6
    first, same, other = (transform(frames, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_list_is_drawn_from_for_each_frame():
    frame = noise(32, 48)
    clip = ClipTransform(["img_center_crop", "pad_resize"], 16, training=True)([frame] * 60, np.random.default_rng(0))
    centred = [bool((image.permute(1, 2, 0).numpy() == crop(frame, 16)).all()) for image in clip]
    padded = [bool((image.permute(1, 2, 0).numpy() == pad_resize(frame, 16)).all()) for image in clip]
    assert all(a != b for a, b in zip(centred, padded, strict=True))
    assert 15 < sum(centred) < 45


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["img_rand_crop"], crop),
        (["vid_rand_crop"], crop),
        (["pad_resize"], pad_resize),
        ("pad_resize", pad_resize),
        (["pad_resize", "img_rand_crop"], crop),
    ],
)
def test_evaluation_takes_the_centred_counterpart(names, expected):
    frame, rng = noise(21, 40), np.random.default_rng(0)
    clip = ClipTransform(names, 16, training=False)([frame], rng)
    np.testing.assert_array_equal(clip[0].permute(1, 2, 0), expected(frame, 16))
    assert rng.random() == np.random.default_rng(0).random()  # nothing was drawn


def test_padding_is_black_and_centred():
    padded = pad_resize(np.full((16, 48, 3), 255, np.uint8), 48)
    assert (padded[:16] == 0).all()
    assert (padded[16:32] == 255).all()
    assert (padded[32:] == 0).all()


@pytest.mark.parametrize("names", ["img_rand_crop", "pad_resize", "vid_rand_crop"])
def test_odd_shapes(names: str):
    transform, rng = ClipTransform(names, 16, training=True), np.random.default_rng(0)
    assert transform([noise(1, 1), noise(1, 90), noise(90, 1), noise(16, 16)], rng).shape == (4, 3, 16, 16)
    assert transform([], rng).shape == (0, 3, 16, 16)
    with pytest.raises(DataError, match="frame 1 of the clip has no pixels: its size is 5×0"):
        transform([noise(4, 4), np.zeros((0, 5, 3), np.uint8)], rng)


@pytest.mark.parametrize("names", [["img_random_crop"], [], ["pad_resize", ""]])
def test_unknown_names_are_refused(names: list[str]):
    with pytest.raises(ConfigError, match="img_transform"):
        ClipTransform(names, 16, training=True)


FAST = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="torch resizes bytes fast with AVX2 only"
)


@FAST
@pytest.mark.parametrize("names", ["img_rand_crop", "pad_resize", "vid_rand_crop", ["img_rand_crop", "pad_resize"]])
@pytest.mark.parametrize("size", [(240, 320), (320, 240), (37, 50), (224, 224), (90, 31), (1080, 1920), (3, 200)])
def test_fast_is_within_one_grey_level_of_exact(names, size: tuple[int, int]):
    frames = [picture(*size, seed) for seed in range(3)] + [noise(*size), picture(size[1], size[0])]
    exact, fast = (
        ClipTransform(names, 96, training=True, exact=exact)(frames, np.random.default_rng(5)).int()
        for exact in ("true", "false")
    )
    assert (exact - fast).abs().max() <= 1
    assert (exact - fast).abs().float().mean() < 0.02


@FAST
def test_auto_is_exact_in_evaluation_and_fast_in_training():
    frames = [noise(90, 120)] * 2
    for training, same in ((False, "true"), (True, "false")):
        clips = [
            ClipTransform("img_rand_crop", 64, training, exact)(frames, np.random.default_rng(1))
            for exact in ("auto", same)
        ]
        assert torch.equal(*clips)
    exact, fast = (
        ClipTransform("img_rand_crop", 64, True, exact)(frames, np.random.default_rng(1)) for exact in ("true", "false")
    )
    assert not torch.equal(exact, fast), "noise tells them apart"


@FAST
def test_a_frame_does_not_depend_on_the_others_of_its_clip():
    transform = ClipTransform("img_center_crop", 64, training=True)
    frames = [picture(90, 120, seed) for seed in range(3)] + [picture(120, 90)]
    together = transform(frames, np.random.default_rng(0))
    for frame, expected in zip(frames, together, strict=True):
        assert torch.equal(transform([frame], np.random.default_rng(0))[0], expected)


def test_without_vector_instructions_the_exact_way_is_taken(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    clip = ClipTransform("img_center_crop", 64, training=True, exact="false")(
        [noise(90, 120)], np.random.default_rng(0)
    )
    np.testing.assert_array_equal(clip[0].permute(1, 2, 0), crop(noise(90, 120), 64))
