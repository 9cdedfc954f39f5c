"""A script on videos that are read directly, beside the same run on the frame TSV made of them."""

import base64
from pathlib import Path

from lavender.data.tsv import TSVReader, split_columns


def test_questions_on_image_folders(ask, questions: Path, tmp_path: Path):
    """The folders hold the very JPEGs of the TSV, so every loss and figure is the same."""
    words = ("main_qaoe_mlm.py", "msvd-qa", "--size_epoch", 1)
    reader, videos = TSVReader(questions / "img_toy.tsv"), tmp_path / "videos"
    for number in range(len(reader)):
        video_id, _, images = split_columns(reader.row(number), reader.where(number))
        (videos / video_id).mkdir(parents=True)
        for place, image in enumerate(images):
            (videos / video_id / f"{place}.jpg").write_bytes(base64.b64decode(image))
    stored = ask(*words, data=questions).check_passed()
    (questions / "img_toy.tsv").unlink()
    direct = ask(*words, "--video_dir", videos, data=questions).check_passed()
    assert direct.results == stored.results
    refused = ask(*words, data=questions)
    refused.check_refused("img_toy.tsv", "--video_dir")
