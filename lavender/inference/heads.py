"""Selection of the task, head and options of a checkpoint for a request."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lavender.config.load import from_dict
from lavender.config.schema import Config
from lavender.data.formats import format_of
from lavender.models.heads import classifier_name
from lavender.models.lavender import Lavender
from lavender.runtime.errors import ConfigError, WeightsError
from lavender.tasks.base import Task
from lavender.tasks.caption import CaptionTask
from lavender.tasks.downstream import AnsweredTask
from lavender.tasks.qamc import QAMCTask, QAMCTaskSpecificTask
from lavender.tasks.qaoe import QAOETask, QAOETaskSpecificTask
from lavender.tasks.retmc import RetMCTask, RetMCTaskSpecificTask
from lavender.tasks.retrieval import RetrievalTask, RetrievalTaskSpecificTask

MLM: dict[str, type[Task]] = {
    "captioning": CaptionTask,
    "qaoe": QAOETask,
    "qamc": QAMCTask,
    "retmc": RetMCTask,
    "retrieval": RetrievalTask,
}
SPECIFIC: dict[str, type[Task]] = {
    "qaoe": QAOETaskSpecificTask,
    "qamc": QAMCTaskSpecificTask,
    "retmc": RetMCTaskSpecificTask,
    "retrieval": RetrievalTaskSpecificTask,
}
_MATCHING = ("retrieval", "retmc")  # these share a head


def trained_formats(config: Config) -> list[str]:
    """Data formats that a checkpoint was trained on."""
    return [format_of(entry) for entry in config.entries() or [config]]


def refuse_unknown(options: Mapping[str, Any], config: Config) -> None:
    """Raises ConfigError for names in `options` that are no options: `config` was made from them and lacks these."""
    if unknown := options.keys() - config.given.keys():
        raise ConfigError(f"{', '.join(sorted(unknown))}: there is no such option")


def find_task(model: Lavender, trained: Config, form: str, **options: Any) -> Task:
    """Builds the task of a data format, with the options of its training if the checkpoint was trained on it.

    Args:
        trained: options of the checkpoint; options: options of the request.

    Raises:
        WeightsError: the checkpoint has no head for this format. ConfigError: an option or its value is invalid.
    """
    checked = from_dict(options, form, strict=False)
    refuse_unknown(options, checked)
    entries = trained.entries() or [trained]
    own = next((entry for entry in entries if format_of(entry) == form), None)
    base = own or entries[0]
    head = _classifier(model, base, form)
    if head is None and not hasattr(model, "fc_mtm"):
        raise WeightsError(
            f"this checkpoint was trained for {', '.join(dict.fromkeys(trained_formats(trained)))} and has no head for "
            f"{form}: take one with the masked-language-modelling head, or one of that task"
        )
    kind = MLM[form] if head is None else SPECIFIC[form]
    facts: dict[str, Any] = {
        **{"type": kind.config_type, "task": base.task or form, "dataset": "given", "dataset_type": "", "datasets": []},
        **{"size_epoch": 0, "data_ratio": 1, "on_bad_sample": "error", "repeat_frames": True},
        **({} if own else {"task_token": ""}),
        **{name: getattr(checked, name) for name in options},
    }
    if head is not None and form == "qaoe":
        facts["size_vocab"] = model.get_submodule(head)[3].out_features  # type: ignore[index]
    config = dataclasses.replace(base, **facts)
    if head is not None and issubclass(kind, AnsweredTask) and not issubclass(kind, RetMCTaskSpecificTask):
        return kind(config, None, head)  # type: ignore[call-arg]
    return kind(config)


def _classifier(model: Lavender, base: Config, form: str) -> str | None:
    names = {name for name, _ in model.named_children() if name == "fc" or name.startswith("fc_")} - {"fc_mtm"}
    own = classifier_name(base.type, base.task)
    if own in names and format_of(base) == form:
        return own
    fits = format_of(base) == form or {form, format_of(base)} <= set(_MATCHING)
    return "fc" if "fc" in names and (fits or (form in _MATCHING and len(names) > 1)) else None
