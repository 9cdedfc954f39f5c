"""The card of an exported model."""

import json
from pathlib import Path
from typing import Any

import pytest

from lavender.inference.model_card import CARD_FILE, without_folders, write_card
from lavender.models.pretrained import Description

MODEL = Description({"vis_backbone_size": "micro"}, 6, 14, False, False, True, False, {"fc": 4}, {}, {})
ARGUMENTS = {
    **{"type": "qaoe", "task": "msrvtt-qa", "dataset": "msrvtt", "lr": 1e-5, "size_epoch": 2},
    **{"data_dir": "/home/someone/data", "path_output": "/home/someone/runs"},
}
EPOCHS = [
    {
        "epoch": 1,
        "dataset": "msrvtt",
        "part": 0,
        "train": {"loss": 9.75},
        "val": {"acc_1": 0.5},
        "test": {"acc_1": 0.25},
    },
    {
        "epoch": 2,
        "dataset": "msrvtt",
        "part": 0,
        "train": {"loss": 8.75},
        "val": {"acc_1": 0.75},
        "test": {"acc_1": 0.625},
    },
]
RESULTS = {"zero_shot": {"val": {"acc_1": 0.125}}, "epochs": EPOCHS, "best": EPOCHS[1]}


@pytest.fixture
def card(tmp_path: Path):
    """`card("ckpt….pt", args.json=…, …)`: the text of the card of a run with these files."""

    def write(checkpoint: str, name: str = "", **files: Any) -> str:
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "out").mkdir(exist_ok=True)
        for file, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / "run" / f"{file}.json").write_text(text)
        assert write_card(tmp_path / "run" / checkpoint, tmp_path / "out", MODEL, name)
        return (tmp_path / "out" / CARD_FILE).read_text()

    return write


def test_what_it_says(card):
    text = card("ckpt_violet_msrvtt-qa_2.pt", "me/answers", args=ARGUMENTS, results=RESULTS)
    assert text.startswith("---\nlicense: mit\n")
    for words in (
        *("# me/answers", "open-ended questions (`msrvtt-qa`) on `msrvtt`", "micro", "masked language modelling, `fc`"),
        *("Epoch 2, the best of its run.", "| val | acc_1 | 0.75 |", "| test | acc_1 | 0.625 |"),
        *('from_pretrained("me/answers")', "predictor.answer(", '"lr": 1e-05', "arxiv.org/abs/2206.07160", "MIT"),
    ):
        assert words in text
    for words in ("0.5 |", "someone", "8.75", "path_output", "None"):
        assert words not in text
    options = json.loads(text[text.index("```json") + 7 : text.rindex("```")])
    assert options["data_dir"] == "data"
    assert "path_output" not in options


@pytest.mark.parametrize(
    ("checkpoint", "files", "said", "unsaid"),
    [
        ("ckpt_violet_msrvtt-qa_1.pt", {"results": RESULTS}, ["Epoch 1; the best of its run is 2.", "0.25 |"], "0.625"),
        ("ckpt_violet_msrvtt-qa_0.pt", {"results": RESULTS}, ["before any training", "0.125"], "0.625"),
        ("mine.pt", {"results": RESULTS}, ["Epoch 2, the best of its run.", "0.625"], "0.125"),
        ("mine.pt", {}, ["None stood beside"], "|---|"),
        ("mine.pt", {"results": "{"}, ["could not be read", "results.json"], "|---|"),
        ("mine.pt", {"results": {"epochs": [], "best": 7}}, ["could not be read"], "|---|"),
        (
            "ckpt_violet_x_1.pt",
            {"log": {"ac_vl": [0.25, 0.75], "ac_ts": [0.125, 0.5]}},
            ["Epoch 1 of 2", "0.125"],
            "0.5",
        ),
        ("mine.pt", {"log": {"ls_tr": [1], "ac_vl": [0.25, 0.75]}}, ["Epoch 2 of 2", "0.75"], "0.25 |"),
        ("mine.pt", {"mine_results": {"test": {"r@1": "12.50", "median": "3"}}}, ["12.50 %", "| median | 3 |"], "3 %"),
    ],
)
def test_results(card, checkpoint: str, files: dict, said: list[str], unsaid: str):
    text = card(checkpoint, args=ARGUMENTS, **files)
    assert [words for words in said if words not in text] == []
    assert unsaid not in text


def test_several_tasks_and_parts(card):
    tasks = {"a-qa": {"val": {"acc_1": 0.5}}, "b-cap": {"test": {"CIDEr": 1.5}}}
    best = {"tasks": {name: {"epoch": 1, **splits} for name, splits in tasks.items()}}
    entries = [{"type": "qaoe", "task": "a-qa"}, {"type": "captioning", "task": "b-cap"}]
    arguments = {"type": "multi-task", "task": "all", "datasets": entries}
    results = {"epochs": [{"epoch": 1, "train": {"loss": 1}, "tasks": tasks}], "best": best}
    text = card("ckpt_violet_all_1.pt", args=arguments, results=results)
    for words in ("| a-qa | val | acc_1 | 0.5 |", "| b-cap | test | CIDEr | 1.5 |", ".answer(", ".caption(", "`b-cap`"):
        assert words in text
    parts = [{"epoch": 1, "dataset": "webvid", "part": part, "val": {"loss": part}} for part in (0, 1)]
    arguments = {"type": "pretrain", "dataset": ["webvid"]}
    text = card("ckpt_violet_pretrain_webvid_0_1.pt", args=arguments, results={"epochs": parts, "best": parts[1]})
    assert "| val | loss | 0 |" in text


def test_a_card_of_ones_own_stays(card, tmp_path: Path):
    card("mine.pt")
    text = card("mine.pt", args=ARGUMENTS)  # ours is written again
    assert "msrvtt-qa" in text
    (tmp_path / "out" / CARD_FILE).write_text("# mine")
    assert not write_card(tmp_path / "run" / "mine.pt", tmp_path / "out", MODEL)
    assert (tmp_path / "out" / CARD_FILE).read_text() == "# mine"


def test_without_folders():
    given = {"a": "/home/me/bert/", "b": ["x/y", "/z.json"], "c": 3, "d": {"e": "/"}}
    assert without_folders(given) == {"a": "bert", "b": ["x/y", "z.json"], "c": 3, "d": {"e": ""}}
