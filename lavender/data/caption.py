"""Video captioning: clips with one of their captions for training, each clip once for evaluation, and predictions."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lavender.config.schema import Config
from lavender.data.caption_folder import CaptionFolder
from lavender.data.samples import ClipDataset, draw_share, split_share
from lavender.data.sources.base import StoredVideo
from lavender.data.sources.choose import frame_source
from lavender.data.tsv import TSVReader, TSVWriter
from lavender.runtime.errors import DataError
from lavender.runtime.jsons import load_json
from lavender.runtime.quoting import one_line
from lavender.text.masking import mask_words
from lavender.text.tokens import TextTokenizer


def open_captions(config: Config, split: str, tolerant: bool) -> CaptionFolder:
    """Opens one split of the captioning folder that a configuration names.

    Args:
        tolerant: skip annotations without a video; see `CaptionFolder`, also for the errors raised.
    """
    folder = Path(config.data_dir)
    path, within = folder / getattr(config, f"{split}_yaml"), None if config.outside_paths else folder
    return CaptionFolder(path, tolerant, within, split != "train", partial(frame_source, config))


class CaptionDataset(ClipDataset):
    """One split of a captioning folder.

    Args:
        folder: the split; training: samples are the captions of the line list, of which `data_ratio` draws a part, with
            tokens masked, also `[CLS]` and `[SEP]`. Otherwise they are the videos, in the order of the annotation.

    A batch: `img`, `present`, `video` (list of B), and in training `ids`, `mask`, `labels` (B, size_txt); in evaluation
    with `do_sample` `draws` (B, max_gen_length), uniform random numbers for sampling.
    """

    def __init__(self, config: Config, tokenizer: TextTokenizer, folder: CaptionFolder, training: bool):
        super().__init__(config, training, config.size_frame)
        self.tokenizer, self.folder = tokenizer, folder
        if training:
            self.samples = folder.training_samples()  # (N, 2): row, caption number
            if config.data_ratio != 1:
                (wanted,) = split_share([len(self.samples)], config.data_ratio)
                self.samples = self.samples[draw_share(len(self.samples), wanted, config.seed)]
        else:
            rows = folder.evaluation_rows()
            self.samples = np.stack([rows, np.zeros_like(rows)], axis=1)

    def __len__(self) -> int:
        return len(self.samples)

    def video_ids(self) -> list[str]:
        return [self.folder.videos[row] for row in self.samples[:, 0].tolist()]

    def references(self) -> list[list[str]]:
        """Reference captions of each sample."""
        return self.folder.references(self.samples[:, 0].tolist())

    def video(self, index: int) -> StoredVideo:
        return self.folder.video(int(self.samples[index, 0]))

    def text(self, index: int, rng: np.random.Generator, guard: Any) -> dict[str, Any]:
        row, number = self.samples[index].tolist()
        sample: dict[str, Any] = {"video": self.folder.videos[row]}
        if self.training:
            tokenizer = self.tokenizer
            ids, mask = tokenizer.encode(self.folder.caption(row, number), self.config.size_txt)
            keep = (tokenizer.pad_id, tokenizer.mask_id)
            hidden, labels = mask_words(ids, rng.random(ids.shape), self.config.p_mask, keep, tokenizer.mask_id)
            sample |= {"ids": hidden, "mask": mask, "labels": labels}
        elif self.config.do_sample:
            sample["draws"] = rng.random(self.config.max_gen_length)
        return sample


Caption = dict[str, Any]  # "caption" and its confidence "conf"


def write_predictions(path: Path, captions: list[tuple[str, list[Caption]]]) -> None:
    """Writes predictions in the released format: video id, tab, `[{"caption": …, "conf": …}]`; with a line index."""
    with TSVWriter(path) as writer:
        for video, found in captions:
            writer.write([video, json.dumps(found)])


def read_predictions(path: Path) -> list[tuple[str, list[Caption]]]:
    """Reads a file of `write_predictions`. DataError if it is truncated or another kind of file."""
    reader = TSVReader(path)
    captions = []
    for number in range(len(reader)):
        fields, where = reader.row(number), reader.where(number)
        try:
            found = [{"caption": str(one["caption"]), "conf": float(one["conf"])} for one in load_json(fields[1])]
            if not found:
                raise ValueError("no captions")
        except (ValueError, LookupError, TypeError, OverflowError) as error:
            raise DataError(f"{where}: this is no prediction file ({one_line(str(error))})") from error
        captions.append((fields[0], found))
    return captions
