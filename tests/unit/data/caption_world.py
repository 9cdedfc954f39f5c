"""Captioning folders of two videos, for tests that change their files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lavender.data.caption_folder import CaptionFolder
from lavender.runtime.errors import DataError

Table = dict[str, list[str]]  # video id → captions
TWO: Table = {"vid0": ["a red circle", "it moves left"], "vid1": ["a green square"]}
PLAIN = "img: x.img.tsv\ncaption: x.caption.tsv\n"
Lay = Callable[..., Path]


def frames(*videos: str) -> str:
    return "".join(f"{video}\t/9j/{number}=\n" for number, video in enumerate(videos))


def annotations(captions: Table) -> str:
    return "".join(f"{name}\t{json.dumps([{'caption': one} for one in each])}\n" for name, each in captions.items())


def lay_in(folder: Path) -> Lay:
    """Writes a split of two videos, `x.yaml`; arguments are other contents of its files, by name."""

    def write(yaml: str | bytes = PLAIN, **files: str | bytes) -> Path:
        contents = {"x_img_tsv": frames(*TWO), "x_caption_tsv": annotations(TWO), **files, "x_yaml": yaml}
        for name, content in contents.items():
            path = folder / name.replace("_", ".")
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            path.with_suffix(".lineidx").unlink(missing_ok=True)
        return folder / "x.yaml"

    return write


def fault(path: Path, tolerant: bool = False) -> str:
    with pytest.raises(DataError) as raised:
        CaptionFolder(path, tolerant)
    assert "\n" not in str(raised.value), "one line"
    return str(raised.value)
