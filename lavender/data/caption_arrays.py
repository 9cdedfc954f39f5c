"""Captions by video id as a few shared arrays, and their construction from millions of captions."""

import hashlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lavender.data.ids import plain, without_extension

_HASH = np.dtype("<u8")


def name_hash(name: bytes) -> bytes:
    """8-byte hash of a name, equal in every process; different names may collide."""
    return hashlib.blake2b(name, digest_size=_HASH.itemsize).digest()


@dataclass(frozen=True)
class CaptionArrays:
    """Captions of a split: M names of N videos, N ≤ M.

    Attributes:
        names: uint8, all names in UTF-8, concatenated: first the ids in order, then the other names of the videos.
        name_ends: int64 (M,), end of each name.
        texts: uint8, all captions, concatenated; text_ends: int64 (T,), end of each caption.
        text_of: uint32 (M,), number of the caption of each name.
        hashes: uint64 (H,), `name_hash` of the names, sorted; rows: uint32 (H,), row of the name of each hash.
        rivals: int64 (R, 3): an ambiguous name and two ids that it could mean; sorted by name.
        folders: whether any id has folders.
    """

    names: np.ndarray
    name_ends: np.ndarray
    texts: np.ndarray
    text_ends: np.ndarray
    text_of: np.ndarray
    hashes: np.ndarray
    rows: np.ndarray
    rivals: np.ndarray
    folders: bool

    def find(self, name: bytes) -> int | None:
        """Row of a name; None if it is unknown."""
        own = int.from_bytes(name_hash(name), "little")
        return self._find(name, own, int(self.hashes.searchsorted(np.uint64(own))))

    def find_all(self, names: list[bytes]) -> list[int | None]:
        """Rows of many names at once, as `find`."""
        wanted = np.frombuffer(b"".join(map(name_hash, names)), _HASH)
        if not len(self.hashes):
            return [None] * len(names)
        places = np.minimum(self.hashes.searchsorted(wanted), len(self.hashes) - 1)
        rows = self.rows[places].astype(np.int64)
        starts = np.where(rows > 0, self.name_ends[rows - 1], 0).tolist()
        ends = self.name_ends[rows].tolist()
        joined = self.names.data
        found: list[int | None] = []
        for number, (name, is_hit) in enumerate(zip(names, (self.hashes[places] == wanted).tolist(), strict=True)):
            if not is_hit:
                found.append(None)
            elif joined[starts[number] : ends[number]] == name:
                found.append(int(rows[number]))
            else:  # a hash collision
                found.append(self.find(name))
        return found

    def name(self, row: int) -> bytes:
        """Name of a row."""
        return _slice(self.names, self.name_ends, row)

    def text(self, row: int) -> bytes:
        """Caption of a row."""
        return _slice(self.texts, self.text_ends, int(self.text_of[row]))

    def rivals_of(self, row: int) -> tuple[str, str] | None:
        """Two ids that the name of a row could mean; None if the name is unique."""
        if not len(self.rivals):
            return None
        place = int(self.rivals[:, 0].searchsorted(row))
        if place == len(self.rivals) or self.rivals[place, 0] != row:
            return None
        _, one, other = self.rivals[place].tolist()
        return self.name(one).decode(errors="surrogatepass"), self.name(other).decode(errors="surrogatepass")

    def _find(self, name: bytes, own: int, place: int) -> int | None:
        """Row of a name with hash `own`; `place` is the position of the first such hash, if there is one."""
        while place < len(self.hashes) and int(self.hashes[place]) == own:
            row = int(self.rows[place])
            if self.name(row) == name:
                return row
            place += 1
        return None


@dataclass(frozen=True)
class InMemory:
    """Captions in memory; they are copied when sent to another process."""

    arrays: CaptionArrays


class _Names:
    """Concatenated texts in order of arrival, with their hashes."""

    def __init__(self) -> None:
        self.joined, self.ends, self._digests = bytearray(), array("q"), bytearray()

    def __len__(self) -> int:
        return len(self.ends)

    def add(self, name: bytes, digest: bytes = b"") -> None:
        self.joined += name
        self.ends.append(len(self.joined))
        self._digests += digest or name_hash(name)

    def __getitem__(self, row: int) -> bytes:
        return bytes(self.joined[self.ends[row - 1] if row else 0 : self.ends[row]])

    def hashes(self) -> np.ndarray:
        return np.frombuffer(self._digests, _HASH)


class CaptionBuilder:
    """Builds `CaptionArrays` from single captions; a later caption of an id replaces the earlier one.

    A video can also be found without its media extension, by its plain id, and by its file name. A real id takes
    precedence over these names, and an earlier kind of name over a later one.

    Args:
        write: receives the captions as bytes, so that they need not stay in memory.

    Attributes:
        text_size: bytes of all captions so far.
        repeated: ids that occurred more than once, in order; set by `arrays`.
    """

    def __init__(self, write: Callable[[bytes], object]):
        self._write, self.text_size, self._text_ends = write, 0, array("q")
        self._names, self._folders = _Names(), False
        self._shorter = [(_Names(), array("q")) for _ in range(3)]  # other names by kind, with the row of their id
        self.repeated: list[str] = []

    def __len__(self) -> int:
        """Number of captions added."""
        return len(self._text_ends)

    def add(self, name: str, text: str) -> None:
        """Adds a video id and its caption."""
        content = text.encode(errors="surrogatepass")  # lone surrogates are reported on reading
        self._write(content)
        self.text_size += len(content)
        self._text_ends.append(self.text_size)
        if "." in name or "/" in name or "\\" in name or not name.isascii():
            self._add_shorter(name, len(self._names))
        self._names.add(name.encode(errors="surrogatepass"))

    def _add_shorter(self, name: str, row: int) -> None:
        bare, common = without_extension(name), plain(name)
        self._folders |= "/" in common
        seen = {name}
        for short, (names, rows) in zip((bare, common, common.rpartition("/")[2]), self._shorter, strict=True):
            if short not in seen:  # else the name exists already
                seen.add(short)
                names.add(short.encode(errors="surrogatepass"))
                rows.append(row)

    def arrays(self, texts: np.ndarray) -> CaptionArrays:
        """Builds the arrays of all added captions.

        Args:
            texts: all captions that `write` received, uint8.
        """
        text_of = np.arange(len(self._names), dtype=np.uint32)
        is_first = np.ones(len(self._names), bool)
        hashes = self._names.hashes()
        rows = np.argsort(hashes, kind="stable")
        repeated = []
        for group in _alike(hashes[rows], rows, self._names):
            text_of[group[0]] = group[-1]
            is_first[group[1:]] = False
            repeated.append(group[0])
        self.repeated = [self._names[row].decode(errors="surrogatepass") for row in sorted(repeated)]
        rows = rows[is_first[rows]].astype(np.uint32)
        hashes = hashes[rows]
        rivals: list[tuple[int, int, int]] = []
        for names, owners in self._shorter:
            if not len(names):
                continue
            first = len(self._names)
            owned = self._append_unknown(names, np.frombuffer(owners, np.int64), is_first, (hashes, rows), rivals)
            text_of = np.concatenate([text_of, text_of[owned]])
            rows = np.concatenate([rows, np.arange(first, len(self._names), dtype=np.uint32)])
            order = np.argsort(self._names.hashes()[rows], kind="stable")
            rows = rows[order]
            hashes = self._names.hashes()[rows]
        return CaptionArrays(
            np.frombuffer(self._names.joined, np.uint8),
            np.frombuffer(self._names.ends, np.int64) if len(self._names) else np.zeros(0, np.int64),
            texts,
            np.frombuffer(self._text_ends, np.int64) if self._text_ends else np.zeros(0, np.int64),
            *(text_of, hashes, rows, np.array(rivals, np.int64).reshape(-1, 3), self._folders),
        )

    def _append_unknown(
        self,
        names: _Names,
        owners: np.ndarray,
        is_first: np.ndarray,
        known: tuple[np.ndarray, np.ndarray],
        rivals: list[tuple[int, int, int]],
    ) -> np.ndarray:
        """Adds those names of one kind that are still unknown.

        Args:
            owners: row of the id of each name; known: hashes and rows so far; rivals: receives the ambiguous names.

        Returns:
            row of the id of each added name, int64.
        """
        hashes = names.hashes()
        places = np.flatnonzero(is_first[owners])
        places = places[np.argsort(hashes[places], kind="stable")]
        is_new = np.ones(len(names), bool)
        last = {}  # first of several equal names → the last
        for group in _alike(hashes[places], places, names):
            last[group[0]] = group[-1]
            is_new[group[1:]] = False
        at = known[0].searchsorted(hashes[places])
        inside = np.flatnonzero(at < len(known[0]))
        for number in inside[known[0][at[inside]] == hashes[places[inside]]].tolist():
            if self._is_known(names[int(places[number])], int(at[number]), known):
                is_new[places[number]] = False
        new = np.sort(places[is_new[places]])
        for place in map(int, new):
            if place in last:
                rivals.append((len(self._names), int(owners[place]), int(owners[last[place]])))
            self._names.add(names[place], hashes[place].tobytes())
        return owners[new]

    def _is_known(self, name: bytes, start: int, known: tuple[np.ndarray, np.ndarray]) -> bool:
        """Whether a name is known; `start` is the position of its hash in `known`."""
        hashes, rows = known
        own = hashes[start]
        while start < len(hashes) and hashes[start] == own:
            if self._names[int(rows[start])] == name:
                return True
            start += 1
        return False


def _alike(hashes: np.ndarray, rows: np.ndarray, names: _Names) -> Iterator[list[int]]:
    """Yields groups of rows with equal names, in order; names that occur once are left out.

    Args:
        hashes: sorted hashes of the names of `rows`; rows with the same hash are sorted, too.
    """
    equal = np.flatnonzero(hashes[1:] == hashes[:-1])
    if not len(equal):
        return
    breaks = np.flatnonzero(np.diff(equal) > 1) + 1
    for run in np.split(equal, breaks):
        groups: dict[bytes, list[int]] = {}
        for row in rows[run[0] : run[-1] + 2].tolist():
            groups.setdefault(names[row], []).append(row)
        yield from (group for group in groups.values() if len(group) > 1)


def _slice(joined: np.ndarray, ends: np.ndarray, row: int) -> bytes:
    return joined[ends[row - 1] if row else 0 : ends[row]].tobytes()
