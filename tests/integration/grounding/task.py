"""Temporal grounding as text: the number of the segment is the word at `[MASK]`."""

from lavender.config.schema import Config
from lavender.metrics.accuracy import accuracy
from lavender.models.lavender import Lavender
from lavender.tasks.base import Clock, Metrics, Record
from lavender.tasks.downstream import AnsweredTask
from lavender.tasks.readouts import WordAtMask
from tests.integration.grounding.data import GroundingBatch, GroundingDataset


class GroundingTask(AnsweredTask[GroundingBatch]):
    """Which of `size_option` segments of a video an event is in; beside the accuracy, the distance in segments."""

    config_type = "own:grounding"
    dataset_class = GroundingDataset
    readout = WordAtMask()
    heads = readout.heads
    token = "oe"

    def __init__(self, config: Config, clock: Clock | None = None):
        super().__init__(config, clock)
        self.segment_ids = [self.tokenizer.word_id(str(number)) for number in range(config.size_option)]

    def prompt(self) -> str:
        return "when does it happen?"

    def predict(self, model: Lavender, batch: GroundingBatch) -> list[Record]:
        best = self.logits(model, batch)[:, self.segment_ids].argmax(dim=-1)
        rows = zip(
            *(batch["index"].tolist(), batch["video"], batch["event"], batch["segment"].tolist(), best.tolist()),
            strict=True,
        )
        return [
            {"index": index, "video": video, "event": event, "segment": segment, "prediction": found}
            for index, video, event, segment, found in rows
        ]

    def metrics(self, records: list[Record], split: str) -> Metrics:
        distances = [abs(record["prediction"] - record["segment"]) for record in records]
        return {"acc": accuracy([distance == 0 for distance in distances]), "distance": sum(distances) / len(distances)}
