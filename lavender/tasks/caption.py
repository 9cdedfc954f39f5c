"""Video captioning: the tokens of a caption are predicted at `[MASK]` one after another (paper, section 3.2)."""

import json
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavender.config.comparisons import Counts
from lavender.config.options import counting
from lavender.config.schema import Config
from lavender.data.batch import CaptionBatch
from lavender.data.caption import CaptionDataset, open_captions, read_predictions, write_predictions
from lavender.data.samples import ClipDataset
from lavender.metrics.caption import caption_metrics, missing_for_metrics
from lavender.models.generation import Decoding, SpecialTokens, generate
from lavender.models.lavender import Heads, Lavender
from lavender.runtime.errors import ConfigError, DataError
from lavender.runtime.files import atomic_file
from lavender.runtime.jsons import load_json
from lavender.runtime.logging import LOGGER
from lavender.tasks.base import Clock, Metrics, Record, Task, TrainingPart, select_labelled, training_metrics
from lavender.text.prompts import PROMPTS


class CaptionTask(Task[CaptionBatch]):
    """Captioning: training masks tokens under seq2seq attention; evaluation generates captions and scores them."""

    config_type = "captioning"
    dataset_types = ("captioning",)
    heads = Heads(mlm=True, task_tokens=True)
    token = "cap"
    best_metric: tuple[str, Callable] = ("CIDEr", max)

    def __init__(self, config: Config, clock: Clock | None = None):
        super().__init__(config, clock)
        tokenizer = self.tokenizer
        self.tokens = SpecialTokens(tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, tokenizer.mask_id)
        self.decoding = Decoding(
            max_length=config.max_gen_length,
            num_beams=config.num_beams,
            num_keep_best=config.num_keep_best,
            length_penalty=config.length_penalty,
            do_sample=config.do_sample,
            temperature=config.gen_temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            repetition_penalty=config.repetition_penalty,
        )

    def prompt(self) -> str:
        return PROMPTS["cap"]

    # --- data ---------------------------------------------------------------------------------------------------------

    @cached_property
    def datasets(self) -> dict[str, CaptionDataset]:
        """Split → data set, for the splits with a YAML (without `train` if nothing is trained)."""
        datasets = {}
        for split in ("train", "val", "test")[0 if self.config.size_epoch else 1 :]:
            if getattr(self.config, f"{split}_yaml"):
                folder = open_captions(self.config, split, tolerant=self.config.on_bad_sample == "zero")
                datasets[split] = CaptionDataset(self.config, self.tokenizer, folder, training=split == "train")
            elif split == "train":
                raise ConfigError("train_yaml is empty: name the YAML to train on; --size_epoch 0 evaluates alone")
            else:
                LOGGER.info("%s_yaml is empty, so no evaluation on %s", split, split)
        if not datasets:
            raise ConfigError("val_yaml and test_yaml are empty, so there is nothing to evaluate")
        for split, dataset in datasets.items():
            LOGGER.info("%s: %d %s", dataset.folder.path, len(dataset), "captions" if split == "train" else "videos")
        if notice := missing_for_metrics():  # reported before hours of training
            LOGGER.info("%s", notice)
        return datasets

    @cached_property
    def references(self) -> dict[str, list[list[str]]]:
        """Split → reference captions of each video."""
        return {split: dataset.references() for split, dataset in self.datasets.items() if split != "train"}

    def training_parts(self) -> list[TrainingPart]:
        opener: Callable[[], ClipDataset] = partial(self.datasets.__getitem__, "train")
        return [TrainingPart(self.config.task, 0, len(self.datasets["train"]), opener)]

    def evaluation_sets(self, part: TrainingPart | None = None) -> dict[str, ClipDataset]:
        return {split: self.datasets[split] for split in self.references}

    # --- model --------------------------------------------------------------------------------------------------------

    def outputs(self, model: Lavender, batch: CaptionBatch) -> tuple[Tensor, Tensor]:
        """Logits at the K masked positions (K, V) with their labels (K,)."""
        video = model.encode_video(batch["img"], batch["present"])
        text = model.encode_text(batch["ids"], batch["mask"])
        states = model.fuse(video, text, self.prefix(model), attention="seq2seq")[:, -batch["ids"].shape[1] :]
        states, labels = select_labelled(states, batch["labels"], batch.get("label_positions"))
        return model.fc_mtm(states), labels

    def loss(self, model: Lavender, batch: CaptionBatch) -> dict[str, Tensor]:
        logits, labels = self.outputs(model, batch)
        config = self.config
        dropped = config.drop_worst_ratio if self.clock.step >= config.drop_worst_after else 0.0
        loss = caption_loss(logits, labels, config.label_smoothing, dropped)
        return {"loss": loss, **training_metrics(logits, labels)}

    def predict(self, model: Lavender, batch: CaptionBatch) -> list[Record]:
        video = model.encode_video(batch["img"], batch["present"])
        captions = generate(model, video, self.prefix(model), self.tokens, self.decoding, batch.get("draws"))
        rows = zip(
            *(batch["index"].tolist(), batch["video"], captions.ids.tolist(), captions.scores.exp().tolist()),
            strict=True,
        )
        return [
            _record(
                index,
                name,
                [{"caption": self.tokenizer.text(ids), "conf": conf} for ids, conf in zip(kept, confs, strict=True)],
            )
            for index, name, kept, confs in rows
        ]

    def metrics(self, records: list[Record], split: str) -> Metrics:
        """Metrics of `lavender.metrics.caption` over videos with references; `no_reference` counts the others."""
        pairs = zip(records, self.references[split], strict=True)
        captions = [(record["caption"], texts) for record, texts in pairs if texts]
        missing = len(records) - len(captions)
        if not captions:
            LOGGER.warning("%s: no video has a reference caption, so there are no metrics; captions are written", split)
            return {}
        if missing:
            LOGGER.warning(
                "%s: %d of %d videos have no reference caption; the metrics are those of the other %d",
                *(split, missing, len(records), len(captions)),
            )
        found, references = zip(*captions, strict=True)
        metrics = caption_metrics(found, references, self.config.spice)
        return {**metrics, **({"no_reference": missing} if missing else {})}

    # --- files beside the checkpoint ----------------------------------------------------------------------------------

    def prediction_file(self, split: str, checkpoint: Path) -> Path:
        """`<checkpoint>.pred.<folder>.<yaml>.beam1.max20.tsv`."""
        yaml, decoding = self.datasets[split].folder.path, self.decoding
        words = [checkpoint.stem, "pred", yaml.parent.name, yaml.stem, f"beam{decoding.num_beams}"]
        words += [f"max{decoding.max_length}"]
        words += [f"best{decoding.num_keep_best}"] if decoding.num_keep_best > 1 else []
        words += ["sampled"] if decoding.do_sample else []
        return checkpoint.with_name(".".join([*words, "tsv"]))

    def _made_from(self, split: str, weights: str) -> dict[str, Any]:
        """Everything that determines the captions of a split."""
        folder = self.datasets[split].folder
        files = [(name, changed) for source in folder.frames for name, _, changed in source.stamps()]
        names = counting(Counts.CAPTIONS | Counts.DRAWN if self.config.do_sample else Counts.CAPTIONS)
        options = {name: getattr(self.config, name) for name in names}
        facts = {"weights": weights, "options": options, "frames": files, "videos": self.datasets[split].video_ids()}
        return json.loads(json.dumps(facts))  # as it will be after loading

    def earlier_records(self, split: str, checkpoint: Path, weights: Callable[[], str]) -> list[Record] | None:
        path = self.prediction_file(split, checkpoint)
        origin = path.with_suffix(".from.json")
        if not path.is_file() or not origin.is_file():
            return None
        try:
            is_match = load_json(origin.read_text(encoding="utf-8")) == self._made_from(split, weights())
            captions = read_predictions(path)
        except (OSError, ValueError, DataError) as fault:
            LOGGER.warning("%s is not used again: %s", path, fault)
            return None
        if not is_match or [video for video, _ in captions] != self.datasets[split].video_ids():
            LOGGER.info("%s is of other weights, frames or options: captions are made again", path)
            return None
        LOGGER.info("%s is of these weights, frames and options: its captions are used again", path)
        return [_record(index, video, found) for index, (video, found) in enumerate(captions)]

    def publish(
        self, split: str, checkpoint: Path, weights: Callable[[], str], records: list[Record], metrics: Metrics
    ) -> None:
        path = self.prediction_file(split, checkpoint)
        origin = path.with_suffix(".from.json")
        try:
            origin.unlink(missing_ok=True)  # removed until the files below are complete
            write_predictions(path, [(record["video"], record["captions"]) for record in records])
            with atomic_file(path.with_suffix(".eval.json")) as file:
                file.write((json.dumps(metrics) + "\n").encode())
            if "bad_samples" not in metrics:  # bad samples must be reported again
                with atomic_file(origin) as file:
                    file.write(json.dumps(self._made_from(split, weights())).encode())
        except OSError as fault:  # the checkpoint's folder may be read-only
            LOGGER.warning("%s could not be written (%s); the captions are in the run's predictions", path, fault)


def _record(index: int, video: str, captions: list[dict[str, Any]]) -> Record:
    return {"index": index, "video": video, **captions[0], "captions": captions}


def caption_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0, drop_worst: float = 0.0) -> Tensor:
    """Mean KL divergence of predictions from smoothed targets, (K, V), (K,); 0 with zero gradients if K is 0.

    A target is 1 − ε for the label and ε / (V − 1) for each other token, as released (torch's smoothing differs).

    Args:
        smoothing: ε; drop_worst: fraction of tokens, those with the largest loss, that is left out.
    """
    if labels.numel() == 0:
        return logits.sum() * 0.0
    log_probs = logits.float().log_softmax(-1)
    share = smoothing / (logits.shape[-1] - 1)
    targets = torch.full_like(log_probs, share).scatter(1, labels[:, None], 1 - smoothing)
    losses = (torch.xlogy(targets, targets) - targets * log_probs).sum(dim=-1)
    if drop_worst > 0:
        kept = max(1, int(len(losses) * (1 - drop_worst)))
        losses = losses.topk(kept, largest=False).values
    return losses.mean()
