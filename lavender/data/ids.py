"""Which ids name one video. The only place where this is decided.

An id is looked up as it is; then without or with a known media extension; then, where one side alone has folders, by
its file name. A dot of the id's own (`film_00.10.5`) is never cut. A lookup that could mean two videos is an error.
"""

import re
from collections.abc import Iterable

from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown

# fmt: off
VIDEO_EXTENSIONS = frozenset((
    "3g2", "3gp", "asf", "avi", "divx", "f4v", "flv", "gif", "m2ts", "m2v", "m4v", "mkv", "mov", "mp4", "mpe", "mpeg",
    "mpg", "mts", "mxf", "ogg", "ogm", "ogv", "qt", "rm", "rmvb", "ts", "vob", "webm", "wmv", "y4m",
))
IMAGE_EXTENSIONS = frozenset((
    "avif", "bmp", "heic", "jfif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp",
))
# fmt: on
MEDIA_EXTENSIONS = VIDEO_EXTENSIONS | IMAGE_EXTENSIONS
_FOLDERS = re.compile(r"[/\\]")


def without_extension(video_id: str) -> str:
    """The id without a known media extension, whatever its case: `a/clip.1.MP4` → `a/clip.1`; `clip.1` stays."""
    start, dot, extension = video_id.rpartition(".")
    known = dot and start and start[-1] not in "/\\" and extension.lower() in MEDIA_EXTENSIONS
    return start if known else video_id


def file_name(video_id: str) -> str:
    """The id without folders and without a known media extension."""
    return _FOLDERS.split(without_extension(video_id))[-1]


def has_folder(video_id: str) -> bool:
    """Whether an id has folders in front of its file name."""
    return _FOLDERS.search(video_id) is not None


def may_be_same(one: str, other: str) -> bool:
    """Whether two ids can name one video: equal but for a media extension, or for folders that one of them lacks."""
    if without_extension(one) == without_extension(other):
        return True
    return has_folder(one) != has_folder(other) and file_name(one) == file_name(other)


class VideoIds:
    """The ids of a file, to look up ids of another file in.

    Args:
        names: the ids; repeated ones count once.
        where: the file that has them, for messages.
    """

    def __init__(self, names: Iterable[str], where: object):
        self.where = where
        self._names = dict.fromkeys(names)
        self._folders = any(map(has_folder, self._names))
        self._bare: dict[str, list[str]] = {}  # without extension → ids
        self._files: dict[str, list[str]] = {}  # file name → ids
        for name in self._names:
            bare = without_extension(name)
            self._bare.setdefault(bare, []).append(name)
            if self._folders:
                self._files.setdefault(file_name(bare), []).append(name)
        self._claimed: dict[str, str] = {}  # id found by its file name → the id with a folder that it was found for

    def __len__(self) -> int:
        return len(self._names)

    def find(self, video_id: str) -> str | None:
        """The file's id of a video; None where the file has no such video.

        Raises:
            DataError: it could be two videos; the message names both.
        """
        if video_id in self._names:
            return video_id
        bare = without_extension(video_id)
        if bare in self._names:
            return bare
        found = self._bare.get(bare)
        if found is None and self._folders and not has_folder(bare):
            found = self._files.get(bare)
        if found is None and not self._folders and has_folder(bare):
            found = self._bare.get(file_name(bare))
            if found is not None and file_name(bare) in found:
                found = [file_name(bare)]
            if found is not None and len(found) == 1:
                other = self._claimed.setdefault(found[0], bare)
                if other != bare:
                    raise DataError(
                        f"{self.where}: {shown(found[0])} could be {shown(other)} or {shown(bare)}; "
                        "write the ids of both files alike"
                    )
        if found is None:
            return None
        if len(found) > 1:
            raise DataError(
                f"{self.where}: {shown(video_id)} could be {shown(found[0])} or {shown(found[1])}; "
                "write the ids of both files alike"
            )
        return found[0]


class HeldOut:
    """Videos that must not be trained on. In doubt an id is one of them: a video too few does less harm.

    Args:
        names: their ids.
    """

    def __init__(self, names: Iterable[str]):
        bare = {without_extension(name) for name in names}
        self._bare = bare
        self._files = {file_name(name) for name in bare if has_folder(name)}

    def __contains__(self, video_id: object) -> bool:
        bare = without_extension(str(video_id))
        if bare in self._bare:
            return True
        return file_name(bare) in self._bare if has_folder(bare) else bare in self._files
