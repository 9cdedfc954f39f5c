"""Recall and time of a shortlist search, on the toy gallery of `make demo`.

    make demo                                       # its model captions and matches
    python benchmarks/shortlist.py _demo
    python benchmarks/shortlist.py _demo --path_ckpt _demo/_snapshot/_toy-all_20261128120000

The gallery is the test split of `txt_toy-retrieval.json`: one clip of each combination, none ever trained on, and its
caption as the text. A full search matches every text with every clip; a shortlist of K ranks the clips by the captions
that the model gave them, and matches the best K. Times are those of the processor, for searches in a ready index.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lavender.inference.index import GalleryIndex, build_index
from lavender.inference.predictor import Predictor
from lavender.inference.results import Found
from lavender.inference.shortlist import CaptionRanking

TURNS = 3  # repetitions of each search; the fastest counts
LENGTHS = (5, 10, 20, 30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="the folder of the demo")
    parser.add_argument("--path_ckpt", type=Path, help="a model that captions and matches (default: that of the demo)")
    parser.add_argument("--shortlist", type=int, nargs="+", default=LENGTHS, metavar="K")
    arguments = parser.parse_args()
    checkpoint = arguments.path_ckpt or _trained(arguments.demo)
    items = json.loads((arguments.demo / "txt_toy-retrieval.json").read_text())["test"]
    predictor = Predictor.from_pretrained(checkpoint, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder, "clips")
        clips.mkdir()
        for item in items:  # the demo has several clips per combination
            name = f"{item['video']}.mp4"
            (clips / name).symlink_to((arguments.demo / "_toy_test" / name).resolve())
        start = time.perf_counter()
        build_index(predictor, clips, Path(folder, "index"), captions=True)
        print(f"{checkpoint}: {len(items)} clips encoded and captioned in {time.perf_counter() - start:.0f} s")
        compare(predictor, GalleryIndex(Path(folder, "index")), items, arguments.shortlist)


def compare(predictor: Predictor, index: GalleryIndex, items: list[dict[str, str]], lengths: list[int]) -> None:
    """Prints recall and time of a full search, of the captions only, and of each shortlist length."""
    texts, own = [item["caption"] for item in items], [item["video"] for item in items]
    ranking = CaptionRanking([clip.caption or "" for clip in index.clips])
    names = [Path(clip.path).stem for clip in index.clips]
    by_captions = [[names[number] for number in ranking.best(text, len(names))] for text in texts]
    print(f"{'search':28}{'R@1':>8}{'R@5':>8}{'in the shortlist':>20}{'ms a text':>12}")
    print(f"{'captions alone, no matching':28}{_recall(by_captions, own, 1)}{_recall(by_captions, own, 5)}")
    for length in (0, *lengths):
        best = float("inf")
        for _ in range(TURNS):
            start = time.process_time()
            found = index.search(predictor, texts, k=5, shortlist=length)
            best = min(best, time.process_time() - start)
        ranks = [_names(one) for one in found]
        kept = _recall(by_captions, own, length or len(names))
        title = f"shortlist of {length}" if length else f"all {len(names)} clips"
        print(f"{title:28}{_recall(ranks, own, 1)}{_recall(ranks, own, 5)}{kept:>20}{1000 * best / len(texts):12.0f}")


def _trained(demo: Path) -> Path:
    """Newest multi-task run of the demo."""
    runs = sorted(demo.glob("_snapshot/_toy-all_*"))
    if not runs:
        sys.exit(f"{demo}/_snapshot has no run of `make demo`; make one, or name a checkpoint with --path_ckpt")
    return runs[-1]


def _names(found: Found) -> list[str]:
    return [Path(hit.video).stem for hit in found.hits]


def _recall(ranked: list[list[str]], own: list[str], k: int) -> str:
    """Fraction of texts whose own clip is among the first `k`, as a table cell."""
    share = sum(video in some[:k] for some, video in zip(ranked, own, strict=True)) / len(own)
    return f"{share:8.0%}"


if __name__ == "__main__":
    main()
