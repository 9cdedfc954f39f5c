"""python _tools/extract_tsv.py --path=msrvtt

Reads `msrvtt.pkl` (see extract_video-frame.py) and writes `msrvtt.tsv` (video id, frames) and `msrvtt.lineidx`.

With --images it reads the folder `_msrvtt` instead. Each folder in it that holds images is a video and the images are
its frames, ordered by name (2.jpg before 10.jpg); an image directly in `_msrvtt` is a video of one frame. JPEG, PNG,
WebP and BMP files are read. JPEG files are stored unchanged; the others are converted to JPEG, upright, transparent
pixels blended with white. Images that cannot be read are skipped and listed; the exit code is then 1.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from _root import named, run, whole
from tqdm import tqdm

from lavender.data.frames import MAX_PIXELS
from lavender.data.image_folders import find_images, stored_image
from lavender.data.index import load_plain_pickle
from lavender.data.tsv import TSVWriter
from lavender.runtime.errors import DataError
from lavender.runtime.files import refuse_overwriting
from lavender.runtime.quoting import shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", required=True, type=named, help="name of the data set: NAME.pkl is read")
    parser.add_argument("--output", type=Path, help="the file to write (default: NAME.tsv)")
    parser.add_argument("--images", action="store_true", help="read the images in the folder _NAME, not NAME.pkl")
    parser.add_argument(
        "--quality",
        type=whole(1, 95),
        default=95,
        help="JPEG quality of converted images, 1 to 95 (default: %(default)s)",
    )
    parser.add_argument(
        "--max_pixels", type=whole(1), default=MAX_PIXELS, help="skip images with more pixels (default: %(default)s)"
    )
    arguments = parser.parse_args()

    output = arguments.output or arguments.path.with_name(f"{arguments.path.name}.tsv")
    if arguments.images:
        folder = arguments.path.with_name(f"_{arguments.path.name}")
        return pack_images(folder, output, arguments.quality, arguments.max_pixels)
    source = arguments.path.with_name(f"{arguments.path.name}.pkl")
    refuse_overwriting(output, source, error=DataError)
    videos = load_plain_pickle(source)
    with TSVWriter(output) as writer:
        for video_id, frames in tqdm(videos.items(), unit="video", ascii=True):
            if not (type(video_id) is str and type(frames) is list and frames and all(type(f) is str for f in frames)):
                raise DataError(f"{source}: entry {shown(video_id)} is not an id with a list of base64 strings")
            writer.write([video_id, *frames])
    return 0


def pack_images(folder: Path, output: Path, quality: int, max_pixels: int) -> int:
    """Writes the images of a folder to a frame TSV; returns the exit code."""
    videos, others = find_images(folder)
    if others:
        print(f"{folder}: {len(others)} other files look like images, such as {others[0].name}", file=sys.stderr)
    skipped = written = 0

    def readable(files: list[Path]) -> Iterator[str]:
        nonlocal skipped
        for file in files:
            try:
                yield stored_image(file, quality, max_pixels)
            except DataError as fault:
                skipped += 1
                progress.write(f"skipped: {fault}", file=sys.stderr)

    with TSVWriter(output) as writer:
        progress = tqdm(videos.items(), unit="video", ascii=True)
        for video_id, files in progress:
            if frames := list(readable(files)):
                writer.write([video_id, *frames])
                written += 1
        if not written:
            raise DataError(f"{folder}: none of the {skipped} images can be read: {output} is not written")
    print(f"{output}: {written} videos, {len(videos) - written} skipped; {skipped} images skipped", file=sys.stderr)
    return 1 if skipped else 0


if __name__ == "__main__":
    run(main)
