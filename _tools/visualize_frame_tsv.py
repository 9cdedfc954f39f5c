"""python _tools/visualize_frame_tsv.py --input_file img_msrvtt.tsv

Draws a contact sheet of a frame TSV, one row of frames a video with its id above them: `--rows 0 3 7` or
`--ids video7010 video7011` choose the videos, by default the first eight.
"""

import argparse
from pathlib import Path

import numpy as np
from _root import named, run, whole
from PIL import Image, ImageDraw, ImageOps

from lavender.data.frames import MAX_PIXELS, decode_image, evaluation_indices
from lavender.data.index import VideoIndex
from lavender.data.tsv import TSVReader, split_columns
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file, refuse_overwriting

TILE_WIDTH, TILE_HEIGHT, LABEL_HEIGHT = 224, 168, 16  # in pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input_file", required=True, type=named, help="the frame TSV")
    parser.add_argument("--output", type=Path, help="the PNG to write (default: X.png beside X.tsv)")
    parser.add_argument(
        "--columns", type=whole(1, 1000), default=8, help="maximum frames shown per video (default: %(default)s)"
    )
    parser.add_argument(
        "--max_pixels",
        type=whole(1),
        default=MAX_PIXELS,
        help="maximum pixels of a decoded image (default: %(default)s)",
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--rows", nargs="+", type=whole(0), help="row numbers, from 0")
    chosen.add_argument("--ids", nargs="+", help="video ids")
    arguments = parser.parse_args()

    reader = TSVReader(arguments.input_file)
    if arguments.ids:
        index = VideoIndex(arguments.input_file)
        rows = [reader.number_at(index.offset(video_id)) for video_id in arguments.ids]
    else:
        rows = arguments.rows or list(range(min(8, len(reader))))
    if not rows:
        raise DataError(f"{arguments.input_file}: the file is empty; a line is one video")
    output = arguments.output or arguments.input_file.with_suffix(".png")
    refuse_overwriting(output, arguments.input_file, reader.lineidx, error=DataError)
    with atomic_file(output) as file:
        contact_sheet(reader, rows, arguments.columns, arguments.max_pixels).save(file, format="PNG")
    print(f"{output}: {len(rows)} videos")


def contact_sheet(reader: TSVReader, rows: list[int], columns: int, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Draws the frames of `rows`, at most `columns` of each, evenly spread."""
    from skimage.util import montage

    strips = []
    for row in rows:
        video_id, _, fields = split_columns(reader.row(row), reader.where(row))
        indices = evaluation_indices(len(fields), min(columns, len(fields)))
        frames = [decode_image(fields[i], f"{reader.where(row)}, frame {i}", max_pixels) for i in indices]
        strips.append((video_id, frames))
    columns = max((len(frames) for _, frames in strips), default=1)
    tiles = np.zeros((len(rows), columns, LABEL_HEIGHT + TILE_HEIGHT, TILE_WIDTH, 3), np.uint8)
    for i, (_, frames) in enumerate(strips):
        for j, frame in enumerate(frames):
            tile = ImageOps.pad(Image.fromarray(frame), (TILE_WIDTH, TILE_HEIGHT))
            tiles[i, j, LABEL_HEIGHT:] = np.asarray(tile)
    sheet = Image.fromarray(montage(tiles.reshape(-1, *tiles.shape[2:]), grid_shape=tiles.shape[:2], channel_axis=-1))
    draw = ImageDraw.Draw(sheet)
    for i, (video_id, _) in enumerate(strips):
        draw.text((2, i * tiles.shape[2] + 2), video_id, fill="white")
    return sheet


if __name__ == "__main__":
    run(main)
