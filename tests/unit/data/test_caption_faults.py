"""Captioning folders that are not what they should be: what is said, with the file and the line."""

import json
from pathlib import Path

import pytest

from lavender.data.caption_folder import CaptionFolder
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown
from tests.unit.data.caption_world import PLAIN, TWO, Lay, annotations, fault, frames, lay_in


@pytest.fixture
def lay(tmp_path: Path) -> Lay:
    return lay_in(tmp_path)


# --- names that leave the data folder ---------------------------------------------------------------------------------


@pytest.fixture
def inside(tmp_path: Path, lay: Lay) -> Path:
    """A data folder with the captioning folder `cap` in it; the files of a split lie beside the data folder."""
    lay()
    (tmp_path / "data" / "cap").mkdir(parents=True)
    return tmp_path / "data"


@pytest.mark.parametrize(
    "name", ["../../x.img.tsv", "{root}/x.img.tsv", "a/../../../x.img.tsv", "../link/../x.img.tsv"]
)
def test_a_name_that_leaves_the_data_folder(inside: Path, name: str):
    """Also through a link: what is above its target is not the data folder."""
    (inside / "link").symlink_to(inside.parent / "data" if "link" not in name else (inside.parent / "far"))
    (inside.parent / "far").mkdir()
    name = name.format(root=inside.parent)
    path = inside / "cap" / "x.yaml"
    path.write_text(f"img: {name}\ncaption: ../../x.caption.tsv\n")
    with pytest.raises(DataError) as raised:
        CaptionFolder(path, within=inside)
    told = f'{path}: "img" names {name}, which leaves {inside}; where the YAML can be trusted, --outside_paths true'
    assert str(raised.value) == f"{told} allows it"
    if ".." not in name or "a/" not in name:
        assert CaptionFolder(path).videos == list(TWO)


@pytest.mark.parametrize("key", ["caption", "caption_linelist", "caption_coco_format"])
def test_of_each_kind_of_file(inside: Path, key: str):
    path = inside / "x.yaml"
    for name in ("x.img.tsv", "x.caption.tsv"):
        (inside.parent / name).rename(inside / name)
    (inside.parent / "secret").write_text("0\t0\n")
    path.write_text(f"img: x.img.tsv\n{'' if key == 'caption' else 'caption: x.caption.tsv'}\n{key}: ../secret\n")

    def read() -> None:
        folder = CaptionFolder(path, within=inside)
        folder.training_samples()
        folder.references([0, 1])

    with pytest.raises(DataError, match=f'"{key}" names ../secret, which leaves'):
        read()


@pytest.mark.parametrize(
    "name", ["x.img.tsv", "../cap/x.img.tsv", "../link/x.img.tsv", "cap/../x.img.tsv", "./x.img.tsv"]
)
def test_names_that_stay(inside: Path, name: str):
    """A link that leads away was laid by the user, and is followed."""
    path = inside / "cap" / "x.yaml"
    (inside / "cap" / "cap").mkdir()
    (inside / "link").symlink_to(inside.parent)
    for file in ("x.img.tsv", "x.caption.tsv"):
        (inside / "cap" / file).write_bytes((inside.parent / file).read_bytes())
    path.write_text(f"img: {name}\ncaption: x.caption.tsv\n")
    assert CaptionFolder(path, within=inside).videos == list(TWO)


# --- the YAML ---------------------------------------------------------------------------------------------------------


def test_a_missing_yaml(tmp_path: Path):
    for path in (tmp_path / "train.yaml", tmp_path):
        assert fault(path) == f"{path}: there is no such file; check --data_dir and the YAML's name"


@pytest.mark.parametrize(
    ("yaml", "line"),
    [
        ("img: x.img.tsv\ncaption: [x\nlabel: y\n", 3),
        ("img: x.img.tsv\n\tcaption: x\n", 2),
        ("img: *x\n", 1),
        ("img: a\n? [b]\n: c\n", 2),
        ("img: a\ncaption: !!python/object:os.system {}\n", 2),
        ("img: a\n--- \ncaption: b\n", 2),
    ],
)
def test_a_yaml_that_is_broken_in_a_line(lay: Lay, yaml: str, line: int):
    path = lay(yaml)
    assert fault(path).startswith(f"{path}, line {line}: not valid YAML (")


@pytest.mark.parametrize(
    "yaml",
    [
        pytest.param("img: 2024-13-45\n", id="a date that is none"),
        pytest.param("[" * 5000, id="brackets"),
        pytest.param("img: \x07\n", id="a control character"),  # two lines
        pytest.param("img: !!int ''\n", id="no integer"),  # IndexError
        pytest.param("img: !!bool x\n", id="no boolean"),  # KeyError
        pytest.param("img: !!timestamp x\n", id="no time"),  # AttributeError
    ],
)
def test_a_yaml_that_is_broken_otherwise(lay: Lay, yaml: str):
    path = lay(yaml)
    found = fault(path)
    assert found.startswith(str(path))
    assert ": not valid YAML (" in found


def test_a_yaml_that_is_no_text(lay: Lay):
    path = lay(b"img: \xff\n")
    assert fault(path) == f"{path}: byte 5 is not UTF-8 text; save the file as UTF-8"


@pytest.mark.parametrize(
    ("yaml", "kind"), [("# nothing\n", "NoneType"), ("- a\n- b\n", "list"), ("x.img.tsv", "str"), ("5", "int")]
)
def test_a_yaml_that_is_no_object(lay: Lay, yaml: str, kind: str):
    path = lay(yaml)
    keys = "img, caption, caption_linelist, caption_coco_format, label, composite"
    assert fault(path) == f"{path}: names of files under {keys} are expected, not a {kind}"


@pytest.mark.parametrize("key", ["img", "caption"])
def test_a_yaml_without_a_file_it_needs(lay: Lay, key: str):
    path = lay(PLAIN.replace(f"{key}: ", f"{key}x: "))
    assert fault(path) == f'{path}: "{key}" is missing; give the name of a file'


def with_value(key: str, value: str, composite: bool = False) -> str:
    values = {**dict(line.split(": ") for line in PLAIN.splitlines()), key: value}
    values |= {"composite": "true"} if composite else {}
    return "".join(f"{name}: {each}\n" for name, each in values.items())


KEYS = pytest.mark.parametrize("key", ["img", "caption", "caption_linelist", "caption_coco_format"])


@KEYS
@pytest.mark.parametrize("name", ["nowhere.tsv", ".", pytest.param("n" * 300, id="long"), '"a\\0b"'])
def test_a_yaml_that_names_a_missing_file(lay: Lay, tmp_path: Path, key: str, name: str):
    path = lay(with_value(key, name))
    with pytest.raises(DataError) as raised:
        use(CaptionFolder(path))
    name = name.strip('"').replace("\\0", r"\u0000")
    assert str(raised.value) == f'{path}: "{key}" names {tmp_path / name}, which is not there'


def use(folder: CaptionFolder) -> None:
    folder.training_samples()
    folder.references([0, 1])


@KEYS
@pytest.mark.parametrize("value", ["5", "true", "2024-01-01", "{a: b}", "[x.img.tsv, 5]", "[]", '""'])
@pytest.mark.parametrize("composite", [False, True])
def test_a_value_that_names_no_file(lay: Lay, key: str, value: str, composite: bool):
    path = lay(with_value(key, value, composite))
    kind = "a list of file names" if composite else "the name of a file"
    with pytest.raises(DataError, match=rf'^{path}: "{key}" is .*; give {kind}$'):
        use(CaptionFolder(path))


@pytest.mark.parametrize("value", ["1", "'true'", "maybe", "[true]"])
def test_a_flag_is_true_or_false(lay: Lay, value: str):
    path = lay(PLAIN + f"composite: {value}\n")
    assert fault(path).startswith(f'{path}: "composite" is ')
    assert fault(path).endswith("; write true or false")


def test_values_that_are_null_are_not_given(lay: Lay):
    folder = CaptionFolder(lay(PLAIN + "caption_linelist: null\ncaption_coco_format:\ncomposite: ~\nlabel:\n"))
    assert folder.training_samples().tolist() == [[0, 0], [1, 0]]
    assert folder.references([0]) == [TWO["vid0"]]


def test_a_key_that_is_not_used_is_told(lay: Lay, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    path = lay(PLAIN + "caption_lineslist: x.list.tsv\nimgs: y\n7: 8\nlabel: nowhere.tsv\n")
    CaptionFolder(path)
    assert [message for message in caplog.messages if "is not used" in message] == [
        f"{path}: caption_lineslist is not used; is caption_linelist meant?",
        f"{path}: imgs is not used",  # img is given already
        f"{path}: 7 is not used",
    ]


# --- composite --------------------------------------------------------------------------------------------------------

COMPOSITE = "composite: true\nimg: [a.img.tsv, b.img.tsv]\ncaption: [a.caption.tsv, b.caption.tsv]\n"


@pytest.fixture
def composite(lay: Lay) -> Lay:
    """Of two TSVs, with two videos and one."""
    other = {"vid9": ["a blue triangle", "it jumps"]}
    texts = {"a_caption_tsv": annotations(TWO), "b_caption_tsv": annotations(other)}
    images = {"a_img_tsv": frames(*TWO), "b_img_tsv": frames("vid9")}
    return lambda more="", **files: lay(COMPOSITE + more, **{**texts, **images, **files})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("0\t0\n", "line 1: '0\\t0' is not file, a tab, row, a tab, caption number"),
        ("0\t1\t0\n2\t0\t0\n", "line 2: '2\\t0\\t0' is a row that is not in {a}, {b}"),
        ("1\t1\t0\n", "line 1: '1\\t1\\t0' is a row that is not in {a}, {b}"),
        ("1\t0\t2\n", "line 1: caption 2 (counted from 0), but {b}, line 1 has 2 captions"),
    ],
)
def test_a_composite_line_list_that_does_not_fit(composite: Lay, tmp_path: Path, lines: str, message: str):
    folder = CaptionFolder(composite("caption_linelist: x.list.tsv\n", x_list_tsv=lines))
    names = {"a": tmp_path / "a.caption.tsv", "b": tmp_path / "b.caption.tsv"}
    with pytest.raises(DataError) as raised:
        folder.training_samples()
    assert str(raised.value) == f"{tmp_path / 'x.list.tsv'}, {message.format(**names)}"


def test_a_composite_line_list_says_what_is_captioned_and_compared(composite: Lay):
    """References of videos that are not captioned are no fault."""
    pairs = {"vid0": "zero", "vid1": "one", "vid9": "nine"}
    references = {"annotations": [{"image_id": video, "caption": text} for video, text in pairs.items()]}
    more = "caption_linelist: x.list.tsv\ncaption_coco_format: x.coco.json\n"
    lists = {"x_list_tsv": "1\t0\t1\n0\t1\t0\n1\t0\t0\n", "x_coco_json": json.dumps(references)}
    folder = CaptionFolder(composite(more, **lists))
    assert folder.training_samples().tolist() == [[2, 1], [1, 0], [2, 0]]
    assert folder.evaluation_rows().tolist() == [2, 1], "each video once"
    assert folder.references(folder.evaluation_rows().tolist()) == [["nine"], ["one"]]


def test_videos_of_another_file_of_the_split_are_missing(composite: Lay, tmp_path: Path):
    found = fault(composite(b_img_tsv=frames("vid0")))
    assert found.startswith(f"{tmp_path / 'b.caption.tsv'}, line 1: video 'vid9' is not in {tmp_path / 'b.img.tsv'} (1")


def test_as_many_files_of_frames_as_of_captions(composite: Lay):
    path = composite()
    path.write_text(COMPOSITE.replace(", b.img.tsv", ""))
    assert fault(path) == f"{path}: 1 img files, but 2 caption files"


# --- captions and line lists ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("vid1", "no second field; a video id, a tab and a JSON list of captions are expected"),
        ("vid1\t[{]", "the captions are not valid JSON (Expecting property name enclosed in double quotes: "),
        ("vid1\t", "the captions are not valid JSON (Expecting value: "),
        ("vid1\t" + "[" * 100_000, "the captions are not valid JSON (nested too deeply"),
        ("vid1\t[" + "9" * 5000 + "]", "the captions are not valid JSON (a whole number of more than 4,300 digits"),
        *(
            ("vid1\t" + j, 'the captions are not a JSON list of {"caption": …}')
            for j in ('{"caption": "a"}', "5", '["a"]')
        ),
        ('vid1\t[{"caption": "a"}, {"text": "b"}]', "caption 1: the caption is not text"),
        ('vid1\t[{"caption": "a"}, {"caption": 5}]', "caption 1: the caption is not text"),
        ('vid1\t[{"caption": ""}]', "caption 0: the caption is empty"),
        ('vid1\t[{"caption": " \\n"}]', "caption 0: the caption is empty"),
        ('vid1\t[{"caption": "\\ud83d red"}]', "caption 0: the caption holds invalid Unicode"),
        ('vid1\t[{"caption": "' + "a " * 1001 + '"}]', "caption 0: the caption has 1,001 words"),
        ('\t[{"caption": "a"}]', "the first field, the video id, is empty"),
    ],
    ids=lambda value: value[:30],
)
def test_a_row_of_captions_that_is_broken(lay: Lay, tmp_path: Path, row: str, message: str):
    path = lay(x_caption_tsv=annotations({"vid0": ["a"]}) + row + "\n")
    found = fault(path).replace(", caption 0:", ": caption 0:").replace(", caption 1:", ": caption 1:")
    assert found.startswith(f"{tmp_path / 'x.caption.tsv'}, line 2: {message}")


def test_a_row_of_captions_that_is_no_text(lay: Lay, tmp_path: Path):
    path = lay(x_caption_tsv=annotations({"vid0": ["a"]}).encode() + b"vid1\t[\xff]\n")
    assert fault(path) == f"{tmp_path / 'x.caption.tsv'}, line 2: byte 7 of the line is not UTF-8"


def test_no_captions_at_all(lay: Lay, tmp_path: Path):
    assert fault(lay(x_caption_tsv="", x_img_tsv="")) == f"{tmp_path / 'x.caption.tsv'}: no captions"
    folder = CaptionFolder(lay(x_caption_tsv='vid0\t[{"caption": "a"}]\nvid1\t[]\n'))
    assert folder.evaluation_rows().tolist() == [0, 1], "a test set may have none"
    with pytest.raises(DataError, match=r"x\.caption\.tsv, line 2: video 'vid1' has no captions to train on$"):
        folder.training_samples()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        *(
            (f"0\t0\n{bad}\n0\t0\n", f"line 2: {bad!r} is not row, a tab, caption number")
            for bad in ("0", "", "0 0", "a\t0", "-1\t0")
        ),
        *((f"{bad}\n", f"line 1: {bad!r} is not row, a tab, caption number") for bad in ("0\t0\t0", "²\t0", "0\t1.0")),
        ("x" * 999, f"line 1: {shown('x' * 999)} is not row, a tab, caption number"),
        ("0\t0\n2\t0\n", "line 2: '2\\t0' is a row that is not in {captions}"),
        ("0\t0\n0\t1\n1\t1\n", "line 3: caption 1 (counted from 0), but {captions}, line 2 has 1 captions"),
    ],
    ids=lambda value: value[:30],
)
def test_a_line_list_that_does_not_fit(lay: Lay, tmp_path: Path, lines: str, message: str):
    folder = CaptionFolder(lay(PLAIN + "caption_linelist: x.list.tsv\n", x_list_tsv=lines))
    with pytest.raises(DataError) as raised:
        folder.training_samples()
    captions = tmp_path / "x.caption.tsv"
    assert str(raised.value) == f"{tmp_path / 'x.list.tsv'}, {message.replace('{captions}', str(captions))}"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", ": it is empty"),
        (b"0\t0\n\xff", ": byte 4 is not UTF-8 text"),
        pytest.param("9" * 5000 + "\t0\n", ", line 1: ", id="a row without end"),  # ValueError
        pytest.param("0\t" + "9" * 5000, ", line 1: ", id="a caption without end"),
    ],
)
def test_a_line_list_of_nothing_or_without_end(lay: Lay, tmp_path: Path, lines: str, message: str):
    folder = CaptionFolder(lay(PLAIN + "caption_linelist: x.list.tsv\n", x_list_tsv=lines))
    with pytest.raises(DataError) as raised:
        folder.training_samples()
    assert str(raised.value).startswith(f"{tmp_path / 'x.list.tsv'}{message}")
