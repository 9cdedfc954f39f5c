"""Rules for which ids name the same video; all lookups use them.

An id is looked up unchanged; then without or with a known media extension; then in its `plain` form; then, if only one
side has folders, by its file name. A dot within the id (`film_00.10.5`) is never cut. An ambiguous lookup is an error.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cached_property

from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown

# fmt: off
VIDEO_EXTENSIONS = frozenset((
    "3g2", "3gp", "asf", "avi", "divx", "dv", "f4v", "flv", "gif", "h264", "hevc", "m1v", "m2ts", "m2v", "m4v", "mkv",
    "mov", "mp4", "mpe", "mpeg", "mpg", "mts", "mxf", "ogg", "ogm", "ogv", "qt", "rm", "rmvb", "ts", "vob", "webm",
    "wmv", "y4m",
))
IMAGE_EXTENSIONS = frozenset((
    "avif", "bmp", "heic", "heif", "jfif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp",
))
# fmt: on
MEDIA_EXTENSIONS = VIDEO_EXTENSIONS | IMAGE_EXTENSIONS
_FOLDERS = re.compile(r"[/\\]+")
_INVISIBLE = re.compile("[\\s\u200b-\u200f\u2060\ufeff]+")
_HERE = re.compile(r"^(\./)+")


def without_extension(video_id: str) -> str:
    """Removes a known media extension of any case: `a/clip.1.MP4` → `a/clip.1`; `clip.1` is unchanged."""
    start, dot, extension = video_id.rpartition(".")
    known = dot and start and start[-1] not in "/\\" and extension.lower() in MEDIA_EXTENSIONS
    return start if known else video_id


def plain(video_id: str) -> str:
    """Normal form of an id, shared by all its spellings: `./a\\b.mp4.MP4` → `a/b`.

    Unicode is composed (file names of macOS are decomposed), folders use slashes, all media extensions are removed.
    """
    name = video_id if video_id.isascii() else unicodedata.normalize("NFC", video_id)
    if "/" in name or "\\" in name:
        name = _HERE.sub("", _FOLDERS.sub("/", name))
    while (shorter := without_extension(name)) != name:
        name = shorter
    return name


def file_name(video_id: str) -> str:
    """File name of an id: its plain form without folders."""
    return plain(video_id).rpartition("/")[2]


def has_folder(video_id: str) -> bool:
    """Whether a plain id has folders before its file name."""
    return "/" in plain(video_id)


def may_be_same(one: str, other: str) -> bool:
    """Whether two ids can name one video: equal up to spelling, or up to folders that one of them lacks."""
    if plain(one) == plain(other):
        return True
    return has_folder(one) != has_folder(other) and file_name(one) == file_name(other)


def unfit(video_id: str) -> str:
    """Sentence part that says why a text cannot be an id in a TSV; "" if it can."""
    if not video_id.strip():
        return "is blank"
    if any(letter in video_id for letter in "\t\n\r"):
        return "holds a tab or a line end"
    if "\0" in video_id:  # at the start of a file it indicates UTF-16
        return "holds a NUL character"
    if not video_id.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in video_id):
        return "is not UTF-8 text"
    return ""


class VideoIds:
    """Ids of a file, for lookups of ids from another file.

    Args:
        names: the ids; repeated ones count once.
        where: their file, for messages.
    """

    def __init__(self, names: Iterable[str], where: object):
        self.where = where
        self._names = dict.fromkeys(names)
        self._bare = _grouped(without_extension, self._names)
        self._claimed: dict[str, str] = {}  # id found by its file name → the id with folders that was looked up

    def __len__(self) -> int:
        return len(self._names)

    @cached_property
    def _plain(self) -> dict[str, list[str]]:
        return _grouped(plain, self._names)

    @cached_property
    def _files(self) -> dict[str, list[str]]:
        """File name → ids with a folder."""
        return _grouped(file_name, filter(has_folder, self._names))

    @cached_property
    def _near(self) -> dict[str, str]:
        return {_rough(name): name for name in reversed(self._names)}

    def find(self, video_id: str) -> str | None:
        """Id in the file for a video; None if the file lacks the video.

        Raises:
            DataError: the id is ambiguous; the message names both videos.
        """
        if video_id in self._names:
            return video_id
        bare = without_extension(video_id)
        if bare in self._names:
            return bare
        key = plain(video_id)
        found = self._bare.get(bare, [])
        if bare != video_id:  # it may have another extension
            found = [*found, *self._bare.get(video_id, [])]
        found = found or self._plain.get(key, [])
        if not found and not has_folder(key):
            found = self._files.get(key, [])
        if not found and has_folder(key) and not self._files:
            name = file_name(key)
            found = [name] if name in self._names else self._plain.get(name, [])
            if len(found) == 1:
                other = self._claimed.setdefault(found[0], key)
                if other != key:
                    raise DataError(
                        f"{self.where}: {shown(found[0])} could be {shown(other)} or {shown(key)}; "
                        "use the same ids in both files"
                    )
        if len(found) > 1:
            raise DataError(
                f"{self.where}: {shown(video_id)} could be {shown(found[0])} or {shown(found[1])}; "
                "use the same ids in both files"
            )
        return found[0] if found else None

    def hint(self, video_id: str) -> str:
        """Sentence part with the id that was probably meant by an unknown one; "" if none is similar.

        It is only a hint: `Clip1` and `clip1`, `7` and `007` can be two videos.
        """
        name = self._near.get(_rough(video_id))
        return f"; is {shown(name)} meant?" if name is not None else ""


class HeldOut:
    """Videos that must not be trained on. Ambiguous ids count as held out: one video too few does less harm.

    Args:
        names: ids of the videos.
    """

    def __init__(self, names: Iterable[str]):
        self._plain = set(map(plain, names))
        self._files = {file_name(name) for name in self._plain if has_folder(name)}

    def __contains__(self, video_id: object) -> bool:
        name = plain(str(video_id))
        if name in self._plain:
            return True
        return file_name(name) in self._plain if has_folder(name) else name in self._files


def _grouped(shorten: Callable[[str], str], names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(shorten(name), []).append(name)
    return groups


def _rough(video_id: str) -> str:
    """Key that ignores typical errors in ids: case, blanks, leading zeros, a final `.0`, folders, the end of a link."""
    name = unicodedata.normalize("NFKC", video_id).casefold()
    name = _INVISIBLE.sub("", re.sub(r"[?#].*", "", name)) or name
    name = re.sub(r"(?<![\d.])0+(?=\d)", "", file_name(name.strip("/\\")))
    return re.sub(r"^(\d+)\.0+$", r"\1", name)
