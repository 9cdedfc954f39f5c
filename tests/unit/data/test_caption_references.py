"""Reference captions of a captioning folder, in COCO's format or the TSV's own; and folders of any content at all."""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavender.data.caption_folder import CaptionFolder
from lavender.runtime.errors import DataError

PLAIN = "img: x.img.tsv\ncaption: x.caption.tsv\n"
WITH_COCO = PLAIN + "caption_coco_format: x.coco.json\n"
TWO = """vid0\t[{"caption": "a red circle"}, {"caption": "it moves"}]\nvid1\t[{"caption": "a dog"}]\n"""
Lay = Callable[..., Path]


def lay_in(folder: Path, yaml: str | bytes = PLAIN, **files: str | bytes) -> Path:
    """Writes a split of two videos, `x.yaml`; `files` are other contents of its files, by name."""
    contents = {"x_img_tsv": "vid0\t/9j/0=\nvid1\t/9j/1=\n", "x_caption_tsv": TWO, **files, "x_yaml": yaml}
    for name, content in contents.items():
        path = folder / name.replace("_", ".", name.count("_"))
        path.write_bytes(content.encode(errors="surrogatepass") if isinstance(content, str) else content)
    return folder / "x.yaml"


@pytest.fixture
def lay(tmp_path: Path) -> Lay:
    return lambda *arguments, **files: lay_in(tmp_path, *arguments, **files)


def coco(*pairs: tuple[object, object]) -> str:
    """A COCO captions file of image ids and captions."""
    return json.dumps({"images": [], "annotations": [{"image_id": video, "caption": text} for video, text in pairs]})


# --- which references -------------------------------------------------------------------------------------------------

OWN = [["a red circle", "it moves"], ["a dog"]]
OTHER = coco(("vid1", "one"), ("vid0", "zero"), ("vid1", "uno"))


def test_the_file_that_the_yaml_names(lay: Lay, tmp_path: Path):
    (tmp_path / "x_caption_coco_format.json").write_text(coco(("vid0", "wrong"), ("vid1", "wrong")))
    folder = CaptionFolder(lay(WITH_COCO, x_coco_json=OTHER))
    assert folder.references([0, 1]) == [["zero"], ["one", "uno"]]
    assert folder.references([1]) == [["one", "uno"]]


def test_the_file_of_the_default_name_beside_the_yaml(lay: Lay, tmp_path: Path):
    (tmp_path / "x_caption_coco_format.json").write_text(OTHER)
    assert CaptionFolder(lay()).references([1, 0]) == [["one", "uno"], ["zero"]]


def test_without_a_file_the_captions_of_the_tsv(lay: Lay, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    assert CaptionFolder(lay()).references([0, 1]) == OWN
    missing, captions = tmp_path / "x_caption_coco_format.json", tmp_path / "x.caption.tsv"
    assert f"{missing} is missing: the references are the captions of {captions}" in caplog.messages


@pytest.mark.parametrize("names", [("vid0", "vid1"), ("vid0.mp4", "a/vid1.webm"), ("b/vid0", "vid1.avi")], ids=str)
def test_ids_with_or_without_folder_and_extension(lay: Lay, names: tuple[str, str]):
    folder = CaptionFolder(lay(WITH_COCO, x_coco_json=coco((names[1], "one"), (names[0], "zero"))))
    assert folder.references([0, 1]) == [["zero"], ["one"]]


def test_ids_that_are_numbers(lay: Lay):
    texts = {"x_img_tsv": "7\t/9j/0=\n12\t/9j/1=\n", "x_caption_tsv": TWO.replace("vid0", "7").replace("vid1", "12")}
    folder = CaptionFolder(lay(WITH_COCO, x_coco_json=coco((12, "twelve"), (7, "seven")), **texts))
    assert folder.references([0, 1]) == [["seven"], ["twelve"]]


# --- references and videos that do not belong together ----------------------------------------------------------------


@pytest.mark.parametrize("tolerant", [False, True])
def test_a_video_without_references(lay: Lay, tmp_path: Path, tolerant: bool):
    folder = CaptionFolder(lay(WITH_COCO, x_coco_json=coco(("vid0", "zero"))), tolerant)
    assert folder.references([0]) == [["zero"]]
    captions, references = tmp_path / "x.caption.tsv", tmp_path / "x.coco.json"
    with pytest.raises(DataError) as raised:
        folder.references([0, 1])
    assert str(raised.value) == f"{captions}, line 2: video 'vid1' has no reference caption in {references}"


def test_a_video_without_captions_has_no_references(lay: Lay, tmp_path: Path):
    folder = CaptionFolder(lay(x_caption_tsv='vid0\t[{"caption": "a"}]\nvid1\t[]\n'))
    captions = tmp_path / "x.caption.tsv"
    with pytest.raises(DataError) as raised:
        folder.references([0, 1])
    assert str(raised.value) == f"{captions}, line 2: video 'vid1' has no reference caption in {captions}"


def test_references_without_a_video(lay: Lay, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    pairs = [(f"vid{number}", "a") for number in range(6)]
    path = lay(WITH_COCO, x_coco_json=coco(*pairs))
    captions, references = tmp_path / "x.caption.tsv", tmp_path / "x.coco.json"
    message = f"{references}: 4 of 6 videos are not in {captions}: vid2, vid3, vid4, …"
    with pytest.raises(DataError) as raised:
        CaptionFolder(path).references([0, 1])
    assert str(raised.value) == f"{message}; --on_bad_sample zero goes on without"
    assert CaptionFolder(path, tolerant=True).references([0, 1]) == [["a"], ["a"]]
    assert message in caplog.messages


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"annotations": [\n  5,\n]}', ", line "),
        ("{", ", line 1, column 2: not valid JSON ("),
        (b"\xff", ": byte 0 is not UTF-8 text"),
        ("[" * 100_000, ", line 1, column 101: not valid JSON (nested too deeply"),
        ("[]", ": "),
        ("{}", ': no list of "annotations", so this is no COCO captions file'),
        ('{"annotations": {}}', ': no list of "annotations", so this is no COCO captions file'),
        (
            '{"annotations": [5]}',
            ', annotation 0 (counted from 0): an object with "image_id" and "caption" is expected',
        ),
        (
            '{"annotations": [{"image_id": "vid0", "caption": "a"}, {"caption": "a"}]}',
            ', annotation 1 (counted from 0): an object with "image_id" and "caption" is expected',
        ),
        (coco(("vid0", "a"), ("vid1", " ")), ", annotation 1 (counted from 0): the caption is empty"),
        (coco(("vid0", "a"), ("vid1", 7)), ", annotation 1 (counted from 0): the caption is not text"),
        (coco(("vid0", "a\ud83d")), ", annotation 0 (counted from 0): the caption holds invalid Unicode"),
        ('{"annotations": [{"image_id": "vid0"}]}', ", annotation 0 (counted from 0): the caption is not text"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_file_of_references_that_is_broken(lay: Lay, tmp_path: Path, content: str | bytes, message: str):
    with pytest.raises(DataError) as raised:
        CaptionFolder(lay(WITH_COCO, x_coco_json=content)).references([0, 1])
    assert str(raised.value).startswith(f"{tmp_path / 'x.coco.json'}{message}")


# --- any content ------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["img", "caption", "caption_linelist", "caption_coco_format", "composite", "label"])
VALUES = JSON_VALUES | st.sampled_from(
    ["x.img.tsv", "x.caption.tsv", "x.list.tsv", "x.coco.json", ["x.img.tsv"], [], ""]
)
ENTRIES = st.fixed_dictionaries({}, optional={"image_id": st.just("vid0") | JSON_VALUES, "caption": TEXT | JSON_VALUES})
FUZZ = settings(max_examples=60, deadline=None)


def open_all(yaml: str | bytes = PLAIN, tolerant: bool = False, **files: str | bytes) -> None:
    """All that may be asked of a folder; of errors only DataErrors, which name a file of it."""
    with TemporaryDirectory() as place:
        try:
            folder = CaptionFolder(lay_in(Path(place), yaml, **files), tolerant)
            for row, number in folder.training_samples().tolist():
                assert folder.caption(row, number).strip()
            rows = folder.evaluation_rows().tolist()
            assert len(folder.references(rows)) == len(rows)
            assert all(folder.video(row).video_id for row in rows)
        except DataError as error:
            assert str(error).startswith(place)  # noqa: PT017


@FUZZ
@given(TEXT | st.binary(max_size=30))
def test_a_yaml_of_any_text(yaml: str | bytes):
    open_all(yaml)
    open_all(PLAIN.encode() + (yaml.encode() if isinstance(yaml, str) else yaml))


@FUZZ
@given(st.dictionaries(KEYS, VALUES, max_size=6), st.booleans())
def test_a_yaml_of_any_values(values: dict, tolerant: bool):
    base = {"img": "x.img.tsv", "caption": "x.caption.tsv"}
    open_all(json.dumps({**base, **values}), tolerant, x_list_tsv="0\t0\n", x_coco_json=OTHER)


@FUZZ
@given(st.lists(TEXT | JSON_VALUES.map(lambda value: "vid1\t" + json.dumps(value)), max_size=3), st.booleans())
def test_captions_of_any_content(rows: list[str], tolerant: bool):
    open_all(PLAIN, tolerant, x_caption_tsv="".join(f"{row}\n" for row in rows))


@FUZZ
@given(st.lists(st.lists(st.integers(-1, 3).map(str) | TEXT, max_size=4).map("\t".join), max_size=4), st.booleans())
def test_line_lists_of_any_content(lines: list[str], composite: bool):
    yaml = PLAIN + f"composite: {str(composite).lower()}\ncaption_linelist: x.list.tsv\n"
    open_all(yaml, x_list_tsv="\n".join(lines))


@FUZZ
@given(
    st.lists(ENTRIES | JSON_VALUES, max_size=4).map(lambda entries: {"annotations": entries}) | JSON_VALUES,
    st.booleans(),
)
def test_references_of_any_content(content: object, tolerant: bool):
    open_all(WITH_COCO, tolerant, x_coco_json=json.dumps(content))
