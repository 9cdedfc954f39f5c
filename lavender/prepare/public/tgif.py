"""TGIF-QA: tab-separated tables of questions about actions, transitions and single frames."""

from collections.abc import Callable

from lavender.data.ids import without_extension
from lavender.prepare.public.outputs import Choices, Item, Output, Questions
from lavender.prepare.public.source import Row, Source

OPTIONS = ("a1", "a2", "a3", "a4", "a5")


def read_tgif_action(source: Source, split: str) -> list[Output]:
    """Reads `tgif-action`: what is repeated, and how often."""
    return [Choices("tgif-action", _read(source, "action", OPTIONS, _choice))]


def read_tgif_transition(source: Source, split: str) -> list[Output]:
    """Reads `tgif-transition`: what comes before or after."""
    return [Choices("tgif-transition", _read(source, "transition", OPTIONS, _choice))]


def read_tgif_frame(source: Source, split: str) -> list[Output]:
    """Reads `tgif-frame`: questions answered by one frame."""
    return [Questions("tgif-frame", _read(source, "frameqa", (), _question), size_vocab=1540)]


def _read(source: Source, kind: str, options: tuple[str, ...], make: Callable[[Row], Item]) -> list[Item]:
    items: list[Item] = []
    columns = ["gif_name", "question", *options, "answer"]
    for split in ("train", "test"):
        path = source.find(f"{split.title()}_{kind}_question.csv", f"{split.title()}_{kind}_question.tsv")
        rows = source.tsv(path, columns, ("vid_id", "key", "type", "description"))
        items += [{**item, "split": split} for item in source.convert(rows, make)]
    source.note("TGIF-QA has no validation split: --hold_out 0.1 takes a tenth of the training videos for it")
    return items


def _choice(row: Row) -> Item:
    options = [row.text(name) for name in OPTIONS]
    return {**_common(row), "options": options, "answer": row.number("answer", 0, len(OPTIONS) - 1)}


def _question(row: Row) -> Item:
    return {**_common(row), "answer_text": row.text("answer")}


def _common(row: Row) -> Item:
    return {"video": without_extension(row.video("gif_name")), "question": row.text("question")}
