"""Whatever the bytes of a file are: it is read, or refused with an error of ours; no other exception, no hang.

Each test harms the files of something whole, since bytes that are all noise seldom get past the first check.
"""

import contextlib
import json
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from lavender.config.inherit import inherit_from_checkpoint
from lavender.config.load import load_config
from lavender.config.options import options
from lavender.config.schema import Config
from lavender.data.caption import read_predictions
from lavender.data.frames import decode_image
from lavender.data.index import VideoIndex, load_plain_pickle
from lavender.data.samples import Failure, SampleKey
from lavender.data.tsv import TSVReader, split_columns
from lavender.models.checkpoint_folder import read_state
from lavender.models.heads import classification_head
from lavender.models.pretrained import Description, describe, load_pretrained
from lavender.models.weights import bert_config, load_state
from lavender.runtime.errors import LavenderError
from lavender.tasks.caption import CaptionTask
from lavender.tasks.pretrain import PretrainTask
from lavender.tasks.qamc import QAMCTask
from lavender.tasks.qaoe import FillInTheBlankTask, QAOETask
from lavender.tasks.retmc import RetMCTask
from lavender.tasks.retrieval import RetrievalTask
from lavender.text.tokens import TextTokenizer

KIT = Path(__file__).parents[1] / "conformance" / "kit"
TOY = KIT / "data"
BERT = KIT / "bert_micro"
FUZZ = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
LITTLE = st.binary(max_size=6) | st.sampled_from([b"\t", b"\n", b"\r\n", b"\xff", b"\x00", b"-1", b"9" * 25, b"null"])


@st.composite
def harmed(draw: Callable, content: bytes) -> bytes:
    """The content with up to three places overwritten, cut out or filled, or its end cut off; or noise."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=80))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([0, 0, 1, 1, 2, 8, 60, len(content)]))
        content = content[:start] + draw(LITTLE) + content[start + length :]
    return content


@st.composite
def changed(draw: Callable, value: Any) -> Any:
    """A JSON value in which one of the parts is another, or is gone."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.booleans()) or not isinstance(value[key], dict | list):
            rest = {name: part for name, part in value.items() if name != key}
            return draw(st.just(rest) | JSON.map(lambda part: {**rest, key: part}))
        return {**value, key: draw(changed(value[key]))}
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        number = draw(st.integers(0, len(value) - 1))
        return [*value[:number], draw(changed(value[number])), *value[number + 1 :]]
    return draw(JSON)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def either(content: bytes) -> SearchStrategy[bytes]:
    """A JSON file that is harmed in its bytes or in its values."""
    return harmed(content) | changed(json.loads(content)).map(as_json)


@contextlib.contextmanager
def a_folder():
    """One for each example, since what is read leaves indices beside it."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


refusing = contextlib.suppress(LavenderError)  # any other exception fails the test


# --- frames and their indices -----------------------------------------------------------------------------------------

ROWS = b"vid0\t{}\t/9j/AAAA\t/9j/BBBB\nvid1.mp4\tiVBORw0KGgoAAA\nvid2\t7\t/9j/CCCC\r\n"
OFFSETS = b"0\n26\n50\n"
MAPPED = b"".join(int(line).to_bytes(8, "little") for line in OFFSETS.split())


def read_rows(folder: Path) -> None:
    reader = TSVReader(folder / "x.tsv")
    for number in range(len(reader)):
        with refusing:
            reader.video_id(number)
        with refusing:
            _, _, frames = split_columns(reader.row(number), reader.where(number))
            for frame in frames:
                with refusing:
                    decode_image(frame, reader.where(number))
    with refusing:
        VideoIndex(folder / "x.tsv")


def test_the_rows_are_whole():
    with a_folder() as folder:
        (folder / "x.tsv").write_bytes(ROWS)
        reader = TSVReader(folder / "x.tsv")
        assert (folder / "x.lineidx").read_bytes() == OFFSETS
        assert reader.row(2) == ["vid2", "7", "/9j/CCCC"]


@FUZZ
@given(harmed(ROWS), st.none() | harmed(OFFSETS), st.none() | harmed(MAPPED))
def test_frame_files(rows: bytes, lineidx: bytes | None, mapped: bytes | None):
    with a_folder() as folder:
        for name, content in (("x.tsv", rows), ("x.lineidx", lineidx), ("x.lineidx.8b", mapped)):
            if content is not None:
                (folder / name).write_bytes(content)
        with refusing:
            read_rows(folder)


IMAGES = [field for field in (TOY / "img_toy.tsv").read_text().splitlines()[0].split("\t") if len(field) > 90]


@FUZZ
@given(harmed(IMAGES[0].encode()))
def test_images(image: bytes):
    with refusing:
        decode_image(image.decode("latin-1"), "here")


class Hostile:
    """Leaves a trace where it is loaded."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


PLAIN = pickle.dumps({f"vid{number}": number * 1000 for number in range(9)})


@FUZZ
@given(harmed(PLAIN) | harmed(pickle.dumps(Hostile(Path("trace")))))
def test_pickles(content: bytes):
    with a_folder() as folder:
        for name in ("x.id2lineidx.pkl", "x.pkl"):
            (folder / name).write_bytes(content)
        (folder / "x.tsv").write_bytes(ROWS)
        with refusing:
            load_plain_pickle(folder / "x.pkl")
        with refusing:
            assert "vid0" not in VideoIndex(folder / "x.tsv") or VideoIndex(folder / "x.tsv").offset("vid0") is not None


# --- texts ------------------------------------------------------------------------------------------------------------

TASKS = {
    "txt_toy-action.json": (QAMCTask, {"type": "qamc", "task": "toy-action"}),
    "txt_toy-mc.json": (RetMCTask, {"type": "qamc", "task": "toy-mc"}),
    "txt_toy-qa.json": (QAOETask, {"type": "qaoe", "task": "toy-qa"}),
    "txt_toy-fib.json": (FillInTheBlankTask, {"type": "qaoe", "task": "toy-fib"}),
    "txt_toy-retrieval.json": (RetrievalTask, {"type": "retrieval", "task": "toy-retrieval"}),
    "txt_toypar-retrieval.json": (RetrievalTask, {"type": "retrieval", "task": "toypar-retrieval"}),
    "txt_toy.json": (PretrainTask, {"type": "pretrain", "size_part": 1}),
}
SMALL = {"n_workers": 0, "size_img": 64, "size_frame": 2, "size_txt": 12, "txt_backbone": str(BERT), "size_vocab": 4}


def read_all(task: Any) -> None:
    """Every item of every split, as a run reads them."""
    with refusing:
        for part in task.training_parts():
            for batch in part.loader():
                assert batch
    for dataset in task.evaluation_sets().values():
        for number in range(len(dataset)):
            sample = dataset[SampleKey(0, number)]
            assert isinstance(sample, Failure) or sample


@pytest.mark.parametrize("name", TASKS)
@FUZZ
@given(data=st.data())
def test_text_files(name: str, data: st.DataObject):
    content = data.draw(either((TOY / name).read_bytes()))
    kind, words = TASKS[name]
    with a_folder() as folder:
        for path in [*TOY.glob("img_toy.*"), *TOY.glob("toy_train_0.*"), *TOY.glob("toy_val.*")]:
            (folder / path.name).symlink_to(path)
        (folder / name).write_bytes(content)
        with refusing:
            read_all(kind(Config(data_dir=str(folder), dataset="toy", size_batch=2, **words, **SMALL)))


# --- captions ---------------------------------------------------------------------------------------------------------

CAPTION_FILES = ("train.yaml", "train.caption.tsv", "train.caption.linelist.tsv", "train.caption_coco_format.json")


@pytest.mark.parametrize("name", CAPTION_FILES)
@FUZZ
@given(data=st.data())
def test_captioning_folders(name: str, data: st.DataObject):
    content = (TOY / "CAP" / name).read_bytes()
    kinds = harmed(content)
    if name.endswith("yaml"):
        kinds |= changed(yaml.safe_load(content)).map(lambda value: yaml.safe_dump(value).encode())
    elif name.endswith("json"):
        kinds = either(content)
    with a_folder() as folder:
        shutil.copytree(TOY / "CAP", folder / "CAP", copy_function=lambda old, new: Path(new).symlink_to(old))
        (folder / "CAP" / name).unlink()
        (folder / "CAP" / name).write_bytes(data.draw(kinds))
        (folder / "CAP" / name).with_suffix(".lineidx").unlink(missing_ok=True)
        yamls = {"train_yaml": "CAP/train.yaml", "val_yaml": "CAP/train.yaml"}
        with refusing:
            task = CaptionTask(Config(type="captioning", task="toy", data_dir=str(folder), **yamls, **SMALL))
            read_all(task)
            for dataset in task.datasets.values():
                dataset.folder.references(range(len(dataset.folder.rows)))


@FUZZ
@given(harmed(b'vid0\t[{"caption": "a red circle", "conf": 0.5}]\nvid1\t[{"caption": "it", "conf": 1.0}]\n'))
def test_predictions(content: bytes):
    with a_folder() as folder:
        (folder / "x.tsv").write_bytes(content)
        with refusing:
            read_predictions(folder / "x.tsv")


# --- configurations ---------------------------------------------------------------------------------------------------

WRITTEN = [json.loads(path.read_text()) for path in sorted((KIT.parents[2] / "_args").glob("*.json"))]


@FUZZ
@given(
    st.sampled_from(WRITTEN).flatmap(changed).map(as_json)
    | st.sampled_from(WRITTEN).flatmap(lambda value: harmed(as_json(value)))
    | st.dictionaries(st.sampled_from(sorted(options())), JSON, max_size=4).map(as_json)
)
def test_configurations(content: bytes):
    with a_folder() as folder:
        path = folder / "args.json"
        path.write_bytes(content)
        with refusing:
            load_config(["--config", str(path)])
        with refusing:
            inherit_from_checkpoint(Config(path_ckpt=str(folder / "x.pt"), size_epoch=0))


@FUZZ
@given(st.lists(st.sampled_from([f"--{name}" for name in options()]) | st.text(max_size=6), max_size=5))
def test_command_lines(words: list[str]):
    with refusing, contextlib.suppress(SystemExit):  # --help
        load_config(words)


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "tokenizer_config.json"])
@FUZZ
@given(data=st.data())
def test_bert_folders(name: str, data: st.DataObject):
    content = (BERT / name).read_bytes() if (BERT / name).is_file() else b'{"do_lower_case": true}'
    with a_folder() as folder:
        for path in BERT.iterdir():
            (folder / path.name).symlink_to(path)
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(data.draw(either(content) if name.endswith("json") else harmed(content)))
        with refusing:
            bert_config(str(folder), "text")
        with refusing:
            TextTokenizer(str(folder)).encode("a red circle", 9, True)


@FUZZ
@given(st.data())
def test_checkpoints(data: st.DataObject):
    model = classification_head(8, 3)
    with a_folder() as folder:
        torch.save(model.state_dict(), folder / "x.pt")
        content = data.draw(harmed((folder / "x.pt").read_bytes()))
        for name in ("x.pt", "x.safetensors"):
            (folder / name).write_bytes(content)
            with refusing:
                state = read_state(folder / name)
                load_state(model, state, name)
                describe(state, folder / name, *(bert_config(str(BERT), "text"),) * 2)


@FUZZ
@given(st.data())
def test_exported_folders(data: st.DataObject):
    bert = json.loads((BERT / "config.json").read_text())
    whole = Description({"vis_backbone_size": "micro"}, 6, 14, False, True, True, False, {}, bert, bert)
    with a_folder() as folder:
        content = as_json({"model_type": "lavender", **whole.__dict__})
        (folder / "config.json").write_bytes(data.draw(either(content)))
        with refusing:
            load_pretrained(folder)
