"""Items to the text files of the tasks: retrieval, captioning, question answering, multiple choice."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavender.data.tsv import TSVWriter
from lavender.prepare.rows import SPLITS, Rows
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file
from lavender.text.masking import IGNORED

LENGTHS = (25, 50, 100, 150, 200, 300, 500)  # size_txt to choose from
_FOREIGN = re.compile(r"[^\x00-\x7f]")
TOKENS_PER_WORD = 1.4  # BERT tokens per word, with a margin

TASKS = ("retrieval", "captioning", "pretrain", "qa", "mc")


@dataclass(frozen=True)
class TaskFiles:
    """Task of the new data set: options of its configuration, and number of items per split."""

    name: str
    kind: str  # retrieval, captioning, pretrain, qaoe, qamc
    options: dict[str, Any]
    counts: dict[str, int]
    notes: list[str] = field(default_factory=list)


def write_tasks(
    rows: Rows, name: str, output: Path, size_vocab: int, direct: bool = False, tasks: Sequence[str] = TASKS
) -> list[TaskFiles]:
    """Writes the text files of those of `tasks` that the items allow.

    Args:
        direct: frames are read from videos or tars instead of a frame TSV.

    Raises:
        DataError: no task is possible, or the questions have no training answers.
    """
    writers: dict[str, Callable[[], TaskFiles]] = {
        "retrieval": lambda: _retrieval(rows.captions, name, output),
        "captioning": lambda: _captioning(rows.captions, name, output, direct),
        "pretrain": lambda: _pretraining(rows.captions, name, output),
        "qa": lambda: _questions(rows.questions, name, output, size_vocab),
        "mc": lambda: _choices(rows.choices, name, output),
    }
    written = [writers[task]() for task in possible_tasks(rows, direct, tasks)]
    for task in written:
        if not task.counts["train"]:
            task.options["size_epoch"] = 0
            task.notes.append("nothing to train on: the configuration evaluates alone")
        elif task.kind != "pretrain" and not (task.counts["val"] or task.counts["test"]):
            task.notes.append("nothing to evaluate on, which a run needs: give some of its videos another split")
    return written


def possible_tasks(rows: Rows, direct: bool, tasks: Sequence[str] = TASKS) -> list[str]:
    """Those of `tasks` that the items allow. DataError if there are none, or the options do not fit."""
    possible = {
        "retrieval": bool(rows.captions),
        "captioning": bool(rows.captions),
        "pretrain": bool(rows.captions) and direct,  # the parts of a TSV would need separate files
        "qa": bool(rows.questions),
        "mc": bool(rows.choices),
    }
    found = [task for task in tasks if possible[task]]
    if not found:
        others = ", ".join(task for task in TASKS if possible[task])
        hint = "" if direct or not rows.captions else "; pretrain where clips are read directly: --frame_source"
        raise DataError(f"--tasks {' '.join(tasks)}: these tables and clips give {others}{hint}")
    sizes = {len(item["options"]): item["where"] for item in rows.choices}
    if "mc" in found and len(sizes) > 1:
        places = "; ".join(f"{size}: {where}" for size, where in sorted(sizes.items()))
        raise DataError(f"questions of several numbers of options ({places}); make a data set of each: another --name")
    return found


def by_split(items: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Items of each split, without their keys `split` and `where`."""
    found: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for item in items:
        found[item["split"]].append({key: value for key, value in item.items() if key not in ("split", "where")})
    return found


def _retrieval(captions: list[dict[str, Any]], name: str, output: Path) -> TaskFiles:
    task, items = f"{name}-retrieval", by_split(captions)
    write_json(output / f"txt_{task}.json", items)
    options = {"dataset": name, "size_txt": _length(item["caption"] for item in captions), "temp": 0.05}
    return TaskFiles(task, "retrieval", options | {"size_epoch": 10, "size_batch": 20}, _counts(items))


def _pretraining(captions: list[dict[str, Any]], name: str, output: Path) -> TaskFiles:
    """Writes pretraining captions: the first caption of each video."""
    texts: dict[str, dict[str, list[str]]] = {}
    for split, items in by_split(captions).items():
        for item in items if split != "test" else ():
            texts.setdefault(split, {}).setdefault(item["video"], []).append(item["caption"])
    write_json(output / f"txt_{name}.json", texts)
    options = {"dataset": [name], "size_part": 1, "size_txt": _length(item["caption"] for item in captions)}
    options |= {"pretrain_tasks": ["vtm", "mtm"], "temp": 0.05, "size_epoch": 10, "size_batch": 24}
    counts = {split: len(texts.get(split, {})) for split in SPLITS}
    return TaskFiles(f"{name}-pretrain", "pretrain", options, counts)


def _captioning(captions: list[dict[str, Any]], name: str, output: Path, direct: bool) -> TaskFiles:
    task, splits = f"{name}-cap", by_split(captions)
    folder, counts = output / task, {}
    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {}
    for split in SPLITS:
        texts: dict[str, list[str]] = {}
        for item in splits[split]:
            texts.setdefault(item["video"], []).append(item["caption"])
        counts[split] = len(texts)
        if texts:
            write_caption_split(folder, split, "" if direct else f"../img_{name}.tsv", texts)
        options[f"{split}_yaml"] = f"{task}/{split}.yaml" if texts else ""
    length = _length(item["caption"] for item in captions)
    longest = min(max(20, length), length)
    sizes = {"size_txt": max(50, length), "p_mask": 0.15, "max_gen_length": min(longest, 50)}
    return TaskFiles(task, "captioning", options | sizes | {"size_epoch": 20, "size_batch": 24}, counts)


def write_caption_split(folder: Path, split: str, frames: str, texts: Mapping[str, list[str]]) -> None:
    """Writes one split of a captioning folder: all captions are for training, and all are references."""
    files = {
        **({"img": frames} if frames else {}),
        "caption": f"{split}.caption.tsv",
        "caption_linelist": f"{split}.caption.linelist.tsv",
        "caption_coco_format": f"{split}.caption_coco_format.json",
    }
    with TSVWriter(folder / files["caption"]) as writer:
        for video, captions in texts.items():
            writer.write([video, json.dumps([{"caption": text} for text in captions])])
    places = ((row, number) for row, captions in enumerate(texts.values()) for number in range(len(captions)))
    _write(folder / files["caption_linelist"], "".join(f"{row}\t{number}\n" for row, number in places))
    pairs = ((video, text) for video, captions in texts.items() for text in captions)
    references = {
        "images": [{"id": video, "file_name": video} for video in texts],
        "annotations": [{"image_id": video, "caption": text, "id": n} for n, (video, text) in enumerate(pairs)],
    }
    write_json(folder / files["caption_coco_format"], references)
    _write(folder / f"{split}.yaml", "".join(f"{key}: {file}\n" for key, file in files.items()))


def _questions(questions: list[dict[str, Any]], name: str, output: Path, size_vocab: int) -> TaskFiles:
    task, items = f"{name}-qa", by_split(questions)
    answers = [item["answer_text"] for item in items["train"] if item["answer_text"]]
    if items["train"] and not answers:
        raise DataError("the questions to train on have no answers; name their column: --columns answer=NAME")
    classes = number_answers(items, size_vocab)
    write_json(output / f"txt_{task}.json", {**items, "ans2label": classes})
    options = {"dataset": name, "size_txt": _length(item["question"] for item in questions)}
    sizes = {"size_vocab": max(1, len(classes)), "size_epoch": 10, "size_batch": 24}
    several = sum(len(answer.split()) > 1 for answer in answers)
    notes = [
        f"{several:,} of {len(answers):,} training answers have several words: the MLM head answers with one word of "
        "BERT's vocabulary, so it cannot learn them; main_qaoe_task_specific.py can"
    ]
    return TaskFiles(task, "qaoe", options | sizes, _counts(items), notes if several else [])


def number_answers(items: Mapping[str, list[dict[str, Any]]], size_vocab: int) -> dict[str, int]:
    """Sets the class of each item's answer, and returns the classes, word → number.

    The MLM head predicts the word itself. The task-specific head has a class for each of the `size_vocab` most frequent
    training answers; other answers have no class (−1).

    Args:
        items: split → items with `answer_text`, "" if the answer is withheld.
    """
    times = Counter(item["answer_text"].lower() for item in items["train"] if item["answer_text"])
    classes = {word: number for number, (word, _) in enumerate(times.most_common(size_vocab))}
    for item in (item for split in items.values() for item in split):
        if item["answer_text"]:
            item["answer"] = classes.get(item["answer_text"].lower(), IGNORED)
        else:
            del item["answer_text"]
    return classes


def _choices(choices: list[dict[str, Any]], name: str, output: Path) -> TaskFiles:
    task, items = f"{name}-mc", by_split(choices)
    texts = [" ".join([item["question"], *item["options"]]) for item in choices]
    size = len(choices[0]["options"])
    number_options(items)
    write_json(output / f"txt_{task}.json", items)
    options = {"dataset": name, "size_txt": _length(texts), "size_option": size}
    return TaskFiles(task, "qamc", options | {"size_epoch": 20, "size_batch": 20}, _counts(items))


def number_options(items: Mapping[str, list[dict[str, Any]]]) -> None:
    """Turns the `options` of each item into `option_0`, `option_1`, …; removes withheld answers."""
    for item in (item for split in items.values() for item in split):
        item |= {f"option_{number}": option for number, option in enumerate(item.pop("options"))}
        if item["answer"] is None:
            del item["answer"]


def _length(texts: Iterable[str]) -> int:
    """A `size_txt` that fits 99 % of the texts, estimated from words; a non-ASCII character may be a token."""
    tokens = sorted(TOKENS_PER_WORD * len(text.split()) + len(_FOREIGN.findall(text)) for text in texts)
    needed = tokens[int(0.99 * (len(tokens) - 1))] + 3
    return next((length for length in LENGTHS if length >= needed), LENGTHS[-1])


def _counts(items: Mapping[str, list[Any]]) -> dict[str, int]:
    return {split: len(items[split]) for split in SPLITS}


def write_json(path: Path, content: Any) -> None:
    """Writes JSON on one line."""
    _write(path, json.dumps(content, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as file:
        file.write(text.encode())
