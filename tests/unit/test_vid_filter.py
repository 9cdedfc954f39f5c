"""The filter of several tasks' training splits: no test video of one task is left in the training of another."""

import json
import shutil
from pathlib import Path, PurePath

import pytest
import yaml

from lavender.config.load import load_config
from lavender.data.caption_folder import CaptionFolder
from lavender.data.tsv import TSVWriter
from tests.unit.filter_world import (
    DEFAULT_COCO,
    FOLDERS,
    LINE_LIST,
    ROOT,
    TEST_YAML,
    TEXTS,
    TRAIN_YAML,
    VAL_YAML,
    YAMLS,
    command,
    filter_training,
    small_msvd,
    snapshot,
    texts_of,
    trained_on,
    write_coco,
    write_rows,
    write_split,
    write_texts,
    write_world,
)

# --- what is removed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", TEXTS)
def test_what_any_task_tests_on_leaves_all_training_splits(root: Path, tmp_path: Path, dataset: str):
    stay, out = write_world(root)[dataset], tmp_path / "out"
    filter_training(dataset, root, out)
    expected = {f"txt_{task}.json" for task in TEXTS[dataset]}
    for name in expected:
        before, after = (json.loads((folder / name).read_text()) for folder in (root, out))
        if "train" in before:
            before["train"] = [item for item in before["train"] if item["video"] in stay]
            assert len(before["train"]) == 2 * len(stay)
        assert after == before
    if dataset in FOLDERS:
        assert trained_on(out / FOLDERS[dataset] / TRAIN_YAML) == [f"{video}.mp4 0" for video in stay]
        expected |= {f"{FOLDERS[dataset]}/{name}" for name in (LINE_LIST, *YAMLS)}
    assert snapshot(out).keys() == expected


def leaks(config: str, place: Path, filtered: bool = True) -> dict[str, set[str]]:
    """Data set → training videos of any entry of a configuration that any entry of that set validates or tests on.

    With `filtered` false it is the original files that are read.
    """
    train: dict[str, set[str]] = {}
    held_out: dict[str, set[str]] = {}
    for entry in load_config(["--config", str(ROOT / "_args" / f"args_{config}.json")]).entries():
        folder, dataset = place / (entry.data_dir if filtered else "_datasets"), entry.task.split("-")[0]
        trained, others = train.setdefault(dataset, set()), held_out.setdefault(dataset, set())
        if entry.type == "captioning":
            yamls = [
                folder / (name if filtered else name.removeprefix("multi_task/"))
                for name in (entry.train_yaml, entry.val_yaml, entry.test_yaml)
                if name
            ]
            trained.update(caption.split()[0] for caption in trained_on(yamls[0]))
            for path in yamls[1:]:
                split = CaptionFolder(path, within=folder)
                references = path.parent / split.facts.get("caption_coco_format", "none")
                others.update(split.videos)
                if references.is_file():
                    others.update(note["image_id"] for note in json.loads(references.read_text())["annotations"])
        else:
            trained.update(texts_of(folder, entry.task))
            others.update(*(texts_of(folder, entry.task, split) for split in ("val", "test")))
        assert trained
        assert others
    bare = [{name: {PurePath(video).stem for video in videos[name]} for name in train} for videos in (train, held_out)]
    return {name: bare[0][name] & bare[1][name] for name in train}


@pytest.mark.parametrize(("config", "count"), [("multi-task_all", 5), ("multi-task_ablate", 4)])
def test_no_entry_of_a_released_configuration_trains_on_a_test_video(root: Path, config: str, count: int):
    write_world(root)
    snapshots = []  # a second run writes the same
    for _ in range(2):
        for dataset in TEXTS:
            filter_training(dataset, root, root / "multi_task")
        snapshots.append(snapshot(root))
    assert snapshots[0] == snapshots[1]
    assert list(leaks(config, root.parent).values()) == [set()] * count
    assert all(leaks(config, root.parent, filtered=False).values()), "made-up data in which nothing could have leaked"


FILM = "0001_Film_00.51.926-00."


@pytest.mark.parametrize(
    ("held_out", "trained", "one"),
    [
        *(("video1", "video1.mp4", True), ("video1.mp4", "video1", True), ("x/video1.avi", "y/video1.mp4", False)),
        *(("a.b", "a.b.mp4", True), ("a.b.mp4", "a.b", True), ("clips/a.b", "a.b.mp4", True)),
        *(("a.b", "a", False), ("a", "a.b", False), ("film.9", "film.1", False), ("x/a.b", "x/a.b.MP4", True)),
        *(("a.b.mp4", "a.c.mp4", False), ("a.b.mp4", "a.mp4", False)),
        *((f"{FILM}54.129", f"{FILM}54.129.avi", True), (f"{FILM}54.129", f"{FILM}55.129", False)),
        *(("video1", "video10", False), ("clips/video1", "clips", False)),
    ],
)
def test_which_ids_are_one_video(root: Path, held_out: str, trained: str, one: bool):
    write_texts(root, "didemo-retrieval", train=["other", trained], val=[], test=[held_out])
    filter_training("didemo", root, root / "out")
    assert texts_of(root / "out", "didemo-retrieval") == (["other"] if one else ["other", trained])


@pytest.mark.parametrize("name", ["refs.json", DEFAULT_COCO])
@pytest.mark.parametrize(("videos", "images"), [(["y", "c"], []), (["y"], ["c"]), (["y", 7], [])])
def test_a_video_of_the_references_alone(root: Path, name: str, videos: list, images: list):
    small_msvd(root, train="a7c")
    write_coco(root / "MSVD" / name, videos, images)
    if name != DEFAULT_COCO:
        write_split(root / "MSVD", "val", "y", caption_coco_format=name)
    filter_training("msvd", root, root / "out")
    left = ["a", "c"] if 7 in videos else ["a", "7"]
    assert texts_of(root / "out", "msvd-qa") == left
    assert trained_on(root / "out" / "MSVD" / TRAIN_YAML) == [f"{video} 0" for video in left]


def test_of_a_composite_val_split_the_rows_of_its_line_list_count(root: Path):
    """As in a run, which evaluates no others: the caption TSVs may be those that are trained on."""
    small_msvd(root)
    files = {"img": ["train.img.tsv"], "caption": ["train.caption.tsv"]}
    write_split(root / "MSVD", "val", "", "0\t1\t0\n", composite=True, **files)
    write_coco(root / "MSVD" / "train_32frames_caption_coco_format.json", "abc")  # holds nothing out
    filter_training("msvd", root, root / "out")
    assert texts_of(root / "out", "msvd-qa") == ["a", "c"]
    copy = CaptionFolder(root / "out" / "MSVD" / VAL_YAML)
    assert [copy.videos[row] for row in copy.evaluation_rows()] == ["b"]


def test_missing_frames_are_for_the_run_to_tell(root: Path):
    small_msvd(root, tested="b")
    with TSVWriter(root / "MSVD" / "train.img.tsv") as frames:
        frames.write(["a", "{}", "/9j/x"])
    filter_training("msvd", root, root / "out")
    assert (root / "out" / "MSVD" / LINE_LIST).read_text() == "0\t0\n2\t0\n"


# --- what is written --------------------------------------------------------------------------------------------------


def test_all_else_of_a_text_file_is_kept(root: Path):
    content = {
        **{"ans2label": {"émeu": 1, "dog": 0}, "vocab": ["dog"], "note": None},
        "train": [{"video": "b", "n": 1}, {"video": "x"}, {"answer": 2.5, "video": "a"}, {"video": "b", "n": 2}],
        **{"test": [{"video": "x", "question": "[MASK]?"}], "val": None},
    }
    (root / "txt_didemo-retrieval.json").write_text(json.dumps(content))
    filter_training("didemo", root, root / "out")
    content["train"] = [{"video": "b", "n": 1}, {"answer": 2.5, "video": "a"}, {"video": "b", "n": 2}]
    written = json.loads((root / "out" / "txt_didemo-retrieval.json").read_text())
    assert json.dumps(written) == json.dumps(content)  # the order of the keys too


def test_a_line_list_keeps_its_order(root: Path):
    small_msvd(root, tested="b")
    write_split(root / "MSVD", "train", "abc", "2\t1\n1\t0\n0\t1\n2\t0\n1\t1\n2\t1\n")
    filter_training("msvd", root, root / "out")
    assert (root / "out" / "MSVD" / LINE_LIST).read_text() == "2\t1\n0\t1\n2\t0\n2\t1\n"
    assert trained_on(root / "out" / "MSVD" / TRAIN_YAML) == ["c 1", "a 1", "c 0", "c 1"]


@pytest.mark.parametrize(
    ("lines", "left", "captions"),
    [
        ("1\t0\t1\n0\t1\t0\n2\t1\t0\n0\t0\t0\n2\t0\t1\n", "1\t0\t1\n0\t0\t0\n2\t0\t1\n", ["d 1", "a 0", "e 1"]),
        ("", "0\t0\t0\n1\t0\t0\n2\t0\t0\n2\t2\t0\n", ["a 0", "d 0", "e 0", "g 0"]),
    ],
)
def test_a_composite_split(root: Path, lines: str, left: str, captions: list[str]):
    small_msvd(root, tested="bf")
    parts = {"one": "ab", "two": "d", "three": "efg"}
    for name, videos in parts.items():
        write_rows(root / "MSVD" / name, videos)
    files = {key: [f"{name}.{key}.tsv" for name in parts] for key in ("img", "caption")}
    write_split(root / "MSVD", "train", "", lines, composite=True, **files)
    filter_training("msvd", root, root / "out")
    made = root / "out" / "MSVD"
    facts = yaml.safe_load((made / TRAIN_YAML).read_text())
    moved = {key: [f"../../MSVD/{name}" for name in names] for key, names in files.items()}
    assert facts == {"composite": True, "caption_linelist": LINE_LIST, **moved}
    assert (made / LINE_LIST).read_text() == left
    assert trained_on(made / TRAIN_YAML) == captions


def test_the_new_captioning_folder_points_back(root: Path):
    small_msvd(root, train="ay")
    folder, made = root / "MSVD", root / "multi_task" / "MSVD"
    write_rows(root / "frames" / "all", "ay")
    write_split(folder, "train", "ay", img="../frames/all.img.tsv", label="train.label.tsv", note="train")
    write_coco(folder / DEFAULT_COCO, "y")
    write_split(folder, "test", "z", "0\t0\n", caption_coco_format=write_coco(folder / "refs.json", "z"), label=None)
    filter_training("msvd", root, root / "multi_task")
    train, val, test = (yaml.safe_load((made / name).read_text()) for name in YAMLS)
    assert train == {
        **{"img": "../../frames/all.img.tsv", "caption": "../../MSVD/train.caption.tsv"},
        **{"label": "../../MSVD/train.label.tsv", "note": "train", "caption_linelist": LINE_LIST},
    }
    assert val["caption_coco_format"] == f"../../MSVD/{DEFAULT_COCO}"
    assert test["caption_coco_format"] == "../../MSVD/refs.json"
    assert test["caption_linelist"] == "../../MSVD/test.linelist.tsv"
    for name, video in ((VAL_YAML, "y"), (TEST_YAML, "z")):
        copy = CaptionFolder(made / name)
        assert (copy.videos, copy.references([0])) == ([video], [["so it is"]])
    assert trained_on(made / TRAIN_YAML) == ["a 0"]


def test_folders_and_files_behind_links(root: Path, tmp_path: Path):
    """`..` leads out of the folder that a link leads to, and the index of a linked TSV lies beside the link."""
    small_msvd(root, tested="b")
    store, scratch = tmp_path / "store" / "deep", tmp_path / "scratch"
    store.mkdir(parents=True)
    scratch.mkdir()
    (root / "MSVD").rename(store / "captions").joinpath("train.img.tsv").rename(store / "blob")
    (root / "MSVD").symlink_to(store / "captions")
    (root / "MSVD" / "train.img.tsv").symlink_to(store / "blob")
    (root / "MSVD" / "train.caption.tsv").rename(store / "up.caption.tsv")
    (root / "MSVD" / TRAIN_YAML).write_text("img: train.img.tsv\ncaption: ../up.caption.tsv\n")
    (root / "multi_task").symlink_to(scratch)
    filter_training("msvd", root, root / "multi_task")
    for folder in (root / "multi_task", scratch):
        assert trained_on(folder / "MSVD" / TRAIN_YAML) == ["a 0", "c 0"]
    assert not (store / "blob.lineidx").exists()


def test_counts_are_told(root: Path, capsys):
    small_msvd(root, train=["a", "b", "c", "b.mp4", "z"], tested="b")
    write_split(root / "MSVD", "train", "abcde", "".join(f"{n // 2}\t{n % 2}\n" for n in range(10)))
    filter_training("msvd", root, root / "out")
    assert capsys.readouterr().out.splitlines() == [
        "file                      items before  after  videos before  after",
        "txt_msvd-retrieval.json              5      2              4      2",
        "txt_msvd-qa.json                     5      2              4      2",
        "MSVD/train_32frames.yaml            10      8              5      4",
        f"msvd: 2 videos removed from training; {root / 'out'}: 6 files",
    ]


def test_a_training_split_that_becomes_empty(root: Path, caplog):
    small_msvd(root, train="z")
    filter_training("msvd", root, root / "out")
    assert texts_of(root / "out", "msvd-qa") == []
    assert (root / "out" / "MSVD" / LINE_LIST).read_text() == ""
    assert CaptionFolder(root / "out" / "MSVD" / TRAIN_YAML).videos == ["z"]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    names = ("txt_msvd-retrieval.json", "txt_msvd-qa.json", f"MSVD/{TRAIN_YAML}")
    assert warnings == [f"{root / name}: no training item is left" for name in names]


def test_a_test_split_without_references(root: Path):
    """Its frames alone tell what is held out; captions that are empty or not there make no difference."""
    small_msvd(root, train="abc", tested="z")
    write_rows(root / "MSVD" / "test", "b")
    tsv = root / "MSVD" / "test.caption.tsv"
    tsv.write_text("b\t[]\n")
    tsv.with_suffix(".lineidx").unlink(missing_ok=True)
    filter_training("msvd", root, root / "empty")
    (root / "MSVD" / TEST_YAML).write_text(yaml.safe_dump({"img": "test.img.tsv"}))
    tsv.unlink()
    filter_training("msvd", root, root / "none")
    for folder in ("empty", "none"):
        left = trained_on(root / folder / "MSVD" / TRAIN_YAML)
        assert left == ["a 0", "c 0"]
        assert texts_of(root / folder, "msvd-qa") == ["a", "c"]


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_as_released(tmp_path: Path):
    """By default in the repository's `_datasets`, from wherever it is started."""
    home, name = tmp_path / "repository", "multi_task_vid_filter.py"
    (home / "_datasets").mkdir(parents=True)
    shutil.copytree(ROOT / "_tools", home / "_tools", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "lavender").symlink_to(ROOT / "lavender")
    stay, made = write_world(home / "_datasets")["lsmdc"], home / "_datasets" / "multi_task"
    for folder, script in ((home, Path("_tools", name)), (home / "_tools", Path(name))):
        done = command(folder, script, "--dataset", "lsmdc")
        assert (done.returncode, done.stderr) == (0, "")
        assert "lsmdc: 6 videos removed from training" in done.stdout
        assert texts_of(made, "lsmdc-fib") == 2 * stay
        shutil.rmtree(made)
    helped = command(home, Path("_tools", name), "--help").stdout
    assert f"python _tools/{name} --dataset" in helped
    assert "{lsmdc,msrvtt,msvd,tgif,didemo}" in helped


def test_paths_that_are_given_start_where_the_command_does(root: Path):
    stay, script = write_world(root)["msrvtt"], ROOT / "_tools" / "multi_task_vid_filter.py"
    folders = ("--data_root", root.name, "--output_folder", "filtered/here")
    done = command(root.parent, script, "--dataset", "msrvtt", *folders)
    assert done.returncode == 0, done.stderr
    written = root.parent / "filtered" / "here"
    assert texts_of(written, "msrvtt-qa") == 2 * stay
    assert trained_on(written / "MSRVTT-v2" / TRAIN_YAML) == [f"{video}.mp4 0" for video in stay]

    (root / "txt_didemo-retrieval.json").write_text('{"train": [{"video": "a"}, {}]}')
    done = command(root.parent, script, "--dataset", "didemo", *folders)
    where = "_datasets/txt_didemo-retrieval.json, train, item 1 (counted from 0)"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f'{where}: an object with a "video" (text) is expected\n'
