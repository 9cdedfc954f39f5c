"""A captioning folder: what belongs together, and what is told about a broken one."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lavender.data.caption_folder import CaptionFolder
from lavender.data.tsv import TSVWriter
from lavender.runtime.errors import DataError

CAPTIONS = {"one.mp4": ["a star", "the star"], "two": ["a cross"], "three": ["a ring", "a red ring", "the ring"]}


def write_tsv(path: Path, rows: list[list[str]]) -> None:
    with TSVWriter(path) as writer:
        for row in rows:
            writer.write(row)


def caption_rows(captions: dict[str, list[str]]) -> list[list[str]]:
    return [[video, json.dumps([{"caption": text} for text in texts])] for video, texts in captions.items()]


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """`folder(img=[…], caption=[[…]], **keys)`: a YAML over three videos, with rows or keys changed."""

    def make(img: list[str] | None = None, caption: list[list[str]] | None = None, **keys: Any) -> Path:
        videos = ["one", "two", "three"] if img is None else img
        write_tsv(tmp_path / "x.img.tsv", [[video, "/9j/" + video] for video in videos])
        write_tsv(tmp_path / "x.caption.tsv", caption_rows(CAPTIONS) if caption is None else caption)
        path = tmp_path / "x.yaml"
        path.write_text(yaml.safe_dump({"img": "x.img.tsv", "caption": "x.caption.tsv", **keys}))
        return path

    return make


def shown(folder: CaptionFolder) -> list[str]:
    return [folder.video(row).images[0].removeprefix("/9j/") for row in range(len(folder.videos))]


def test_without_a_line_list_the_first_caption_of_each_row_is_trained_on(folder):
    made = CaptionFolder(folder())
    assert [made.caption(*pair) for pair in made.training_samples().tolist()] == ["a star", "a cross", "a ring"]
    assert made.evaluation_rows().tolist() == [0, 1, 2]


def test_a_line_list_chooses_captions(folder, tmp_path: Path):
    (tmp_path / "list.tsv").write_text("2\t1\n0\t1\n2\t2\n")
    made = CaptionFolder(folder(caption_linelist="list.tsv"))
    found = [made.caption(*pair) for pair in made.training_samples().tolist()]
    assert found == ["a red ring", "the star", "the ring"]
    assert made.evaluation_rows().tolist() == [0, 1, 2], "evaluation is of every row"


@pytest.mark.parametrize("order", [["one", "two", "three"], ["three", "one", "two"], ["a/three.avi", "one.mp4", "two"]])
def test_frames_are_found_by_the_id(folder, order: list[str]):
    made = CaptionFolder(folder(img=order))
    assert [name.split("/")[-1].split(".")[0] for name in shown(made)] == ["one", "two", "three"]


@pytest.mark.parametrize("form", ["clip.{}", "S01E0{}/clip_00", "talk_1.{}_2.5.mp4"])
def test_ids_with_dots_or_folders_get_their_own_frames_and_references(folder, tmp_path: Path, form: str):
    names = [form.format(number) for number in range(1, 5)]
    captions = caption_rows({name: [f"caption of {name}"] for name in names})
    annotations = [{"image_id": name, "caption": f"reference of {name}"} for name in reversed(names)]
    (tmp_path / "coco.json").write_text(json.dumps({"annotations": annotations}))
    made = CaptionFolder(folder(img=names[2:] + names[:2], caption=captions, caption_coco_format="coco.json"))
    assert shown(made) == names
    assert made.references(range(4)) == [[f"reference of {name}"] for name in names]


def test_frames_that_could_be_two_videos_are_refused(folder):
    captions = caption_rows({"S01E01/clip_00": ["a"], "S01E02/clip_00": ["b"]})
    with pytest.raises(DataError, match=r"x\.img\.tsv.*S01E01/clip_00.*S01E02/clip_00"):
        CaptionFolder(folder(img=["clip_00"], caption=captions))


def test_a_composite_split_counts_rows_by_file(folder, tmp_path: Path):
    folder()
    write_tsv(tmp_path / "y.img.tsv", [["four", "/9j/four"], ["one", "/9j/other one"]])
    write_tsv(tmp_path / "y.caption.tsv", caption_rows({"four": ["a box"], "one": ["a dot", "the dot"]}))
    (tmp_path / "list.tsv").write_text("1\t1\t1\n0\t2\t0\n")
    keys = {"img": ["x.img.tsv", "y.img.tsv"], "caption": ["x.caption.tsv", "y.caption.tsv"], "composite": True}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump({**keys, "caption_linelist": "list.tsv"}))
    made = CaptionFolder(tmp_path / "both.yaml")
    assert [made.caption(*pair) for pair in made.training_samples().tolist()] == ["the dot", "a ring"]
    assert made.evaluation_rows().tolist() == [4, 2], "what its line list names"
    assert shown(made) == ["one", "two", "three", "four", "other one"]
    assert made.where(4).endswith("y.caption.tsv, line 2")


def coco(*pairs: tuple[Any, str]) -> str:
    return json.dumps({"annotations": [{"image_id": video, "caption": text} for video, text in pairs]})


def test_numbers_of_a_coco_file_are_told_by_the_names_of_its_images(folder, tmp_path: Path):
    content = json.loads(coco((1, "of two"), (2.0, "of one"), ("three", "of three"), (9, "of nobody")))
    names = {1: "two.mp4", 2: "one.mp4", 9: "elsewhere.mp4"}
    content["images"] = [{"id": number, "file_name": name} for number, name in names.items()] + [{"id": 3}, "odd"]
    content["annotations"].pop()
    (tmp_path / "n.json").write_text(json.dumps(content))
    made = CaptionFolder(folder(caption_coco_format="n.json"))
    assert made.references(range(3)) == [["of one"], ["of two"], ["of three"]]


@pytest.mark.parametrize("name", ["x_caption_coco_format.json", "named.json"])
def test_references_of_a_coco_file(folder, tmp_path: Path, name: str):
    (tmp_path / name).write_text(coco(("one", "A"), ("three", "C"), ("two.mp4", "B"), ("one", "AA")))
    made = CaptionFolder(folder(**({"caption_coco_format": name} if name == "named.json" else {})))
    assert made.references([0, 1, 2]) == [["A", "AA"], ["B"], ["C"]]


def test_without_one_they_are_the_captions(folder, log):
    made = CaptionFolder(folder())
    assert made.references([2, 1]) == [CAPTIONS["three"], CAPTIONS["two"]]
    assert "x_caption_coco_format.json is missing" in log.text


def test_numbers_are_ids_too(folder, tmp_path: Path):
    (tmp_path / "n.json").write_text(coco((7, "seven"), (12, "twelve")))
    rows = caption_rows({"7": ["a"], "12": ["b"]})
    made = CaptionFolder(folder(img=["7", "12"], caption=rows, caption_coco_format="n.json"))
    assert made.references([0, 1]) == [["seven"], ["twelve"]]


# --- what is broken ---------------------------------------------------------------------------------------------------

BROKEN_ROWS = [
    (["two"], r"x\.caption\.tsv, line 2: no second field"),
    (["two", '[{"caption": "a"'], r"x\.caption\.tsv, line 2: the captions are not valid JSON"),
    (["two", '{"caption": "a"}'], r"x\.caption\.tsv, line 2: the captions are not a JSON list"),
    (["two", '["a"]'], r"x\.caption\.tsv, line 2: the captions are not a JSON list"),
    (["two", '[{"caption": "a"}, {"caption": "  "}]'], r"x\.caption\.tsv, line 2, caption 1: the caption is empty"),
    (["two", '[{"text": "a"}]'], r"x\.caption\.tsv, line 2, caption 0: the caption is not text"),
    (["two", '[{"caption": "\\ud800"}]'], r"x\.caption\.tsv, line 2, caption 0: the caption holds invalid Unicode"),
    (["2", '[{"caption": "a"}]'], r"x\.caption\.tsv, line 2: video '2' is not in .*x\.img\.tsv \(1 of 3 annotations"),
]


@pytest.mark.parametrize(("row", "words"), BROKEN_ROWS)
def test_a_broken_row_of_captions(folder, row: list[str], words: str):
    rows = caption_rows(CAPTIONS)
    with pytest.raises(DataError, match=words):
        CaptionFolder(folder(caption=[rows[0], row, rows[2]]))


def test_a_video_without_annotation(folder):
    path = folder(img=["one", "two", "three", "four"])
    for tolerant in (False, True):  # it may be another split's
        assert shown(CaptionFolder(path, tolerant=tolerant)) == ["one", "two", "three"]


def test_an_annotation_without_video_is_told_again_where_its_frames_are_read(folder):
    made = CaptionFolder(folder(img=["one", "three"]), tolerant=True)
    assert made.video(2).video_id == "three"
    with pytest.raises(DataError, match=r"x\.caption\.tsv, line 2: video 'two'.*x\.img\.tsv"):
        made.video(1)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("0\t0\n0\n", "line 2: '0' is not row, a tab, caption number"),
        ("0\t-1\n", "line 1: .* is not row"),
        ("0\t0\n3\t0\n", "line 2: .* is a row that is not in"),
        ("0\t2\n", r"line 1: caption 2 \(counted from 0\), but .*x\.caption\.tsv, line 1 has 2 captions"),
        ("", "it is empty"),
        ("\ufeff", "the line list is empty"),
        (b"\xff\t0\n", "byte 0 is not UTF-8"),
    ],
)
def test_a_broken_line_list(folder, tmp_path: Path, lines: str | bytes, words: str):
    (tmp_path / "list.tsv").write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    made = CaptionFolder(folder(caption_linelist="list.tsv"))
    with pytest.raises(DataError, match=rf"list\.tsv.*{words}"):
        made.training_samples()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("img: [a\ncaption: b", r"x\.yaml, line 2: not valid YAML"),
        ("- img", r"x\.yaml: names of files .* not a list"),
        ("caption: x.caption.tsv", r'x\.yaml: "img" is missing'),
        ("img: x.img.tsv\ncaption: nowhere.tsv", r'x\.yaml: "caption" names .*nowhere\.tsv, which is not there'),
        ("img: 5\ncaption: x.caption.tsv", r'x\.yaml: "img" is 5; give the name of a file'),
        ("img: []\ncaption: []\ncomposite: true", r'x\.yaml: "img" is \[\]; give a list of file names'),
        ("img: x.img.tsv\ncaption: x.caption.tsv\ncomposite: perhaps", r"write true or false"),
        ("!!python/object/apply:os.system ['true']", r"x\.yaml, line 1: not valid YAML"),
    ],
)
def test_a_broken_yaml(folder, text: str, words: str):
    path = folder()
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        CaptionFolder(path)


def test_a_yaml_that_is_not_there(tmp_path: Path):
    with pytest.raises(DataError, match=r"train\.yaml: there is no such file"):
        CaptionFolder(tmp_path / "train.yaml")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "line 1, column 2"),
        ("{}", 'no list of "annotations"'),
        ('{"annotations": [{"caption": "a"}]}', r"annotation 0 \(counted from 0\)"),
        (coco(("one", "")), "annotation 0 .*: the caption is empty"),
        (coco(("one", "a"), ("two", "b"), ("three", "c"), ("four", "d")), "1 of 4 videos are not in .*: four"),
        (
            json.dumps({"annotations": [], "images": [{"id": "one", "file_name": "two.mp4"}]}),
            "image 0 .*: its id, 'one', and its file_name, 'two.mp4', name two videos",
        ),
        (coco(("one", "a"), ("three", "c")), r"line 2: video 'two' has no reference caption in .*c\.json"),
    ],
)
def test_broken_references(folder, tmp_path: Path, content: str, words: str):
    (tmp_path / "c.json").write_text(content)
    made = CaptionFolder(folder(caption_coco_format="c.json"))
    with pytest.raises(DataError, match=words):
        made.references([0, 1, 2])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.text(max_size=60) | JSON.map(yaml.safe_dump))
def test_no_yaml_ends_in_anything_but_our_error(folder, text: str):
    path = folder()
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(DataError):
        CaptionFolder(path)


@FUZZ
@given(JSON, st.text(max_size=30), JSON)
def test_nor_does_any_content(folder, tmp_path: Path, captions: Any, lines: str, references: Any):
    keys = {"caption_linelist": "list.tsv", "caption_coco_format": "c.json"}
    path = folder(caption=[["one", json.dumps(captions)]], img=["one"], **keys)
    (tmp_path / "list.tsv").write_text(lines, encoding="utf-8", errors="replace")
    (tmp_path / "c.json").write_text(json.dumps(references))
    with contextlib.suppress(DataError):
        made = CaptionFolder(path)
        with contextlib.suppress(DataError):
            made.training_samples()
        made.references([0])


def test_files_of_a_windows_editor_are_read_alike(folder, tmp_path: Path):
    (tmp_path / "list.tsv").write_text("2\t1\n0\t1\n")
    coco = {"annotations": [{"image_id": video, "caption": texts[0]} for video, texts in CAPTIONS.items()]}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    path = folder(caption_linelist="list.tsv", caption_coco_format="coco.json")

    def found() -> list:
        made = CaptionFolder(path)
        return [made.training_samples().tolist(), made.videos, shown(made), made.references([0, 1, 2])]

    before = found()
    for name in ("x.yaml", "x.img.tsv", "x.caption.tsv", "list.tsv", "coco.json"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text + "\n \n", encoding="utf-8-sig", newline="\r\n")
        (tmp_path / name).with_suffix(".lineidx").unlink(missing_ok=True)
    assert found() == before


@pytest.mark.parametrize(
    "field", [None, "", " ", "[]", "null", '""', '[{"caption": ""}]', "[{}]"], ids=lambda field: repr(field)
)
def test_an_evaluation_split_may_have_no_captions(folder, tmp_path: Path, field: str | None):
    path = folder(caption=[[video] if field is None else [video, field] for video in CAPTIONS])
    made = CaptionFolder(path, blind=True)
    assert made.evaluation_rows().tolist() == [0, 1, 2]
    assert made.references([0, 1, 2]) == [[], [], []]
    with pytest.raises(DataError, match=r"x\.caption\.tsv, line 1"):
        CaptionFolder(path).training_samples()


def test_without_a_caption_file_the_frames_say_which_videos_there_are(folder):
    path = folder()
    path.write_text("img: x.img.tsv\n")
    made = CaptionFolder(path, blind=True)
    assert made.videos == ["one", "two", "three"]
    assert shown(made) == made.videos
    assert made.references([0, 1, 2]) == [[], [], []]
    with pytest.raises(DataError, match='"caption" is missing'):
        CaptionFolder(path)


def test_some_references_may_be_missing(folder, tmp_path: Path):
    made = CaptionFolder(folder(caption=caption_rows({**CAPTIONS, "two": []})), blind=True)
    assert made.references([0, 1, 2]) == [CAPTIONS["one.mp4"], [], CAPTIONS["three"]]
    entries = [{"image_id": "one", "caption": "a"}, {"image_id": "two", "caption": ""}, {"image_id": "three"}]
    (tmp_path / "coco.json").write_text(json.dumps({"annotations": entries}))
    made = CaptionFolder(folder(caption_coco_format="coco.json"), blind=True)
    assert made.references([0, 1, 2]) == [["a"], [], []]
