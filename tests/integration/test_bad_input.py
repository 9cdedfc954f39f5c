"""Bad input: one line that says what is wrong and where, exit code 2, no traceback, no hang, nothing lost.

Most runs are in this process, where anything but our own error comes out as itself.
"""

import base64
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from lavender.tasks.pretrain import PretrainTaskSpecificTask
from tests.warm import warm

ROOT = Path(__file__).parents[2]
MLM = "main_pretrain_mlm.py"
TOLERANT = ("--on_bad_sample", "zero")
LIVELY = ("--p_mask", 0.5, "--lr", 1e-3)


def cut_in_a_frame(folder: Path, spoil) -> str:
    tsv = folder / "toy_train_1.tsv"
    tsv.write_bytes(tsv.read_bytes()[:-5000])
    return "toy_train_1.tsv, line 3"


def garbage_frame(folder: Path, spoil) -> str:
    noise = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8 + b"\xff\xda" + bytes(range(200)) + b"\xff\xd9"
    frame = base64.b64encode(noise).decode()
    spoil.row(folder / "toy_train_1.tsv", 1, lambda fields: [fields[0], *[frame] * 4])
    return "toy_train_1.tsv, line 2"


def no_frames(folder: Path, spoil) -> str:
    spoil.row(folder / "toy_train_0.tsv", 0, lambda fields: fields[:1])
    return "toy_train_0.tsv, line 1"


def too_few_frames(folder: Path, spoil) -> str:
    spoil.row(folder / "toy_train_0.tsv", 2, lambda fields: fields[:-1])
    return "toy_train_0.tsv, line 3: 4 frames are asked for, 3 are stored"


def empty_caption(folder: Path, spoil) -> str:
    spoil.texts(folder / "txt_toy.json", lambda texts: texts["train"].update(vid4=["  "]))
    return 'txt_toy.json, train, video "vid4": the caption is empty'


def no_text_at_all(folder: Path, spoil) -> str:
    spoil.texts(folder / "txt_toy.json", lambda texts: texts["train"].update(vid4=[]))
    return 'txt_toy.json, train, video "vid4": the caption is'


def a_number_for_a_caption(folder: Path, spoil) -> str:
    spoil.texts(folder / "txt_toy.json", lambda texts: texts["train"].update(vid4=[7]))
    return 'txt_toy.json, train, video "vid4": the caption is'


def endless_caption(folder: Path, spoil) -> str:
    spoil.texts(folder / "txt_toy.json", lambda texts: texts["train"].update(vid1=["word " * 10_000]))
    return 'txt_toy.json, train, video "vid1": the caption has 10,000 words'


def no_caption(folder: Path, spoil) -> str:
    spoil.texts(folder / "txt_toy.json", lambda texts: texts["train"].pop("vid5"))
    return 'txt_toy.json, train: no caption for video "vid5"'


SAMPLE_FAULTS = [
    *(cut_in_a_frame, garbage_frame, no_frames, too_few_frames),
    *(empty_caption, no_text_at_all, a_number_for_a_caption, endless_caption, no_caption),
]


@pytest.mark.parametrize("harm", SAMPLE_FAULTS)
def test_a_bad_sample(train_here, toy: Path, spoil, harm):
    """It stops the run; or, where that is asked for, it is counted, named, and the run goes on without it."""
    where = harm(toy, spoil)
    train_here(data=toy).check_refused(str(toy), where)

    run = train_here(*TOLERANT, data=toy).check_passed()
    counted = [entry["train"].get("bad_samples", 0) for entry in run.results["epochs"]]
    part = int("toy_train_1" in where or "vid4" in where or "vid5" in where)
    assert counted == [1 - part, part]
    assert where in run.log
    assert f"toy {part}: 1 " in run.log
    assert len(run.predictions("val")) == 4


def test_a_bad_validation_sample(train_here, toy: Path, spoil):
    """In evaluation too it is counted where the figures are, so that nobody reports them as they stand."""
    spoil.row(toy / "toy_val.tsv", 1, lambda fields: [fields[0], "/9j/garbage"])
    train_here(data=toy).check_refused("toy_val.tsv, line 2")
    run = train_here(*TOLERANT, data=toy).check_passed()
    assert "toy_val.tsv, line 2" in run.log
    assert len(run.predictions("val")) == 4
    assert run.results["best"]["val"]["bad_samples"] == 1


def test_one_bad_sample_is_counted_once(train_here, toy: Path, spoil):
    """Frames and caption of a clip both missing: one sample, two faults."""
    no_frames(toy, spoil)
    spoil.texts(toy / "txt_toy.json", lambda texts: texts["train"].pop("vid0"))
    run = train_here(*TOLERANT, data=toy).check_passed()
    assert "toy_train_0.tsv, line 1" in run.log
    assert 'no caption for video "vid0"' in run.log
    assert run.results["epochs"][0]["train"]["bad_samples"] == 1


def test_too_few_frames_may_be_repeated(train_here, toy: Path):
    train_here("--size_frame", 5, data=toy).check_refused("5 frames are asked for, 4 are stored", "repeat_frames")
    run = train_here("--size_frame", 5, "--repeat_frames", data=toy).check_passed()
    assert "bad_samples" not in run.results["epochs"][0]["train"]


@pytest.mark.parametrize("harm", [garbage_frame, no_caption])
def test_a_fault_in_a_worker(train_here, toy: Path, spoil, harm):
    where = harm(toy, spoil)
    train_here("--n_workers", 2, data=toy).check_refused(where)
    run = train_here("--n_workers", 2, *TOLERANT, data=toy).check_passed()
    assert [entry["train"].get("bad_samples", 0) for entry in run.results["epochs"]] == [0, 1]


# --- files ------------------------------------------------------------------------------------------------------------


def index_of_another_file(folder: Path, spoil) -> tuple[str, ...]:
    (folder / "toy_train_0.lineidx").write_bytes((folder / "toy_train_1.lineidx").read_bytes())
    return "toy_train_0.lineidx", "toy_train_0.tsv"


def index_past_the_end(folder: Path, spoil) -> tuple[str, ...]:
    tsv = folder / "toy_train_0.tsv"
    tsv.write_bytes(tsv.read_bytes()[:100_000])  # within line 2 of 3
    return "toy_train_0.lineidx, line 3", "126814", "past the end"


def index_of_garbage(folder: Path, spoil) -> tuple[str, ...]:
    (folder / "toy_train_0.lineidx").write_text("0\nxyz\n7\n")
    return "toy_train_0.lineidx, line 2", "xyz"


def no_training_part(folder: Path, spoil) -> tuple[str, ...]:
    (folder / "toy_train_1.tsv").unlink()
    return "toy_train_1.tsv", "missing", "size_part"


def no_validation_frames(folder: Path, spoil) -> tuple[str, ...]:
    (folder / "toy_val.tsv").unlink()
    return "toy_val.tsv", "missing"


def empty_training_part(folder: Path, spoil) -> tuple[str, ...]:
    (folder / "toy_train_1.tsv").write_bytes(b"")
    (folder / "toy_train_1.lineidx").unlink()
    return ("toy_train_1.tsv",)


def no_text_file(folder: Path, spoil) -> tuple[str, ...]:
    (folder / "txt_toy.json").unlink()
    return "txt_toy.json", "missing"


def broken_text_file(folder: Path, spoil) -> tuple[str, ...]:
    text = (folder / "txt_toy.json").read_text()
    (folder / "txt_toy.json").write_text('{\n  "train": {"vid0" ["a"]},\n' + text[1:])
    return ("txt_toy.json, line 2, column 20",)


def a_list_for_a_text_file(folder: Path, spoil) -> tuple[str, ...]:
    (folder / "txt_toy.json").write_text('[{"video": "vid0", "caption": "a red circle"}]')
    return "txt_toy.json", '{"train": '


def retrieval_text(folder: Path, spoil) -> tuple[str, ...]:
    (folder / "txt_toy.json").write_bytes((ROOT / "tests/conformance/kit/data/txt_toy-retrieval.json").read_bytes())
    return "txt_toy.json", "captions"


def latin_text_file(folder: Path, spoil) -> tuple[str, ...]:
    (folder / "txt_toy.json").write_bytes('{"train": {"vid0": ["ein Bär"]}}'.encode("latin-1"))
    return "txt_toy.json", "UTF-8"


def no_training_captions(folder: Path, spoil) -> tuple[str, ...]:
    spoil.texts(folder / "txt_toy.json", lambda texts: texts.pop("train"))
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
def test_a_bad_file(train_here, toy: Path, spoil, harm, words: tuple):
    """Whole files are never tolerated, and are looked at before anything is trained."""
    expected = harm(toy, spoil)
    run = train_here(*words, data=toy)
    run.check_refused(*expected)
    assert list(run.folder.glob("ckpt_violet_pretrain_toy_*")) == []


def test_the_second_data_set_is_looked_at_before_the_first_is_trained(train_here, toy: Path, spoil):
    """A fault in its files must not show after hours of the first."""
    for path in list(toy.iterdir()):
        path.with_name(path.name.replace("toy", "other")).write_bytes(path.read_bytes())
    spoil.texts(toy / "txt_other.json", lambda texts: texts.pop("train"))
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
        (("--vis_backbone_init", "3d"), ("video backbone", "--vis_backbone_init random")),
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
        ("", "is empty"),
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
    """No network: a name that is no folder is told, and nothing waits, with where to put the files."""
    environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    run = start(MLM, "--fusion_encoder", "bert-no-such", environment=environment)
    run.check_refused('"bert-no-such"', "_models/huggingface_transformers", "config.json")


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
    done = warm().run(ROOT / "_tools" / "extract_video-frame.py", "--path=clips", "--sample=4", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "skipped: _clips/b.mp4" in done.stderr
    assert "clips.pkl: 2 videos, 1 skipped" in done.stderr
    assert list(pickle.loads((tmp_path / "clips.pkl").read_bytes())) == ["a", "c"]
