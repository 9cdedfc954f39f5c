"""The picture of what a search found."""

from pathlib import Path

import numpy as np
import pytest

from lavender.inference.results import Found, Hit
from lavender.inference.sheet import EMPTY, FRAMES, GAP, HEIGHT, LABEL, TILE, TITLE, WIDTH, contact_sheet
from tests.unit.prepare.clip_world import write_images, write_video


def hits(*videos: Path) -> list[Hit]:
    return [Hit(n, str(video), 3.0 - n, 0.9 - n / 100) for n, video in enumerate(videos)]


def tile(sheet: np.ndarray, column: int, top: int) -> np.ndarray:
    left = GAP + column * (TILE + GAP)
    return sheet[top : top + HEIGHT, left : left + TILE]


def test_frames_of_each_hit_and_an_empty_tile(tmp_path: Path):
    grows, bright = write_video(tmp_path / "grows.mp4"), write_images(tmp_path / "bright", 200)
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 99)
    found = [Found("a dog", hits(grows, tmp_path / "gone.mp4", bright)), Found("a cat", hits(tmp_path / "broken.mp4"))]
    sheet = np.asarray(contact_sheet(found))
    line = TITLE + HEIGHT + LABEL + GAP
    assert sheet.shape == (2 * line, GAP + 3 * (TILE + GAP), 3)
    first = tile(sheet, 0, TITLE)
    greys = [first[HEIGHT // 2, number * WIDTH + WIDTH // 2].mean() for number in range(FRAMES)]
    assert greys == sorted(greys)
    assert greys[0] + 5 < greys[-1]
    assert (tile(sheet, 1, TITLE)[:20] == EMPTY).all()
    assert abs(tile(sheet, 2, TITLE)[HEIGHT // 2].mean() - 200) < 3
    assert (tile(sheet, 0, line + TITLE)[:20] == EMPTY).all()
    for column in range(3):  # rank, probability, name
        label = sheet[TITLE + HEIGHT : TITLE + HEIGHT + LABEL, GAP + column * (TILE + GAP) :][:, :TILE]
        assert (label < 128).any()
        assert (sheet[:TITLE] < 128).any()


@pytest.mark.parametrize(
    ("count", "columns", "lines"),
    [(0, 1, 1), (1, 1, 1), (5, 5, 1), (6, 5, 2), pytest.param(50, 5, 10, marks=pytest.mark.slow)],
)
def test_many_hits_and_long_names(tmp_path: Path, count: int, columns: int, lines: int):
    found = Found("x" * 3000 + "\n二", hits(*(tmp_path / f"{n}{'ä' * 200}.mp4" for n in range(count))))
    sheet = contact_sheet([found, found])
    assert sheet.size == (GAP + columns * (TILE + GAP), 2 * (TITLE + lines * (HEIGHT + LABEL + GAP)))


def test_a_score_that_is_no_probability(tmp_path: Path):
    assert contact_sheet([Found("a", [Hit(0, str(tmp_path / "gone.mp4"), -3.25)])]).width == TILE + 2 * GAP
