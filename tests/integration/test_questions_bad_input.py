"""Bad input of question answering and multiple choice: one line that says what and where, exit code 2, no hang."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

CHOICE, CHOICE_SPECIFIC = "main_qamc_mlm_gen_ans_idx.py", "main_qamc_task_specific.py"
MATCHING, MATCHING_SPECIFIC = "main_retmc_mlm_head.py", "main_retmc_task_specific.py"
ANSWER, BLANK, ANSWER_SPECIFIC = "main_qaoe_mlm.py", "main_qaoe_mlm_lsmdc_fib.py", "main_qaoe_task_specific.py"
CONFIG = {
    **dict.fromkeys((CHOICE, CHOICE_SPECIFIC), "tgif-action"),
    **dict.fromkeys((MATCHING, MATCHING_SPECIFIC), "lsmdc-mc"),
    **dict.fromkeys((ANSWER, ANSWER_SPECIFIC), "msvd-qa"),
    BLANK: "lsmdc-fib",
}
TEXTS = {"tgif-action": "toy-action", "lsmdc-mc": "toy-mc", "msvd-qa": "toy-qa", "lsmdc-fib": "toy-fib"}
ONE_EPOCH = ("--size_epoch", 1)
TOLERANT = ("--on_bad_sample", "zero")
HALF_A_LETTER = "a \ud800 b"


def text_file(folder: Path, script: str) -> Path:
    return folder / f"txt_{TEXTS[CONFIG[script]]}.json"


def put(split: str = "train", number: int = 2, /, **fields: Any) -> Callable[[dict], None]:
    """Changes fields of one item; those that become None are taken out."""

    def change(texts: dict) -> None:
        item = texts[split][number]
        item.update(fields)
        for name in [name for name, value in fields.items() if value is None]:
            del item[name]

    return change


def without(*names: str, **put_in: Any) -> Callable[[dict], None]:
    """Takes keys out of the whole file, and puts others in."""

    def change(texts: dict) -> None:
        for name in names:
            texts.pop(name)
        texts.update(put_in)

    return change


# --- items ------------------------------------------------------------------------------------------------------------

CHOICE_FAULTS = [
    (put(answer=5), ('"answer" is 5', "size_option is 5")),
    (put(answer=-1), ('"answer" is -1',)),
    (put(answer="2"), ('"answer" is no whole number',)),
    (put(answer=True), ('"answer" is no whole number',)),
    (put(answer=None), ('"answer" is missing',)),
    (put(option_3=None), ('"option_3" is missing',)),
    (put(option_3=7), ('"option_3" is not text',)),
    (put(option_5="a sixth"), ('"option_5"', "size_option is 5")),
    (put(question=None), ('"question" is missing',)),
    (put(video=None), ('"video"',)),
    (put(video="vid9"), ("vid9", "img_toy.tsv", "1 of 6", "--on_bad_sample zero")),
]
ANSWER_FAULTS = [
    (ANSWER, put(answer_text=3), ('"answer_text" is not text',)),
    (ANSWER, put(answer_text=None, answer=4), ('"answer" is 4', '"ans2label" has 4 words')),
    (ANSWER, put(question=["what"]), ('"question" is not text',)),
    (BLANK, put(answer=4), ('"answer" is 4', '"ans2label" has 4 words')),
    (BLANK, put(answer=None), ('"answer" is missing',)),
    (BLANK, put(question="a circle moves ."), ("no [MASK]", "a circle moves .")),
    (BLANK, put(question="a [mask] circle moves ."), ("no [MASK]",)),
    (ANSWER_SPECIFIC, put(answer=1000), ('"answer" is 1000', "size_vocab is 1000")),
    (ANSWER_SPECIFIC, put(answer=None), ('"answer" is missing',)),
]
FAULTS = [(script, *fault) for script in (CHOICE, CHOICE_SPECIFIC, MATCHING) for fault in CHOICE_FAULTS] + ANSWER_FAULTS


@pytest.mark.parametrize(("script", "harm", "told"), FAULTS)
def test_a_bad_item(ask, questions: Path, spoil, script: str, harm: Callable, told: tuple):
    """All items are looked at before anything is trained; and no tolerance for frames makes them good."""
    path = text_file(questions, script)
    spoil.texts(path, harm)
    run = ask(script, CONFIG[script], *ONE_EPOCH, data=questions)
    run.check_refused(f"{path}, train, item 2 (counted from 0)", *told)
    assert list(run.folder.glob("*.pt")) == []
    if "vid9" not in told:
        ask(script, CONFIG[script], *ONE_EPOCH, *TOLERANT, data=questions).check_refused(str(path), *told)


@pytest.mark.parametrize(("script", "split"), [(CHOICE, "val"), (BLANK, "test")])
def test_a_bad_item_to_evaluate(ask, questions: Path, spoil, script: str, split: str):
    """It is told at once, not after an epoch of training."""
    path = text_file(questions, script)
    spoil.texts(path, put(split, 3, answer=17))
    run = ask(script, CONFIG[script], *ONE_EPOCH, data=questions)
    run.check_refused(f"{path}, {split}, item 3 (counted from 0)", '"answer" is 17')
    assert list(run.folder.glob("*.pt")) == []


@pytest.mark.parametrize("script", CONFIG)
def test_videos_that_are_not_there(ask, questions: Path, spoil, script: str):
    """Where zeros are asked for they are counted, and what is guessed about them is wrong; FiB keeps its answers."""

    def lose(texts: dict) -> None:
        for item in (texts["train"][1], texts["val"][0], *texts["test"][:-1]):
            item["video"] = "vid9"

    spoil.texts(text_file(questions, script), lose)
    run = ask(script, CONFIG[script], "--size_epoch", 2, "--lr", 1e-3, *TOLERANT, data=questions).check_passed()
    entry, missing = run.results["epochs"][-1], run.predictions("test")[:-1]
    assert [entry[split]["bad_samples"] for split in ("train", "val", "test")] == [1, 1, len(missing)]
    assert f"test, item 0 (counted from 0): video 'vid9' is not in {questions}" in run.log
    assert f"({len(missing)} of {len(missing) + 1} items have no video)" in run.log
    right = sum(record.get("right_in_5", record["right"]) for record in missing)
    assert right > 0 if script == BLANK else right == 0


@pytest.mark.parametrize(
    ("script", "harm"),
    [
        (CHOICE, put(question=HALF_A_LETTER)),
        (MATCHING, put(option_1=HALF_A_LETTER)),
        (ANSWER, put(question=HALF_A_LETTER)),
        (ANSWER, put(answer_text=HALF_A_LETTER)),
        (ANSWER, put("test", 2, video=HALF_A_LETTER)),
    ],
)
def test_half_a_letter(ask, questions: Path, spoil, script: str, harm: Callable):
    """A lone surrogate, which JSON can write and UTF-8 cannot."""
    spoil.texts(text_file(questions, script), harm)
    run = ask(script, CONFIG[script], *ONE_EPOCH, *TOLERANT, data=questions)
    run.check_refused(str(text_file(questions, script)), "item 2")


# --- whole files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "harm", "told"),
    [
        (CHOICE, without("train"), ('no "train" items', "--size_epoch 0")),
        (CHOICE, without(train=[]), ('no "train" items',)),
        (CHOICE, without(val={"vid0": "circle"}), ('"val" is a dict',)),
        (CHOICE, without(val=["vid0"]), ("val, item 0", "object")),
        (BLANK, without("ans2label"), ("train, item 0", "answer_text", "ans2label", "vocab")),
        (BLANK, without(ans2label=["red", "green"]), ('"ans2label" must be an object',)),
        (BLANK, without(ans2label={"red": "0"}), ('"ans2label" must be an object',)),
        (BLANK, without("ans2label", vocab={"red": 0}), ('"vocab" must be a list',)),
        (BLANK, without("ans2label", vocab=["red"]), ("train, item 1", '"answer" is 1', '"vocab" has 1 words')),
    ],
)
def test_a_bad_text_file(ask, questions: Path, spoil, script: str, harm: Callable, told: tuple):
    spoil.texts(text_file(questions, script), harm)
    run = ask(script, CONFIG[script], *ONE_EPOCH, *TOLERANT, data=questions)
    run.check_refused(str(text_file(questions, script)), *told)


def test_nothing_to_evaluate(ask, questions: Path, spoil):
    spoil.texts(text_file(questions, CHOICE), without("val", "test"))
    run = ask(CHOICE, CONFIG[CHOICE], "--size_epoch", 0, "--allow_random", True, data=questions)
    run.check_refused("txt_toy-action.json", "nothing to evaluate")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("txt_toy-action.json", None, ("txt_toy-action.json", "no such file", "--data_dir")),
        ("txt_toy-action.json", b'{"train": [{"video"]}', ("txt_toy-action.json, line 1, column 20",)),
        ("txt_toy-action.json", b"[]", ("txt_toy-action.json", "object")),
        ("txt_toy-action.json", '{"train": ["Bär"]}'.encode("latin-1"), ("txt_toy-action.json", "UTF-8")),
        ("img_toy.tsv", None, ("img_toy.tsv", "no such file", "--dataset")),
        ("img_toy.tsv", b"", ("img_toy.lineidx", "img_toy.tsv")),
        ("img_toy.id2lineidx.pkl", b"\x80", ("img_toy.id2lineidx.pkl", "no pickle")),
        ("img_toy.id2lineidx.pkl", pickle.dumps(Path("x")), ("img_toy.id2lineidx.pkl", "pathlib")),
    ],
)
def test_a_bad_file(ask, questions: Path, name: str, content: bytes | None, told: tuple):
    (questions / name).unlink()
    if content is not None:
        (questions / name).write_bytes(content)
    ask(CHOICE, "tgif-action", *ONE_EPOCH, data=questions).check_refused(str(questions), *told)


def test_an_index_of_other_frames(ask, questions: Path):
    """Two videos with each other's rows: nobody is shown the wrong one; the ids of the TSV itself are used."""
    told = ask(CHOICE, "tgif-action", *ONE_EPOCH, data=questions).check_passed()
    path = questions / "img_toy.id2lineidx.pkl"
    offsets = pickle.loads(path.read_bytes())
    offsets["vid1"], offsets["vid2"] = offsets["vid2"], offsets["vid1"]
    path.write_bytes(pickle.dumps(offsets))
    run = ask(CHOICE, "tgif-action", *ONE_EPOCH, data=questions)
    run.check_passed()
    assert "img_toy.id2lineidx.pkl does not fit" in run.log
    assert run.results == told.results


# --- options and weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "other", "kind"),
    [
        (CHOICE, "msrvtt-qa", "qaoe"),
        (CHOICE_SPECIFIC, "msrvtt-retrieval", "retrieval"),
        (MATCHING, "msrvtt-cap", "captioning"),
        (MATCHING_SPECIFIC, "lsmdc-fib", "qaoe"),
        (ANSWER, "tgif-action", "qamc"),
        (BLANK, "pretrain", "pretrain"),
        (ANSWER_SPECIFIC, "tgif-action", "qamc"),
    ],
)
def test_a_configuration_of_another_type(ask, script: str, other: str, kind: str):
    run = ask(script, CONFIG[script], *ONE_EPOCH, "--config", f"_args/args_{other}.json")
    run.check_refused('"type"', kind, "qaoe" if "qaoe" in script else "qamc")


@pytest.mark.parametrize(
    ("script", "words", "told"),
    [
        (CHOICE, ("--enable_prompt", "--enable_task_token"), ("enable_prompt", "enable_task_token")),
        (CHOICE_SPECIFIC, ("--enable_prompt",), ("task-specific", "prompt")),
        (MATCHING_SPECIFIC, ("--enable_task_token",), ("task-specific", "token")),
        (CHOICE, ("--task", "nowhere"), ("txt_nowhere.json", "no such file", "--task")),
        (CHOICE, ("--task", ""), ('"task" is empty',)),
        (CHOICE, ("--dataset", "nowhere"), ("img_nowhere.tsv", "no such file", "--dataset")),
        (CHOICE, ("--dataset", ""), ('"dataset" is empty',)),
        (CHOICE, ("--dataset", "toy", "toy10"), ("one data set",)),
        (CHOICE, ("--size_option", 4), ('"option_4"', "size_option is 4")),
        (CHOICE, ("--size_option", 6), ('"option_5" is missing',)),
        (CHOICE, ("--mask_pos", "middle"), ("--mask_pos", "append")),
        (CHOICE, ("--task_token", "qa"), ("--task_token", "mc")),
        (CHOICE, ("--score_fn", "ratio"), ("--score_fn", "upstream")),
        (CHOICE, ("--size_frame", 6), ("img_toy.tsv, line", "6 frames are asked for, 5 are stored")),
        (CHOICE, ("--data_ratio", 0), ("--data_ratio",)),
        (ANSWER_SPECIFIC, ("--size_vocab", -1), ("size_vocab is -1",)),
        (ANSWER_SPECIFIC, ("--size_vocab", 3), ("train, item 3", '"answer" is 3', "size_vocab is 3")),
        (ANSWER, ("--path_ckpt", "/nowhere.pt"), ("/nowhere.pt", "no such checkpoint")),
    ],
)
def test_a_bad_option(ask, script: str, words: tuple, told: tuple):
    ask(script, CONFIG[script], *ONE_EPOCH, *words).check_refused(*told)


@pytest.mark.parametrize(("script", "size_txt"), [(CHOICE, 510), (MATCHING, 512), (ANSWER, 508), (BLANK, 513)])
def test_more_text_than_positions(ask, script: str, size_txt: int):
    """BERT has 512 positions; each task adds its own few tokens to size_txt."""
    ask(script, CONFIG[script], *ONE_EPOCH, "--size_txt", size_txt).check_refused("size_txt", "512")


def test_a_checkpoint_of_another_model(ask, tmp_path: Path, kit_weights):
    state = torch.load(kit_weights("qaoe_mlm"), weights_only=True)
    state["enc_img.emb_cls"] = torch.zeros(1, 1, 1, 32)
    torch.save(state, tmp_path / "ckpt.pt")
    ask(ANSWER, "msvd-qa", "--path_ckpt", tmp_path / "ckpt.pt", *ONE_EPOCH).check_refused("ckpt.pt", "enc_img.emb_cls")


# --- two processes ----------------------------------------------------------------------------------------------------


def check_refused_by_all(run, *words: str) -> None:
    """A launcher passes a failure on in words of its own: our line is there, and none of our code in a traceback."""
    assert run.code not in (0, None), run.stderr[-6000:]
    told = re.findall(r"error: [^\r\n]*", run.stderr)  # perhaps behind the bar of another process
    assert any(all(word in line for word in words) for line in told), run.stderr[-6000:]
    assert re.findall(r'File ".*/lavender/.*', run.stderr) == [], run.stderr[-6000:]


def test_two_processes_and_a_bad_item(ask, questions: Path, spoil):
    spoil.texts(questions / "txt_toy-fib.json", put(question="a circle moves ."))
    run = ask(BLANK, "lsmdc-fib", *ONE_EPOCH, by="launch", data=questions)
    check_refused_by_all(run, "txt_toy-fib.json, train, item 2", "no [MASK]")


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", ["false", "true"])
@pytest.mark.parametrize(
    ("script", "harm", "words", "told"),
    [
        (CHOICE, put(answer=5), (), ('"answer" is 5',)),
        (MATCHING, put(option_3=None), (), ('"option_3" is missing',)),
        (ANSWER_SPECIFIC, put(answer=1000), (), ("size_vocab is 1000",)),
        (ANSWER, put(video="vid9"), (), ("vid9", "img_toy.tsv")),
        (CHOICE, without(), ("--config", "_args/args_msrvtt-qa.json"), ('"type" is qaoe',)),
        (CHOICE, without(), ("--task", "nowhere"), ("txt_nowhere.json",)),
        (CHOICE, without(), ("--enable_prompt", "--enable_task_token"), ("enable_prompt",)),
    ],
)
def test_two_processes(
    ask, questions: Path, spoil, script: str, harm: Callable, words: tuple, told: tuple, deepspeed: str
):
    spoil.texts(text_file(questions, script), harm)
    words = (*ONE_EPOCH, "--deepspeed", deepspeed, *words)
    check_refused_by_all(ask(script, CONFIG[script], *words, by="launch", data=questions), *told)


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", ["false", "true"])
@pytest.mark.parametrize("video", ["vid1", "vid3", "vid5"])
def test_two_processes_and_bad_frames_on_one(ask, questions: Path, spoil, video: str, deepspeed: str):
    """The other one is in a step, or waits for records that will never come: it must not wait on.

    Training is on vid0 and vid1, one a process; of val the second process has vid2 and vid3, of test the first vid5.
    """
    spoil.texts(questions / "txt_toy-mc.json", lambda texts: texts.update(train=texts["train"][:2]))
    number = int(video[-1])
    spoil.row(questions / "img_toy.tsv", number, lambda fields: [*fields[:2], *["/9j/garbage"] * 5])
    (questions / "img_toy.id2lineidx.pkl").unlink()
    run = ask(MATCHING, "lsmdc-mc", *ONE_EPOCH, "--deepspeed", deepspeed, by="launch", data=questions)
    check_refused_by_all(run, f"img_toy.tsv, line {number + 1}")
