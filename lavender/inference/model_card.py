"""Model card (README.md) of an exported model, for model hubs: task, results, options, usage."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavender.config.comparisons import NOWHERE
from lavender.config.load import from_dict, read_object
from lavender.config.options import options
from lavender.config.schema import Config
from lavender.inference.heads import trained_formats
from lavender.models.pretrained import ARGUMENTS_FILE, Description
from lavender.runtime.errors import LavenderError
from lavender.runtime.files import atomic_file
from lavender.tasks.splits import evaluated, tasks_of

CARD_FILE = "README.md"
_OURS = "<!-- Written by _tools/export.py, which writes it again. Remove this line to keep your changes. -->"
_CALLS = {  # data format → its name, and an example call
    "qaoe": ("open-ended questions", 'predictor.answer("clip.mp4", "what is the man doing")'),
    "fib": ("filling in the blank", 'predictor.answer("clip.mp4", "the man [MASK] a car")'),
    "qamc": ("multiple choice", 'predictor.choose("clip.mp4", "what is it", ["a dog", "a cat"])'),
    "retmc": ("multiple choice by matching", 'predictor.choose("clip.mp4", "", ["a dog runs", "a cat sleeps"])'),
    "retrieval": ("text-to-video retrieval", 'predictor.match("clip.mp4", ["a dog runs", "a cat sleeps"])'),
    "captioning": ("captioning", 'predictor.caption("clip.mp4")'),
    "pretrain": ("pretraining", 'predictor.match("clip.mp4", ["a dog runs", "a cat sleeps"])'),
}
_CARD = """---
license: mit
library_name: lavender
pipeline_tag: video-text-to-text
tags: [video-language, lavender]
---
{ours}
# {name}

A LAVENDER model, trained for {tasks}{datasets}. Video encoder: {backbone}. Heads: {heads}.

## Results

{results}

## Use

In a folder with the code of this reimplementation, or after `pip install -e .` there:

```python
from lavender import Predictor

predictor = Predictor.from_pretrained("{name}")
{calls}
```

## Options

Those of the training that differ from the defaults; `args.json` has all.

```json
{options}
```

## License and paper

License: MIT, as the code. The licenses of the training data may restrict its use further.

[LAVENDER: Unifying Video-Language Understanding as Masked Language Modeling](https://arxiv.org/abs/2206.07160), Linjie
Li, Zhe Gan, Kevin Lin, Chung-Ching Lin, Zicheng Liu, Ce Liu, Lijuan Wang, CVPR 2023.
"""


def write_card(checkpoint: Path, folder: Path, description: Description, name: str = "") -> bool:
    """Writes the card into an exported folder.

    Args:
        checkpoint: exported checkpoint; `args.json`, `results.json` and `log.json` beside it are read.
        name: name of the model on a hub; "": name of the folder.

    Returns:
        whether it was written: a card that was edited by hand is kept
    """
    card = folder / CARD_FILE
    if card.is_file() and _OURS not in card.read_text(encoding="utf-8", errors="replace"):
        return False
    run = checkpoint if checkpoint.is_dir() else checkpoint.parent
    arguments = run / ARGUMENTS_FILE
    config = from_dict(read_object(arguments) if arguments.is_file() else {}, str(arguments), strict=False)
    formats = list(dict.fromkeys(form for form in trained_formats(config) if form in _CALLS)) or ["retrieval"]
    entries = config.entries() or [config]
    named = [_CALLS[form][0] for form in formats] if config.type or config.task else ["an unknown task"]
    tasks = [f"`{entry.task}`" for entry in entries if entry.task]
    dataset = config.dataset if isinstance(config.dataset, list | dict) else [config.dataset]
    datasets = [f"`{one}`" for one in dataset if one]
    heads = [
        *(["masked language modelling"] if description.mlm else []),
        *(f"`{one}`" for one in description.classifiers),
    ]
    text = _CARD.format(
        ours=_OURS,
        name=name or folder.resolve().name,
        tasks=", ".join(named) + (f" ({', '.join(tasks)})" if tasks else ""),
        datasets=f" on {', '.join(datasets)}" if datasets else "",
        backbone=", ".join(str(value) for value in description.backbone.values() if value) or "unknown",
        heads=", ".join(heads) or "none",
        results=_results(checkpoint, run),
        calls="\n".join(f"print({_CALLS[form][1]})" for form in formats[:4]),
        options=json.dumps(without_folders(_options(config)), indent=2, ensure_ascii=False),
    )
    with atomic_file(card) as file:
        file.write(text.encode())
    return True


def without_folders(value: Any) -> Any:
    """JSON value with absolute paths reduced to their last part, so that shared files do not reveal folders."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    return os.path.basename(value.rstrip("/")) if isinstance(value, str) and os.path.isabs(value) else value


def _options(config: Config) -> dict[str, Any]:
    return {name: value for name, value in config.changed().items() if options()[name].counts != NOWHERE}


# --- results ----------------------------------------------------------------------------------------------------------


def _results(checkpoint: Path, run: Path) -> str:
    """Table of metrics, and a line that names their epoch."""
    try:
        of, rows = _recorded(checkpoint, run)
        rows += _retrieval(checkpoint)
    except (LavenderError, LookupError, TypeError, ValueError, AttributeError) as fault:
        return f"They could not be read: {fault}"
    if not rows:
        return "None stood beside the checkpoint."
    lines = ["| task | split | metric | value |", "|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    if not any(row[0] for row in rows):
        lines = ["|" + line.split("|", 2)[2] for line in lines]
    return "\n".join([*([of, ""] if of else []), *lines])


def _recorded(checkpoint: Path, run: Path) -> tuple[str, list[tuple[str, str, str, str]]]:
    """Metrics of the exported epoch; of the best epoch if the file name does not give one."""
    match = re.fullmatch(r"ckpt_.*?(\d+)", checkpoint.stem)
    epoch = int(match[1]) if match else None
    if not (run / "results.json").is_file():
        return _curves(run, epoch)
    results = read_object(run / "results.json")
    best = results.get("best", {})
    entries = [entry for entry in results.get("epochs", []) if entry["epoch"] == epoch]
    of_part = [one for one in entries if checkpoint.stem.endswith(f"_{one.get('dataset')}_{one.get('part')}_{epoch}")]
    if results.get("zero_shot") and (epoch == 0 or not best):
        return "Of the weights before any training of this run.", list(_rows(results["zero_shot"]))
    if not entries:
        return (f"Epoch {best['epoch']}, the best of its run." if "epoch" in best else ""), list(_rows(best))
    chosen = (of_part or entries)[-1]
    others = {one.get("epoch") for one in tasks_of(best).values()} - {epoch, None}
    remark = f"; the best of its run is {', '.join(map(str, sorted(others)))}" if others else ", the best of its run"
    return f"Epoch {epoch}{remark}.", list(_rows(chosen))


def _rows(entry: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for task, split, metrics in evaluated(entry):
        for name, value in metrics.items():
            if isinstance(value, int | float) and not name.startswith("count_"):
                yield task, split, name, f"{value:.4g}"


def _curves(run: Path, epoch: int | None) -> tuple[str, list[tuple[str, str, str, str]]]:
    """Accuracies of an epoch in the released code's `log.json`."""
    if not (run / "log.json").is_file():
        return "", []
    curves = {name: values for name, values in read_object(run / "log.json").items() if name in ("ac_vl", "ac_ts")}
    validation = curves.get("ac_vl") or curves.get("ac_ts") or []
    if not validation:
        return "", []
    number = epoch - 1 if epoch and epoch <= len(validation) else validation.index(max(validation))
    rows = [
        ("", {"ac_vl": "val", "ac_ts": "test"}[name], "accuracy", f"{values[number]:.4g}")
        for name, values in curves.items()
        if number < len(values)
    ]
    return f"Epoch {number + 1} of {len(validation)}.", rows


def _retrieval(checkpoint: Path) -> list[tuple[str, str, str, str]]:
    """Metrics of `eval_retrieval_…`, which writes them beside the checkpoint, in percent."""
    path = checkpoint.with_name(f"{checkpoint.stem}_results.json")
    results = read_object(path) if path.is_file() else {}
    splits = ((split, metrics) for split, metrics in results.items() if isinstance(metrics, dict))
    return [
        ("", split, name, str(value) if name == "median" else f"{value} %")
        for split, metrics in splits
        for name, value in metrics.items()
    ]
