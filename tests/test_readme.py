"""Every command of the README and of the pages in docs starts, and every file that they name is there."""

import dataclasses
import functools
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertConfig

from lavender.config.load import load_config
from lavender.config.schema import Config
from lavender.demo.toy import write_video
from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.lavender import Heads, Lavender
from tests.warm import NO_GPU, warm

ROOT = Path(__file__).resolve().parents[1]
KIT = ROOT / "tests" / "conformance" / "kit"
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = list(
    dict.fromkeys(
        line.split("   #")[0].strip()
        for block in BLOCKS
        for line in block.splitlines()
        if line.strip() and not line.startswith("#")
    )
)
SCRIPTS = [command for command in COMMANDS if re.search(r"\b(main|eval)_\w+\.py", command)]
TOOL = re.compile(r"python (_tools/[\w-]+\.py|-m lavender\.\w+|-m benchmarks)")
TOOLS = [command for command in [*COMMANDS, *re.findall(r"`(python [^`]+)`", TEXT)] if TOOL.match(command)]
OTHERS = ("make ", "pip ", "cd _tools", "python extract_", "python make_id2", "python visualize_")  # tested below
FOREIGN = ("video2dataset", "img2dataset")  # of other projects
SMALL = (
    *("--data_dir", str(KIT / "data"), "--dataset", "toy", "--size_part", "1", "--size_epoch", "1"),
    *("--size_batch", "2", "--vis_backbone_size", "micro", "--vis_backbone_init", "random", "--size_img", "64"),
    *("--txt_backbone", str(KIT / "bert_micro"), "--fusion_encoder", str(KIT / "bert_micro"), "--n_workers", "0"),
)
QUESTIONS = ("--task", "toy-qa", "--size_vocab", "4", "--on_bad_sample", "zero")  # one of them has no video
TOGETHER = [
    {"type": "retrieval", "task": "toy-retrieval", "dataset": "toy"},
    {"type": "qaoe", "task": "toy-qa", "dataset": "toy", "size_vocab": 4, "on_bad_sample": "zero"},
    {"type": "captioning", "task": "toy-cap", "train_yaml": "CAP/train.yaml", "val_yaml": "CAP/val.yaml"},
]
TOY = {  # beginning of a script's name → its made-up data
    "main_pretrain": (),
    "main_qamc": ("--task", "toy-action"),
    "main_retmc": ("--task", "toy-mc"),
    "main_qaoe_mlm_lsmdc": ("--task", "toy-fib"),
    "main_qaoe": QUESTIONS,
    "main_retrieval": ("--task", "toy-retrieval"),
    "eval_retrieval": ("--task", "toy-retrieval"),
    "main_caption": tuple(f"--{split}_yaml=CAP/{split}.yaml" for split in ("train", "val", "test")),
    "main_multi_task": ("--datasets", json.dumps(TOGETHER)),
}


def run(command: list[str], folder: Path = ROOT) -> subprocess.CompletedProcess:
    """A command in which `python` is a process that has its imports behind it."""
    python, scripts = Path(warm().command[0]).parent, Path(sys.executable).parent
    environment = {**os.environ, **NO_GPU, **warm().settings, "PATH": f"{python}:{scripts}:{os.environ['PATH']}"}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, env=environment, check=False
    )


def test_commands_are_found():
    assert len(COMMANDS) >= 10
    assert len(SCRIPTS) >= 4
    assert len(TOOLS) >= 4
    unknown = [c for c in COMMANDS if c not in SCRIPTS and c not in TOOLS and not c.startswith((*OTHERS, *FOREIGN))]
    assert not unknown, "no test runs these"


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


@functools.cache
def help_of(tool: str) -> str:
    words = tool.split()
    commands = [[]]
    if words[-1] == "lavender.predict":
        commands = [[word] for word in ("caption", "answer", "choose", "match", "index", "search")]
    return "".join(run(["python", *words, *command, "--help"]).stdout for command in commands)


@pytest.mark.parametrize("command", TOOLS)
def test_tools_know_their_options(command):
    tool = TOOL.match(command).group(1)
    known = help_of(tool)
    own = {word for word in re.findall(r"--[\w-]+", command) if word not in known}
    if "_tools/check_dataset.py" in command:  # options of the scripts may follow
        own -= {f"--{field.name}" for field in dataclasses.fields(Config)}
    assert known
    assert not own


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_targets(command):
    done = run(["make", "--dry-run", *shlex.split(command)[1:]])
    assert done.returncode == 0, done.stderr


def test_one_line_installation():
    (line,) = [command for command in COMMANDS if command.startswith("pip install -r")]
    requirements = (ROOT / shlex.split(line)[-1]).read_text()
    names = [entry for entry in requirements.splitlines() if entry and not entry.startswith("#")]
    assert names
    assert all("==" in name for name in names)


@pytest.mark.parametrize("command", SCRIPTS)
def test_script_options_are_read(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)
    number = next(n for n, word in enumerate(words) if re.fullmatch(r"(main|eval)_\w+\.py", word))
    assert (ROOT / words[number]).is_file()
    config = words[words.index("--config") + 1]
    assert (ROOT / config).is_file()
    assert config.startswith("_args/")
    assert load_config(words[number + 1 :]).config == config


def toy_options(command: str) -> tuple[str, ...]:
    return next(options for script, options in TOY.items() if f" {script}" in command)


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory) -> Path:
    """Fresh weights of the small model with both kinds of head."""
    bert = BertConfig.from_pretrained(KIT / "bert_micro")
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    torch.save(Lavender(VideoSwin("micro"), bert, bert, Heads(classifiers={"fc": 1})).state_dict(), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("command", SCRIPTS)
def test_scripts_start(command, tmp_path, small_checkpoint):
    """As written, but for data, sizes, the checkpoint, the number of processes, and the port, which must be free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = re.sub(r"--nproc_per_node=\d+", "--nproc_per_node=2", command)
    command = re.sub(r"--master_port=\d+", f"--master_port={port}", command)
    command = f"{command.replace('--path_output _snapshot', '')} --path_output {tmp_path}"
    command = re.sub(r"--frame_source shards --shards '[^']+'", "", command)
    evaluates = " eval_" in command  # alone, so it needs a checkpoint
    command = re.sub(r"--path_ckpt \S+", f"--path_ckpt {small_checkpoint}" if evaluates else "", command)
    done = run([*shlex.split(command), *SMALL, *toy_options(command)])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    (folder,) = tmp_path.iterdir()
    assert (folder / "results.json").is_file()
    if evaluates:
        assert small_checkpoint.with_name("small_results.json").is_file()
        return
    assert len(list(folder.glob("ckpt_violet_*_0.pt"))) == 1
    assert len(list(folder.glob("ckpt_violet_*_1.pt"))) == 1


def test_tools(tmp_path):
    """The block of tools, line by line, in a copy of the repository's shape."""
    (block,) = [block for block in BLOCKS if "extract_video-frame.py" in block]
    shutil.copytree(ROOT / "_tools", tmp_path / "_tools", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "lavender").symlink_to(ROOT / "lavender")
    videos = tmp_path / "_tools" / "_msrvtt"
    videos.mkdir()
    for number in range(2):
        frames = np.random.default_rng(number).integers(0, 256, (12, 32, 48, 3)).astype(np.uint8)
        write_video(videos / f"video{number}.mp4", frames, 12)
    done = run(["bash", "-e", "-c", block], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("msrvtt.pkl", "msrvtt.tsv", "msrvtt.lineidx", "msrvtt.id2lineidx.pkl", "msrvtt.png"):
        assert (tmp_path / "_tools" / name).stat().st_size > 0


def test_filter_of_several_tasks(tmp_path):
    """The block of filters, as written, over the smallest files of the released names."""
    (block,) = [block for block in BLOCKS if "multi_task_vid_filter.py" in block]
    shutil.copytree(ROOT / "_tools", tmp_path / "_tools", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "lavender").symlink_to(ROOT / "lavender")
    data = tmp_path / "_datasets"
    for name in ("MSRVTT-v2", "MSVD"):
        shutil.copytree(KIT / "data" / "CAP", data / name, copy_function=shutil.copyfile)
        for split in ("train", "val", "test"):
            (data / name / f"{split}.yaml").rename(data / name / f"{split}_32frames.yaml")
    released = [json.loads(path.read_text()) for path in (ROOT / "_args").glob("args_multi-task_*.json")]
    tasks = {entry["task"] for config in released for entry in config["datasets"] if entry["type"] != "captioning"}
    for task in tasks:
        split = {name: [{"video": video}] for name, video in (("train", "a"), ("val", "b"), ("test", "c"))}
        (data / f"txt_{task}.json").write_text(json.dumps(split))
    done = run(["bash", "-e", "-c", block], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for task in tasks:
        assert (data / "multi_task" / f"txt_{task}.json").is_file()
    assert (data / "multi_task" / "MSRVTT-v2" / "train_32frames.yaml").is_file()


def test_export(tmp_path, small_checkpoint):
    """The block of exporting, as written, on a checkpoint of that name; then the lines of Python."""
    (block,) = [block for block in BLOCKS if "--to_pt" in block]
    shutil.copytree(ROOT / "_tools", tmp_path / "_tools", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "lavender").symlink_to(ROOT / "lavender")
    checkpoint = tmp_path / re.search(r"--checkpoint (\S+)", block).group(1)
    checkpoint.parent.mkdir(parents=True)
    shutil.copy(small_checkpoint, checkpoint)
    bert = dict.fromkeys(("txt_backbone", "fusion_encoder"), str(KIT / "bert_micro"))
    (checkpoint.parent / "args.json").write_text(json.dumps(bert))
    done = run(["bash", "-e", "-c", block], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    first, last = (torch.load(path, weights_only=True) for path in (checkpoint, tmp_path / "lavender.pt"))
    assert first.keys() == last.keys()
    assert all(torch.equal(first[name], last[name]) for name in first)
    (lines,) = dict.fromkeys(block for block in PYTHON if "load_pretrained" in block)
    done = run(["python", "-c", lines + "assert not model.training"], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("lines", dict.fromkeys(block for block in PYTHON if "Predictor" in block))
def test_a_question_about_a_video(lines, tmp_path, small_checkpoint):
    """The lines of Python, as written, but for the names of the checkpoint and of the video."""
    bert = dict.fromkeys(("txt_backbone", "fusion_encoder"), str(KIT / "bert_micro"))
    (tmp_path / "args.json").write_text(json.dumps({**bert, "size_img": 64}))
    shutil.copy(small_checkpoint, tmp_path / "small.pt")
    (tmp_path / "frames").mkdir()
    for number in range(5):
        Image.new("RGB", (64, 64), (50 * number,) * 3).save(tmp_path / "frames" / f"{number}.png")
    lines = re.sub(r'from_pretrained\("[^"]+"\)', f'from_pretrained("{tmp_path / "small.pt"}", "cpu")', lines)
    done = run(["python", "-c", lines.replace('"phone.mp4"', f'"{tmp_path / "frames"}"')])
    assert done.returncode == 0, done.stderr[-2000:]
    assert "frames: what is the man doing" in done.stdout


def test_files_that_pages_name_are_there():
    tree = re.search(r"```\n(_args/.*?)```", README, re.DOTALL).group(1)
    parent = ""
    for line in tree.splitlines():
        name = line.split()[0]
        path = parent + name if line.startswith(" ") else name
        parent = name if not line.startswith(" ") else parent
        assert list(ROOT.glob(path)), f"the README's tree names {path}"
    for page in (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "_models" / "README.md", ROOT / "_datasets" / "README.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            place = page.parent / target
            assert place.exists() or Path(f"{place}.md").exists(), f"{page} links to {target}"
