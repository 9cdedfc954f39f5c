"""Text-to-video retrieval: training, and the evaluation of a whole split, by every script and configuration."""

import itertools
import json
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lavender.tasks.retrieval import PairTask

ROOT = Path(__file__).parents[2]
KIT = ROOT / "tests" / "conformance" / "kit"
TRAIN, TRAIN_SPECIFIC = "main_retrieval_tsv.py", "main_retrieval_task_specific.py"
EVAL, EVAL_SPECIFIC = "eval_retrieval_tsv.py", "eval_retrieval_task_specific.py"
EVALUATES = {TRAIN: EVAL, TRAIN_SPECIFIC: EVAL_SPECIFIC}
CONFIGS = ("msrvtt-retrieval", "didemo-retrieval", "msvd-retrieval", "lsmdc-retrieval")
COMMANDS = list(itertools.product(EVALUATES, CONFIGS))
ENGINES = {None: "Lavender", "false": "DistributedDataParallel", "true": "DeepSpeedEngine (ZeRO 1)"}
TABLES = dict.fromkeys((TRAIN, EVAL), "retrieval_mlm")  # of state_dict_micro.json
TABLES |= dict.fromkeys((TRAIN_SPECIFIC, EVAL_SPECIFIC), "retrieval_task_specific")
SCORING = {EVAL: ("fc_mtm.predictions.bias", "fc_mtm.predictions.decoder."), EVAL_SPECIFIC: ("fc.3.",)}  # last layers
ODD, WIDE = ("--task", "toyodd-retrieval"), ("--dataset", "wide", "--task", "wide-retrieval")
TEXTS = "txt_toy-retrieval.json"
LAUNCHED = [(*each, *how) for each in COMMANDS for how in (("true", "torchrun"), ("false", "launch"))]
MANY = itertools.product(SCORING, (False, True), (ODD, WIDE), (("launch", 2), ("torchrun", 3)))
LAUNCHED, MANY = ([pytest.param(*case, marks=pytest.mark.slow) for case in cases] for cases in (LAUNCHED, MANY))


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """The kit's data, in a folder of one's own; besides, for `ODD` 7 captions of its 6 videos, for `WIDE` 23 of 19."""
    folder = Path(shutil.copytree(KIT / "data", tmp_path / "data", copy_function=shutil.copyfile))
    texts = json.loads((folder / TEXTS).read_text())["test"]
    odd = [*texts[3:], {"video": "vid2", "caption": ["a small triangle jumps .", "it is blue"]}, *texts[:3]]
    captions = [(n, f"{texts[n % 6]['caption']} {n} times") for n in range(19)]
    captions += [(n, f"one of {n} again") for n in (3, 17, 17, 9)]
    rows = [line.split("\t") for line in (folder / "img_toy.tsv").read_text().splitlines()] * 4
    wide = [[f"clip{n}", facts, *frames[n // 6 :], *frames[: n // 6]] for n, (_, facts, *frames) in enumerate(rows)]
    (folder / "img_wide.tsv").write_text("".join("\t".join(fields) + "\n" for fields in wide))
    for name, items in (("toyodd", odd), ("wide", [{"video": f"clip{n}", "caption": text} for n, text in captions])):
        (folder / f"txt_{name}-retrieval.json").write_text(json.dumps({"test": items}))
    return folder


@pytest.fixture
def retrieve(train_here, start, needs, gallery: Path) -> Any:
    """`retrieve(script, *options, config=…, by=…, processes=…, output=…)`, as `ask` is for questions."""

    def run(script: str, *options: object, config: str = CONFIGS[0], by: str = "here", **more: Any):
        text = "toypar-retrieval" if config == "didemo-retrieval" else "toy-retrieval"  # DiDeMo has paragraphs
        more["released"] = ("--config", f"_args/args_{config}.json", "--dataset", "toy", "--task", text)
        if by == "here":
            return train_here(*options, task=script, data=gallery, **more)
        for package in ("fairscale", "deepspeed"):
            needs(package)
        return start(script, *options, launcher=None if by == "python" else by, data=gallery, **more)

    return run


@pytest.fixture
def weights(kit_weights, tmp_path: Path) -> Any:
    """`weights(script, blank=…)`: the kit's; `blank` has one score for all pairs. In a folder of the test's own."""

    def save(script: str, blank: bool = False) -> Path:
        state = torch.load(kit_weights(TABLES[script]), weights_only=True)
        lost = SCORING[script] if blank else ()
        (path := tmp_path / "weights" / "ckpt_violet_3.pt").parent.mkdir()
        torch.save({name: value * (not name.startswith(lost)) for name, value in state.items()}, path)
        return path

    return save


# --- what a run leaves behind -----------------------------------------------------------------------------------------


def check_training(run, script: str, config: str, deepspeed: str | None = None) -> Path:
    args = run.json("args.json")
    written = json.loads((ROOT / "_args" / f"args_{config}.json").read_text())
    kept = written.keys() - {word[2:] for word in run.command if word.startswith("--")}
    assert {"temp", "size_txt", "size_frame"} <= kept == {name for name in kept if args[name] == written[name]}
    checkpoints = [f"ckpt_violet_{args['task']}_{epoch}.pt" for epoch in (0, 1)]
    (events,) = (path.name for path in run.folder.glob("events.out.tfevents.*"))
    names = {"args.json", "stdout.txt", "log.json", "results.json", "predictions", *checkpoints, events}
    assert {path.name for path in run.folder.iterdir()} == names
    assert f"engine: {ENGINES[deepspeed]}, fp32, {2 if deepspeed else 1} process(es), cpu" in run.log
    expected = json.loads((KIT / "cases" / "state_dict_micro.json").read_text())[TABLES[script]]
    states = [run.checkpoint(name) for name in checkpoints]
    assert all({name: list(tensor.shape) for name, tensor in state.items()} == expected for state in states)
    assert not torch.equal(*(state["enc_img.emb_cls"] for state in states))
    (entry,) = run.results["epochs"]
    log = {"ls_tr": [entry["train"]["loss"]], "ac_vl": [entry["val"]["acc"]], "ac_ts": [entry["test"]["acc"]]}
    assert run.json("log.json") == log
    for split, count in (("val", 4), ("test", 6)):
        right = [record["right"] for record in run.predictions(split)]
        assert (len(right), np.mean(right)) == (count, run.results["best"][split]["acc"])
    return run.folder / checkpoints[-1]


def check_evaluation(run, split: str = "test") -> np.ndarray:
    """All files, and each figure counted from the score matrix, which is returned: (texts, videos)."""
    run.check_passed()
    args, found = run.json("args.json"), run.results["zero_shot"][split]
    items = json.loads((Path(args["data_dir"]) / f"txt_{args['task']}.json").read_text())[split]
    videos = list(dict.fromkeys(item["video"] for item in items))
    names = {"args.json", "stdout.txt", "results.json", "predictions", f"scores_{split}.npy", f"scores_{split}.json"}
    assert {path.name for path in run.folder.iterdir()} == names
    assert list(run.folder.parent.glob("_retrieval_so_far_*")) == []
    for item in items:
        item["caption"] = item["caption"] if isinstance(item["caption"], str) else " ".join(item["caption"])
    assert run.json(f"scores_{split}.json") == {"texts": items, "videos": videos}
    scores = np.load(run.folder / f"scores_{split}.npy", allow_pickle=False)
    figures, ranks = counted(scores, np.array([item["video"] for item in items])[:, None] == np.array(videos))
    assert run.results == {"zero_shot": {split: found}, "epochs": []}
    expected = {**figures, "texts": len(items), "videos": len(videos), "ties": found["ties"]}
    assert found == pytest.approx(expected, rel=1e-12)
    for index, (record, item) in enumerate(zip(run.predictions(split), items, strict=True)):
        order = np.argsort(-scores[index], kind="stable")
        best = [{"video": videos[number], "score": float(scores[index, number])} for number in order]
        line = {"index": index, **item, "rank": ranks[index], "prediction": best[0]["video"]}
        assert record == line | ({"top": best[: args["save_top_k"]]} if args["save_top_k"] else {})
    released: dict[str, str] = {name: f"{100 * figures[name]:.2f}" for name in ("r@1", "r@5", "r@10")}
    released["median"] = str(int(figures["median_rank"]))
    beside = json.loads(Path(args["path_ckpt"].removesuffix(".pt") + "_results.json").read_text())
    assert beside == {split: released, "multi_clip_testing": args["multi_clip_testing"]}
    return scores


def counted(scores: np.ndarray, belongs: np.ndarray) -> tuple[dict[str, float], list[float]]:
    """The metrics, and the rank of each text's video; what is equal but for rounding is half before, half behind."""
    figures = {}
    for prefix, matrix, own in (("v2t_", scores.T, belongs.T), ("", scores, belongs)):
        asked = [(row[mine].max(), row[~mine]) for row, mine in zip(matrix, own, strict=True)]
        near = 5e-6 * max(abs(best) for best, _ in asked)
        counts = [((others > best + near).sum(), (abs(others - best) <= near).sum()) for best, others in asked]
        ranks = [1 + float(above + equal / 2) for above, equal in counts]
        figures |= {f"{prefix}r@{k}": np.mean(np.array(ranks) <= k) for k in (1, 5, 10)}
        figures |= {f"{prefix}median_rank": np.median(ranks), f"{prefix}mean_rank": np.mean(ranks)}
    return figures, ranks


def check_same(run, other) -> None:
    """To the last bit."""
    assert np.array_equal(check_evaluation(run), check_evaluation(other))
    assert run.results == other.results
    assert run.predictions("test") == other.predictions("test")


@pytest.mark.parametrize(
    ("script", "config"),
    [*COMMANDS[::5], *(pytest.param(*c, marks=pytest.mark.slow) for c in COMMANDS if c not in COMMANDS[::5])],
)
def test_each_script(retrieve, script: str, config: str):
    """Trained for an epoch; all pairs of val have the scores that its validation gave them, batch by batch."""
    run = retrieve(script, "--lr", 1e-3, "--report_to", "tensorboard", config=config).check_passed()
    words = ("--path_ckpt", check_training(run, script, config))
    check_evaluation(retrieve(EVALUATES[script], *words, config=config))
    val = retrieve(EVALUATES[script], *words, "--eval_split", "val", config=config)
    scores, seen = check_evaluation(val, "val"), run.predictions("val")
    texts = [record["caption"] for record in seen]
    ours = [column[texts.index(record["prediction"])] for column, record in zip(scores.T, seen, strict=True)]
    assert ours == pytest.approx([record["score"] for record in seen], abs=1e-5)


@pytest.mark.parametrize(("script", "config", "deepspeed", "by"), [(*COMMANDS[0], "true", "python"), *LAUNCHED])
def test_two_processes(retrieve, script: str, config: str, deepspeed: str, by: str):
    run = retrieve(script, "--deepspeed", deepspeed, config=config, by="launch").check_passed()
    checkpoint = check_training(run, script, config, deepspeed)
    check_evaluation(retrieve(EVALUATES[script], "--path_ckpt", checkpoint, config=config, by=by))


def test_training_with_something_in_front_and_without_a_video(retrieve, gallery: Path, spoil):
    spoil.texts(gallery / TEXTS, lambda texts: texts["train"][1].update(video="vid9"))
    for option in ("--enable_prompt", "--enable_task_token"):
        run = retrieve(TRAIN, option, "--on_bad_sample", "zero", "--report_to", "tensorboard").check_passed()
        check_training(run, TRAIN, CONFIGS[0])
        assert run.results["epochs"][0]["train"]["bad_samples"] == 1
    retrieve(TRAIN).check_refused(TEXTS, "'vid9'", "1 of 6 items", "--on_bad_sample zero")


# --- the same figures, however they are computed ----------------------------------------------------------------------


@pytest.mark.parametrize(("script", "blank", "data", "how"), [(EVAL, False, WIDE, ("torchrun", 2)), *MANY])
def test_any_number_of_processes(retrieve, weights, script: str, blank: bool, data: tuple, how: tuple):
    words = ("--path_ckpt", weights(script, blank), *data)
    check_same(retrieve(script, *words, by=how[0], processes=how[1]), retrieve(script, *words))


@pytest.mark.parametrize("script", SCORING)
def test_scores_that_all_tie(retrieve, weights, script: str):
    """The video is in the middle of 6; so is the text among those of other videos, of which there are 6, or 5."""
    run = retrieve(script, "--path_ckpt", weights(script, blank=True), *ODD)
    assert np.unique(check_evaluation(run)).size == 1
    figures = run.results["zero_shot"]["test"]
    assert [figures[name] for name in ("r@1", "r@5", "r@10", "median_rank", "mean_rank")] == [0, 1, 1, 3.5, 3.5]
    assert (figures["v2t_mean_rank"], figures["ties"]) == (pytest.approx((5 * 4 + 3.5) / 6), 7)


CLIPS = ("--dataset", "toy10", "--multi_clip_testing", "--size_frame", 4, "--save_top_k", 3)
RELEASED = [
    *[("eval_toy10_toy-retrieval_clip1_f4", CLIPS), ("eval_toy10_toy-retrieval_clip0_f5", ("--dataset", "toy10"))],
    *[("mlm_prompt", ("--enable_prompt",)), ("mlm_task_token", ("--enable_task_token",)), ("task_specific", ())],
]


@pytest.mark.parametrize(("case", "options"), RELEASED)
def test_the_released_numbers(retrieve, weights, case: str, options: tuple):
    script = EVAL_SPECIFIC if case == "task_specific" else EVAL
    words = ("--path_ckpt", weights(script), "--size_img", 224, *options)
    kit = np.load(KIT / "cases" / f"retrieval_{case}.npz")
    expected = [kit["out"] if "out" in kit else kit["logit_true"] - kit["logit_false"], kit.get("upstream_ratio")]
    for theirs, score_fn in zip(expected, ("probability", "upstream"), strict=True):
        if theirs is not None:
            ours = check_evaluation(retrieve(script, *words, "--score_fn", score_fn))
            ours = ours if case.startswith("eval") else ours[:4, :4].T  # a batch: (videos, texts) of the first four
            assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_a_trained_model_is_known_by_its_folder(retrieve, tmp_path: Path):
    """`args.json` beside the checkpoint tells frames and texts; without it the command line must, which wins anyway."""
    said = ("--size_frame", 3, "--size_txt", 7)
    known = retrieve(TRAIN, *said).check_passed().folder / "ckpt_violet_toy-retrieval_1.pt"
    run, alone = retrieve(EVAL, "--path_ckpt", known), shutil.copy(known, tmp_path / "alone.pt")
    assert "size_frame: 3 from" in run.log
    check_same(run, retrieve(EVAL, "--path_ckpt", alone, *said))
    assert (check_evaluation(run) != check_evaluation(retrieve(EVAL, "--path_ckpt", known, "--size_frame", 5))).all()


def test_a_checkpoint_in_a_folder_of_somebody_else(retrieve, weights):
    """Root may write anywhere, so a folder is in the way."""
    (path := weights(EVAL)).with_name("ckpt_violet_3_results.json").mkdir()
    run = retrieve(EVAL, "--path_ckpt", path).check_passed()
    assert "ckpt_violet_3_results.json: could not be written" in run.log
    assert (run.folder / "results.json").exists()


@pytest.mark.parametrize("script", SCORING)
def test_a_stopped_evaluation_goes_on(retrieve, weights, monkeypatch, tmp_path: Path, script: str):
    scored: list[int] = []
    score = PairTask.pair_scores

    def stopping(task, model, video, text):
        scored.append(len(video.states))
        if len(scored) == stop_at:
            raise KeyboardInterrupt
        return score(task, model, video, text)

    monkeypatch.setattr(PairTask, "pair_scores", stopping)
    words, left, stop_at = ("--path_ckpt", weights(script), *ODD, "--size_pairs", 2), 42, 0
    whole = retrieve(script, *words)
    for stop_at in (9, 6, 0):
        scored.clear()
        run = retrieve(script, *words, output=tmp_path / "out")
        told = f"resuming a stopped evaluation: {42 - left} of 42 pairs are scored"
        assert (told in run.log) == ("resuming" in run.log) == (left < 42)
        if stop_at:
            assert (run.code, list(run.folder.glob("*results*"))) == (130, [])
            (file,) = tmp_path.glob("out/_retrieval_so_far_*/*.npy")
            left = int(np.isnan(np.load(file)).sum())
    assert sum(scored) == left < 42
    check_same(run, whole)
    singly = retrieve(script, *words, "--size_pairs", 1)
    assert check_evaluation(singly) == pytest.approx(check_evaluation(whole), abs=1e-5)
    assert singly.results == whole.results


@pytest.mark.slow
@pytest.mark.parametrize(("by", "ending"), [("python", "SIGKILL"), ("torchrun", "SIGINT"), ("torchrun", "SIGTERM")])
def test_a_process_that_is_stopped(retrieve, weights, gallery: Path, tmp_path: Path, spoil, by: str, ending: str):
    """Whatever ends it; one process goes on with what all of them left."""
    spoil.texts(gallery / "txt_wide-retrieval.json", lambda texts: texts.update(test=texts["test"] * 4))

    def end(process: Any) -> None:
        while process.poll() is None and not list(tmp_path.glob(f"out/_retr*/process_{int(by != 'python')}.npy")):
            time.sleep(0.01)
        process.send_signal(signal.Signals[ending])

    words = ("--path_ckpt", weights(EVAL), *WIDE, "--size_pairs", 1, "--use_checkpoint", "false")
    stopped = retrieve(EVAL, *words, "--save_minutes", 1e-9, by=by, output=tmp_path / "out", watch=end)
    assert (stopped.code == 0, (stopped.folder / "results.json").exists()) == (False, False)
    run = retrieve(EVAL, *words, output=tmp_path / "out")
    assert re.search(rf"resuming a stopped evaluation: [1-9]\d* of {92 * 19} pairs", run.log)
    check_same(run, retrieve(EVAL, *words))


# --- what cannot be evaluated -----------------------------------------------------------------------------------------

FAULTS = [  # fields of an item, or the frames of a row
    *[({"video": "vid9"}, "video 'vid9' is not in"), ({"caption": []}, "the list of captions is empty")],
    *[({"caption": " "}, "the caption is empty"), ({"caption": ["a", ""]}, "the caption is empty")],
    *[({"caption": None}, '"caption" is missing'), ({"caption": 7}, "the caption is not text")],
    *[([], "img_toy.tsv, line 3: video 'vid2' has no frames"), (["/9j/x"] * 5, "img_toy.tsv, line 3, frame 0")],
]
NOTHING = [
    ({"test": []}, (), (TEXTS, 'no "test" items to evaluate', "--eval_split")),
    ({"val": None}, ("--eval_split", "val"), (TEXTS, 'no "val" items to evaluate', "--eval_split")),
    ({}, ("--eval_split", "nowhere"), ("eval_split", "nowhere", "val")),
    ({"test": [{"video": "vid9", "caption": "a"}]}, ("--allow_missing", "true"), (TEXTS, "no captions")),
    *[({}, ("--path_ckpt", ""), ("path_ckpt is empty",)), ({}, ("--path_ckpt", "/x.pt"), ("/x.pt", "no such"))],
]


def check_nothing_written(folder: Path) -> None:
    assert [path for name in ("*results*", "scores*", "predictions") for path in folder.rglob(name)] == []


@pytest.mark.parametrize(("harm", "told"), FAULTS)
def test_something_is_missing(retrieve, weights, gallery: Path, spoil, harm: dict | list, told: str):
    """Told and counted, and nothing reported; or left out on demand, as if it had never been in the files."""
    path, words = gallery / TEXTS, ("--path_ckpt", weights(EVAL))
    if isinstance(harm, dict):
        spoil.texts(path, lambda texts: texts["test"][2].update(harm))
    else:
        spoil.row(gallery / "img_toy.tsv", 2, lambda fields: [*fields[:2], *harm])
        (gallery / "img_toy.id2lineidx.pkl").unlink()
    count = f"{path}, test: 1 of 6 {'captions' if isinstance(harm, dict) else 'videos'}"
    retrieve(EVAL, *words).check_refused(f"{count} cannot be evaluated: ", told, "--allow_missing true")
    check_nothing_written(gallery.parent)
    run = retrieve(EVAL, *words, "--allow_missing", "true").check_passed()
    assert all(words in run.log for words in (f"{count} left out (allow_missing): ", told))
    spoil.texts(path, lambda texts: texts["test"].pop(2))
    check_evaluation(without := retrieve(EVAL, *words))
    assert run.results["zero_shot"]["test"] == {**without.results["zero_shot"]["test"], "missing": 1}
    assert run.predictions("test") == without.predictions("test")


@pytest.mark.parametrize(("harm", "words", "told"), NOTHING)
def test_nothing_to_evaluate(retrieve, weights, gallery: Path, spoil, harm: dict, words: tuple, told: tuple):
    spoil.texts(gallery / TEXTS, lambda texts: texts.update(harm))
    retrieve(EVAL, "--path_ckpt", weights(EVAL), *words).check_refused(*told)
    check_nothing_written(gallery.parent)


@pytest.mark.slow
def test_something_is_missing_on_each_of_two_processes(retrieve, weights, gallery: Path, spoil):
    for number in (2, 10):
        spoil.row(gallery / "img_wide.tsv", number, lambda fields: fields[:2])
    words = ("--path_ckpt", weights(EVAL), *WIDE)
    run = retrieve(EVAL, *words, by="torchrun")
    assert re.search("2 of 19 videos cannot be evaluated: .*line 3: .*line 11: ", run.stderr), run.stderr[-3000:]
    check_nothing_written(run.folder)
    pair, alone = (retrieve(EVAL, *words, "--allow_missing", "true", by=by).check_passed() for by in ("launch", "here"))
    assert np.array_equal(*(np.load(run.folder / "scores_test.npy") for run in (pair, alone)))
    assert pair.results == alone.results
    assert alone.results["zero_shot"]["test"]["missing"] == 2
