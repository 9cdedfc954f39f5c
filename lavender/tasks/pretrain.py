"""Pretraining: masked language modelling and video-text matching (paper, section 3.3)."""

import logging
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lavender.config.schema import Config
from lavender.data import corpora
from lavender.data.annotations import CaptionTable
from lavender.data.batch import PretrainBatch
from lavender.data.caption_cache import no_captions, open_captions
from lavender.data.pretrain import PretrainDataset
from lavender.data.pretrain_frames import CorpusFrames, Piece
from lavender.data.samples import ClipDataset, split_share
from lavender.models.lavender import Lavender
from lavender.models.pairs import own_and_negatives, select_rows
from lavender.runtime.errors import DataError
from lavender.runtime.logging import LOGGER
from lavender.tasks.base import Clock, Metrics, Record, Task, TrainingPart, labelled_loss, select_labelled
from lavender.tasks.readouts import MatchAtMask, MatchOnCls
from lavender.tasks.splits import is_validation, of_dataset
from lavender.text.masking import IGNORED


class PretrainingTask(Task[PretrainBatch]):
    """MLM on masked captions and video-text matching, with any readout for matching."""

    config_type = "pretrain"
    append_mask: bool  # whether each text ends with a `[MASK]`
    matching: MatchAtMask | MatchOnCls
    best_metric: tuple[str, Callable] = ("loss", min)

    def __init__(self, config: Config, clock: Clock | None = None):
        super().__init__(config, clock)
        self.folders = corpora.folders_of(config)
        self._captions: dict[str, dict[str, CaptionTable]] = {}
        self._sources: dict[str, CorpusFrames] = {}
        self._misnamed: dict[tuple[str, str], str] = {}  # corpus and split → its name in the file, for messages

    # --- data ---------------------------------------------------------------------------------------------------------

    def training_parts(self) -> list[TrainingPart]:
        parts = []
        for name in self.folders:
            captions = self._table(name, "train")  # missing files are reported now, not when the part begins
            sizes = self.config.size_part
            pieces = self._frames(name).parts(sizes[name] if isinstance(sizes, dict) else sizes, captions)
            shares = split_share([piece.length for piece in pieces], self.config.data_ratio)
            for number, (piece, samples) in enumerate(zip(pieces, shares, strict=True)):
                if samples:
                    opener = partial(self._dataset, name, "train", piece, samples)
                    parts.append(TrainingPart(name, number, samples, opener))
        return parts

    def evaluation_sets(self, part: TrainingPart | None = None) -> dict[str, ClipDataset]:
        sets: dict[str, ClipDataset] = {}
        for name in [part.dataset] if part else self.folders:
            captions = self._tables(name).get("val")
            if captions is None:
                hint = self._misnamed.get((name, "val"), "")
                LOGGER.log(
                    *(logging.WARNING if hint else logging.INFO, "%s: no validation captions%s, so no validation"),
                    *(name, hint),
                )
                continue
            piece = self._frames(name).validation(captions)
            key = of_dataset(name if len(self.folders) > 1 else "", "val")
            sets[key] = self._dataset(name, "val", piece, piece.length)
        return sets

    def _frames(self, name: str) -> CorpusFrames:
        if name not in self._sources:
            self._sources[name] = CorpusFrames(self.config, name, self.folders[name])
        return self._sources[name]

    def _tables(self, name: str) -> dict[str, CaptionTable]:
        """Split → captions, for the splits that have any; the file is read once. Shards need no such file."""
        if name not in self._captions:
            tables: dict[str, CaptionTable] = {}
            if path := self._text_file(name):
                captions = open_captions(path)
                tables = captions.tables
                self._misnamed |= {(name, split): hint for split, hint in captions.misnamed.items()}
            self._captions[name] = tables
        return self._captions[name]

    def _table(self, name: str, split: str) -> CaptionTable | None:
        """Captions of a split; None if they are stored beside the frames."""
        found = self._tables(name).get(split)
        if found is None and (path := self._text_file(name)):
            raise no_captions(path, split, self._misnamed[name, split])
        return found

    def _text_file(self, name: str) -> Path | None:
        """`txt_<dataset>.json`; None if it is missing and captions are stored beside the frames."""
        try:
            return corpora.text_file(self.folders[name], name)
        except DataError:
            named = isinstance(self.config.shards, dict) or len(self.folders) == 1  # of this data set only
            if self.config.shards and named and self._frames(name).has_captions:
                return None
            raise

    def _dataset(self, name: str, split: str, piece: Piece, samples: int) -> PretrainDataset:
        return PretrainDataset(
            self.config,
            self.tokenizer,
            piece.open(),
            self._table(name, split),
            training=split == "train",
            size_frame=corpora.size_frame_of(name, self.config.size_frame),
            append_mask=self.append_mask,
            rows=piece.rows,
            samples=samples,
        )

    # --- model --------------------------------------------------------------------------------------------------------

    def outputs(self, model: Lavender, batch: PretrainBatch) -> dict[str, Tensor]:
        """Logits at the K masked positions (K, V) with labels (K,), and of the matching pairs, own text first."""
        video = model.encode_video(batch["img"], batch["present"])
        text = model.encode_text(batch["ids"], batch["mask"])
        outputs: dict[str, Tensor] = {}
        if "mtm" in self.config.pretrain_tasks:
            states = model.fuse(video, text)[:, -text.states.shape[1] :]
            states, outputs["labels"] = select_labelled(states, batch["labels"], batch.get("label_positions"))
            outputs["words"] = model.fc_mtm(states)
        if "vtm" in self.config.pretrain_tasks:
            videos, texts = own_and_negatives(batch["negatives"])
            pairs, pair_texts = select_rows(video, videos), select_rows(text, texts)
            states = model.fuse(pairs, pair_texts, self.prefix(model))[:, -text.states.shape[1] :]
            matches = self.matching.logits(model, states)
            outputs["matches"] = matches.view(len(batch["negatives"]), -1, matches.shape[-1])  # (B, O, V or 1)
        return outputs

    def loss(self, model: Lavender, batch: PretrainBatch) -> dict[str, Tensor]:
        outputs = self.outputs(model, batch)
        losses: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        if "words" in outputs:
            losses["mtm"] = labelled_loss(outputs["words"], outputs["labels"])
            counts["count_unlabelled_batches"] = losses["mtm"].new_full((), float(outputs["labels"].numel() == 0))
        if "matches" in outputs:
            losses["vtm"] = self.matching.losses(outputs["matches"]).mean()
        return {"loss": torch.stack(list(losses.values())).sum(), **losses, **counts}

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def predict(self, model: Lavender, batch: PretrainBatch) -> list[Record]:
        outputs = self.outputs(model, batch)
        records: list[Record] = [
            {"index": index, "video": video, "caption": caption}
            for index, video, caption in zip(batch["index"].tolist(), batch["video"], batch["caption"], strict=True)
        ]
        if "words" in outputs:
            self._add_words(records, outputs, batch["labels"])
        if "matches" in outputs:
            rows = zip(
                records,
                self.matching.scores(outputs["matches"]).tolist(),
                self.matching.losses(outputs["matches"]).tolist(),
                self.matching.ranking(outputs["matches"]).argmax(1).tolist(),
                strict=True,
            )
            for record, scores, losses, best in rows:
                record["matching"] = {"scores": scores, "losses": losses, "right": best == 0}
        return records

    def _add_words(self, records: list[Record], outputs: dict[str, Tensor], labels: Tensor) -> None:
        logits, answers = outputs["words"].float(), outputs["labels"]
        losses = F.cross_entropy(logits, answers, reduction="none").tolist()
        best = logits.softmax(-1).max(-1)
        for record in records:
            record["words"] = []
        samples = (labels != IGNORED).nonzero()[:, 0].tolist()
        rows = zip(samples, answers.tolist(), best.indices.tolist(), best.values.tolist(), losses, strict=True)
        for sample, answer, guess, probability, loss in rows:
            word = {"word": self.tokenizer.word(answer), "prediction": self.tokenizer.word(guess)}
            records[sample]["words"].append({**word, "probability": probability, "loss": loss})

    def metrics(self, records: list[Record], split: str) -> Metrics:
        """`acc_mtm` over masked tokens, `acc_vtm` over videos, the mean losses, and their sum `loss`."""
        metrics: Metrics = {}
        words = [word for record in records for word in record.get("words", ())]
        if words:
            metrics["acc_mtm"] = sum(word["word"] == word["prediction"] for word in words) / len(words)
            metrics["loss_mtm"] = sum(word["loss"] for word in words) / len(words)
        matches = [record["matching"] for record in records if "matching" in record]
        if matches:
            losses = [loss for match in matches for loss in match["losses"]]
            metrics["acc_vtm"] = sum(match["right"] for match in matches) / len(matches)
            metrics["loss_vtm"] = sum(losses) / len(losses)
        metrics["loss"] = metrics.get("loss_mtm", 0.0) + metrics.get("loss_vtm", 0.0)
        return metrics

    def unused_parameters(self) -> tuple[str, ...]:
        without_matching = () if "vtm" in self.config.pretrain_tasks else ("emb_task", "fc.")
        return (*super().unused_parameters(), *without_matching)

    # --- names --------------------------------------------------------------------------------------------------------

    def run_name(self) -> str:
        return "-".join([self.config.task or "pretrain", *self.folders])

    def checkpoint_name(self, epoch: int, part: TrainingPart | None) -> str:
        where = f"{part.dataset}_{part.number}" if part else "init_0"
        return f"ckpt_violet_pretrain_{where}_{epoch}.pt"

    def curves(self, epochs: list[dict[str, Any]]) -> dict[str, Any]:
        curves: dict[str, Any] = {name: defaultdict(list) for name in self.folders}
        for entry in epochs:
            curve = curves[entry["dataset"]]
            for name in self.config.pretrain_tasks:
                curve[f"ls_{name}"].append(entry["train"][name])
                for metrics in (value for split, value in entry.items() if is_validation(split)):
                    curve[f"ac_{name}"].append(metrics.get(f"acc_{name}"))
        return curves


class PretrainTask(PretrainingTask):
    """MLM variant: matching is "true" or "false" at a `[MASK]` after the text."""

    heads = MatchAtMask.heads
    append_mask = True

    def __init__(self, config: Config, clock: Clock | None = None):
        super().__init__(config, clock)
        self.matching = MatchAtMask(config, self.tokenizer)


class PretrainTaskSpecificTask(PretrainingTask):
    """Baseline: an MLP on `[CLS]` scores each pair, with a softmax over the texts of a video."""

    heads = MatchOnCls.heads
    append_mask = False

    def __init__(self, config: Config, clock: Clock | None = None):
        super().__init__(config, clock)
        self.matching = MatchOnCls(config)

    def unused_parameters(self) -> tuple[str, ...]:
        without_words = () if "mtm" in self.config.pretrain_tasks else ("fc_mtm.",)
        return (*super().unused_parameters(), *without_words)
