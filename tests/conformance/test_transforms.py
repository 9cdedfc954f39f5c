"""Decoding, cropping and the choice of frames against what the released code did (`kit/README.md`)."""

import json
from pathlib import Path

import numpy as np
import pytest

from lavender.data.frames import decode_image, evaluation_indices, number_of_clips, training_indices
from lavender.data.transforms import ClipTransform
from lavender.data.tsv import TSVReader, split_columns
from lavender.runtime.errors import DataError

KIT = Path(__file__).parent / "kit"
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet's
SAMPLING = json.loads((KIT / "cases" / "temporal_sampling.json").read_text())


@pytest.mark.parametrize("video", [0, 2, 5])
@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("img_rand_crop", "img_center_crop"),
        ("vid_rand_crop", "vid_center_crop"),
        ("pad_resize", "pad_resize"),
    ],
)
def test_first_frame_transformed(video: int, name: str, case: str):
    reader = TSVReader(KIT / "data" / "img_toy.tsv")
    _, _, frames = split_columns(reader.row(video), reader.where(video))
    image = decode_image(frames[0], reader.where(video))
    clip = ClipTransform([name], 224, training=False)([image], np.random.default_rng())
    pixels = clip[0].numpy().transpose(1, 2, 0)  # (H, W, 3)
    normalised = ((pixels / 255 - MEAN) / STD).transpose(2, 0, 1)
    expected = np.load(KIT / "cases" / f"transform_vid{video}.npz")[case]
    # One grey level is 0.017: within float16's rounding, every pixel is exactly the released code's.
    assert np.abs(normalised - expected.astype(float)).max() < 1e-3


@pytest.mark.parametrize("case", SAMPLING, ids=lambda case: f"{case['n_frames']}to{case['size_frame']}")
def test_temporal_sampling(case: dict):
    stored, size = case["n_frames"], case["size_frame"]
    if case["val_index"] is None:
        with pytest.raises(DataError):
            evaluation_indices(stored, size)
        with pytest.raises(DataError):
            training_indices(stored, size, 0)
        return
    assert evaluation_indices(stored, size) == case["val_index"]
    clips = [training_indices(stored, size, start) for start in range(number_of_clips(stored, size))]
    assert clips == case["train_candidates"]
