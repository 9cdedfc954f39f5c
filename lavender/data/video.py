"""Video files: extraction of a few evenly spread frames."""

import base64
import io
import logging
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from lavender.data.frames import MAX_PIXELS
from lavender.runtime.errors import DataError
from lavender.runtime.files import mistaken_bytes, mistaken_file, refuse_special

LOGGER = logging.getLogger("lavender.data")

# Containers that FFmpeg may read: none of them refers to other files or URLs, as playlists do (HLS, concat, DASH).
_FORMATS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,gif,ogg,wav,mp3,aac,flac,rm,mxf,nut,ivf,dv,swf,wtv,"
    "h261,h263,h264,hevc,vvc,av1,obu,m4v,mjpeg,vc1,yuv4mpegpipe,apng"
)


class ClipBytes:
    """A video in memory.

    Args:
        data: the bytes of its file; where: its name in messages.
    """

    def __init__(self, data: bytes, where: str):
        self.data, self.where = data, where

    def __str__(self) -> str:
        return self.where


Clip = str | Path | ClipBytes


def sample_frames(
    path: Clip,
    count: int,
    threads: int = 0,
    *,
    min_decoded: float = 0.5,
    spread: str = "number",
    max_pixels: int = MAX_PIXELS,
) -> list[np.ndarray]:
    """Returns `count` evenly spread frames of a video, without its ends: of N frames, those at ⌊N/(count+1)·(i+1)⌋.

    Only these frames are held in memory. N is the number of frames that decode; it is estimated from the number of
    packets, and after a wrong estimate the video is decoded again. Frames are upright with square pixels, as a player
    shows them. Damaged and missing frames are left out; their number is logged.

    Args:
        path: any video that FFmpeg reads, except playlists; the main video stream is used, never a cover picture.
        count: number of frames; a video with fewer frames gives some of them twice.
        threads: decoder threads, 0 for one per core.
        min_decoded: fraction of the frames that must decode.
        spread: "number" spreads over the frames, "time" over the duration (they differ at a variable frame rate).
            Missing or backward time steps are replaced by the median step.
        max_pixels: maximum pixels of a decoded frame.

    Returns:
        uint8 RGB arrays (H, W, 3)

    Raises:
        DataError: the file is missing, empty, or has no video, its frames are too large, or too few of them decode.
    """
    import av  # optional on a machine that only trains

    try:
        survey = survey_packets(path, max_pixels)
        wanted = _spread(survey.times, count, spread)
        decoded = _decode(path, wanted, threads, max_pixels, survey.stream)
        lost = decoded.failed or len(decoded.times) < len(survey.times)
        if lost and threads != 1:  # with several threads, frames next to a damaged one can be lost silently
            threads = 1
            decoded = _decode(path, wanted, threads, max_pixels, survey.stream)
        if decoded.times and _spread(decoded.times, count, spread) != wanted:
            wanted = _spread(decoded.times, count, spread)
            decoded = _decode(path, wanted, threads, max_pixels, survey.stream)
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{path} cannot be decoded: {_reason(path, error)}") from None
    total = len(decoded.times)
    if not total:
        raise DataError(f"{path}: no frame of it decodes; they are damaged, or larger than --max_pixels {max_pixels}")
    if decoded.failed or decoded.flawed or survey.missing:
        whole = total + decoded.failed + survey.missing
        fault = f"{decoded.failed} frames are damaged, about {survey.missing} are missing at the end"
        if decoded.flawed:
            fault += f", {decoded.flawed} decode with faults"
        if total < min_decoded * whole:
            raise DataError(f"{path}: only {total} of about {whole} frames decode ({fault}); see --min_decoded")
        LOGGER.warning("%s: %d of about %d frames are used (%s)", path, total, whole, fault)
    return [decoded.frames[i] for i in wanted]


def _reason(path: Clip, error: Exception) -> str:
    """Reason why a file cannot be decoded: what the file is instead, else FFmpeg's message with an explanation."""
    import av

    reason = getattr(error, "strerror", None) or str(error)
    if fault := mistaken_bytes(path.data) if isinstance(path, ClipBytes) else mistaken_file(path):
        return fault
    if isinstance(error, av.ArgumentError):  # FFmpeg's error for a format outside _FORMATS
        return f"{reason}, or a playlist or other unsupported format"
    if isinstance(error, av.InvalidDataError):
        return f"{reason}; it is no video, or it is cut (the index of an MP4 may be at its end)"
    return reason


def encode_jpeg(frame: np.ndarray) -> str:
    """Encodes a uint8 RGB frame (H, W, 3) as base64 JPEG with PIL's default quality (75), like the original tool."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, format="JPEG")
    return base64.b64encode(file.getvalue()).decode()


def extract_frames(path: Clip, count: int, threads: int = 0, **options: Any) -> list[str]:
    """Like `sample_frames`, with each frame encoded by `encode_jpeg`."""
    return [encode_jpeg(frame) for frame in sample_frames(path, count, threads, **options)]


class _Survey(NamedTuple):
    times: list[float | None]  # times of the packets, sorted; None: unknown
    missing: int  # estimated number of frames that the file announces but lacks
    stream: int | None = None  # index of the video stream; None: FFmpeg's choice


class _Decoded(NamedTuple):
    frames: dict[int, np.ndarray]  # the wanted frames by number
    times: list[float | None]  # times of all frames
    failed: int  # packets that do not decode
    flawed: int  # frames marked as damaged by the decoder


def frames_at(times: list[float | None], count: int) -> list[int]:
    """Indices of `count` frames, evenly spread by number."""
    return _spread(times, count, "number")


def _spread(times: list[float | None], count: int, spread: str) -> list[int]:
    rising = _rising(times) if spread == "time" else []
    if len(rising) < 2:
        step = len(times) / (count + 1)
        return [int(step * (i + 1)) for i in range(count)]
    length = rising[-1] * len(rising) / (len(rising) - 1)  # includes the duration of the last frame
    instants = [length * (i + 1) / (count + 1) for i in range(count)]
    return [max(0, bisect_right(rising, instant + 1e-6) - 1) for instant in instants]


def _rising(times: list[float | None]) -> list[float]:
    """Times from 0 on; an unknown or backward step becomes the median step. Empty if no step is known."""
    steps = [None if a is None or b is None or b <= a else b - a for a, b in pairwise(times)]
    known = [step for step in steps if step is not None]
    if not known:
        return []
    usual = median(known)
    return list(accumulate((usual if step is None else step for step in steps), initial=0.0))


def survey_packets(path: Clip, max_pixels: int, chosen: int | None = None, watch: Any = None) -> _Survey:
    """Reads packet times of the video stream and estimates the number of missing packets, without decoding.

    Args:
        chosen: index of the stream; None: the stream that a player shows.
        watch: receives the stream and its packets, see `video_seek.Packets`.
    """
    times: list[float] = []
    unknown = 0
    packets: Counter[int] = Counter()  # packets by stream index
    with open_video(path, max_pixels) as container:
        stream = _video_stream(container, path, chosen)
        if watch is not None:
            watch.begin(container, stream)
        begin, end, end_of_any, has_lengths = math.inf, -math.inf, -math.inf, False
        try:
            for packet in container.demux():
                if not packet.size:
                    continue
                stamp = packet.pts if packet.pts is not None else packet.dts
                seconds = None if stamp is None else float(stamp * packet.time_base)
                if seconds is not None:
                    last = seconds + float((packet.duration or 0) * packet.time_base)
                    end_of_any = max(end_of_any, last)
                packets[packet.stream.index] += 1
                if packet.stream.index == stream.index:
                    if watch is not None:
                        watch.add(packet)
                    if seconds is None:
                        unknown += 1
                        continue
                    begin, end = min(begin, seconds), max(end, last)
                    has_lengths |= bool(packet.duration)
                    if not packet.is_discard:  # a discarded packet is outside the edit list: not shown
                        times.append(seconds)
        except (EOFError, _av_error()):
            pass  # the packets read so far are used; the duration shows what is missing
        else:
            if watch is not None:
                watch.whole = True
        fullest = max((s.index for s in _moving(container)), key=packets.__getitem__)
        if packets[stream.index] < 2 <= packets[fullest]:  # an unmarked still picture or an empty stream
            return survey_packets(path, max_pixels, fullest)
        _check(stream, path, max_pixels)
        if not has_lengths and len(times) > 1:  # add the duration of the last frame
            end += (end - begin) / (len(times) - 1)
        if stream.duration:
            announced, held = float(stream.duration * stream.time_base), end - begin
        else:
            start = 0 if container.format.name == "flv" else container.start_time or 0  # FLV counts from 0
            announced, held = (container.duration or 0) / 1e6, max(end, end_of_any) - start / 1e6
        missing = 0
        if 0 < held < 0.95 * announced:  # by duration, as an edit list can drop packets
            found = len(times) + unknown
            missing = stream.frames - found
            missing = missing if missing > 0 else round(found * (announced / held - 1))
        return _Survey([*sorted(times), *[None] * unknown], missing, stream.index)


def _decode(path: Clip, wanted: list[int], threads: int, max_pixels: int, chosen: int | None = None) -> _Decoded:
    """Decodes to the end of the file and counts the packets that do not decode."""
    frames: dict[int, np.ndarray] = {}
    times: list[float | None] = []
    failed = flawed = 0
    with open_video(path, max_pixels) as container:
        stream = _video_stream(container, path, chosen)
        prepare_decoder(stream, max_pixels, threads)
        packets = container.demux(stream)  # the last one is empty and flushes the decoder
        while True:
            try:
                packet = next(packets, None)
            except _av_error():
                break  # the file ends here
            if packet is None:
                break
            try:
                pictures = packet.decode()
            except _av_error():
                failed += 1
                continue
            for frame in pictures:
                if square_width(frame.width, stream.sample_aspect_ratio) * frame.height > max_pixels:
                    failed += 1
                    continue
                if len(times) in wanted:
                    frames[len(times)] = as_shown(frame, stream.sample_aspect_ratio)
                times.append(frame.time)
                flawed += frame.is_corrupt
    return _Decoded(frames, times, failed, flawed)


def prepare_decoder(stream: Any, max_pixels: int, threads: int) -> None:
    """Configures the decoder of a stream before its first packet."""
    stream.codec_context.options = _limit(max_pixels)  # a packet can claim a larger frame than the container
    stream.thread_type = "AUTO"  # frame and slice threads
    stream.codec_context.thread_count = threads


def as_shown(frame: Any, aspect: Any) -> np.ndarray:
    """Converts a frame to RGB with square pixels, oriented by its display matrix."""
    width = round(frame.width * float(aspect)) if aspect and 0.1 < aspect < 10 else frame.width
    picture = (
        frame.to_ndarray(format="rgb24", width=width) if width != frame.width else frame.to_ndarray(format="rgb24")
    )
    return _oriented(picture, frame.side_data.get("DISPLAYMATRIX"))


def _oriented(picture: np.ndarray, matrix: Any) -> np.ndarray:
    """Mirrors and rotates a picture by a display matrix: int32 a, b, u, c, d, …; (p, q) → (ap+cq, bp+dq)."""
    if matrix is None:
        return picture
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).astype(np.int64).tolist()
    x, y = a, d
    if abs(b) + abs(c) > abs(a) + abs(d):  # closer to a rotation by 90°
        picture, x, y = picture.swapaxes(0, 1), c, b
    return np.ascontiguousarray(picture[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1])


def _av_error() -> type[Exception]:
    import av

    return av.FFmpegError


@contextmanager
def open_video(path: Clip, max_pixels: int) -> Iterator[Any]:
    """Opens a container through a Python file object: FFmpeg itself opens no file and no URL."""
    import av

    # The limit also applies to frames that are decoded to find the streams' parameters.
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "none", **_limit(max_pixels)}
    # Titles in old encodings must not make a clip unreadable.
    with _file(path) as file, av.open(file, metadata_errors="ignore", options=options) as container:
        yield container


def _file(path: Clip) -> BinaryIO:
    if isinstance(path, ClipBytes):
        return io.BytesIO(path.data)
    refuse_special(path)
    return open(path, "rb")


def _limit(max_pixels: int) -> dict[str, str]:
    """FFmpeg's pixel limit, checked before a frame is allocated. Decoders round sizes up to whole blocks."""
    return {"max_pixels": str(min(2 * max_pixels + 2**16, 2**31 - 1))}


def _video_stream(container: Any, path: Clip, chosen: int | None) -> Any:
    """Stream `chosen`, or the stream that a player shows: FFmpeg's best stream that is not a cover picture."""
    if chosen is not None:
        return container.streams[chosen]
    best, moving = container.streams.best("video"), _moving(container)
    if best is None:
        raise DataError(f"{path} has no video stream")
    if not moving:
        raise DataError(f"{path} has no video stream, only a cover picture")
    return next((stream for stream in moving if stream.index == best.index), moving[0])


def _moving(container: Any) -> list[Any]:
    """Video streams without cover pictures and thumbnails."""
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails
    return [stream for stream in container.streams.video if not stream.disposition & still]


def _check(stream: Any, path: Clip, max_pixels: int) -> None:
    codec = stream.codec_context
    if codec is None:
        raise DataError(f"{path}: FFmpeg has no decoder for its video stream")
    if square_width(codec.width, stream.sample_aspect_ratio) * codec.height > max_pixels:
        raise DataError(
            f"{path}: frames of {codec.width}×{codec.height} are too large (more pixels than --max_pixels {max_pixels})"
        )


def square_width(width: int, aspect: Any) -> int:
    """Width of a frame with square pixels; for narrow pixels the larger stored width, since that is decoded."""
    return max(width, round(width * float(aspect))) if aspect and 0.1 < aspect < 10 else width
