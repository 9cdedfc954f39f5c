"""Base of the downstream tasks: splits of a text file, answers at a `[MASK]`, choice of an option."""

import logging
from functools import cached_property, partial
from typing import TypeVar

from torch import Tensor

from lavender.data.batch import AnsweredBatch, ChoiceBatch, TextBatch
from lavender.data.items import ItemDataset, ItemFile, open_frames
from lavender.data.samples import ClipDataset
from lavender.metrics.accuracy import accuracy
from lavender.models.encoders import Encoded
from lavender.models.lavender import Lavender
from lavender.runtime.errors import DataError
from lavender.runtime.logging import LOGGER
from lavender.tasks.base import Metrics, Record, Task, TrainingPart
from lavender.tasks.readouts import Readout
from lavender.text.masking import IGNORED

TOP = 5  # predictions listed per question
BatchT = TypeVar("BatchT", bound=TextBatch)
AnsweredBatchT = TypeVar("AnsweredBatchT", bound=AnsweredBatch)


class DownstreamTask(Task[BatchT]):
    """Task with `txt_<task>.json` (train, val, test) and `img_<dataset>.tsv`; `dataset_class` reads its items."""

    dataset_class: type[ItemDataset]

    @cached_property
    def datasets(self) -> dict[str, ItemDataset]:
        """Split → data set, for the splits with items (without `train` if nothing is trained)."""
        texts, frames = ItemFile(self.config), open_frames(self.config)
        datasets = {}
        for split in ("train", "val", "test")[0 if self.config.size_epoch else 1 :]:
            if texts.items(split):
                datasets[split] = self.dataset_class(self.config, self.tokenizer, frames, texts, split)
            elif split == "train":
                raise DataError(
                    f'{texts.path}: no "train" items to train on{texts.misnamed(split)}; --size_epoch 0 evaluates alone'
                )
            else:
                hint = texts.misnamed(split)
                line = f"{texts.path}: no {split} items{hint}, so no evaluation on them"
                LOGGER.log(logging.WARNING if hint else logging.INFO, "%s", line)
        if not datasets:
            hints = texts.misnamed("val") + texts.misnamed("test")
            raise DataError(f'{texts.path}: neither "val" nor "test" items{hints}, so there is nothing to evaluate')
        LOGGER.info("%s: %s", texts.path, ", ".join(f"{split} {len(dataset)}" for split, dataset in datasets.items()))
        return datasets

    def training_parts(self) -> list[TrainingPart]:
        samples = len(self.datasets["train"])
        return [TrainingPart(self.config.dataset, 0, samples, partial(self.datasets.__getitem__, "train"))]  # type: ignore[arg-type]

    def evaluation_sets(self, part: TrainingPart | None = None) -> dict[str, ClipDataset]:
        return {split: dataset for split, dataset in self.datasets.items() if split != "train"}

    def text_states(self, model: Lavender, video: Encoded, ids: Tensor, mask: Tensor) -> Tensor:
        """Fuses clips with their texts (B, X), after the prompt or task token → states of the text (B, X, D)."""
        text = model.encode_text(ids, mask)
        return model.fuse(video, text, self.prefix(model))[:, -ids.shape[1] :]

    def states(self, model: Lavender, batch: BatchT) -> Tensor:
        """States of the text, (B, X, D)."""
        video = model.encode_video(batch["img"], batch["present"])
        return self.text_states(model, video, batch["ids"], batch["mask"])


class AnsweredTask(DownstreamTask[AnsweredBatchT]):
    """Task with one answer per text, predicted by its readout."""

    readout: Readout[AnsweredBatchT]
    top = TOP  # predictions listed in a record

    def logits(self, model: Lavender, batch: AnsweredBatchT) -> Tensor:
        """Logits over the tokens or classes of the answer, (B, V) or (B, n)."""
        return self.readout.logits(model, self.states(model, batch), batch)

    def loss(self, model: Lavender, batch: AnsweredBatchT) -> dict[str, Tensor]:
        return self.readout.loss(model, self.states(model, batch), batch)


def with_answer(records: list[Record], split: str) -> tuple[list[Record], Metrics]:
    """Records whose item has an answer, and the number of the others as `no_answer`, if any."""
    scored = [record for record in records if record["right"] is not None]
    missing = len(records) - len(scored)
    if not missing:
        return scored, {}
    if scored:
        LOGGER.warning(
            "%s: %d of %d items have no answer; the metrics are those of the other %d",
            *(split, missing, len(records), len(scored)),
        )
    else:
        LOGGER.warning("%s: no item has an answer, so there are no metrics; the predictions are written", split)
    return scored, {"no_answer": missing}


class ChoiceTask(AnsweredTask[ChoiceBatch]):
    """Multiple choice: options are scored, and the best one is the answer."""

    config_type = "qamc"

    def option_scores(self, model: Lavender, batch: ChoiceBatch) -> tuple[Tensor, Tensor]:
        """Ranking score and probability of each option: (B, O), (B, O)."""
        raise NotImplementedError

    def predict(self, model: Lavender, batch: ChoiceBatch) -> list[Record]:
        scores, probabilities = (values.float() for values in self.option_scores(model, batch))
        orders = scores.sort(dim=-1, descending=True, stable=True).indices[:, : self.top].tolist()
        columns = (batch[name] for name in ("video", "question", "options"))
        numbers = (*(batch[name].tolist() for name in ("index", "answer", "present")), orders, probabilities.tolist())
        return [
            {
                "index": index,
                "video": video,
                "question": question,
                "options": options,
                "answer": None if answer == IGNORED else answer,
                "prediction": order[0],
                "top": [{"option": number, "probability": chance[number]} for number in order],
                "right": None if answer == IGNORED else present and order[0] == answer,
            }
            for video, question, options, index, answer, present, order, chance in zip(*columns, *numbers, strict=True)
        ]

    def metrics(self, records: list[Record], split: str) -> Metrics:
        """`acc` over all questions of the split with an answer; a question without its video counts as wrong."""
        scored, metrics = with_answer(records, split)
        return {"acc": accuracy([record["right"] for record in scored]), **metrics} if scored else {}
