"""WebVid and Conceptual Captions 3M: one caption per video or image, for pretraining."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lavender.prepare.public.outputs import Output, Pretraining
from lavender.prepare.public.source import Row, Source

WEBVID = {"webvid2.5m": "2M", "webvid10m": "10M"}  # our name → theirs
DIGITS = 8  # digits of an image id


def read_webvid(source: Source, split: str) -> list[Output]:
    """Reads `webvid2.5m` from `results_2M_*.csv`, `webvid10m` from `results_10M_*.csv`, or both; ids are `videoid`."""
    outputs: list[Output] = []
    for name, size in WEBVID.items():
        train = source.look(f"results_{size}_train.csv")
        val = source.look(f"results_{size}_val.csv")
        if train is None:
            continue
        if val is None:
            source.note(f"{source.folder / f'results_{size}_val.csv'} is not there: {name} has no captions to validate")
        files = {"train": train} | ({"val": val} if val else {})
        outputs.append(
            Pretraining(
                name,
                "args_pretrain_webvid.json",
                [] if name == "webvid2.5m" else ["--dataset", name],
                {split: partial(_webvid, source, path) for split, path in files.items()},
            )
        )
    if not outputs:
        source.find("results_2M_train.csv", "results_10M_train.csv")
    return outputs


def read_cc3m(source: Source, split: str) -> list[Output]:
    """Reads `cc3m`: an image's id is its line number in eight digits; numbers of `val` follow those of `train`."""
    train = source.find("Train_GCC-training.tsv", "Train-GCC-training.tsv", "GCC-training.tsv")
    names = ("Validation_GCC-1.1.0-Validation.tsv", "Validation-GCC-1.1.0-Validation.tsv", "GCC-1.1.0-Validation.tsv")
    return [
        Pretraining(
            "cc3m",
            "args_pretrain.json",
            ["--dataset", "cc3m"],
            {"train": partial(_cc3m, source, train, None), "val": partial(_cc3m, source, source.find(*names), train)},
        )
    ]


def _webvid(source: Source, path: Path) -> Iterator[tuple[str, str]]:
    rows = source.csv(path, ["videoid", "name"], ["contentUrl", "duration", "page_dir", "page_idx"])
    return source.convert(rows, lambda row: (row.video("videoid"), row.text("name")))


def _cc3m(source: Source, path: Path, before: Path | None) -> Iterator[tuple[str, str]]:
    first = sum(1 for _ in _captioned(source, before)) if before else 0
    for number, row in enumerate(_captioned(source, path), start=first):
        for caption in source.convert([row], lambda row: row.text("caption")):
            yield f"{number:0{DIGITS}d}", caption


def _captioned(source: Source, path: Path) -> Iterator[Row]:
    """Rows of caption and URL; img2dataset's users add a header."""
    for number, row in enumerate(source.bare_tsv(path, ["caption", "url"])):
        if number or [str(value).strip() for value in row.values.values()] != ["caption", "url"]:
            yield row
