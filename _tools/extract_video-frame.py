"""python _tools/extract_video-frame.py --path=msrvtt --sample=5

Reads the videos of the folder `_msrvtt` and writes `msrvtt.pkl`: a pickled dict, video id → list of base64 JPEGs, which
are evenly spread over the video. A video that cannot be decoded is named and left out; the exit code is then 1.
"""

import argparse
import os
import pickle
import sys
from functools import partial
from pathlib import Path

from _root import run
from tqdm import tqdm

from lavender.data.video import extract_frames, in_processes
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", required=True, type=Path, help="name of the data set: videos are in the folder _NAME")
    parser.add_argument("--sample", required=True, type=int, help="number of frames to take of each video")
    parser.add_argument("--pattern", default="*.mp4", help="which files are videos (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="the file to write (default: NAME.pkl)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="number of processes (default: one a core)")
    arguments = parser.parse_args()
    if min(arguments.sample, arguments.workers) < 1:
        parser.error("--sample and --workers must be at least 1")

    clips = find_clips(arguments.path.with_name(f"_{arguments.path.name}"), arguments.pattern)
    output = arguments.output or arguments.path.with_name(f"{arguments.path.name}.pkl")
    frames = extract_all(list(clips.values()), arguments.sample, min(arguments.workers, len(clips)))
    if not frames:
        raise DataError(f"none of the {len(clips)} videos could be decoded: {output} is not written")
    with atomic_file(output) as file:
        pickle.dump({video_id: frames[clip] for video_id, clip in clips.items() if clip in frames}, file)

    skipped = len(clips) - len(frames)
    print(f"{output}: {len(frames)} videos, {skipped} skipped", file=sys.stderr)
    return 1 if skipped else 0


def find_clips(folder: Path, pattern: str) -> dict[str, Path]:
    """Video id, the file's name without its extension → file, in the order of the names."""
    clips: dict[str, Path] = {}
    for clip in sorted(folder.glob(pattern)):
        if clip.stem in clips:
            raise DataError(f"{clip} and {clips[clip.stem]} would both be video {clip.stem!r}: rename one of them")
        clips[clip.stem] = clip
    if not clips:
        raise DataError(f"{folder}: no file {pattern} is there")
    return clips


def extract_all(clips: list[Path], sample: int, workers: int) -> dict[Path, list[str]]:
    """Frames of every video that can be decoded; the others are named on stderr."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    frames = {}
    progress = tqdm(total=len(clips), unit="video", ascii=True)
    for clip, result in in_processes(partial(extract_frames, count=sample, threads=threads), clips, workers):
        progress.update()
        if isinstance(result, DataError):
            progress.write(f"skipped: {result}", file=sys.stderr)
        else:
            frames[clip] = result
    progress.close()
    return frames


if __name__ == "__main__":
    run(main)
