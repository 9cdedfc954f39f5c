"""Bad input: one line that says what is wrong and where, exit code 2, no traceback, no hang, nothing lost.

Most runs are in this process, where anything but our own error comes out as itself.
"""

import base64
import contextlib
import json
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lavender.data.tsv import TSVReader
from lavender.tasks.pretrain import PretrainTaskSpecificTask

ROOT = Path(__file__).parents[2]
MLM = "main_pretrain_mlm.py"
TOLERANT = ("--on_bad_sample", "zero")
LIVELY = ("--p_mask", 0.5, "--lr", 1e-3)


def rewrite(tsv: Path, row: int, change) -> None:
    """Changes the fields of one row; the line index goes, to be rebuilt."""
    reader = TSVReader(tsv)
    rows = [reader.row(number) for number in range(len(reader))]
    rows[row] = change(rows[row])
    tsv.write_text("".join("\t".join(fields) + "\n" for fields in rows))
    tsv.with_suffix(".lineidx").unlink()


def rewrite_captions(folder: Path, change) -> None:
    """Changes the training captions in place."""
    path = folder / "txt_toy.json"
    texts = json.loads(path.read_text())
    change(texts["train"])
    path.write_text(json.dumps(texts))


def cut_in_a_frame(folder: Path) -> str:
    tsv = folder / "toy_train_1.tsv"
    tsv.write_bytes(tsv.read_bytes()[:-5000])
    return "toy_train_1.tsv, line 3"


def garbage_frame(folder: Path) -> str:
    noise = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8 + b"\xff\xda" + bytes(range(200)) + b"\xff\xd9"
    frame = base64.b64encode(noise).decode()
    rewrite(folder / "toy_train_1.tsv", 1, lambda fields: [fields[0], *[frame] * 4])
    return "toy_train_1.tsv, line 2"


def no_frames(folder: Path) -> str:
    rewrite(folder / "toy_train_0.tsv", 0, lambda fields: fields[:1])
    return "toy_train_0.tsv, line 1"


def too_few_frames(folder: Path) -> str:
    rewrite(folder / "toy_train_0.tsv", 2, lambda fields: fields[:-1])
    return "toy_train_0.tsv, line 3: 4 frames are asked for, 3 are stored"


def empty_caption(folder: Path) -> str:
    rewrite_captions(folder, lambda captions: captions.update(vid4=["  "]))
    return 'txt_toy.json, train, video "vid4": the caption is empty'


def no_text_at_all(folder: Path) -> str:
    rewrite_captions(folder, lambda captions: captions.update(vid4=[]))
    return 'txt_toy.json, train, video "vid4": the caption is'


def a_number_for_a_caption(folder: Path) -> str:
    rewrite_captions(folder, lambda captions: captions.update(vid4=[7]))
    return 'txt_toy.json, train, video "vid4": the caption is'


def endless_caption(folder: Path) -> str:
    rewrite_captions(folder, lambda captions: captions.update(vid1=["word " * 10_000]))
    return 'txt_toy.json, train, video "vid1": the caption has 10,000 words'


def no_caption(folder: Path) -> str:
    rewrite_captions(folder, lambda captions: captions.pop("vid5"))
    return 'txt_toy.json, train: no caption for video "vid5"'


SAMPLE_FAULTS = [
    *(cut_in_a_frame, garbage_frame, no_frames, too_few_frames),
    *(empty_caption, no_text_at_all, a_number_for_a_caption, endless_caption, no_caption),
]


@pytest.mark.parametrize("harm", SAMPLE_FAULTS)
def test_a_bad_sample(train_here, toy: Path, harm):
    """It stops the run; or, where that is asked for, it is counted, named, and the run goes on without it."""
    where = harm(toy)
    train_here(data=toy).check_refused(str(toy), where)

    run = train_here(*TOLERANT, data=toy).check_passed()
    counted = [entry["train"].get("bad_samples", 0) for entry in run.results["epochs"]]
    part = int("toy_train_1" in where or "vid4" in where or "vid5" in where)
    assert counted == [1 - part, part]
    assert where in run.log
    assert f"toy {part}: 1 " in run.log
    assert len(run.predictions("val")) == 4


def test_a_bad_validation_sample(train_here, toy: Path):
    """In evaluation too it is counted where the figures are, so that nobody reports them as they stand."""
    rewrite(toy / "toy_val.tsv", 1, lambda fields: [fields[0], "/9j/garbage"])
    train_here(data=toy).check_refused("toy_val.tsv, line 2")
    run = train_here(*TOLERANT, data=toy).check_passed()
    assert "toy_val.tsv, line 2" in run.log
    assert len(run.predictions("val")) == 4
    assert run.results["best"]["val"]["bad_samples"] == 1


def test_one_bad_sample_is_counted_once(train_here, toy: Path):
    """Frames and caption of a clip both missing: one sample, two faults."""
    no_frames(toy)
    rewrite_captions(toy, lambda captions: captions.pop("vid0"))
    run = train_here(*TOLERANT, data=toy).check_passed()
    assert "toy_train_0.tsv, line 1" in run.log
    assert 'no caption for video "vid0"' in run.log
    assert run.results["epochs"][0]["train"]["bad_samples"] == 1


def test_too_few_frames_may_be_repeated(train_here, toy: Path):
    train_here("--size_frame", 5, data=toy).check_refused("5 frames are asked for, 4 are stored", "repeat_frames")
    run = train_here("--size_frame", 5, "--repeat_frames", data=toy).check_passed()
    assert "bad_samples" not in run.results["epochs"][0]["train"]


@pytest.mark.parametrize("harm", [garbage_frame, no_caption])
def test_a_fault_in_a_worker(train_here, toy: Path, harm):
    where = harm(toy)
    train_here("--n_workers", 2, data=toy).check_refused(where)
    run = train_here("--n_workers", 2, *TOLERANT, data=toy).check_passed()
    assert [entry["train"].get("bad_samples", 0) for entry in run.results["epochs"]] == [0, 1]


# --- files ------------------------------------------------------------------------------------------------------------


def index_of_another_file(folder: Path) -> tuple[str, ...]:
    (folder / "toy_train_0.lineidx").write_bytes((folder / "toy_train_1.lineidx").read_bytes())
    return "toy_train_0.lineidx", "toy_train_0.tsv"


def index_past_the_end(folder: Path) -> tuple[str, ...]:
    tsv = folder / "toy_train_0.tsv"
    tsv.write_bytes(tsv.read_bytes()[:100_000])  # within line 2 of 3
    return "toy_train_0.lineidx, line 3", "126814", "past the end"


def index_of_garbage(folder: Path) -> tuple[str, ...]:
    (folder / "toy_train_0.lineidx").write_text("0\nxyz\n7\n")
    return "toy_train_0.lineidx, line 2", "xyz"


def no_training_part(folder: Path) -> tuple[str, ...]:
    (folder / "toy_train_1.tsv").unlink()
    return "toy_train_1.tsv", "missing", "size_part"


def no_validation_frames(folder: Path) -> tuple[str, ...]:
    (folder / "toy_val.tsv").unlink()
    return "toy_val.tsv", "missing"


def empty_training_part(folder: Path) -> tuple[str, ...]:
    (folder / "toy_train_1.tsv").write_bytes(b"")
    (folder / "toy_train_1.lineidx").unlink()
    return ("toy_train_1.tsv",)


def no_text_file(folder: Path) -> tuple[str, ...]:
    (folder / "txt_toy.json").unlink()
    return "txt_toy.json", "missing"


def broken_text_file(folder: Path) -> tuple[str, ...]:
    text = (folder / "txt_toy.json").read_text()
    (folder / "txt_toy.json").write_text('{\n  "train": {"vid0" ["a"]},\n' + text[1:])
    return ("txt_toy.json, line 2, column 20",)


def a_list_for_a_text_file(folder: Path) -> tuple[str, ...]:
    (folder / "txt_toy.json").write_text('[{"video": "vid0", "caption": "a red circle"}]')
    return "txt_toy.json", "object"


def retrieval_text(folder: Path) -> tuple[str, ...]:
    (folder / "txt_toy.json").write_bytes((ROOT / "tests/conformance/kit/data/txt_toy-retrieval.json").read_bytes())
    return "txt_toy.json", "captions"


def latin_text_file(folder: Path) -> tuple[str, ...]:
    (folder / "txt_toy.json").write_bytes('{"train": {"vid0": ["ein Bär"]}}'.encode("latin-1"))
    return "txt_toy.json", "UTF-8"


def no_training_captions(folder: Path) -> tuple[str, ...]:
    texts = json.loads((folder / "txt_toy.json").read_text())
    (folder / "txt_toy.json").write_text(json.dumps({"val": texts["val"]}))
    return "txt_toy.json", '"train"'


@pytest.mark.parametrize("words", [(), TOLERANT])
@pytest.mark.parametrize(
    "harm",
    [
        *(index_of_another_file, index_past_the_end, index_of_garbage),
        *(no_training_part, no_validation_frames, empty_training_part),
        *(no_text_file, broken_text_file, a_list_for_a_text_file, retrieval_text, latin_text_file),
        no_training_captions,
    ],
)
def test_a_bad_file(train_here, toy: Path, harm, words: tuple):
    """Whole files are never tolerated, and are looked at before anything is trained."""
    expected = harm(toy)
    run = train_here(*words, data=toy)
    run.check_refused(*expected)
    assert list(run.folder.glob("ckpt_violet_pretrain_toy_*")) == []


def test_the_second_data_set_is_looked_at_before_the_first_is_trained(train_here, toy: Path):
    """A fault in its files must not show after hours of the first."""
    for path in list(toy.iterdir()):
        path.with_name(path.name.replace("toy", "other")).write_bytes(path.read_bytes())
    texts = json.loads((toy / "txt_other.json").read_text())
    (toy / "txt_other.json").write_text(json.dumps({"val": texts["val"]}))
    run = train_here("--dataset", "toy", "other", data=toy)
    run.check_refused("txt_other.json", '"train"')
    assert list(run.folder.glob("ckpt_violet_pretrain_toy_*")) == []


# --- options and weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--size_bach", "3"), ("size_bach", "size_batch")),
        (("--size_batch", "many"), ("--size_batch", "many", "whole number")),
        (("--size_batch", "0"), ("--size_batch", "1 or more")),
        (("--deepspeed", "perhaps"), ("--deepspeed", "perhaps")),
        (("--pretrain_tasks", "mlm"), ("--pretrain_tasks", "mlm", "vtm")),
        (("--size_img", "100"), ("size_img", "32")),
        (("--config", "_args/args_pretrian.json"), ("_args/args_pretrian.json", "no such file")),
        (("--enable_prompt", "--enable_task_token"), ("enable_prompt", "enable_task_token")),
        (("--path_ckpt", "/nowhere/ckpt.pt"), ("/nowhere/ckpt.pt", "no such checkpoint")),
        (("--vis_backbone_init", "3d"), ("Video Swin", "--vis_backbone_init random")),
        (("--txt_backbone", "/nowhere"), ("/nowhere",)),
    ],
)
def test_a_bad_option(train_here, words: tuple, told: tuple):
    train_here(*words).check_refused(*told)


def test_no_such_gpu(train_here):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    train_here("--device", "cuda").check_refused('"device" is "cuda"', "--device cpu")


def test_prompts_are_not_for_the_task_specific_script(train_here):
    train_here("--enable_prompt", task=PretrainTaskSpecificTask).check_refused("task-specific", "prompt")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{\n "size_batch": 3,\n "lr" 1\n}', "line 3"),
        ('{"size_batch": 3, "lr": NaN}', "NaN"),
        ('{"size_bach": 3}', "size_batch"),
        ('{"size_batch": [3]}', "size_batch"),
        ("[]", "object"),
        ("", "line 1"),
    ],
)
def test_a_bad_configuration_file(train_here, tmp_path: Path, text: str, told: str):
    path = tmp_path / "args.json"
    path.write_text(text)
    train_here("--config", path).check_refused(str(path), told)


def test_a_checkpoint_that_is_none(train_here, tmp_path: Path):
    path = tmp_path / "ckpt.pt"
    path.write_bytes(b"not a checkpoint")
    train_here("--path_ckpt", path).check_refused(str(path))
    torch.save({"epoch": 3}, path)
    train_here("--path_ckpt", path).check_refused(str(path), "no dictionary of tensors")
    torch.save({f"layer.{i}.weight": torch.zeros(3) for i in range(9)}, path)
    train_here("--path_ckpt", path).check_refused(str(path), "not of this model")
    path.write_bytes(pickle.dumps(Path("x")))
    train_here("--path_ckpt", path).check_refused(str(path))
    path.write_bytes(b"")
    train_here("--path_ckpt", path).check_refused(str(path))


def test_a_cut_checkpoint(train_here):
    run = train_here().check_passed()
    path = run.folder / "ckpt_violet_pretrain_toy_1_1.pt"
    path.write_bytes(path.read_bytes()[:-100_000])
    train_here("--path_ckpt", path).check_refused(str(path))
    (run.folder / "args.json").write_text('{"vis_backbone_size": "micro",')
    train_here("--path_ckpt", run.folder / "ckpt_violet_pretrain_toy_0_1.pt").check_refused("args.json", "line 1")


def test_steps_that_never_come(train_here):
    """Two batches and an update every four: no update at all is nothing to be silent about."""
    run = train_here("--gradient_accumulation", 4)
    told = [line for line in (run.log.splitlines() if run.code == 0 else run.errors) if "options: {" not in line]
    assert any("gradient_accumulation" in line for line in told)


def test_a_hub_that_cannot_be_reached(start):
    """No network: a name that is no folder is told within seconds, with where to put the files."""
    environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    begun = time.monotonic()
    run = start(MLM, "--fusion_encoder", "bert-no-such", environment=environment)
    run.check_refused('"bert-no-such"', "_models/huggingface_transformers", "config.json")
    assert time.monotonic() - begun < 60


# --- losses that are not finite ---------------------------------------------------------------------------------------


def without_validation(folder: Path) -> None:
    texts = json.loads((folder / "txt_toy.json").read_text())
    (folder / "txt_toy.json").write_text(json.dumps({"train": texts["train"]}))


def last_good(error: str) -> Path:
    return Path(re.findall(r"the last good checkpoint is (\S+\.pt)", error)[0])


def test_a_loss_that_is_not_finite(train_here, toy: Path):
    """The step, the clips and the last checkpoint before it are named."""
    without_validation(toy)
    run = train_here("--lr", 1e30, "--size_epoch", 2, "--p_mask", 0.5, data=toy)
    error = run.check_refused("the loss is not finite at step 2 of 4", "--lr")
    assert sorted(re.findall(r"vid\d", error)) == ["vid3", "vid4", "vid5"]
    assert last_good(error).name == "ckpt_violet_pretrain_toy_0_1.pt"
    assert all(tensor.isfinite().all() for tensor in torch.load(last_good(error), weights_only=True).values())


def test_the_last_good_checkpoint_is_good(train_here):
    """Where validation after the step shows that the model is lost, what was saved then is not called good."""
    run = train_here("--lr", 1e30, "--size_epoch", 2, "--p_mask", 0.5)
    error = run.check_refused("not finite", "step", "the last good checkpoint is")
    scored = train_here("--path_ckpt", last_good(error), "--size_epoch", 0).check_passed()
    assert np.isfinite(list(scored.results["zero_shot"]["val"].values())).all()


def test_a_poisoned_checkpoint(train_here):
    """Weights that are not numbers: told at the latest when training begins, and not called good."""
    first = train_here().check_passed()
    path = first.folder / "ckpt_violet_pretrain_toy_1_1.pt"
    state = torch.load(path, weights_only=True)
    state["trsfr.layer.0.output.dense.weight"][0, 0] = float("nan")
    torch.save(state, path)
    error = train_here("--path_ckpt", path).check_refused("not finite")
    assert "last good checkpoint" not in error or "ckpt_violet_pretrain_init_0_0" not in error


def test_a_gradient_that_is_not_finite(train_here, toy: Path, tmp_path: Path):
    """A finite loss can have an infinite gradient: it must not reach weights that are saved and called good.

    Here it comes from a missing clip: all-zero frames have no variance, and each LayerNorm of a backbone without biases
    multiplies its gradient by 1/√eps.
    """
    bert = tmp_path / "bert"
    bert.mkdir()
    for file in (ROOT / "tests" / "conformance" / "kit" / "bert_micro").iterdir():
        (bert / file.name).write_bytes(file.read_bytes())
    settings = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps({**settings, "initializer_range": 0.07}))
    no_frames(toy)
    words = ("--txt_backbone", bert, "--fusion_encoder", bert, "--max_grad_norm", 1, "--p_mask", 0.5)
    run = train_here(*words, *TOLERANT, data=toy)
    for path in run.folder.glob("*.pt"):
        assert all(tensor.isfinite().all() for tensor in torch.load(path, weights_only=True).values()), path.name
    if run.code:
        run.check_refused("not finite")


@pytest.mark.parametrize("task", [None, PretrainTaskSpecificTask])
def test_not_a_number_is_not_a_match(train_here, task):
    """Evaluation of weights that are not numbers is refused, or scores nothing; never 100 %."""
    task = {"task": task} if task else {}
    first = train_here(**task).check_passed()
    path = first.folder / "ckpt_violet_pretrain_toy_1_1.pt"
    state = torch.load(path, weights_only=True)
    state["trsfr.layer.0.output.dense.weight"][0, 0] = float("nan")
    torch.save(state, path)
    run = train_here("--path_ckpt", path, "--size_epoch", 0, "--size_batch", 4, **task)
    if run.code:
        run.check_refused("not finite")
    else:
        assert "acc_vtm 1.0000" not in run.log
        assert run.results["zero_shot"]["val"]["acc_vtm"] == 0


# --- the place of the outputs -----------------------------------------------------------------------------------------


def test_outputs_that_cannot_be_written(train_here, tmp_path: Path):
    place = tmp_path / "taken"
    place.write_text("a file")
    train_here(output=place).check_refused(str(place), "--path_output")
    assert place.read_text() == "a file"


def test_a_full_disk(train_here):
    """Files of at most 100 kB: the checkpoint does not fit. No half of it is left."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        run = train_here()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    run.check_refused("ckpt_violet_pretrain_init_0_0.pt", "could not be written", "--path_output")
    assert list(run.folder.glob("*ckpt*")) == []
    assert run.json("args.json")["dataset"] == ["toy"]


# --- processes --------------------------------------------------------------------------------------------------------


def kill_a_worker(process: subprocess.Popen) -> None:
    """SIGKILL to the first data loading process that shows, as the kernel does when memory runs out."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:
        for pid in map(int, children.read_text().split()):
            with contextlib.suppress(OSError):
                if MLM.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
                    return
        time.sleep(0.002)


def test_a_killed_worker(start):
    run = start(MLM, "--use_checkpoint", "false", "--n_workers", 1, "--size_epoch", 5, watch=kill_a_worker)
    run.check_refused("worker")


@pytest.mark.slow
def test_an_interrupted_run(start, tmp_path: Path):
    """Ctrl-C: one word, no traceback, and the outputs so far are whole."""

    output = tmp_path / "snapshot"

    def interrupt(process: subprocess.Popen) -> None:
        while process.poll() is None and not list(output.glob("*/ckpt_violet_pretrain_toy_1_1.pt")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)

    run = start(MLM, "--use_checkpoint", "false", "--size_epoch", 50, output=output, watch=interrupt)
    assert run.code == 130, run.stderr[-3000:]
    assert "Traceback" not in run.stderr
    assert run.stderr.rstrip().endswith("interrupted")
    assert [path.name for path in run.folder.iterdir() if path.name.endswith(".tmp")] == []
    assert run.results["epochs"]


def check_refused_by_all(run, *words: str) -> None:
    """Under a launcher, which passes a failure on in words of its own: our line is there once or more."""
    assert run.code != 0, run.stderr[-6000:]
    assert any(all(word in line for word in words) for line in run.errors), run.stderr[-6000:]


def check_quiet(run) -> None:
    """No process of ours buries the cause under a traceback."""
    ours = [line for line in run.stderr.splitlines() if re.search(r'File ".*/lavender/', line)]
    assert ours == [], run.stderr[-6000:]


def test_two_processes_and_no_text(start, toy: Path):
    no_text_file(toy)
    run = start(MLM, "--deepspeed", "false", launcher="torchrun", data=toy, timeout=90)
    check_refused_by_all(run, "txt_toy.json", "missing", "[process 0]")
    check_quiet(run)


def test_two_processes_and_a_bad_clip_on_one(start, toy: Path):
    """The other process is in the middle of a step that will never end: it must not wait, and not drown the cause."""
    no_caption(toy)
    run = start(MLM, "--deepspeed", "false", launcher="launch", data=toy, timeout=90)
    check_refused_by_all(run, 'no caption for video "vid5"')
    check_quiet(run)


@pytest.mark.slow
def test_two_processes_with_deepspeed_and_a_bad_clip_on_one(start, needs, toy: Path):
    needs("deepspeed")
    garbage_frame(toy)
    run = start(MLM, "--n_workers", 1, launcher="deepspeed", data=toy, timeout=90)
    check_refused_by_all(run, "toy_train_1.tsv, line 2")


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", ["true", "false"])
def test_two_processes_and_a_loss_that_is_not_finite(start, needs, toy: Path, deepspeed: str):
    needs("deepspeed")
    without_validation(toy)
    words = ("--lr", 1e30, "--size_epoch", 2, "--p_mask", 0.5, "--deepspeed", deepspeed)
    run = start(MLM, *words, launcher="torchrun", data=toy, timeout=90)
    check_refused_by_all(run, "the loss is not finite at step 2 of 4", "vid", "toy_0_1.pt")
    check_quiet(run)


@pytest.mark.slow
def test_two_processes_and_outputs_that_cannot_be_written(start, tmp_path: Path):
    place = tmp_path / "taken"
    place.write_text("a file")
    run = start(MLM, "--deepspeed", "false", launcher="torchrun", output=place, timeout=90)
    check_refused_by_all(run, str(place), "--path_output")


@pytest.mark.slow
def test_two_processes_and_bad_samples_on_both(start, toy: Path):
    """Counted over all processes, and the run goes on."""
    for path in ("toy_train_0.tsv", "toy_train_1.tsv"):
        for row in range(3):
            rewrite(toy / path, row, lambda fields: [fields[0], "/9j/garbage"])
    run = start(MLM, "--deepspeed", "false", *TOLERANT, launcher="torchrun", data=toy).check_passed()
    assert [entry["train"]["bad_samples"] for entry in run.results["epochs"]] == [4, 4]  # 3, and one to fill up


@pytest.mark.slow
@pytest.mark.parametrize("content", ['{"zero_optimization": {"stage": 3}}', '{"fp16" 1}', None])
def test_bad_deepspeed_settings(start, needs, tmp_path: Path, content: str | None):
    needs("deepspeed")
    path = tmp_path / "zero.json"
    if content:
        path.write_text(content)
    run = start(MLM, "--deepspeed", "true", "--deepspeed_config", path, launcher="torchrun", timeout=90)
    check_refused_by_all(run, str(path))


@pytest.mark.slow
def test_a_precision_that_the_engine_has_not(start, needs):
    """DeepSpeed computes in fp16 only where the device does: it runs, or says so in one line."""
    needs("deepspeed")
    run = start(MLM, "--deepspeed", "true", "--precision", "fp16", launcher="torchrun", timeout=90)
    if run.code == 0:
        assert "engine: DeepSpeedEngine (ZeRO 1), fp16" in run.log
    else:
        check_refused_by_all(run, "fp16")
        check_quiet(run)


# --- videos -----------------------------------------------------------------------------------------------------------


def test_an_empty_clip_among_good_ones(tmp_path: Path):
    """A download that failed leaves a file of 0 bytes: it is named and counted, and the others are kept."""
    pytest.importorskip("av")
    cv2 = pytest.importorskip("cv2")
    videos = tmp_path / "_clips"
    videos.mkdir()
    for name in ("a", "c"):
        writer = cv2.VideoWriter(str(videos / f"{name}.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
        for number in range(12):
            writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
        writer.release()
    (videos / "b.mp4").touch()
    done = subprocess.run(
        [sys.executable, str(ROOT / "_tools" / "extract_video-frame.py"), "--path=clips", "--sample=4"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "skipped: _clips/b.mp4" in done.stderr
    assert "clips.pkl: 2 videos, 1 skipped" in done.stderr
    assert list(pickle.loads((tmp_path / "clips.pkl").read_bytes())) == ["a", "c"]
