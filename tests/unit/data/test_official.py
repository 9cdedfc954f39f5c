"""Annotation files of other projects: each is recognised, and the error says what to write instead."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavender.config.load import from_dict
from lavender.data.annotations import read_json, read_splits
from lavender.data.caption_folder import CaptionFolder
from lavender.data.items import ItemFile
from lavender.data.official import EXPECTED, PAGE, item_advice
from lavender.prepare.public.names import NAMES
from lavender.runtime.errors import DataError

ROOT = Path(__file__).parents[3]
SENTENCE = {"video_id": "video0", "sen_id": 0, "caption": "a man sings"}
CLIP = "0001_American_Beauty_00.00.51.926-00.00.54.129"
FILES: dict[str, tuple[Any, str]] = {  # content → a word that names it
    "msrvtt": ({"info": {}, "videos": [{"video_id": "video0", "split": "train"}], "sentences": [SENTENCE]}, "MSRVTT"),
    "msrvtt of later copies": ({"info": {}, "images": [], "sentences": [SENTENCE]}, "MSRVTT"),
    "coco": ({"info": {}, "images": [], "licenses": [], "annotations": [{"image_id": 1, "caption": "a"}]}, "COCO"),
    "msvd-qa": ([{"answer": "man", "id": 0, "question": "who sings?", "video_id": 1}], "MSVD-QA"),
    "msrvtt-qa": (
        [{"answer": "couch", "category_id": 14, "id": 1, "question": "what?", "video_id": 6513}],
        "MSRVTT-QA",
    ),
    "activitynet-qa": ([{"question": "who?", "video_name": "v_1", "question_id": "v_1_0"}], "ActivityNet-QA"),
    "vatex": ([{"videoID": "a_0_10", "enCap": ["a man sings"], "chCap": []}], "VATEX"),
    "didemo": ([{"video": "a.mov", "description": "a dog runs", "times": [[0, 0]], "annotation_id": 1}], "DiDeMo"),
    "activitynet": ({"database": {"v1": {"annotations": [], "subset": "training"}}, "version": "1.3"}, "ActivityNet"),
    "activitynet captions": ({"v_1": {"duration": 9, "timestamps": [[0, 1]], "sentences": ["a"]}}, "ActivityNet"),
    "youcook2": ({"database": {"a": {"recipe_type": "1", "annotations": [], "subset": "training"}}}, "YouCook2"),
    "captions": ([{"video": "video0", "caption": "a man sings"}], "captions"),
    "questions": ([{"video": "video0", "question": "who sings?", "answer": "man"}], "questions"),
    "items": ([{"video": "video0", "start": 0}], "items"),
    "tgif-qa action": (
        "gif_name\tquestion\ta1\ta2\tanswer\tvid_id\tkey\ntumblr_1\twhat?\tjump\trun\t0\tA\t1\n",
        "TGIF-QA",
    ),
    "tgif-qa frame": ("gif_name\tquestion\tanswer\tvid_id\tkey\ntumblr_1\twhat?\tred\tF\t1\n", "TGIF-QA"),
    "lsmdc": (f"{CLIP}\t00.00.51.926\t00.00.54.129\t\t\tSOMEONE looks up.\n" * 2, "LSMDC"),
    "msvd": (
        "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description\nv,1,2,3,c,4,English,a man\n",
        "MSVD",
    ),
    "msrvtt 1k": ("key,vid_key,video_id,sentence\nret0,msr0,video0,a man sings\n", "MSRVTT"),
    "csv": ('"clip","text"\nvideo0,a man sings\n', "clip, text"),
    "csv of Excel": ('\ufeff"clip";"text"\r\nvideo0;"ein ""Mann"""\r\n', "clip, text"),
    "csv of old Macs": ("clip,text\rvideo0,a man sings\r", "clip, text"),
    "tsv": ("clip\ttext\nvideo0\ta man sings\n", "clip, text"),
    "json lines": ('{"caption": "a", "clip_name": "v0"}\n{"caption": "b", "clip_name": "v1"}\n', "JSON lines"),
}
EVERY = pytest.mark.parametrize("name", FILES)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def to(file: str, name: str, **options: Any) -> Path:
        content = FILES[name][0]
        text = content if isinstance(content, str) else json.dumps(content, **options)
        (tmp_path / file).write_text(text, newline="")
        return tmp_path / file

    return to


def fault(work: Callable[[], object], path: Path, name: str, expected: str) -> None:
    with pytest.raises(DataError) as raised:
        work()
    example, section = EXPECTED[expected]
    message = str(raised.value)
    assert [word for word in (str(path), FILES[name][1], example, PAGE, section) if word not in message] == []
    assert "\n" not in message


@EVERY
@pytest.mark.parametrize("kind", ["", "retrieval", "qaoe", "qamc"])
def test_in_place_of_a_text_file(write, tmp_path: Path, name: str, kind: str):
    """The example is one of the task's own."""
    path = write("txt_own.json", name)
    config = from_dict({"type": kind, "dataset": "x", "task": "own", "data_dir": str(tmp_path)}, "test")
    fault(lambda: ItemFile(config), path, name, kind)


@EVERY
def test_in_place_of_pretraining_captions(write, name: str):
    path = write("txt_own.json", name, indent=1)
    fault(lambda: read_splits(path, "pretrain"), path, name, "pretrain")


@EVERY
@pytest.mark.parametrize("blind", [False, True])
def test_in_place_of_a_caption_tsv(write, tmp_path: Path, name: str, blind: bool):
    path = write("x.caption.tsv", name)
    (tmp_path / "x.img.tsv").write_text("video0\t/9j/0=\n")
    (tmp_path / "x.yaml").write_text("img: x.img.tsv\ncaption: x.caption.tsv\n")
    fault(lambda: CaptionFolder(tmp_path / "x.yaml", blind=blind), path, name, "captioning")


@pytest.mark.parametrize("name", [name for name in FILES if name != "coco"])
def test_in_place_of_references(write, tmp_path: Path, name: str):
    path = write("x.coco.json", name)
    (tmp_path / "x.img.tsv").write_text("video0\t/9j/0=\n")
    (tmp_path / "x.caption.tsv").write_text('video0\t[{"caption": "a"}]\n')
    (tmp_path / "x.yaml").write_text("img: x.img.tsv\ncaption: x.caption.tsv\ncaption_coco_format: x.coco.json\n")
    fault(lambda: CaptionFolder(tmp_path / "x.yaml").references([0]), path, name, "references")


CONVERTED_HERE = (
    "msrvtt",
    "msvd-qa",
    "msrvtt-qa",
    "didemo",
    "tgif-qa action",
    "tgif-qa frame",
    "lsmdc",
    "msvd",
    "msrvtt 1k",
)


@pytest.mark.parametrize("name", CONVERTED_HERE)
def test_the_tool_that_converts_it_is_named(write, name: str):
    with pytest.raises(DataError) as raised:
        read_splits(write("txt_own.json", name))
    called = re.search(r"`python _tools/convert_annotations.py ([^`]+)`", str(raised.value))
    assert called is not None
    assert (ROOT / "_tools" / "convert_annotations.py").is_file()
    assert set(re.findall(r"[\w-]+", called[1])) - {"or"} <= NAMES.keys()


def test_no_tool_is_named_that_does_not_convert_it(write):
    with pytest.raises(DataError) as raised:
        read_splits(write("txt_own.json", "vatex"))
    assert "convert_annotations" not in str(raised.value)


def test_the_page_has_the_sections_that_are_named():
    headings = [line for line in (ROOT / PAGE).read_text().splitlines() if line.startswith("#")]
    assert {f"## {section}" for _, section in EXPECTED.values()} <= set(headings)


@pytest.mark.parametrize("content", [{}, {"val": []}, {"Validation": []}, {"annotations": [], "test": []}], ids=repr)
def test_a_file_with_splits_is_none_of_them(tmp_path: Path, content: dict):
    path = tmp_path / "txt_own.json"
    path.write_text(json.dumps(content))
    assert read_splits(path) == content


@pytest.mark.parametrize("text", ['{"train": [1, 2,,]}\n{"a": 1}', "{\n", "[1, 2\n", "oops", "[]", "5", "a\nb\n"])
def test_what_is_not_recognised_is_told_as_before(tmp_path: Path, text: str):
    path = tmp_path / "txt_own.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"not valid JSON|is expected, not a") as raised:
        read_json(path)
    assert PAGE not in str(raised.value)


@pytest.mark.parametrize("rows", ["video0\tnull\nvideo1\tnull\n", "video0\nvideo1\n", "video0\t\n", 'video0\t""\n'])
def test_captions_that_are_withheld_are_no_table(tmp_path: Path, rows: str):
    (tmp_path / "x.img.tsv").write_text("video0\t/9j/0=\nvideo1\t/9j/0=\n")
    (tmp_path / "x.caption.tsv").write_text(rows)
    (tmp_path / "x.yaml").write_text("img: x.img.tsv\ncaption: x.caption.tsv\n")
    assert CaptionFolder(tmp_path / "x.yaml", blind=True).rows[0] == {"video": "video0", "captions": []}


@pytest.mark.parametrize("key", ["video_id", "videoID", "gif_name", "image_id"])
def test_an_item_with_its_id_under_another_key(tmp_path: Path, key: str):
    assert f'"{key}"' in item_advice({key: "video0"})
    (tmp_path / "txt_own.json").write_text(json.dumps({"train": [{key: "video0", "caption": "a"}]}))
    texts = ItemFile(from_dict({"dataset": "x", "task": "own", "data_dir": str(tmp_path)}, "test"))
    with pytest.raises(DataError, match=f'item 0 .*"video".*"{key}"'):
        texts.items("train")
    assert item_advice({"clip": 1}) == item_advice(5) == ""
