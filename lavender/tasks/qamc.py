"""Multiple choice: the number of the right option is predicted at `[MASK]` (paper, section 3.2)."""

from torch import Tensor

from lavender.config.schema import Config
from lavender.data.batch import ChoiceBatch
from lavender.data.qamc import MultipleChoiceDataset, OptionNumberDataset
from lavender.metrics.accuracy import option_scores
from lavender.models.lavender import Lavender
from lavender.tasks.base import Clock
from lavender.tasks.downstream import ChoiceTask
from lavender.tasks.readouts import OptionOnCls, WordAtMask
from lavender.text.prompts import PROMPTS


class QAMCTask(ChoiceTask):
    """MLM variant: question and options form one text, and `[MASK]` is "0", "1", …"""

    dataset_types = ("qamc",)
    dataset_class = MultipleChoiceDataset
    readout = WordAtMask()
    heads = readout.heads

    def __init__(self, config: Config, clock: Clock | None = None):
        super().__init__(config, clock)
        self.option_ids = [self.tokenizer.word_id(str(number)) for number in range(config.size_option)]

    def prompt(self) -> str:
        return PROMPTS["mc"].format(options=list(range(self.config.size_option)))

    def option_scores(self, model: Lavender, batch: ChoiceBatch) -> tuple[Tensor, Tensor]:
        logits = self.logits(model, batch)[:, self.option_ids].float()
        return option_scores(logits, self.config.score_fn), logits.softmax(-1)


class QAMCTaskSpecificTask(ChoiceTask):
    """Baseline: an MLP on `[CLS]` with one class per option."""

    dataset_types = ("qamc",)
    dataset_class = OptionNumberDataset

    def __init__(self, config: Config, clock: Clock | None = None, classifier: str = "fc"):
        self.readout = OptionOnCls(config.size_option, classifier)
        self.heads = self.readout.heads
        super().__init__(config, clock)

    def option_scores(self, model: Lavender, batch: ChoiceBatch) -> tuple[Tensor, Tensor]:
        logits = self.logits(model, batch).float()
        return logits, logits.softmax(-1)
