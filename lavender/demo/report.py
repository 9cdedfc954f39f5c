"""What the demo shows of its runs: tables for the terminal, and contact sheets of clips with what was read in them."""

import json
from pathlib import Path

import cv2
import numpy as np

from lavender.data.frames import decode_image
from lavender.data.index import VideoIndex
from lavender.data.tsv import TSVReader, split_columns
from lavender.demo.toy import COLOURS, MOTIONS, OPTIONS, SHAPES

VISUAL_WORDS = {*COLOURS, *SHAPES, *MOTIONS}
CLIPS = 24  # of a contact sheet
LINE_HEIGHT = 22
BLACK, GREEN, RED = (0, 0, 0), (20, 130, 40), (200, 40, 30)
Predictions = list[dict]
Line = tuple[str, tuple[int, int, int]]


def read_predictions(run: Path, split: str) -> Predictions:
    """The records of a run's evaluation."""
    return [json.loads(line) for line in (run / "predictions" / f"{split}.jsonl").read_text().splitlines()]


def read_references(folder: Path, split: str) -> dict[str, list[str]]:
    """Video id → the captions of a split of the toy captioning folder."""
    rows = TSVReader(folder / "CAP" / f"{split}.caption.tsv")
    fields = map(rows.row, range(len(rows)))
    return {video: [entry["caption"] for entry in json.loads(captions)] for video, captions in fields}


def read_results(run: Path) -> dict:
    """The figures of a run."""
    return json.loads((run / "results.json").read_text())


def scores(records: Predictions) -> dict[str, float]:
    """Accuracy over masked words by kind, and of matching."""
    words = [word for record in records for word in record["words"]]
    kinds = {"colours": set(COLOURS), "shapes": set(SHAPES), "motions": set(MOTIONS), "visual words": VISUAL_WORDS}
    result = {}
    for kind, members in kinds.items():
        right = [word["prediction"] == word["word"] for word in words if word["word"] in members]
        result[kind] = sum(right) / max(len(right), 1)
    result["1-of-4 matching"] = sum(record["matching"]["right"] for record in records) / len(records)
    return result


def print_pretraining(control: dict[str, float], seen: dict[str, float], run: Path) -> None:
    """Chance, blank clips and real clips side by side, and the losses from epoch to epoch."""
    chance = {
        "colours": 1 / len(COLOURS),
        "shapes": 1 / len(SHAPES),
        "motions": 1 / len(MOTIONS),
        "visual words": 3 / (len(COLOURS) + len(SHAPES) + len(MOTIONS)),
        "1-of-4 matching": 1 / 4,
    }
    print(f"\n{'right answers':18}{'chance':>10}{'blank clips':>14}{'real clips':>14}")
    for name, value in seen.items():
        print(f"{name:18}{chance[name]:10.0%}{control[name]:14.0%}{value:14.0%}")
    epochs = read_results(run)["epochs"]
    for name, label in (("mtm", "masked words"), ("vtm", "matching")):
        curve = " → ".join(f"{epoch['train'][name]:.2f}" for epoch in epochs)
        print(f"training loss, {label}: {curve}")


def print_fine_tuning(runs: dict[str, tuple[Path, Path]], metric: dict[str, str]) -> None:
    """Chance, zero-shot and fine-tuned accuracy on the test clips.

    Args:
        runs: task → its MLM run and its task-specific run.
        metric: task → the name of its accuracy.
    """
    chance = {"questions": (1 / len(COLOURS) + 1 / len(MOTIONS)) / 2, "multiple choice": 1 / OPTIONS}
    titles = ("chance", "MLM: zero-shot", "fine-tuned", "MLP: fresh", "fine-tuned")
    print(f"\n{'right answers':18}" + "".join(f"{title:>16}" for title in titles))
    for task, both in runs.items():
        figures = [chance[task]]
        for results in map(read_results, both):
            figures += [results[when]["test"][metric[task]] for when in ("zero_shot", "best")]
        print(f"{task:18}" + "".join(f"{figure:16.0%}" for figure in figures))


def print_retrieval(searches: dict[str, tuple[Path, Path]]) -> None:
    """Recall of the gallery before and after fine-tuning, beside chance.

    Args:
        searches: model → its evaluations before and after.
    """
    figures = {
        (model, when): read_results(run)["zero_shot"]["test"]
        for model, runs in searches.items()
        for when, run in zip(("before", "fine-tuned"), runs, strict=True)
    }
    videos = next(iter(figures.values()))["videos"]
    print(f"\n{'text → video':18}{'chance':>16}" + "".join(f"{': '.join(column):>16}" for column in figures))
    for k in (1, 5):
        values = [k / videos, *(figure[f"r@{k}"] for figure in figures.values())]
        print(f"{f'R@{k}':18}" + "".join(f"{value:16.0%}" for value in values))
    ranks = [(videos + 1) / 2, *(figure["median_rank"] for figure in figures.values())]
    print(f"{'median rank':18}" + "".join(f"{rank:16.1f}" for rank in ranks))


def print_captions(run: Path, control: Path, references: dict[str, list[str]]) -> None:
    """Captions of test clips beside those of blank clips: CIDEr, the colour named, one of the references word for word.

    Args:
        run, control: the runs' folders; references: video id → what its caption may be.
    """
    figures = [caption_scores(read_predictions(folder, "test"), references) for folder in (run, control)]
    cider = [
        (results.get("best") or results["zero_shot"])["test"].get("CIDEr")
        for results in map(read_results, (run, control))
    ]
    print(f"\n{'captions':18}{'chance':>10}{'blank clips':>14}{'real clips':>14}")
    chances = {"right colour": 1 / len(COLOURS), "word for word": 1 / (len(COLOURS) * len(SHAPES) * len(MOTIONS))}
    for name, chance in chances.items():
        print(f"{name:18}{chance:10.0%}{figures[1][name]:14.0%}{figures[0][name]:14.0%}")
    if None not in cider:
        print(f"{'CIDEr':18}{'':10}{cider[1]:14.2f}{cider[0]:14.2f}")


def caption_scores(records: Predictions, references: dict[str, list[str]]) -> dict[str, float]:
    """Shares of captions that name the right colour, and that are one of the references word for word."""
    colours = [_colours(record["caption"]) == _colours(references[record["video"]][0]) for record in records]
    exact = [record["caption"] in references[record["video"]] for record in records]
    return {"right colour": sum(colours) / len(records), "word for word": sum(exact) / len(records)}


def _colours(text: str) -> set[str]:
    return set(text.split()) & set(COLOURS)


def caption_sheet(tsv: Path, records: Predictions, references: dict[str, list[str]], output: Path) -> None:
    """Test clips, each with its reference and the caption that was found."""
    tiles = {}
    for record in records[:CLIPS]:
        wanted = references[record["video"]]
        found = f"found: {record['caption']}"
        tiles[record["video"]] = [(wanted[0], BLACK), (found, GREEN if record["caption"] in wanted else RED)]
    contact_sheet(tsv, tiles, output)


def pretraining_sheet(tsv: Path, records: Predictions, output: Path) -> None:
    """Held-out clips, each with its caption and what was read behind the masks."""
    shown = [record for record in records if any(word["word"] in VISUAL_WORDS for word in record["words"])]
    tiles = {}
    for record in shown[:CLIPS]:
        right = all(word["word"] == word["prediction"] for word in record["words"])
        read = ", ".join(f"[{word['word']}] read as {word['prediction']}" for word in record["words"])
        tiles[record["video"]] = [(record["caption"], BLACK), (read, GREEN if right else RED)]
    contact_sheet(tsv, tiles, output)


def answer_sheet(tsv: Path, records: Predictions, output: Path) -> None:
    """Test clips with the questions about them, the answers and how sure the model was."""
    tiles: dict[str, list[Line]] = {}
    for record in records:
        best = record["top"][0]
        answer = f"{record['question']}  {best['answer']} ({best['probability']:.0%})"
        tiles.setdefault(record["video"], []).append((answer, GREEN if record["right"] else RED))
    contact_sheet(tsv, dict(list(tiles.items())[:CLIPS]), output)


def retrieval_sheet(tsv: Path, records: Predictions, output: Path) -> None:
    """The clip that was found first for each caption, and where the right one came."""
    tiles: dict[str, list[Line]] = {}
    for record in records:
        right = record["rank"] == 1
        verdict = "found first" if right else f"found first; the right clip has rank {record['rank']:g}"
        tiles.setdefault(record["prediction"], [(record["caption"], BLACK), (verdict, GREEN if right else RED)])
    contact_sheet(tsv, dict(list(tiles.items())[:CLIPS]), output)


def contact_sheet(tsv: Path, tiles: dict[str, list[Line]], output: Path) -> None:
    """A PNG, three tiles a row: the frames of each video side by side, and as many lines of text under each."""
    reader, index = TSVReader(tsv), VideoIndex(tsv)
    pictures = []
    for video, lines in tiles.items():
        where = f"{tsv}, {video}"
        _, _, images = split_columns(reader.row_at(index.offset(video)), where)
        frames = np.hstack([decode_image(image, where) for image in images])
        height = frames.shape[0]
        tile = np.full((height + 8 + LINE_HEIGHT * len(lines), frames.shape[1], 3), 255, dtype=np.uint8)
        tile[:height] = frames
        for number, (text, colour) in enumerate(lines):
            place = (6, height + 20 + LINE_HEIGHT * number)
            cv2.putText(tile, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
        pictures.append(tile)
    from skimage.util import montage

    shape = (-(-len(pictures) // 3), 3)
    sheet = montage(np.stack(pictures), grid_shape=shape, channel_axis=-1, padding_width=8, fill=(255,) * 3)
    cv2.imwrite(str(output), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
