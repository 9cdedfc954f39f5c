"""The page about runs: the right numbers, the right frames, nothing from elsewhere."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavender.report.examples import answers, choose, is_right
from lavender.report.page import write_page
from lavender.report.runs import Run, groups, open_run
from lavender.report.tables import Table, compare
from lavender.runtime.errors import DataError
from tests.conftest import ROOT

DATA = ROOT / "tests" / "conformance" / "kit" / "data"
EPOCHS = [{"epoch": n, "train": {"loss": 3.0 - n}, "val": {"acc_1": 0.1 * n}, "test": {"acc_1": 0.2}} for n in (1, 2)]
RESULTS = {"epochs": EPOCHS, "best": {key: EPOCHS[1][key] for key in ("epoch", "val", "test")}}


def question(number: int, answer: str, guess: str) -> dict[str, Any]:
    top = [{"answer": guess, "probability": 0.7}, {"answer": "other", "probability": 0.2}]
    words = {"question": "what <b>is</b> it?", "answer": answer, "prediction": guess, "top": top}
    return {"index": number, "video": f"vid{number % 2}", **words, "right": answer == guess}


QUESTIONS = [question(0, "red", "red"), question(1, "red", "blue"), question(2, "blue", "blue")]


class World:
    """A folder of runs on the kit's data."""

    def __init__(self, folder: Path):
        self.folder = folder

    def run(self, name: str, records: dict[str, list[dict[str, Any]]], results: Any = RESULTS, **options: Any) -> Run:
        place = self.folder / name
        (place / "predictions").mkdir(parents=True)
        args = {"type": "qaoe", "task": "toy-qa", "dataset": "toy", "data_dir": str(DATA), "seed": 88, **options}
        (place / "args.json").write_text(json.dumps(args))
        (place / "results.json").write_text(json.dumps(results))
        for split, lines in records.items():
            path = place / "predictions" / f"{split}.jsonl"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return open_run(place)

    def page(self, *runs: Run) -> str:
        write_page(runs, self.folder / "page.html")
        return (self.folder / "page.html").read_text()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_metrics_of_the_best_epoch(world: World):
    table = compare(groups([world.run("_a", {}), world.run("_b", {}, {"zero_shot": {"test": {"CIDEr": 1.25}}}, lr=1)]))
    assert table.columns == ["a", "b"]
    assert table.rows["val acc_1"] == ["20.0", ""]
    assert table.rows["test CIDEr"] == ["", "1.25"]
    assert table.rows["best epoch"] == ["2", ""]
    assert "| val acc_1 | 20.0 |  |" in table.markdown()
    assert r"a & 20.0 & 20.0 & -- & 2 \\" in table.latex()


def test_seeds_are_one_column_with_their_deviation(world: World):
    runs = []
    for seed, value in enumerate((0.2, 0.3, 0.4)):
        runs.append(world.run(f"_{seed}", {}, {"best": {"epoch": 1, "test": {"acc": value}}}, seed=seed))
    runs.append(world.run("_other", {}, {"best": {"epoch": 1, "test": {"acc": 0.5}}}, lr=0.1))
    table = compare(groups(runs))
    assert table.columns == ["0 and 2 more seeds", "other"]
    assert table.rows["test acc"] == ["30.0 ± 10 (n = 3)", "50.0"]
    assert r"30.0 $\pm$ 10 (n = 3)" in table.latex()


def test_tasks_have_their_own_best_epochs(world: World):
    best = {"tasks": {"x-qa": {"epoch": 2, "val": {"acc_1": 0.5}}, "x-cap": {"epoch": 1, "val": {"CIDEr": 2.0}}}}
    rows = compare(groups([world.run("_a", {}, {"best": best})])).rows
    assert rows == {
        "x-qa val acc_1": ["50.0"],
        "x-cap val CIDEr": ["2"],
        "x-qa best epoch": ["2"],
        "x-cap best epoch": ["1"],
    }


def test_curves(world: World):
    curves = world.run("_a", {}).curves()
    assert curves == {
        "train loss": [(1, 2.0), (2, 1.0)],
        "val acc_1": [(1, 0.1), (2, 0.2)],
        "test acc_1": [(1, 0.2), (2, 0.2)],
    }
    assert "train loss" in world.page(world.run("_b", {}))


def test_right_and_wrong_examples_are_chosen_evenly():
    records = [{"index": n, "right": n < 40} for n in range(50)]
    chosen = choose(records, 10)
    assert [is_right(record) for record in chosen] == [False] * 5 + [True] * 5
    assert [record["index"] for record in chosen][::4] == [40, 49, 29]
    assert len(choose(records[:43], 10)) == 10
    assert choose([{"index": 0}], 4) == [{"index": 0}]


def test_accuracy_by_answer():
    found = answers(QUESTIONS)
    assert found is not None
    assert found.rows == [("red", 2, 0.5), ("blue", 1, 1.0)]
    assert (found.names, found.matrix) == (["red", "blue"], [[1, 1, 0], [0, 1, 0]])
    assert answers([{"index": 0, "options": ["a"], "answer": 0, "prediction": 0}]) is None


def test_a_page_of_questions(world: World):
    page = world.page(world.run("_a", {"test": QUESTIONS}))
    assert page.count("data:image/jpeg;base64,") >= 3, "frames of each question's video"
    assert "what &lt;b&gt;is&lt;/b&gt; it?" in page
    assert "70 %" in page
    outside = [
        address for address in re.findall(r'(?:src|href)="([^"]+)"', page) if not address.startswith(("data:", "#"))
    ]
    assert not outside
    assert "@import" not in page


def test_own_words_stand_on_top(world: World):
    write_page([world.run("_a", {})], world.folder / "page.html", summary="what we saw:\n  <3 of 4>")
    page = (world.folder / "page.html").read_text()
    assert page.index("what we saw:\n  &lt;3 of 4&gt;") < page.index("<h2>Metrics</h2>")


def test_a_page_without_the_data(world: World):
    page = world.page(world.run("_a", {"test": QUESTIONS}, data_dir=str(world.folder / "gone")))
    assert "Frames are not shown" in page
    assert "img_toy.tsv" in page


def test_captions_stand_beside_their_references(world: World):
    video = json.loads((DATA / "CAP" / "test.caption_coco_format.json").read_text())["annotations"][0]
    record = {"index": 0, "video": video["image_id"], "caption": video["caption"], "conf": 0.5}
    record["captions"] = [{"caption": video["caption"], "conf": 0.5}]
    page = world.page(world.run("_a", {"test": [record]}, type="captioning", test_yaml="CAP/test.yaml"))
    assert f"reference: {video['caption']}" in page
    assert 'class="text right"' in page
    assert "data:image/jpeg" in page


def test_the_five_best_videos_of_a_text(world: World):
    record = {"index": 1, "video": "vid1", "caption": "a red circle", "rank": 2.0, "prediction": "vid0"}
    run = world.run("_a", {"test": [record]}, type="retrieval", task="toy-retrieval")
    np.save(run.folder / "scores_test.npy", np.array([[0.0, 0.0], [3.0, 2.5]]))
    (run.folder / "scores_test.json").write_text(json.dumps({"texts": [], "videos": ["vid0", "vid1"]}))
    page = world.page(run)
    assert "1. vid0, score 3.00" in page
    assert "2. vid1, score 2.50" in page
    assert "the right video has rank 2" in page


def test_scores_that_hold_pickles_are_not_read(world: World):
    record = {"index": 0, "video": "vid1", "caption": "a red circle", "rank": 1.0, "prediction": "vid1"}
    run = world.run("_a", {"test": [record]}, type="retrieval", task="toy-retrieval")
    np.save(run.folder / "scores_test.npy", np.array([[{}]], dtype=object))
    (run.folder / "scores_test.json").write_text(json.dumps({"texts": [], "videos": ["vid0"]}))
    assert "1. vid1" in world.page(run)


def test_a_page_of_hidden_words(world: World):
    words = [{"word": "red", "prediction": "red", "probability": 0.9, "loss": 0.1}]
    record = {"index": 0, "video": "vid0", "caption": "a red circle", "words": words}
    page = world.page(world.run("_a", {"val": [record]}, type="", task="", dataset=["toy"]))
    assert "[red] read as red" in page
    assert "data:image/jpeg" in page


def test_a_page_of_choices(world: World):
    top = [{"option": 1, "probability": 0.6}, {"option": 0, "probability": 0.4}]
    record = {"index": 0, "video": "vid0", "question": "", "options": ["a", "b"], "answer": 0, "prediction": 1}
    page = world.page(world.run("_a", {"val": [{**record, "top": top, "right": False}]}, type="qamc"))
    assert 'class="card wrong"' in page
    assert "60 %" in page


def test_no_run(world: World):
    with pytest.raises(DataError, match=r"args\.json is missing.*no run"):
        open_run(world.folder)
    (world.folder / "args.json").write_text("{}")
    with pytest.raises(DataError, match=r"results\.json is missing.*no results yet"):
        open_run(world.folder)


def test_predictions_that_were_cut(world: World):
    run = world.run("_a", {"test": QUESTIONS})
    path = run.folder / "predictions" / "test.jsonl"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=r"test\.jsonl, line 3"):
        run.predictions()


def test_the_metrics_are_explained(world: World):
    names = [
        "toy-qa val acc_1",
        "toy-qa test acc_1",
        "toy-cap test CIDEr",
        "v2t_r@5",
        "toy-qa best epoch",
        "own metric",
    ]
    table = Table(["run"], {name: ["1"] for name in names})
    assert list(table.meanings()) == ["acc_1", "CIDEr", "v2t_r@5", "best epoch"]
    assert "video-to-text" in table.meanings()["v2t_r@5"]
