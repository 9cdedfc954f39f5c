"""Several tasks with one set of weights: both scripts, and the checkpoint in the scripts of each task alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[2]
KIT = ROOT / "tests" / "conformance" / "kit"
MLM, HEADS = "main_multi_task_mlm.py", "main_multi_task_multi_head.py"
ENTRIES: list[dict[str, Any]] = [
    {"type": "retrieval", "task": "toy-retrieval", "dataset": "toy"},
    {"type": "qaoe", "task": "toy-qa", "dataset": "toy", "size_vocab": 4, "on_bad_sample": "zero"},
    {"type": "qaoe", "task": "toy-fib", "dataset": "toy", "dataset_type": "fib", "size_vocab": 4},
    {"type": "qamc", "task": "toy-action", "dataset": "toy", "size_txt": 100},
    {"type": "qamc", "task": "toy-mc", "dataset": "toy", "dataset_type": "retmc"},
    {"type": "captioning", "task": "toy-cap", "size_frame": 4, "size_txt": 50, "max_gen_length": 8}
    | {f"{split}_yaml": f"CAP/{split}.yaml" for split in ("train", "val", "test")},
]
ALONE = {  # task → its script, the MLM way and as baseline
    "toy-retrieval": ("main_retrieval_tsv.py", "main_retrieval_task_specific.py"),
    "toy-qa": ("main_qaoe_mlm.py", "main_qaoe_task_specific.py"),
    "toy-fib": ("main_qaoe_mlm_lsmdc_fib.py", "main_qaoe_task_specific.py"),
    "toy-action": ("main_qamc_mlm_gen_ans_idx.py", "main_qamc_task_specific.py"),
    "toy-mc": ("main_retmc_mlm_head.py", "main_retmc_task_specific.py"),
    "toy-cap": ("main_caption.py", "main_caption.py"),
}
FROM_THE_CHECKPOINT = ("size_frame", "size_txt")
WHICH = shutil.which


@pytest.fixture(autouse=True)
def no_java(monkeypatch) -> None:
    """It takes seconds for every evaluation of captions; here it is not there."""
    monkeypatch.setattr(shutil, "which", lambda name, *more, **other: name != "java" and WHICH(name, *more, **other))


@pytest.fixture
def together(train_here, start, needs, tmp_path: Path) -> Callable[..., Any]:
    """`together(script, *options, entries=…, by=…)`: in this process, or by a launcher on 2 processes."""

    def run(script: str, *options: object, entries: list[dict] = ENTRIES, by: str = "here", **more: Any) -> Any:
        config = tmp_path / "multi-task.json"
        config.write_text(json.dumps({"type": "multi-task", "task": "toy-all", "size_frame": 5, "datasets": entries}))
        ground = {"released": ("--config", str(config), "--logging_steps", "1", "-v"), "data": KIT / "data", **more}
        if by == "here":
            return train_here(*options, task=script, **ground)
        needs("deepspeed")
        return start(script, *options, launcher=by, environment={"PATH": "/nowhere"}, **ground)

    return run


def check_left_behind(run, epochs: int = 1) -> None:
    """Figures and predictions by task, the checkpoint, the curves."""
    run.check_passed()
    assert run.results["epochs"][-1]["epoch"] == epochs
    names = [entry["task"] for entry in ENTRIES]
    tasks = run.results["epochs"][-1]["tasks"]
    assert list(tasks) == names
    for name, splits in tasks.items():
        assert set(splits) == {"val", "test"}
        for split, metrics in splits.items():
            assert metrics, (name, split)
            assert run.predictions(f"{name}/{split}")
    assert {name: best["test"] for name, best in run.results["best"]["tasks"].items()}.keys() == set(names)
    train = run.results["epochs"][-1]["train"]
    drawn = [name for name in names if f"{name}/loss" in train]
    assert len(drawn) > 1
    assert all(0 <= train[f"{name}/acc"] <= 1 for name in drawn)
    assert set(run.json("log.json")) == set(names)
    assert (run.folder / f"ckpt_violet_toy-all_{epochs}.pt").is_file()
    assert all(f"{name}/loss" in run.log for name in drawn)
    events = EventAccumulator(str(run.folder))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {f"train/{name}/loss" for name in drawn} | {f"train/{name}/acc" for name in drawn} <= tags
    assert {"toy-qa/val/acc_1", "toy-cap/test/CIDEr"} <= tags


@pytest.mark.parametrize("script", [MLM, HEADS])
def test_a_run(together, script: str):
    """And an evaluation of its checkpoint alone, which finds the same figures."""
    trained = together(script, "--lr", "1e-3", "--report_to", "tensorboard")
    check_left_behind(trained)
    alone = together(
        script, "--size_epoch", 0, "--path_ckpt", trained.folder / "ckpt_violet_toy-all_1.pt"
    ).check_passed()
    assert alone.results["zero_shot"]["tasks"] == trained.results["epochs"][-1]["tasks"]


@pytest.mark.parametrize(
    ("script", "extra"),
    [
        (MLM, ()),
        pytest.param(HEADS, (), marks=pytest.mark.slow),
        pytest.param(MLM, ("--enable_task_token", "true"), marks=pytest.mark.slow),
        pytest.param(MLM, ("--enable_prompt", "true"), marks=pytest.mark.slow),
    ],
)
def test_its_checkpoint_serves_every_script_of_a_task_alone(
    together, train_here, tmp_path: Path, script: str, extra: tuple
):
    """Same batch size, same figures, same predictions; sizes and what stands in front come from its args.json."""
    (tmp_path / "other.json").write_text(json.dumps({"size_frame": 3, "size_txt": 9}))
    run = together(script, "--lr", "1e-3", *extra).check_passed()
    for entry in ENTRIES:
        name = entry["task"]
        said = [word for key, value in entry.items() if key not in FROM_THE_CHECKPOINT for word in (f"--{key}", value)]
        checkpoint = run.folder / "ckpt_violet_toy-all_1.pt"
        alone = train_here(
            *(*said, "--size_epoch", 0, "--path_ckpt", checkpoint),
            task=ALONE[name][script == HEADS],
            released=("--config", str(tmp_path / "other.json")),
            data=KIT / "data",
        ).check_passed()
        assert alone.results["zero_shot"] == run.results["epochs"][-1]["tasks"][name], name
        for split in ("val", "test"):
            assert alone.predictions(split) == run.predictions(f"{name}/{split}"), name


LAUNCHED = [(MLM, "true"), (MLM, "false"), (HEADS, "true"), (HEADS, "false")]


@pytest.mark.parametrize(
    ("script", "deepspeed"),
    [LAUNCHED[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in LAUNCHED[1:])],
)
def test_two_processes(together, script: str, deepspeed: str):
    run = together(script, "--deepspeed", deepspeed, by="torchrun")
    check_left_behind(run)
    engine = {"true": "DeepSpeedEngine (ZeRO 1)", "false": "DistributedDataParallel"}[deepspeed]
    assert f"engine: {engine}, fp32, 2 process(es), cpu" in run.log


@pytest.mark.slow
@pytest.mark.parametrize("script", [MLM, HEADS])
def test_engines_and_numbers_of_processes_agree(together, script: str):
    """Training losses of DDP and DeepSpeed; figures of an evaluation on one process and on two."""
    quiet = ("--vis_backbone_drop_path", "0", "--lr", "1e-3")
    runs = [together(script, "--deepspeed", how, *quiet, by="launch") for how in ("true", "false")]
    trained = [run.check_passed().results["epochs"][0]["train"] for run in runs]
    assert trained[0] == pytest.approx(trained[1], rel=1e-5)
    evaluate = ("--size_epoch", 0, "--path_ckpt", runs[0].folder / "ckpt_violet_toy-all_1.pt")
    shutil.rmtree(runs[0].folder / "predictions")
    for file in runs[0].folder.glob("*.from.json"):  # captions are made again
        file.unlink()
    alone = together(script, *evaluate).check_passed()
    for file in runs[0].folder.glob("*.from.json"):
        file.unlink()
    two = together(script, *evaluate, "--deepspeed", "false", by="torchrun").check_passed()
    assert alone.results["zero_shot"] == two.results["zero_shot"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type": ""}, ("entry 2", "type")),
        ({"task": ""}, ("entry 2", "task name")),
        ({"task": "nowhere"}, ("txt_nowhere.json", "no such file")),
        ({"dataset": "nowhere"}, ("img_nowhere.tsv", "no such file")),
        ({"size_vocabulary": 4}, ("size_vocabulary", "size_vocab")),
        ({"datasets": []}, ("entry 2", "datasets of its own")),
    ],
)
def test_a_fault_of_an_entry_is_told_before_anything_is_trained(together, change: dict, words: tuple[str, ...]):
    entries = [ENTRIES[0], {**ENTRIES[1], **change}]
    run = together(MLM, entries=entries)
    run.check_refused(*words)
    assert not list(run.folder.glob("*.pt"))


def test_the_baseline_takes_no_prompt(together):
    together(HEADS, "--enable_prompt", "true").check_refused("take no prompt", "MLM script")


@pytest.fixture
def released_folder(tmp_path: Path) -> Path:
    """The kit's files under the released names of all data sets and tasks, filtered folder and all."""
    root = tmp_path / "_datasets"
    texts = {"retrieval": "toy-retrieval", "qaoe": "toy-qa", "qamc": "toy-action", "fib": "toy-fib", "retmc": "toy-mc"}
    for config in (ROOT / "_args").glob("args_multi-task_*.json"):
        for entry in json.loads(config.read_text())["datasets"]:
            folder = root / Path(entry["data_dir"]).relative_to("_datasets")
            folder.mkdir(parents=True, exist_ok=True)
            if entry["type"] == "captioning":
                place = folder / Path(entry["train_yaml"]).parent
                if not place.exists():
                    shutil.copytree(KIT / "data" / "CAP", place, copy_function=shutil.copyfile)
                    for split in ("train", "val", "test"):
                        (place / f"{split}.yaml").rename(place / f"{split}_32frames.yaml")
                continue
            text = texts[entry.get("dataset_type") or entry["type"]]
            shutil.copyfile(KIT / "data" / f"txt_{text}.json", folder / f"txt_{entry['task']}.json")
            for ending in ("tsv", "lineidx", "id2lineidx.pkl"):
                shutil.copyfile(KIT / "data" / f"img_toy.{ending}", root / f"img_{entry['dataset']}.{ending}")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("script", [MLM, HEADS])
@pytest.mark.parametrize("name", ["all", "ablate"])
def test_released_configurations(
    train_here, released_folder: Path, monkeypatch, script: str, name: str, tmp_path: Path
):
    """As written, beside a folder `_datasets`; sizes are small, and five frames are all that the kit has."""
    config = json.loads((ROOT / "_args" / f"args_multi-task_{name}.json").read_text())
    for entry in config["datasets"]:
        entry["data_dir"] = str(released_folder / Path(entry["data_dir"]).relative_to("_datasets"))
        entry |= {"size_vocab": 4} if entry["type"] == "qaoe" else {}
    written = tmp_path / "released.json"
    written.write_text(json.dumps(config))
    options = ("--on_bad_sample", "zero", "--max_gen_length", 5)
    run = train_here(*options, task=script, released=("--config", str(written)), data=Path())
    run.check_passed()
    tasks = run.results["epochs"][0]["tasks"]
    assert list(tasks) == [entry["task"] for entry in config["datasets"]]
