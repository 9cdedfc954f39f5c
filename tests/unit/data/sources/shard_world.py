"""Shards as the two download tools write them."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

Samples = Mapping[str, Mapping[str, bytes | str]]  # key → extension → content


def write_shard(path: Path, samples: Samples, form: int = tarfile.USTAR_FORMAT) -> Path:
    """A tar of the files of the samples, one after another."""
    with tarfile.open(path, "w", format=form) as tar:
        for key, files in samples.items():
            for extension, content in files.items():
                add(tar, f"{key}.{extension}", content)
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes | str) -> None:
    data = content.encode() if isinstance(content, str) else content
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def png(grey: int, size: tuple[int, int] = (64, 48)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (grey,) * 3).save(file, "PNG")
    return file.getvalue()


def picture(grey: int, caption: str) -> dict[str, bytes | str]:
    """A sample of `img2dataset`."""
    facts = {"caption": caption, "key": "?", "status": "success", "width": 64}
    return {"png": png(grey), "json": json.dumps(facts), "txt": caption}


def failed(caption: str) -> dict[str, bytes | str]:
    """What `video2dataset` leaves of a download that failed."""
    facts = {"caption": caption, "status": "failed_to_download", "error_message": "404"}
    return {"json": json.dumps(facts), "txt": caption}
