from pathlib import Path

import pytest

from lavender.data.corpora import is_image_dataset, size_frame_of, text_file, train_part, validation
from lavender.runtime.errors import DataError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("dataset", "part", "name"),
    [
        ("webvid2.5m", 3, "webvid2.5m_train_3.tsv"),
        ("webvid10m", 0, "_webvid10m-tsv_frame4/webvid10m-001.img.tsv"),
        ("webvid10m", 99, "_webvid10m-tsv_frame4/webvid10m-100.img.tsv"),
        ("webvid10m_filtered", 7, "image-10007.tsv"),
        ("cc3m", 0, "cc3m_train_0.tsv"),
        ("cc12m", 12, "train.12.62.img.tsv"),
        ("coco", 0, "coco_train_0.tsv"),
        ("my_own", 2, "my_own_train_2.tsv"),
    ],
)
def test_training_parts(tmp_path: Path, dataset: str, part: int, name: str):
    touch(tmp_path, name)
    assert train_part(tmp_path, dataset, part) == tmp_path / name


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("webvid2.5m", "webvid2.5m_val.tsv"),
        ("webvid10m", "webvid2.5m_val.tsv"),
        ("webvid10m_filtered", "webvid2.5m_val.tsv"),
        ("webvid10m", "webvid2.5_val.tsv"),
        ("cc12m", "cc3m_val.tsv"),
        ("vg", "vg_val.tsv"),
        ("my_own", "my_own_val.tsv"),
    ],
)
def test_validation_files_some_of_them_borrowed(tmp_path: Path, dataset: str, name: str):
    touch(tmp_path, name)
    assert validation(tmp_path, dataset) == tmp_path / name


def test_names_of_the_original_readme(tmp_path: Path):
    touch(tmp_path, "txt_webvid2.5.json", "webvid2.5_val.tsv", *(f"webvid2.5_train_{i}.tsv" for i in range(1, 10)))
    assert text_file(tmp_path, "webvid2.5m").name == "txt_webvid2.5.json"
    assert validation(tmp_path, "webvid2.5m").name == "webvid2.5_val.tsv"
    parts = [train_part(tmp_path, "webvid2.5m", part).name for part in range(9)]
    assert parts == [f"webvid2.5_train_{i}.tsv" for i in range(1, 10)]
    with pytest.raises(DataError, match=r"webvid2\.5_train_10\.tsv is missing"):
        train_part(tmp_path, "webvid2.5m", 9)


def test_the_name_of_the_code_wins_and_counting_from_0_too(tmp_path: Path):
    touch(tmp_path, *(f"webvid2.5{m}_train_{i}.tsv" for m in ("", "m") for i in range(2)))
    assert [train_part(tmp_path, "webvid2.5m", i).name for i in (0, 1)] == [f"webvid2.5m_train_{i}.tsv" for i in (0, 1)]


def test_a_lost_first_part_of_another_pattern_is_not_skipped(tmp_path: Path):
    touch(tmp_path, "_webvid10m-tsv_frame4/webvid10m-002.img.tsv", "train.1.62.img.tsv")
    for dataset in ("webvid10m", "cc12m"):
        with pytest.raises(DataError, match="is missing"):
            train_part(tmp_path, dataset, 0)


def test_missing_files_are_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"webvid2\.5m_val\.tsv or .*webvid2\.5_val\.tsv is missing: the validation"):
        validation(tmp_path, "webvid10m")
    with pytest.raises(DataError, match=r"txt_cc3m\.json is missing: the captions of cc3m"):
        text_file(tmp_path, "cc3m")
    with pytest.raises(DataError, match=r"cc3m_train_4\.tsv is missing"):
        train_part(tmp_path, "cc3m", 4)


def test_images_have_one_frame():
    assert {name for name in ("webvid2.5m", "cc3m", "cc12m", "coco", "vg", "my_own") if is_image_dataset(name)} == {
        "cc3m",
        "cc12m",
        "coco",
        "vg",
    }
    assert (size_frame_of("cc3m", 4), size_frame_of("webvid2.5m", 4)) == (1, 4)
