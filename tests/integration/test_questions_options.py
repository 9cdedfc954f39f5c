"""What options, checkpoints and texts change in question answering and multiple choice.

Where the released code's numbers are known, they must come out of the commands.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

KIT = Path(__file__).parents[1] / "conformance" / "kit"
CHOICE, CHOICE_SPECIFIC = "main_qamc_mlm_gen_ans_idx.py", "main_qamc_task_specific.py"
MATCHING, MATCHING_SPECIFIC = "main_retmc_mlm_head.py", "main_retmc_task_specific.py"
ANSWER, BLANK, ANSWER_SPECIFIC = "main_qaoe_mlm.py", "main_qaoe_mlm_lsmdc_fib.py", "main_qaoe_task_specific.py"
COMMANDS = [
    *[(CHOICE, "tgif-action"), (CHOICE_SPECIFIC, "tgif-action")],
    *[(MATCHING, "lsmdc-mc"), (MATCHING_SPECIFIC, "lsmdc-mc")],
    *[(ANSWER, "msvd-qa"), (BLANK, "lsmdc-fib"), (ANSWER_SPECIFIC, "msvd-qa")],
]
RANDOM = ("--allow_random", True)

# --- checkpoints ------------------------------------------------------------------------------------------------------


def first_checkpoint(run) -> dict[str, torch.Tensor]:
    return run.checkpoint(f"ckpt_violet_{run.json('args.json')['task']}_0.pt")


def test_a_checkpoint_is_scored_before_training(ask, kit_weights):
    """MSRVTT-MC's configuration scores alone; before training the same is found."""
    weights = kit_weights("retmc_mlm")
    run = ask(MATCHING, "lsmdc-mc", "--path_ckpt", weights, "--size_epoch", 1).check_passed()
    alone = ask(MATCHING, "msrvtt-mc", "--path_ckpt", weights).check_passed()
    assert alone.results == {"zero_shot": run.results["zero_shot"], "epochs": []}
    assert alone.json("log.json") == {"ls_tr": [], "ac_vl": [], "ac_ts": []}
    given, begun = torch.load(weights, weights_only=True), first_checkpoint(run)
    assert all(torch.equal(begun[name], tensor) for name, tensor in given.items())


def test_a_trained_model_is_known_by_its_folder(ask):
    """`args.json` beside the checkpoint tells frames, texts and sizes; its last epoch is found again."""
    words = ("--size_epoch", 1, "--lr", 1e-3, "--size_txt", 40, "--size_frame", 3)
    trained = ask(CHOICE, "tgif-action", *words).check_passed()
    weights = trained.folder / "ckpt_violet_toy-action_1.pt"
    again = ask(CHOICE, "tgif-action", "--path_ckpt", weights, "--size_epoch", 0).check_passed()
    assert again.results["zero_shot"] == {split: trained.results["best"][split] for split in ("val", "test")}
    assert again.predictions("test") == trained.predictions("test")
    assert (again.json("args.json")["size_txt"], again.json("args.json")["size_frame"]) == (40, 3)


@pytest.mark.parametrize(
    ("script", "config", "table"),
    [(CHOICE, "tgif-action", "qamc_mlm"), (ANSWER_SPECIFIC, "msvd-qa", "qaoe_task_specific")],
)
def test_a_fresh_head(ask, kit_weights, script: str, config: str, table: str):
    words = ("--path_ckpt", kit_weights(table), "--size_epoch", 0, "--size_vocab", 4)
    kept, fresh = (
        ask(script, config, *words).check_passed(),
        ask(script, config, *words, "--reinit_head", *RANDOM, "--save_evaluated").check_passed(),
    )
    given, begun = torch.load(kit_weights(table), weights_only=True), first_checkpoint(fresh)
    changed = {name for name, tensor in given.items() if not torch.equal(tensor, begun[name])}
    assert changed == {name for name in given if name.startswith("fc")}
    assert ("fresh head" in fresh.log, "fresh head" in kept.log) == (True, False)
    assert kept.results.keys() == fresh.results.keys()
    assert kept.predictions("test") != fresh.predictions("test")


@pytest.fixture(scope="module")
def kept() -> list[Path]:
    """A pretrained checkpoint, once there is one."""
    return []


@pytest.mark.parametrize(
    ("script", "config"),
    [*COMMANDS[::2], *(pytest.param(*command, marks=pytest.mark.slow) for command in COMMANDS[1::2])],
)
def test_a_pretrained_model(ask, train_here, kept: list[Path], script: str, config: str):
    """What main_pretrain_mlm.py leaves behind is where each task begins; an MLP head is named as fresh."""
    if not kept:
        kept.append(train_here("--p_mask", 0.5, "--lr", 1e-3).check_passed().folder / "ckpt_violet_pretrain_toy_1_1.pt")
    run = ask(script, config, "--path_ckpt", kept[0], "--size_epoch", 1).check_passed()
    given, begun = torch.load(kept[0], weights_only=True), first_checkpoint(run)
    heads = {name for name in begun if name.startswith("fc.")}
    assert begun.keys() - given.keys() == heads
    assert all(torch.equal(begun[name], given[name]) for name in begun.keys() - heads)
    assert ("fresh head   fc." in run.log) == bool(heads) == ("task_specific" in script)
    assert len(run.results["epochs"]) == 1


# --- splits and shares ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "trained"), [(0.34, 2), (2, 2), (5, 5), (100, 6)])
def test_few_shot(ask, ratio: float, trained: int):
    """A share or a number of the training videos; what is evaluated stays whole."""
    run = ask(CHOICE, "tgif-action", "--size_epoch", 1, "--data_ratio", ratio).check_passed()
    assert f"toy 0: {trained} samples" in run.log
    assert (len(run.predictions("val")), len(run.predictions("test"))) == (4, 6)


def test_few_shot_draws_videos(ask, questions: Path, spoil):
    """A video that is drawn comes with all its questions: here five each."""
    spoil.texts(questions / "txt_toy-fib.json", lambda texts: texts.update(train=texts["train"] * 5))
    run = ask(BLANK, "lsmdc-fib", "--size_epoch", 1, "--data_ratio", 2, data=questions).check_passed()
    assert "toy 0: 10 samples" in run.log


@pytest.mark.parametrize(
    ("empty", "left_out"),
    [
        (False, ("val", "test")),
        (True, ("val",)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((False, ("val",)), (False, ("test",)), (True, ("test",)), (True, ("val", "test")))
        ),
    ],
)
def test_a_split_is_missing(ask, questions: Path, spoil, left_out: tuple[str, ...], empty: bool):
    """It is not evaluated, the log says so, and without val the last epoch is the best."""

    def leave_out(texts: dict) -> None:
        for split in left_out:
            texts.pop(split)
            if empty:
                texts[split] = []

    spoil.texts(questions / "txt_toy-fib.json", leave_out)
    run = ask(BLANK, "lsmdc-fib", "--size_epoch", 2, "--lr", 1e-3, data=questions).check_passed()
    kept = {"val", "test"} - set(left_out)
    assert all({"val", "test"} & entry.keys() == kept for entry in run.results["epochs"])
    assert {"val", "test"} & run.results["best"].keys() == kept
    assert all(f"no {split} items, so no evaluation" in run.log for split in left_out)
    assert "val" not in left_out or run.results["best"]["epoch"] == 2
    curves = run.json("log.json")
    assert {split: len(curves[key]) for split, key in (("val", "ac_1_vl"), ("test", "ac_1_ts"))} == {
        split: 2 * (split in kept) for split in ("val", "test")
    }


def test_names_with_an_ending_and_no_index(ask, questions: Path, spoil):
    """`clips/vid0.mp4` is `vid0`, and what is missing beside the TSV is built."""
    words = ("--size_epoch", 0, *RANDOM)
    before = ask(CHOICE, "tgif-action", *words, data=questions).check_passed()
    for name in ("img_toy.lineidx", "img_toy.id2lineidx.pkl"):
        (questions / name).unlink()
    spoil.texts(
        questions / "txt_toy-action.json",
        lambda texts: [item.update(video=f"clips/{item['video']}.mp4") for split in texts.values() for item in split],
    )
    after = ask(CHOICE, "tgif-action", *words, data=questions).check_passed()
    assert after.results == before.results
    assert [record["top"] for record in after.predictions("test")] == [r["top"] for r in before.predictions("test")]
    assert "id2lineidx.pkl is missing" in after.log


def test_texts_and_frames_in_folders_of_their_own(ask, questions: Path):
    """Multi-task texts lie in a folder below their frames; other places are named."""
    below = questions / "multi_task"
    below.mkdir()
    (questions / "txt_toy-mc.json").rename(below / "txt_toy-mc.json")
    found = ask(MATCHING, "msrvtt-mc", *RANDOM, data=below).check_passed()
    places = ("--txt_dir", below, "--img_tsv_dir", questions)
    named = ask(MATCHING, "msrvtt-mc", *RANDOM, *places, data=below / "nowhere")
    assert named.check_passed().results == found.results
    ask(MATCHING, "msrvtt-mc", *RANDOM, data=questions).check_refused("txt_toy-mc.json", "--txt_dir")


# --- the released numbers come out of the commands --------------------------------------------------------------------

AS_MEASURED = ("--size_img", 224, "--size_epoch", 0, "--on_bad_sample", "zero", "--size_vocab", 4)
WORDS = (KIT / "bert_micro" / "vocab.txt").read_text().splitlines()
DIGITS = [WORDS.index(str(number)) for number in range(5)]
IN_FRONT = {"plain": (), "prompt": ("--enable_prompt",), "task_token": ("--enable_task_token",)}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit's frames and questions without those of validation, of which no number is known."""
    folder = tmp_path_factory.mktemp("measured")
    for file in KIT.joinpath("data").glob("img_toy.*"):
        (folder / file.name).symlink_to(file)
    for name in ("action", "mc", "qa", "fib"):
        texts = json.loads((KIT / "data" / f"txt_toy-{name}.json").read_text())
        (folder / f"txt_toy-{name}.json").write_text(json.dumps(texts | {"val": []}))
    return folder


def case(name: str) -> dict[str, np.ndarray]:
    with np.load(KIT / "cases" / f"{name}.npz") as arrays:
        return dict(arrays)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def check_top(records: list[dict], key: str, names: list, probs: np.ndarray, scores: np.ndarray | None = None) -> None:
    """`top` of each record holds the first five by `scores` with their `probs`, both (records, names)."""
    assert len(records) == len(probs)
    for record, chance, score in zip(records, probs, probs if scores is None else scores, strict=True):
        order = np.argsort(-score, kind="stable")[:5]
        assert [entry[key] for entry in record["top"]] == [names[number] for number in order]
        assert [entry["probability"] for entry in record["top"]] == pytest.approx(chance[order].tolist(), rel=2e-4)


CHOICES = [  # where `[MASK]` stands, what is in front of the question, the score; tests/conformance has them all
    *itertools.product(("append", "prepend", "insert", "replace"), ("plain", "prompt"), ("probability", "upstream")),
    *(("append", "task_token", score_fn) for score_fn in ("probability", "upstream")),
]
QUICK_CHOICES = [
    ("append", "task_token", "probability"),
    ("prepend", "prompt", "probability"),
    ("insert", "prompt", "upstream"),
    ("replace", "plain", "upstream"),
]


@pytest.mark.parametrize(
    ("position", "front", "score_fn"),
    [*QUICK_CHOICES, *(pytest.param(*c, marks=pytest.mark.slow) for c in CHOICES if c not in QUICK_CHOICES)],
)
def test_multiple_choice(ask, kit_weights, measured: Path, position: str, front: str, score_fn: str):
    """Wherever `[MASK]` stands; the released score ranks the last video's options the other way round."""
    words = ("--path_ckpt", kit_weights("qamc_mlm"), "--mask_pos", position, "--score_fn", score_fn, *AS_MEASURED)
    run = ask(CHOICE, "tgif-action", *words, *IN_FRONT[front], "--task_token", "mc", data=measured).check_passed()
    logits = case(f"qamc_mlm_{position}_{front}")["logits_at_mask"][:, DIGITS]
    scores = logits if score_fn == "probability" else logits / logits.sum(1, keepdims=True)
    check_top(run.predictions("test"), "option", list(range(5)), softmax(logits), scores)


def test_the_task_token_of_multiple_choice(ask, kit_weights):
    """The single-task script takes that of matching, as released."""
    words = ("--path_ckpt", kit_weights("qamc_mlm"), "--size_epoch", 0, "--enable_task_token")
    own, vtm, mc = (
        ask(CHOICE, "tgif-action", *words, *choice).check_passed().predictions("test")
        for choice in ((), ("--task_token", "vtm"), ("--task_token", "mc"))
    )
    assert own == vtm != mc


@pytest.mark.parametrize(
    ("front", "score_fn"),
    [
        *(("plain", "upstream"), ("prompt", "probability")),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                *(("plain", "probability"), ("task_token", "probability")),
                *(("prompt", "upstream"), ("task_token", "upstream")),
            )
        ),
    ],
)
def test_matching(ask, kit_weights, measured: Path, front: str, score_fn: str):
    words = ("--path_ckpt", kit_weights("retmc_mlm"), "--score_fn", score_fn, *AS_MEASURED)
    run = ask(MATCHING, "msrvtt-mc", *words, *IN_FRONT[front], data=measured).check_passed()
    true, false = (case(f"retmc_mlm_{front}")[f"logit_{word}"] for word in ("true", "false"))
    scores = true - false if score_fn == "probability" else true / (true + false)
    check_top(run.predictions("test"), "option", list(range(5)), 1 / (1 + np.exp(false - true)), scores)


@pytest.mark.parametrize(
    ("script", "config", "name", "front"),
    [
        *((ANSWER, "msvd-qa", "", "plain"), (BLANK, "lsmdc-fib", "_fib", "prompt")),
        *(
            pytest.param(*case, marks=pytest.mark.slow)  # `conformance/test_questions.py` has the numbers
            for case in (
                *((ANSWER, "msvd-qa", "", "prompt"), (ANSWER, "msvd-qa", "", "task_token")),
                *((BLANK, "lsmdc-fib", "_fib", "plain"), (BLANK, "lsmdc-fib", "_fib", "task_token")),
            )
        ),
    ],
)
def test_open_ended(ask, kit_weights, measured: Path, script: str, config: str, name: str, front: str):
    """With the kit's own texts: of `toy-qa` the last two questions have no label, and are wrong."""
    name = f"qaoe_mlm{name}_{front}".replace("fib_plain", "fib")
    words = ("--path_ckpt", kit_weights("qaoe_mlm"), *AS_MEASURED, *IN_FRONT[front])
    run = ask(script, config, *words, data=measured).check_passed()
    check_top(run.predictions("test")[:6], "answer", WORDS, softmax(case(name)["logits_at_mask"]))
    figures = run.results["zero_shot"]["test"]
    assert figures.get("bad_samples", 0) == (script == ANSWER)
    expected = case(name)
    for k in (1, 5):
        if f"ac_{k}" in expected:
            assert figures[f"acc_{k}"] == expected[f"ac_{k}"].mean()
            assert f"acc_{k}_adjusted" not in figures  # `size_test` is another data set's


@pytest.mark.parametrize(
    ("script", "config", "name"),
    [
        (CHOICE_SPECIFIC, "tgif-action", "qamc"),
        (MATCHING_SPECIFIC, "lsmdc-mc", "retmc"),
        (ANSWER_SPECIFIC, "msvd-qa", "qaoe"),
    ],
)
def test_task_specific(ask, kit_weights, measured: Path, script: str, config: str, name: str):
    """The closed vocabulary keeps the label of a word that the open one has not, and its missing video is wrong."""
    table = f"{name}_task_specific"
    run = ask(script, config, "--path_ckpt", kit_weights(table), *AS_MEASURED, data=measured).check_passed()
    key, names = ("answer", ["red", "green", "blue", "yellow"]) if name == "qaoe" else ("option", list(range(5)))
    records, expected = run.predictions("test"), case(table)
    check_top(records, key, names, softmax(expected["out"]))
    assert [record["right"] for record in records] == (expected["out"].argmax(1) == expected["ans"]).tolist()
