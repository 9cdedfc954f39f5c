"""Pretraining corpora: their file names, and which of them hold single images."""

import logging
from dataclasses import dataclass
from pathlib import Path

from lavender.config.schema import Config
from lavender.runtime.errors import DataError
from lavender.runtime.files import looked_from

LOGGER = logging.getLogger("lavender.data")


@dataclass(frozen=True)
class Corpus:
    """File names of one corpus: `{name}` is the corpus, `{part}` counts from 0, `{number}` from 1."""

    train: str = "{name}_train_{part}.tsv"
    validation_of: str | None = None  # the corpus whose validation file is borrowed
    other_name: str | None = None  # alternative name in file names
    images: bool = False  # one frame per sample


CORPORA = {
    "webvid2.5m": Corpus(other_name="webvid2.5"),  # its README and its code disagree
    "webvid10m": Corpus("_webvid10m-tsv_frame4/webvid10m-{number:03d}.img.tsv", validation_of="webvid2.5m"),
    "webvid10m_filtered": Corpus("image-1{part:04d}.tsv", validation_of="webvid2.5m"),
    "cc3m": Corpus(images=True),
    "cc12m": Corpus("train.{part}.62.img.tsv", validation_of="cc3m", images=True),
    "coco": Corpus(images=True),
    "vg": Corpus(images=True),
}
_ANY = Corpus()  # corpora that the table does not know


def folders_of(config: Config) -> dict[str, str]:
    """Pretraining data sets of a configuration → their folders."""
    names = [config.dataset] if isinstance(config.dataset, str) else config.dataset
    return names if isinstance(names, dict) else dict.fromkeys(names, config.data_dir)


def train_part(data_dir: str | Path, dataset: str, part: int) -> Path:
    """Frame TSV of training part `part`, counted from 0.

    The original README counts from 1, its code from 0. If files of the usual pattern have a part 1 but no part 0,
    part p is file p + 1.

    Raises:
        DataError: the file is missing.
    """
    pattern = _corpus(dataset).train
    first, second = (_candidates(data_dir, dataset, pattern, number) for number in (0, 1))
    if pattern == Corpus.train and not _first(first) and _first(second):
        LOGGER.info("%s: the parts of %s are numbered from 1", data_dir, dataset)
        part += 1
    what = f"a training part of {dataset} (size_part says how many there are)"
    return _existing(_candidates(data_dir, dataset, pattern, part), what)


def validation(data_dir: str | Path, dataset: str) -> Path:
    """Frame TSV of the validation split, or that of another corpus (see the table). DataError if it is missing."""
    owner = _corpus(dataset).validation_of or dataset
    return _existing(_candidates(data_dir, owner, "{name}_val.tsv"), f"the validation frames of {dataset}")


def text_file(data_dir: str | Path, dataset: str) -> Path:
    """Captions of a corpus, `txt_<dataset>.json`. DataError if the file is missing."""
    return _existing(_candidates(data_dir, dataset, "txt_{name}.json"), f"the captions of {dataset}")


def is_image_dataset(name: str) -> bool:
    """Whether a corpus holds single images."""
    return _corpus(name).images


def size_frame_of(name: str, size_frame: int) -> int:
    """Frames per sample of a corpus: 1 for images, else the configured `size_frame`."""
    return 1 if is_image_dataset(name) else size_frame


def _corpus(dataset: str) -> Corpus:
    return CORPORA.get(dataset, _ANY)


def _candidates(data_dir: str | Path, dataset: str, pattern: str, part: int = 0) -> list[Path]:
    names = [dataset, _corpus(dataset).other_name]
    return [Path(data_dir) / pattern.format(name=name, part=part, number=part + 1) for name in names if name]


def _first(candidates: list[Path]) -> Path | None:
    return next((path for path in candidates if path.is_file()), None)


def _existing(candidates: list[Path], what: str) -> Path:
    path = _first(candidates)
    if path is None:
        raise DataError(
            f"{' or '.join(map(str, dict.fromkeys(candidates)))} is missing: {what}{looked_from(*candidates)}"
        )
    return path
