"""Random access to a few frames of a long video, where the result is identical to that of `sample_frames`.

It is identical if each packet is one shown picture, so that frame i is the picture with the i-th time, and if decoding
can restart at a picture before the frame: no picture from there on refers to an earlier one. Both conditions are read
from the packets, without decoding. Only H.264 and HEVC in MP4 and Matroska are supported: nearly all long clips.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from lavender.data.video import (
    Clip,
    as_shown,
    frames_at,
    open_video,
    prepare_decoder,
    sample_frames,
    square_width,
    survey_packets,
)
from lavender.runtime.errors import DataError

_MP4, _MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
_ORIENTATION = 47  # SEI message that rotates the picture; decoders keep it for later pictures


class _Codec(NamedTuple):
    """Types of the units (NAL) of a packet."""

    length_size: int  # byte of the extradata; its last two bits give the size of a unit's length field
    header: int  # bytes before a unit's content
    pictures: frozenset[int]  # slices of pictures
    starts: frozenset[int]  # slices of pictures at which decoding can restart
    parameters: frozenset[int]  # parameter sets, which may change within the stream
    messages: frozenset[int]


_CODECS = {
    "h264": _Codec(4, 1, frozenset(range(1, 6)), frozenset({5}), frozenset({7, 8}), frozenset({6})),
    "hevc": _Codec(21, 2, frozenset(range(32)), frozenset(range(16, 22)), frozenset({32, 33, 34}), frozenset({39, 40})),
}


def read_frames(path: Clip, count: int, numbers: Sequence[int], max_pixels: int) -> list[np.ndarray]:
    """Frames `numbers` of those that `sample_frames` returns, decoded by one thread, as many workers run at once.

    Other pictures are not decoded if the result is the same. Damage in them is then not detected.

    Raises:
        DataError: as for `sample_frames`.
    """
    import av

    try:
        found = _by_seeking(path, count, numbers, max_pixels)
    except (av.FFmpegError, OSError, DataError):  # decoding from the start reports the fault
        found = None
    if found is None:
        stored = sample_frames(path, count, threads=1, max_pixels=max_pixels)
        found = dict(enumerate(stored))
    return [found[number] for number in numbers]


def _by_seeking(path: Clip, count: int, numbers: Sequence[int], max_pixels: int) -> dict[int, np.ndarray] | None:
    packets = Packets()
    survey = survey_packets(path, max_pixels, watch=packets)
    if survey.missing or survey.stream != packets.stream or not packets.are_exact():
        return None
    wanted = frames_at(survey.times, count)
    decoded = _decode_at(path, sorted({wanted[number] for number in numbers}), packets, max_pixels)
    return None if decoded is None else {number: decoded[wanted[number]] for number in numbers}


class Packets:
    """Properties of the pictures in a video stream, read from its packets.

    Attributes:
        stream: index of the stream.
        times: time of each picture in packet order, in the stream's time base.
        starts: (time, seek position) of the pictures at which decoding can start, in packet order.
        whole: whether the packets were read to the end of the file.
    """

    def __init__(self) -> None:
        self.stream = -1
        self.times: list[int] = []
        self.starts: list[tuple[int, int]] = []
        self.whole = False
        self._codec: _Codec | None = None
        self._sound = True

    def begin(self, container: Any, stream: Any) -> None:
        """Called with the stream before its packets are read."""
        self.stream = stream.index
        self._in_mp4 = container.format.name == _MP4
        codec = _CODECS.get(stream.codec_context.name) if stream.codec_context else None
        extra = stream.codec_context.extradata if codec else None
        known = container.format.name in (_MP4, _MATROSKA) and codec is not None
        if known and codec and extra and len(extra) > codec.length_size and extra[0] == 1:
            self._codec, self._length_size = codec, (extra[codec.length_size] & 3) + 1
        self._parameters_change = False

    def add(self, packet: Any) -> None:
        """Called with each packet of the stream, in order."""
        if self._codec is None or not self._sound:
            return
        seek_to = packet.dts if self._in_mp4 else packet.pts  # the times in the container's index
        units = _units(bytes(packet), self._length_size)
        codes = self._codec
        kinds = [unit[0] & 31 if codes.header == 1 else unit[0] >> 1 & 63 for unit in units if unit]
        slices = [unit for unit, kind in zip(units, kinds, strict=False) if kind in codes.pictures]
        # The first bit of the content marks the first slice of a picture.
        first = [unit for unit in slices if len(unit) > codes.header and unit[codes.header] & 0x80]
        self._sound = (
            packet.pts is not None
            and not packet.is_discard
            and not packet.is_corrupt
            and not packet.has_sidedata("new_extradata")
            and len(kinds) == len(units)
            and len(first) == 1
            and slices[0] is first[0]
            and not any(
                _turns(unit[codes.header :]) for unit, kind in zip(units, kinds, strict=False) if kind in codes.messages
            )
        )
        if not self._sound:
            return
        self.times.append(packet.pts)
        parameters = codes.parameters & set(kinds)
        self._parameters_change |= bool(parameters) and len(self.times) > 1
        restarts = all(kind in codes.starts for kind in kinds if kind in codes.pictures)
        if packet.is_keyframe and restarts and seek_to is not None:
            self.starts.append((packet.pts, seek_to))

    def are_exact(self) -> bool:
        """Whether the picture at each time can be decoded from an earlier start with an identical result."""
        return (
            self._codec is not None
            and self._sound
            and self.whole
            and not self._parameters_change
            and bool(self.starts)
            and len(set(self.times)) == len(self.times)
            and self.starts[0][0] == self.times[0] == min(self.times)
        )


def _units(packet: bytes, length_size: int) -> list[bytes]:
    """Units of a packet, each stored after its length; [b""] if the lengths do not fill the packet."""
    units, at = [], 0
    while at + length_size <= len(packet):
        end = at + length_size + int.from_bytes(packet[at : at + length_size], "big")
        units.append(packet[at + length_size : end])
        at = end
    return units if at == len(packet) else [b""]


def _turns(message: bytes) -> bool:
    """Whether an SEI unit has a message about the orientation. A message is a type, a size and that many bytes."""
    at = 0
    while at + 2 <= len(message) and message[at:] != b"\x80":
        values = []
        for _ in ("type", "size"):
            value = 0
            while at < len(message) and message[at] == 255:
                value, at = value + 255, at + 1
            values.append(value + (message[at] if at < len(message) else 0))
            at += 1
        if values[0] == _ORIENTATION:
            return True
        at += values[1]
    return False


def _decode_at(path: Clip, wanted: list[int], packets: Packets, max_pixels: int) -> dict[int, np.ndarray] | None:
    """Decodes the frames of these sorted numbers; None if the frames do not match the packets."""
    shown = sorted(packets.times)
    starts = sorted(packets.starts)
    begins = [time for time, _ in starts]
    found: dict[int, np.ndarray] = {}
    with open_video(path, max_pixels) as container:
        stream = container.streams[packets.stream]
        prepare_decoder(stream, max_pixels, threads=1)
        for start, group in groupby(wanted, lambda number: bisect_right(begins, shown[number]) - 1):
            numbers = list(group)
            time, seek_to = starts[start]
            if time != packets.times[0] or found:
                container.seek(seek_to, stream=stream)
            number = bisect_right(shown, time) - 1
            for frame in _from(container, stream, time):
                if frame.pts is not None and frame.pts < time:
                    continue  # stored after the start, shown before it: may refer to undecoded pictures
                size = square_width(frame.width, stream.sample_aspect_ratio) * frame.height
                if frame.pts != shown[number] or frame.is_corrupt or size > max_pixels:
                    return None
                if number in numbers:
                    found[number] = as_shown(frame, stream.sample_aspect_ratio)
                number += 1
                if number > numbers[-1]:
                    break
            else:
                return None
    return found


def _from(container: Any, stream: Any, time: int) -> Iterator[Any]:
    """Decodes frames from the packet of a time on."""
    begun = False
    for packet in container.demux(stream):
        if not begun:
            begun = packet.pts == time
            if packet.pts is None or (packet.is_keyframe and packet.pts > time):
                return
        if begun:
            yield from packet.decode()
