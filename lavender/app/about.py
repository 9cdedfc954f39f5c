"""Training tasks of a checkpoint, and the parts of the page that it supports."""

from collections.abc import Iterable
from dataclasses import dataclass

from lavender.config.schema import Config
from lavender.data.formats import format_of
from lavender.inference.heads import find_task, trained_formats
from lavender.inference.predictor import Predictor
from lavender.runtime.errors import WeightsError

_WORDS = {  # data format → what a checkpoint learns from it
    "qaoe": "answering questions",
    "fib": "filling in blanks",
    "qamc": "choosing an answer",
    "retmc": "choosing a text that matches",
    "retrieval": "finding videos for a text",
    "captioning": "captions",
    "pretrain": "masked words and video-text matching",
}
_MATCHING = ("retrieval", "retmc", "pretrain")
_NAMES = {  # part of the page → its result
    "ask": "answering questions",
    "caption": "captions",
    "choose": "choosing between options",
    "compare": "comparing texts",
    "search": "search",
}
PARTS = {  # part of the page → formats whose heads support it, formats that train it
    "ask": (("qaoe",), ("qaoe",)),
    "caption": (("captioning",), ("captioning",)),
    "choose": (("qamc", "retmc"), ("qamc", *_MATCHING)),
    "compare": (("retrieval",), _MATCHING),
    "search": (("retrieval",), _MATCHING),
}


@dataclass(frozen=True)
class Part:
    """Part of the page: whether the checkpoint has a head for it, and was trained for it."""

    name: str
    can: bool
    trained: bool

    @property
    def note(self) -> str:
        """Remark for the user; "" if the checkpoint was trained for this part."""
        if not self.can:
            return "This checkpoint has no head for this. Take another checkpoint."
        return "" if self.trained else "This checkpoint was not trained for this: the results may mean nothing."


def parts_of(predictor: Predictor) -> dict[str, Part]:
    """Name → part of the page."""
    formats = set(trained_formats(predictor.config))
    return {
        name: Part(name, any(_has_head(predictor, form) for form in serving), bool(formats & set(training)))
        for name, (serving, training) in PARTS.items()
    }


def describe(predictor: Predictor, checkpoint: str, parts: Iterable[Part]) -> list[tuple[str, str]]:
    """Header of the page: (name, value) per line."""
    config, parts = predictor.config, list(parts)
    size = sum(weight.numel() for weight in predictor.model.parameters())
    trained = "; ".join(dict.fromkeys(map(_training, config.entries() or [config])))
    rows = [
        ("Checkpoint", f"{checkpoint} ({size / 1e6:.1f} million parameters, on {predictor.device.type})"),
        ("Trained for", trained),
    ]
    if untrained := [_NAMES[part.name] for part in parts if part.can and not part.trained]:
        rows.append(("Not trained for", f"{', '.join(untrained)} (the results may mean nothing)"))
    if missing := [_NAMES[part.name] for part in parts if not part.can]:
        rows.append(("Cannot do", f"{', '.join(missing)} (it has no head for that)"))
    return rows


def _has_head(predictor: Predictor, form: str) -> bool:
    try:
        find_task(predictor.model, predictor.config, form)
    except WeightsError:
        return False
    return True


def _training(config: Config) -> str:
    form = format_of(config)
    return f"{_WORDS.get(form, form)}{f' ({config.task})' if config.task else ''}"
