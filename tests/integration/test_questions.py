"""Question answering and multiple choice: every script with each of its configurations, on 1 and 2 processes.

Overridden are the data's names, the model's size and the batch; where a test says so, epochs and learning rate.
"""

import itertools
import json
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
KIT = ROOT / "tests" / "conformance" / "kit"
CHOICE, CHOICE_SPECIFIC = "main_qamc_mlm_gen_ans_idx.py", "main_qamc_task_specific.py"
MATCHING, MATCHING_SPECIFIC = "main_retmc_mlm_head.py", "main_retmc_task_specific.py"
ANSWER, BLANK, ANSWER_SPECIFIC = "main_qaoe_mlm.py", "main_qaoe_mlm_lsmdc_fib.py", "main_qaoe_task_specific.py"
CONFIGURATIONS = {
    CHOICE: ("tgif-action", "tgif-transition"),
    CHOICE_SPECIFIC: ("tgif-action", "tgif-transition"),
    MATCHING: ("lsmdc-mc", "msrvtt-mc"),
    MATCHING_SPECIFIC: ("lsmdc-mc", "msrvtt-mc"),
    ANSWER: ("msvd-qa", "msrvtt-qa", "tgif-frame"),
    BLANK: ("lsmdc-fib",),
    ANSWER_SPECIFIC: ("msvd-qa", "msrvtt-qa", "tgif-frame", "lsmdc-fib"),
}
COMMANDS = [(script, config) for script, configs in CONFIGURATIONS.items() for config in configs]
FIRST = [(script, configs[0]) for script, configs in CONFIGURATIONS.items()]
TABLES = {  # of state_dict_micro.json
    **{CHOICE: "qamc_mlm", MATCHING: "retmc_mlm", ANSWER: "qaoe_mlm", BLANK: "qaoe_mlm"},
    **{CHOICE_SPECIFIC: "qamc_task_specific", MATCHING_SPECIFIC: "retmc_task_specific"},
    ANSWER_SPECIFIC: "qaoe_task_specific",
}
HERE, DDP, DEEPSPEED = "Lavender", "DistributedDataParallel", "DeepSpeedEngine (ZeRO 1)"


# --- what a run leaves behind -----------------------------------------------------------------------------------------


def check_outputs(run, script: str, config: str, engine: str, processes: int = 1) -> None:
    args, results = run.json("args.json"), run.results
    check_settings(run, args, config)
    assert re.fullmatch(rf"_{args['task']}_\d{{14}}", run.folder.name)
    last = args["size_epoch"]
    checkpoints = [f"ckpt_violet_{args['task']}_{epoch}.pt" for epoch in range(last + 1 if last else 0)]
    (events,) = (path.name for path in run.folder.glob("events.out.tfevents.*"))
    names = {"args.json", "stdout.txt", "log.json", "results.json", "predictions", *checkpoints, events}
    assert {path.name for path in run.folder.iterdir()} == names
    assert f"engine: {engine}, fp32, {processes} process(es), cpu" in run.log
    check_weights([run.checkpoint(name) for name in checkpoints], script, args["size_vocab"])
    assert ("zero_shot" in results) == (args["path_ckpt"] != "" or args["size_epoch"] == 0)
    assert [entry["epoch"] for entry in results["epochs"]] == list(range(1, args["size_epoch"] + 1))
    check_predictions(run, script, results["best"] if results["epochs"] else results["zero_shot"])
    assert run.json("log.json") == curves(results["epochs"], args["type"], script)
    if results["epochs"]:
        check_training(run, "acc_1" if args["type"] == "qaoe" else "acc", processes)


def check_settings(run, args: dict, config: str) -> None:
    """What the configuration says holds, but for the words of the command line."""
    said = {word[2:] for word in run.command if word.startswith("--")}
    written = json.loads((ROOT / "_args" / f"args_{config}.json").read_text())
    kept = written.keys() - said
    assert {"type", "size_txt", "size_frame", "decay", "max_grad_norm"} <= kept
    assert {name: args[name] for name in kept} == {name: written[name] for name in kept}


def check_weights(weights: list[dict[str, torch.Tensor]], script: str, size_vocab: int) -> None:
    """The released names and shapes; every epoch moves them."""
    expected = json.loads((KIT / "cases" / "state_dict_micro.json").read_text())[TABLES[script]]
    if script == ANSWER_SPECIFIC:
        expected = {**expected, "fc.3.weight": [size_vocab, 128], "fc.3.bias": [size_vocab]}
    for state in weights:
        assert {name: list(tensor.shape) for name, tensor in state.items()} == expected
        assert all(tensor.isfinite().all() for tensor in state.values())
    for before, after in itertools.pairwise(weights):
        assert not torch.equal(before["enc_img.emb_cls"], after["enc_img.emb_cls"])


def check_training(run, metric: str, processes: int) -> None:
    """Two steps or more an epoch, shared evenly; the best epoch is that of validation."""
    epochs = run.results["epochs"]
    assert all(entry["train"]["loss"] > 0 for entry in epochs)
    assert all(entry["train"]["count_unlabelled_batches"] == 0 for entry in epochs)
    best = max(epochs, key=lambda entry: entry["val"][metric])
    assert run.results["best"] == {key: value for key, value in best.items() if key != "train"}
    samples = 7 if run.folder.name.startswith("_toy-qa") else 6
    share = -(-samples // processes)
    steps = -(-share // 2)
    assert steps >= 2
    assert re.findall(r"step (\d+/\d+): loss", run.log) == [f"{steps}/{steps}"] * len(epochs)
    shares = f"{share * processes} samples ({' + '.join([str(share)] * processes)} by process)"
    assert run.log.count(f"toy 0: {shares}") == len(epochs)


def curves(epochs: list[dict], kind: str, script: str) -> dict[str, list[float]]:
    """`log.json`: the released keys, and on test the figure that is to be reported."""
    if kind == "qamc":
        keys = {"ac_vl": ("val", "acc"), "ac_ts": ("test", "acc")}
    elif script == ANSWER_SPECIFIC:
        keys = {"ac_vl": ("val", "acc_1"), "ac_ts": ("test", "acc_1")}
    else:
        keys = {f"ac_{k}_vl": ("val", f"acc_{k}") for k in (1, 5)}
        keys |= {f"ac_{k}_ts": ("test", f"acc_{k}") for k in (1, 5)}
    figures = {key: [entry[split][name] for entry in epochs] for key, (split, name) in keys.items()}
    return {"ls_tr": [entry["train"]["loss"] for entry in epochs], **figures}


def check_predictions(run, script: str, figures: dict) -> None:
    """Every item once, in the split's order, with its answer; the figures follow from the records."""
    args = run.json("args.json")
    texts = json.loads((Path(args["data_dir"]) / f"txt_{args['task']}.json").read_text())
    words = {number: word for word, number in texts.get("ans2label", {}).items()}
    for split in ("val", "test"):
        records = run.predictions(split)
        assert [record["index"] for record in records] == list(range(len(texts[split])))
        for record, item in zip(records, texts[split], strict=True):
            assert (record["video"], record["question"]) == (item["video"], item["question"])
            probs = [entry["probability"] for entry in record["top"]]
            assert probs == sorted(probs, reverse=True)
            if words:
                check_answer(record, item, words, script)
            else:
                check_option(record, item)
            assert len(probs) == (min(5, args["size_vocab"]) if script == ANSWER_SPECIFIC else 5)
        shares = {"acc": "right"} if not words else {"acc_1": "right", "acc_5": "right_in_5"}
        right = {name: sum(record[key] for record in records) for name, key in shares.items()}
        expected = {name: number / len(records) for name, number in right.items()}
        assert figures[split] == expected  # nothing is adjusted: `size_test` is another data set's


def check_option(record: dict, item: dict) -> None:
    assert record["options"] == [item[f"option_{number}"] for number in range(5)]
    assert sorted(entry["option"] for entry in record["top"]) == list(range(5))
    assert record["prediction"] == record["top"][0]["option"]
    assert record["answer"] == item["answer"]
    assert record["right"] == (record["prediction"] == item["answer"])


def check_answer(record: dict, item: dict, words: dict[int, str], script: str) -> None:
    assert record["answer"] == item.get("answer_text", words[item["answer"]])
    found = [entry["answer"] for entry in record["top"]]
    truth = words[item["answer"]] if script == ANSWER_SPECIFIC else record["answer"]  # its classes know the number
    assert record["prediction"] == found[0]
    assert (record["right"], record["right_in_5"]) == (found[0] == truth, truth in found)


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("script", "config"), FIRST)
def test_each_script(ask, script: str, config: str):
    """Two epochs of three steps, as one process; enough to learn which answers are frequent."""
    run = ask(script, config, "--size_epoch", 2, "--lr", 1e-3, "--report_to", "tensorboard").check_passed()
    check_outputs(run, script, config, HERE)
    assert run.results["epochs"][-1]["test"]["acc_5" if "qaoe" in script else "acc"] > 0
    assert run.results["epochs"][1]["train"]["loss"] < run.results["epochs"][0]["train"]["loss"]


@pytest.mark.parametrize(
    ("script", "config", "engine"), [(CHOICE, "tgif-action", DEEPSPEED), (ANSWER_SPECIFIC, "lsmdc-fib", DDP)]
)
def test_two_processes(ask, kit_weights, script: str, config: str, engine: str):
    """As released, and without DeepSpeed; the checkpoint is scored first, as one process scores it to the last bit."""
    words = ("--path_ckpt", kit_weights(TABLES[script]), "--size_vocab", 4)
    engine_words = ("--deepspeed", str(engine == DEEPSPEED).lower())
    pair = ask(script, config, *words, *engine_words, "--size_epoch", 1, by="launch").check_passed()
    check_outputs(pair, script, config, engine, processes=2)
    alone = ask(script, config, *words, "--size_epoch", 0).check_passed()
    assert pair.results["zero_shot"] == alone.results["zero_shot"]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["python", "launch"])
@pytest.mark.parametrize(("script", "config"), COMMANDS)
def test_every_configuration(ask, script: str, config: str, by: str):
    """MSRVTT-MC has no epochs, and is left so: evaluation alone."""
    words = ("--allow_random", True) if config == "msrvtt-mc" else ("--size_epoch", 1)
    run = ask(script, config, *words, by=by).check_passed()
    engine, processes = {"python": (HERE, 1), "launch": (DEEPSPEED, 2)}[by]
    check_outputs(run, script, config, engine, processes)
    assert ('"deepspeed" is true, but no launcher started this process' in run.log) == (by == "python")
    assert ("random weights are evaluated" in run.log) == (config == "msrvtt-mc")


@pytest.mark.slow
@pytest.mark.parametrize("by", ["python", "launch"])
@pytest.mark.parametrize("script", [MATCHING, MATCHING_SPECIFIC])
def test_msrvtt_multiple_choice_can_be_trained(ask, script: str, by: str):
    run = ask(script, "msrvtt-mc", "--size_epoch", 1, by=by).check_passed()
    check_outputs(run, script, "msrvtt-mc", *{"python": (HERE, 1), "launch": (DEEPSPEED, 2)}[by])


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("deepspeed", "size_batch"), [("false", 4), ("true", 3)])
@pytest.mark.parametrize(("script", "config"), FIRST)
def test_two_processes_evaluate_as_one(
    ask, kit_weights, questions: Path, spoil, script: str, config: str, deepspeed: str, size_batch: int
):
    """4 items of val and 5 or 6 of test: with batches of 4 the second process has nothing of val to do."""
    for path in questions.glob("txt_*.json"):
        spoil.texts(path, lambda texts: texts["test"].pop(2))
    weights = kit_weights(TABLES[script])
    words = ("--path_ckpt", weights, "--size_vocab", 4, "--size_epoch", 0, "--size_batch", size_batch)
    pair = ask(script, config, *words, "--deepspeed", deepspeed, by="launch", data=questions).check_passed()
    alone = ask(script, config, *words, data=questions).check_passed()
    assert pair.results == alone.results
    assert all(pair.predictions(split) == alone.predictions(split) for split in ("val", "test"))
    check_predictions(pair, script, pair.results["zero_shot"])


@pytest.mark.parametrize(("script", "config"), [(ANSWER, "msvd-qa"), (CHOICE, "tgif-action"), (MATCHING, "lsmdc-mc")])
def test_a_blind_test_split(ask, questions: Path, spoil, script: str, config: str):
    """Each item is predicted as ever; there is no figure, and a line says why."""
    words = ("--size_epoch", 1, "--lr", 1e-3)
    known = ask(script, config, *words).check_passed()

    def withhold(texts: dict) -> None:
        texts["test"] = [{**item, "answer": -1, "answer_text": None} for item in texts["test"]]

    for path in questions.glob("txt_toy-*.json"):
        spoil.texts(path, withhold)
    blind = ask(script, config, *words, data=questions).check_passed()
    figures = blind.results["best"]
    assert figures["test"] == {}
    assert figures["val"] == known.results["best"]["val"]
    assert "test: no item has an answer, so there are no metrics" in blind.log
    assert [one["prediction"] for one in blind.predictions("test")] == [
        one["prediction"] for one in known.predictions("test")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", ["false", "true"])
@pytest.mark.parametrize("options", [(), ("--enable_prompt",), ("--enable_task_token",)])
def test_batches_without_an_answer(ask, questions: Path, spoil, options: tuple, deepspeed: str):
    """One process has an answer and the other none, or neither has: the loss of nothing is 0, and nobody waits."""

    def forget(texts: dict) -> None:
        for item in texts["train"][1:]:
            item["answer_text"] = "zebracorn"

    spoil.texts(questions / "txt_toy-qa.json", forget)
    words = ("--size_epoch", 2, "--size_batch", 1, "--deepspeed", deepspeed, *options)
    run = ask(ANSWER, "msvd-qa", *words, by="launch", data=questions).check_passed()
    for entry in run.results["epochs"]:
        assert 0 < entry["train"]["loss"] < 6
        assert entry["train"]["count_unlabelled_batches"] in (6, 7)  # of 8: 7 questions, and one of them twice


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "config", "precision"),
    [(*command, "fp32") for command in FIRST] + [(CHOICE, "tgif-action", "bf16"), (ANSWER, "msvd-qa", "bf16")],
)
def test_engines_agree(ask, kit_weights, script: str, config: str, precision: str):
    """The same losses by DDP and by DeepSpeed, whichever weights a task leaves out."""
    words = ("--path_ckpt", kit_weights(TABLES[script]), "--size_vocab", 4, "--size_epoch", 2, "--lr", 1e-3)
    ddp, zero = (
        ask(script, config, *words, "--precision", precision, "--deepspeed", deepspeed, by="launch").check_passed()
        for deepspeed in ("false", "true")
    )
    losses = [[entry["train"]["loss"] for entry in run.results["epochs"]] for run in (ddp, zero)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3 if precision == "fp32" else 0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("script", "config"), [(CHOICE, "tgif-action"), (MATCHING, "lsmdc-mc"), (BLANK, "lsmdc-fib")])
@pytest.mark.parametrize("option", ["--enable_prompt", "--enable_task_token"])
@pytest.mark.parametrize("deepspeed", ["false", "true"])
def test_what_stands_in_front_on_two_processes(ask, script: str, config: str, option: str, deepspeed: str):
    """DDP refuses its second step where a parameter had no gradient in the first."""
    run = ask(script, config, option, "--size_epoch", 1, "--deepspeed", deepspeed, by="launch").check_passed()
    check_outputs(run, script, config, DEEPSPEED if deepspeed == "true" else DDP, 2)
