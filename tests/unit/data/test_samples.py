import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lavender.config.schema import Config
from lavender.data.samples import ClipDataset, Failure, Guard, SampleKey, draw_share, split_share
from lavender.data.sources.tsv import TSVVideo
from lavender.runtime.errors import ConfigError, DataError

SIZE = 32


def frame(grey: int, size: tuple[int, int] = (48, 40)) -> str:
    file = io.BytesIO()
    Image.new("RGB", size, (grey,) * 3).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


class Videos(ClipDataset):
    """Videos with one grey level a frame; their text is a random number."""

    def __init__(self, config: Config, videos: list[list[str]], training: bool = False, size_frame: int = 2):
        super().__init__(config, training, size_frame)
        self.videos = videos

    def __len__(self) -> int:
        return len(self.videos)

    def video(self, index: int) -> TSVVideo:
        if not self.videos[index]:
            raise DataError(f"videos.tsv, line {index + 1}: gone")
        return TSVVideo([f"v{index}", *self.videos[index]], f"videos.tsv, line {index + 1}", self.config.max_pixels)

    def __getitem__(self, key: SampleKey) -> Any:
        return super().__getitem__(key)

    def text(self, index: int, stream: np.random.Generator, guard: Guard) -> dict[str, Any]:
        return {"draw": stream.random(3), "video": f"v{index}"}


@pytest.fixture
def videos() -> list[list[str]]:
    return [[frame(10 * video + number) for number in range(6)] for video in range(4)]


@pytest.fixture
def small(config: Config) -> Config:
    config.size_img = SIZE
    return config


def greys(sample: dict) -> list[int]:
    return sample["img"].float().mean((1, 2, 3)).round().int().tolist()


# --- samples ----------------------------------------------------------------------------------------------------------


def test_an_evaluation_sample(small: Config, videos: list):
    sample = Videos(small, videos)[SampleKey(0, 1)]
    assert sample["img"].shape == (2, 3, SIZE, SIZE)
    assert sample["img"].dtype == torch.uint8
    assert greys(sample) == [10, 15], "first and last frame"
    assert (sample["index"], sample["epoch"], sample["present"], sample["faults"]) == (1, 0, True, [])


def test_evaluation_draws_the_same_in_every_epoch(small: Config, videos: list):
    dataset = Videos(small, videos)
    first, later = dataset[SampleKey(0, 2)], dataset[SampleKey(9, 2)]
    assert torch.equal(first["img"], later["img"])
    np.testing.assert_array_equal(first["draw"], later["draw"])
    assert not np.array_equal(first["draw"], dataset[SampleKey(0, 1)]["draw"])


def test_training_draws_anew_in_each_epoch_and_repeats_an_epoch(small: Config, videos: list):
    dataset = Videos(small, videos, training=True)
    epochs = [dataset[SampleKey(epoch, 3)] for epoch in range(1, 13)]
    assert {tuple(greys(sample)) for sample in epochs} == {(30, 33), (31, 34), (32, 35)}
    assert len({tuple(sample["draw"]) for sample in epochs}) == 12
    for epoch, sample in enumerate(epochs, start=1):
        again = Videos(small, videos, training=True)[SampleKey(epoch, 3)]
        assert torch.equal(again["img"], sample["img"])
        np.testing.assert_array_equal(again["draw"], sample["draw"])


def test_crops_follow_the_epoch(small: Config):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), np.uint8))
    file = io.BytesIO()
    noise.save(file, "PNG")
    dataset = Videos(small, [[base64.b64encode(file.getvalue()).decode()]], training=True, size_frame=1)
    crops = [dataset[SampleKey(epoch, 0)]["img"] for epoch in (1, 2, 1)]
    assert not torch.equal(crops[0], crops[1])
    assert torch.equal(crops[0], crops[2])


def test_another_seed_draws_otherwise(small: Config, videos: list):
    first = Videos(small, videos)[SampleKey(0, 0)]["draw"]
    small.seed += 1
    assert not np.array_equal(first, Videos(small, videos)[SampleKey(0, 0)]["draw"])


def test_metadata_is_no_frame(small: Config, videos: list):
    videos[0].insert(0, '{"class": -1}')
    assert greys(Videos(small, videos)[SampleKey(0, 0)]) == [0, 5]


# --- faults -----------------------------------------------------------------------------------------------------------

FAULTS = {
    "missing video": ([], r"videos\.tsv, line 3: gone"),
    "no frames": (["5"], r"videos\.tsv, line 3: video 'v2' has no frames"),
    "cut frame": ([frame(1), frame(2)[:-40]], r"videos\.tsv, line 3.*cut"),
    "too few frames": ([frame(1)], r"videos\.tsv, line 3: 2 frames are asked for, 1 are stored"),
}


@pytest.mark.parametrize(("video", "says"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("training", [False, True])
def test_a_bad_sample_is_an_error_that_is_carried_out_of_the_worker(
    small: Config, videos: list, video: list[str], says: str, training: bool
):
    videos[2] = video
    dataset = Videos(small, videos, training)
    failure = dataset[SampleKey(1, 2)]
    assert isinstance(failure, Failure)
    with pytest.raises(DataError, match=says):
        raise DataError(failure.message)
    assert dataset.collate([dataset[SampleKey(1, 0)], failure]) == failure


@pytest.mark.parametrize(("video", "says"), FAULTS.values(), ids=FAULTS)
def test_or_it_is_noted_and_zeros_stand_in(small: Config, videos: list, video: list[str], says: str):
    videos[2], small.on_bad_sample = video, "zero"
    dataset = Videos(small, videos)
    batch = dataset.collate([dataset[SampleKey(0, index)] for index in (1, 2, 3)])
    assert isinstance(batch, dict)
    assert batch["present"].tolist() == [True, False, True]
    assert not batch["img"][1].any()
    assert batch["img"][2].any()
    assert len(batch["faults"]) == 1
    with pytest.raises(DataError, match=says):
        raise DataError(batch["faults"][0])


def test_a_fault_of_the_program_is_not_taken_for_bad_input(small: Config, videos: list, monkeypatch):
    small.on_bad_sample = "zero"
    dataset = Videos(small, videos)
    monkeypatch.setattr(dataset, "video", lambda index: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dataset[SampleKey(0, 0)]


def test_repeat_frames_fills_a_short_video(small: Config, videos: list):
    videos[0], small.repeat_frames = videos[0][:3], True
    assert greys(Videos(small, videos, size_frame=5)[SampleKey(0, 0)]) == [0, 1, 2, 2, 2]


def test_black_frames_are_present(small: Config):
    sample = Videos(small, [[frame(0)] * 2])[SampleKey(0, 0)]
    assert sample["present"] is True
    assert not sample["img"].any()


def test_collate(small: Config, videos: list):
    dataset = Videos(small, videos)
    batch = dataset.collate([dataset[SampleKey(0, index)] for index in (3, 1)])
    assert isinstance(batch, dict)
    assert batch["img"].shape == (2, 2, 3, SIZE, SIZE)
    assert batch["index"].tolist() == [3, 1]
    assert batch["video"] == ["v3", "v1"]
    assert batch["draw"].shape == (2, 3)
    assert batch["faults"] == []


def test_guard():
    def fail() -> int:
        raise DataError("bad")

    strict, tolerant = Guard(tolerant=False), Guard(tolerant=True)
    assert strict.attempt(lambda: 3, 0) == 3
    with pytest.raises(DataError, match="bad"):
        strict.attempt(fail, 0)
    assert [tolerant.attempt(fail, 7), tolerant.attempt(lambda: 3, 0)] == [7, 3]
    assert (strict.faults, tolerant.faults) == ([], ["bad"])


def test_an_unknown_transform_is_an_error_at_once(small: Config, tmp_path: Path):
    small.img_transform = ["img_flip"]
    with pytest.raises(ConfigError, match="img_flip"):
        Videos(small, [])


# --- a part of the data -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [200, 100, 20, 1])
def test_a_share_is_a_seeded_draw_in_the_order_of_the_data(kept: int):
    rows = draw_share(200, kept, seed=88)
    assert len(set(rows.tolist())) == len(rows) == kept
    assert rows.tolist() == sorted(rows.tolist())
    assert all(0 <= row < 200 for row in rows)
    assert draw_share(200, kept, seed=88).tolist() == rows.tolist()
    if 1 < kept < 200:
        assert draw_share(200, kept, seed=89).tolist() != rows.tolist()
        assert rows.tolist() != list(range(kept))


@pytest.mark.parametrize("samples", [7, 8])
def test_a_whole_share_is_not_drawn(samples: int):
    rows = draw_share(7, samples, seed=88)
    assert rows.tolist() == list(range(7))
    assert rows.dtype == draw_share(7, 6, seed=88).dtype == np.int64


def test_a_smaller_share_is_part_of_a_larger_one():
    assert set(draw_share(50, 10, seed=1).tolist()) < set(draw_share(50, 30, seed=1).tolist())


@pytest.mark.parametrize(
    ("lengths", "ratio", "kept"),
    [
        ([3, 3], 1.0, [3, 3]),
        ([3, 3], 0.34, [1, 1]),
        ([10, 20, 30], 0.5, [5, 10, 15]),
        ([3, 3], 3, [2, 1]),
        ([100], 0.001, [1]),
        ([5, 5], 100, [5, 5]),
        ([7, 7, 7], 10, [3, 4, 3]),
    ],
)
def test_a_share_of_parts(lengths: list[int], ratio: float, kept: list[int]):
    """Up to 1 a fraction of all, above 1 their number; never more than there are, and never none."""
    assert split_share(lengths, ratio) == kept


def test_max_pixels_makes_a_large_image_a_bad_sample(small: Config, videos: list):
    videos[2] = [frame(1, (41, 40))] * 2
    small.on_bad_sample = "zero"
    for limit, present in ((41 * 40, True), (41 * 40 - 1, False)):
        small.max_pixels = limit
        sample = Videos(small, videos)[SampleKey(0, 2)]
        assert sample["present"] is present
        assert [f"max_pixels {limit}" in fault for fault in sample["faults"]] == [True] * (not present)
