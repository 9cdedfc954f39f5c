"""python _tools/extract_video-frame.py --path=msrvtt --sample=5

Reads the videos of the folder `_msrvtt` and writes `msrvtt.pkl`: a pickled dict, video id → list of base64 JPEGs, which
are evenly spread over the video. Frames are stored upright and with square pixels, as a player shows them. Damaged
frames are left out and counted. Videos that cannot be decoded are skipped and listed; the exit code is then 1.
"""

import argparse
import os
import pickle
import sys
from functools import partial
from pathlib import Path
from typing import Any

from _root import named, run, whole
from tqdm import tqdm

from lavender.data.frames import MAX_PIXELS
from lavender.data.video import extract_frames
from lavender.data.video_folders import looks_like_video, name_videos
from lavender.data.video_processes import in_processes
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file, looked_from, refuse_overwriting
from lavender.runtime.quoting import shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--path", required=True, type=named, help="name of the data set: videos are in the folder _NAME"
    )
    parser.add_argument("--sample", required=True, type=whole(1, 10_000), help="number of frames to take of each video")
    parser.add_argument(
        "--pattern", default="*.mp4", help="which files are videos, .MP4 like .mp4 (default: %(default)s)"
    )
    parser.add_argument(
        "--spread",
        choices=["number", "time"],
        default="number",
        help="spread the frames by number, as released, or by time (default: %(default)s)",
    )
    parser.add_argument(
        "--min_decoded",
        type=float,
        default=0.5,
        help="skip a video if a smaller fraction of its frames can be decoded (default: %(default)s)",
    )
    parser.add_argument(
        "--max_pixels", type=whole(1), default=MAX_PIXELS, help="skip videos with larger frames (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="the file to write (default: NAME.pkl)")
    parser.add_argument(
        "--workers", type=whole(1, 512), default=os.cpu_count(), help="number of processes (default: one a core)"
    )
    arguments = parser.parse_args()
    if not 0 <= arguments.min_decoded <= 1:
        parser.error("--min_decoded must be between 0 and 1")

    clips = find_clips(arguments.path.with_name(f"_{arguments.path.name}"), arguments.pattern)
    output = arguments.output or arguments.path.with_name(f"{arguments.path.name}.pkl")
    refuse_overwriting(output, *clips.values(), error=DataError)
    options = {name: getattr(arguments, name) for name in ("min_decoded", "spread", "max_pixels")}
    options["count"] = arguments.sample
    with atomic_file(output) as file:  # opened first, to fail early if the folder is not writable
        frames = extract_all(list(clips.values()), options, min(arguments.workers, len(clips)))
        if not frames:
            raise DataError(f"none of the {len(clips)} videos could be decoded: {output} is not written")
        pickle.dump({video_id: frames[clip] for video_id, clip in clips.items() if clip in frames}, file)

    skipped = len(clips) - len(frames)
    print(f"{output}: {len(frames)} videos, {skipped} skipped", file=sys.stderr)
    return 1 if skipped else 0


def find_clips(folder: Path, pattern: str) -> dict[str, Path]:
    """Video id (file name without extension) → file, sorted by name."""
    try:
        matches = sorted(folder.glob(any_case(pattern)))
    except (ValueError, NotImplementedError) as error:  # empty, or absolute
        raise DataError(f"--pattern {shown(pattern)}: {error}; write one such as *.mp4") from None
    clips = name_videos(matches, lambda clip: clip.stem)
    found = set(clips.values())
    visible = (file for file in folder.glob("*") if not file.name.startswith(".") and file not in found)
    others = [file for file in visible if looks_like_video(file) and not file.is_dir()]
    hint = f"{len(others)} other files look like videos, such as {min(others).name}; see --pattern" if others else ""
    if not clips:
        raise DataError(f"{folder}: no file {pattern} is there{looked_from(folder)}" + (f"; {hint}" if hint else ""))
    if hint:
        print(f"{folder}: {hint}", file=sys.stderr)
    return clips


def any_case(pattern: str) -> str:
    """Makes the extension of a pattern case-insensitive: `*.mp4` becomes `*.[mM][pP]4`."""
    stem, dot, extension = pattern.rpartition(".")
    if not dot or not extension.isalnum():
        return pattern
    return stem + dot + "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in extension)


def extract_all(clips: list[Path], options: dict[str, Any], workers: int) -> dict[Path, list[str]]:
    """Extracts the frames of all videos; lists those that cannot be decoded on stderr."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    frames = {}
    progress = tqdm(total=len(clips), unit="video", ascii=True)
    for clip, result in in_processes(partial(extract_frames, threads=threads, **options), clips, workers):
        progress.update()
        if isinstance(result, DataError):
            progress.write(f"skipped: {result}", file=sys.stderr)
        else:
            frames[clip] = result
    progress.close()
    return frames


if __name__ == "__main__":
    run(main)
