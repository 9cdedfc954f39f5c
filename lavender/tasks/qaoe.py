"""Open-ended question answering and fill-in-the-blank: the answer is predicted at `[MASK]` (paper, section 3.2)."""

from abc import abstractmethod
from typing import Any

from lavender.config.schema import Config
from lavender.data.batch import QuestionBatch
from lavender.data.qaoe import ClosedVocabularyDataset, FillInTheBlankDataset, OpenEndedDataset, QuestionDataset
from lavender.metrics.accuracy import accuracy
from lavender.models.lavender import Lavender
from lavender.runtime.errors import ConfigError
from lavender.runtime.logging import LOGGER
from lavender.tasks.base import Clock, Metrics, Record
from lavender.tasks.downstream import AnsweredTask, with_answer
from lavender.tasks.readouts import ClassOnCls, WordAtMask
from lavender.text.prompts import PROMPTS
from lavender.text.questions import NOWHERE

# Tolerance of size_test: released files may lack questions with rare answers; a larger difference means other data.
SIZE_TEST_MARGIN = 0.5


class QuestionTask(AnsweredTask[QuestionBatch]):
    """Question answering with any readout: top-1 and top-5 accuracy."""

    config_type = "qaoe"
    best_metric = ("acc_1", max)
    dataset_class: type[QuestionDataset]

    @abstractmethod
    def answer_word(self, number: int) -> str:
        """Text of an answer."""

    def predict(self, model: Lavender, batch: QuestionBatch) -> list[Record]:
        probabilities = self.logits(model, batch).float().softmax(-1)
        best = probabilities.topk(min(self.top, probabilities.shape[-1]))
        texts = (batch[name] for name in ("video", "question", "answer"))
        numbers = (batch[name].tolist() for name in ("index", "answer_id", "position"))
        return [
            self._record(index, video, question, answer, answer_id, list(zip(ids, probs, strict=True)), position)
            for video, question, answer, index, answer_id, position, ids, probs in zip(
                *texts, *numbers, best.indices.tolist(), best.values.tolist(), strict=True
            )
        ]

    def _record(
        self, index: int, video: str, question: str, answer: str, answer_id: int, best: list, position: int
    ) -> Record:
        if position == NOWHERE:  # truncation removed the `[MASK]`: no answer
            best = []
        found = [number for number, _ in best]
        top = [{"answer": self.answer_word(number), "probability": chance} for number, chance in best]
        return {
            "index": index,
            "video": video,
            "question": question,
            "answer": answer,
            "prediction": top[0]["answer"] if top else "",
            "top": top,
            "right": found[:1] == [answer_id] if answer else None,
            "right_in_5": answer_id in found if answer else None,
        }

    def metrics(self, records: list[Record], split: str) -> Metrics:
        """`acc_1`, `acc_5` over the questions of the split that have an answer.

        On test also over `size_test`, if that differs and all questions have an answer.
        """
        scored, missing = with_answer(records, split)
        if not scored:
            return {}
        right = {
            "acc_1": [record["right"] for record in scored],
            "acc_5": [record["right_in_5"] for record in scored],
        }
        metrics: Metrics = {**{name: accuracy(column) for name, column in right.items()}, **missing}
        if not missing and split == "test" and self._is_of_this_data(len(records)):
            metrics |= {f"{name}_adjusted": accuracy(column, self.config.size_test) for name, column in right.items()}
        return metrics

    def _is_of_this_data(self, found: int) -> bool:
        """Whether `size_test` is given, differs from the number of questions, and fits the same data set."""
        expected = self.config.size_test
        if expected in (0, found):
            return False
        near = abs(found - expected) <= SIZE_TEST_MARGIN * expected
        if not near:
            LOGGER.warning(
                "size_test is %d, but the test split has %d questions: no adjusted accuracy; "
                "set size_test to the size of your public test split, or to 0",
                *(expected, found),
            )
        return near

    def curves(self, epochs: list[dict[str, Any]]) -> dict[str, Any]:
        """Released keys: `ac_1_vl`, `ac_5_vl`, `ac_1_ts`, `ac_5_ts`; on test the adjusted metric if there is one."""
        curves: dict[str, Any] = {"ls_tr": [entry["train"]["loss"] for entry in epochs]}
        for split, key in (("val", "vl"), ("test", "ts")):
            for k in (1, 5):
                evaluated = [entry[split] for entry in epochs if split in entry]
                curves[f"ac_{k}_{key}"] = [
                    metrics.get(f"acc_{k}_adjusted", metrics.get(f"acc_{k}")) for metrics in evaluated
                ]
        return curves


class QAOETask(QuestionTask):
    """MLM variant: `question answer: [MASK]`, over the whole vocabulary."""

    dataset_types: tuple[str, ...] = ("qaoe",)
    dataset_class: type[QuestionDataset] = OpenEndedDataset
    readout = WordAtMask()
    heads = readout.heads
    token = "oe"

    def prompt(self) -> str:
        return PROMPTS["oe"]

    def answer_word(self, number: int) -> str:
        return self.tokenizer.word(number)


class FillInTheBlankTask(QAOETask):
    """LSMDC-FiB: the sentence contains its `[MASK]`."""

    dataset_types = ("fib",)
    dataset_class = FillInTheBlankDataset

    def prompt(self) -> str:
        return PROMPTS["fib"]


class QAOETaskSpecificTask(QuestionTask):
    """Baseline: an MLP on `[CLS]` over a closed vocabulary of `size_vocab` answers."""

    dataset_types = ("qaoe", "fib")
    dataset_class = ClosedVocabularyDataset

    def __init__(self, config: Config, clock: Clock | None = None, classifier: str = "fc"):
        self.readout = ClassOnCls(config.size_vocab, classifier)
        self.heads = self.readout.heads
        super().__init__(config, clock)
        if config.size_vocab < 1:
            raise ConfigError(f"size_vocab is {config.size_vocab}: give the number of answers of the closed vocabulary")

    def curves(self, epochs: list[dict[str, Any]]) -> dict[str, Any]:
        """Released keys: `ac_vl` and `ac_ts`, top-1; on test the adjusted metric if there is one."""
        curves = super().curves(epochs)
        return {"ls_tr": curves["ls_tr"], "ac_vl": curves["ac_1_vl"], "ac_ts": curves["ac_1_ts"]}

    def answer_word(self, number: int) -> str:
        return next(iter(self.datasets.values())).words.word(number)  # type: ignore[attr-defined]
