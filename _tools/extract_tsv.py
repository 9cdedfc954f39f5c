"""python _tools/extract_tsv.py --path=msrvtt

Reads `msrvtt.pkl` (see extract_video-frame.py) and writes `msrvtt.tsv` (video id, frames) and `msrvtt.lineidx`.
"""

import argparse
from pathlib import Path

from _root import run
from tqdm import tqdm

from lavender.data.index import load_plain_pickle
from lavender.data.tsv import TSVWriter
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", required=True, type=Path, help="name of the data set: NAME.pkl is read")
    parser.add_argument("--output", type=Path, help="the file to write (default: NAME.tsv)")
    arguments = parser.parse_args()

    source = arguments.path.with_name(f"{arguments.path.name}.pkl")
    videos = load_plain_pickle(source)
    with TSVWriter(arguments.output or arguments.path.with_name(f"{arguments.path.name}.tsv")) as writer:
        for video_id, frames in tqdm(videos.items(), unit="video", ascii=True):
            if not (type(video_id) is str and type(frames) is list and frames and all(type(f) is str for f in frames)):
                raise DataError(f"{source}: entry {shown(video_id)} is not an id with a list of base64 strings")
            writer.write([video_id, *frames])


if __name__ == "__main__":
    run(main)
