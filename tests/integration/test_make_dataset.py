"""From people's own clips and tables to training, in one command."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lavender.prepare.dataset import make_dataset
from lavender.runtime.errors import DataError
from tests.conftest import MICRO, Run
from tests.unit.data.sources.shard_world import failed, picture, write_shard
from tests.unit.prepare.clip_world import write_images, write_video
from tests.warm import warm

QUICK = (*MICRO, "--size_epoch", 1, "--size_batch", 2, "--fusion_encoder", "tests/conformance/kit/bert_micro")
TASKS = {  # the task's name → scripts that its configuration is for
    "own-retrieval": ("main_retrieval_tsv.py", "main_retrieval_task_specific.py"),
    "own-cap": ("main_caption.py",),
    "own-qa": ("main_qaoe_mlm.py", "main_qaoe_task_specific.py"),
    "own-mc": ("main_qamc_mlm_gen_ans_idx.py", "main_qamc_task_specific.py"),
}


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Folders of images; some have fewer than are taken of a video."""
    for number in range(6):
        write_images(tmp_path / "clips" / f"c{number}", *range(10 * number, 10 * number + 2 + number))
    return tmp_path / "clips"


@pytest.fixture
def tables(tmp_path: Path) -> list[Path]:
    """Captions, questions and choices of them."""
    contents = {
        "captions.csv": ["clip,sentence", *(f'c{n},"a grey picture, number {n}"' for n in range(6)), "gone,x"],
        "qa.csv": ["video;question;answer", *(f"c{n}.mp4;what is it?;{('grey', 'red')[n % 2]}" for n in range(6))],
        "mc.jsonl": [
            json.dumps({"video": f"c{n}", "question": "which?", "options": ["red", "grey", "blue"], "answer": n % 3})
            for n in range(6)
        ],
    }
    for name, lines in contents.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    return [tmp_path / name for name in contents]


def train(train_here: Callable[..., Run], script: str, config: Path) -> Run:
    ground = ("--config", str(config))
    return train_here(task=script, released=ground, small=tuple(map(str, QUICK)), data=Path()).check_passed()


@pytest.mark.parametrize("source", [pytest.param("tsv", marks=pytest.mark.slow), "videos"])
def test_every_task_trains(
    train_here, clips: Path, tables: list[Path], tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "which", lambda name: None)  # METEOR without its Java: seconds less
    output = tmp_path / "data"
    assert make_dataset("own", tables, str(clips), output, frame_source=source, workers=1) == []
    assert (output / "img_own.tsv").exists() == (source == "tsv")
    # What differs is where frames come from, so one script of each task is enough for the second source.
    for task, scripts in TASKS.items():
        for script in scripts if source == "tsv" else scripts[:1]:
            results = train(train_here, script, output / "_args" / f"args_{task}.json").results
            assert {"train", "val", "test"} <= results["epochs"][0].keys()
    if source == "videos":
        assert train(train_here, "main_pretrain_mlm.py", output / "_args" / "args_own-pretrain.json").results["epochs"]


def test_tars_bring_their_captions(train_here, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    samples = {f"k{number}": picture(20 * number, f"picture {number}") for number in range(8)}
    (tmp_path / "tars").mkdir()
    write_shard(tmp_path / "tars" / "00000.tar", samples | {"k9": failed("never came")})
    make_dataset("own", [], str(tmp_path / "tars"), tmp_path / "data", frame_source="shards")
    said = capsys.readouterr().out
    assert "own-pretrain: 6 train, 1 val, 0 test" in said
    config = tmp_path / "data" / "_args" / "args_own-pretrain.json"
    assert json.loads(config.read_text())["size_frame"] == 1
    results = train(train_here, "main_pretrain_mlm.py", config).results
    assert {"train", "val"} <= results["epochs"][0].keys()


def tool(*words: object) -> subprocess.CompletedProcess[str]:
    return warm().run("_tools/make_dataset.py", "--name", "own", *words)


def test_the_command(tmp_path: Path):
    """A broken clip is listed and left out, and the code says so; what is printed can be pasted."""
    for number in range(4):
        write_video(tmp_path / "my clips" / f"c{number}.MP4", grey=10 * number)
    (tmp_path / "my clips" / "c4.mp4").write_bytes(b"not a video" * 50)
    table = tmp_path / "t.csv"
    table.write_text("video,caption\n" + "".join(f"c{n},clip number {n}\n" for n in range(5)))
    words = ("--table", table, "--videos", tmp_path / "my clips", "--output", tmp_path / "my data")
    done = tool(*words)
    assert done.returncode == 1, done.stderr
    assert "c4.mp4" in done.stderr
    assert "1 clips cannot be decoded" in done.stderr
    assert f"--config '{tmp_path / 'my data' / '_args' / 'args_own-retrieval.json'}'" in done.stdout
    texts = json.loads((tmp_path / "my data" / "txt_own-retrieval.json").read_text())
    assert sorted(item["video"] for split in texts.values() for item in split) == ["c0", "c1", "c2", "c3"]


def test_a_folder_that_cannot_be_written(clips: Path, tables: list[Path], tmp_path: Path):
    (tmp_path / "file").write_text("x")
    done = tool("--table", tables[0], "--videos", clips, "--output", tmp_path / "file")
    assert done.returncode == 2
    assert str(tmp_path / "file") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_table_is_not_overwritten(clips: Path, tmp_path: Path):
    table = tmp_path / "txt_own-qa.json"
    table.write_text(json.dumps([{"video": "c1", "question": "what", "answer": "grey"}]))
    with pytest.raises(DataError, match=r"txt_own-qa\.json.*overwrite"):
        make_dataset("own", [table], str(clips), tmp_path)


def test_a_broken_clip_takes_its_texts_along(tmp_path: Path):
    """They do not go to a clip of the same file name in another folder."""
    write_images(tmp_path / "clips" / "001", 1, 2)
    (tmp_path / "clips" / "001" / "1.png").write_bytes(b"no image")
    for name in ("retake/001", "002", "003", "004"):
        write_images(tmp_path / "clips" / name, 1, 2)
    table = tmp_path / "t.csv"
    names = ("001", "retake/001", "002", "003", "004")
    table.write_text("video,caption\n" + "".join(f"{name},caption of {name}\n" for name in names))
    assert make_dataset("own", [table], str(tmp_path / "clips"), tmp_path / "data", workers=1) == ["001"]
    texts = json.loads((tmp_path / "data" / "txt_own-retrieval.json").read_text())
    found = [item for split in texts.values() for item in split]
    assert sorted(item["video"] for item in found) == ["002", "003", "004", "retake/001"]
    assert all(item["caption"] == f"caption of {item['video']}" for item in found)


def test_files_of_others_stay(clips: Path, tables: list[Path], tmp_path: Path):
    output = tmp_path / "data"
    output.mkdir()
    (output / "img_own.tsv").write_text("released")
    with pytest.raises(DataError, match=r"img_own\.tsv.*--name"):
        make_dataset("own", tables, str(clips), output)
    assert (output / "img_own.tsv").read_text() == "released"
    make_dataset("mine", tables, str(clips), output, frame_source="videos")
    make_dataset("mine", tables, str(clips), output, frame_source="videos")
    with pytest.raises(DataError, match=r"txt_mine-qa\.json.*--name"):
        make_dataset("mine-qa", tables, str(clips), output, frame_source="videos")
    with pytest.raises(DataError, match="--name cc3m"):
        make_dataset("cc3m", tables, str(clips), output)
    with pytest.raises(DataError, match=r"captions\.csv is given twice"):
        make_dataset("other", [tables[0], tables[0]], str(clips), output)


def test_a_source_that_does_not_fit(clips: Path, tables: list[Path], tmp_path: Path):
    with pytest.raises(DataError, match=r"videos.*--frame_source"):
        make_dataset("own", tables, str(clips), tmp_path / "data", frame_source="shards")
    with pytest.raises(DataError, match="--table"):
        make_dataset("own", [], str(clips), tmp_path / "data")
