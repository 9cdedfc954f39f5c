"""What a download or a clone leaves in a file's place is told by name, wherever a user's file is read."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as distributed_checkpoint
from safetensors.torch import save_file

from lavender.config.inherit import inherit_from_checkpoint
from lavender.config.load import load_config, read_object
from lavender.config.schema import Config
from lavender.data.annotations import read_splits
from lavender.data.caption_folder import CaptionFolder
from lavender.data.index import load_id2lineidx
from lavender.data.items import open_frames
from lavender.data.sources.shards import ShardSource
from lavender.data.sources.video_files import VideoFolder
from lavender.data.tsv import TSVReader
from lavender.engine.checkpoint import load_tensors
from lavender.models.checkpoint_folder import read_state
from lavender.models.pretrained import load_pretrained
from lavender.models.weights import bert_config
from lavender.runtime.errors import LavenderError
from lavender.text.bert_folder import find_bert
from lavender.text.tokens import TextTokenizer
from tests.unit.conftest import KIT
from tests.unit.data.caption_world import PLAIN, TWO, annotations, frames
from tests.unit.models.backbones.foreign_world import read_backbone

MISTAKEN = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 133466304\n", "git lfs pull"),
    "page": (b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>", "HTML page"),
    "empty": (b"", "empty"),
}
STATE = {"a": torch.zeros(2)}


def bert(folder: Path) -> None:
    shutil.copytree(KIT / "bert_micro", folder, dirs_exist_ok=True)


def weights(folder: Path) -> None:
    bert(folder)
    save_file(STATE, folder / "model.safetensors")


def parts(folder: Path) -> None:
    names = {name: f"model-{number:05}-of-00002.safetensors" for number, name in enumerate("ab", start=1)}
    for name, file in names.items():
        save_file({name: torch.zeros(2)}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def bert_parts(folder: Path) -> None:
    bert(folder)
    parts(folder)


@pytest.mark.filterwarnings("ignore")
def pieces(folder: Path) -> None:
    distributed_checkpoint.save({"model": STATE}, checkpoint_id=folder, no_dist=True)


def captions(folder: Path) -> None:
    (folder / "x.yaml").write_text(PLAIN + "caption_linelist: x.linelist.tsv\n")
    (folder / "x.img.tsv").write_text(frames(*TWO))
    (folder / "x.caption.tsv").write_text(annotations(TWO))
    (folder / "x.linelist.tsv").write_text("0\t0\n1\t0\n")


def table(folder: Path) -> None:
    (folder / "img_x.tsv").write_text("a\t/9j/\nb\t/9j/\n")


def beside(folder: Path) -> None:
    torch.save(STATE, folder / "x.pt")


def step(folder: Path) -> None:
    torch.save({"module": STATE}, folder / "mp_rank_00_model_states.pt")


def backbone(path: Path) -> object:
    return read_backbone(Config(vis_backbone_path=str(path), vis_backbone_size="micro"))


def frame_file(path: Path) -> object:
    return open_frames(Config(dataset="x", data_dir=str(path.parent)))


def caption_folder(path: Path) -> object:
    return CaptionFolder(path.parent / "x.yaml").training_samples()


def in_folder(read: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda path: read(path.parent)


# What is read: the file that another one stands in place of, how its folder is filled before, and who reads it.
Place = tuple[str, Callable[[Path], None] | None, Callable[[Path], object]]
PLACES: dict[str, Place] = {
    "configuration": ("x.json", None, lambda path: load_config(["--config", str(path)])),
    "args.json": ("args.json", beside, lambda path: inherit_from_checkpoint(Config(path_ckpt=f"{path.parent}/x.pt"))),
    "position": ("position.json", None, read_object),
    "resume state": ("process_0.pt", None, load_tensors),
    "text": ("txt_x.json", None, read_splits),
    "frames": ("img_x.tsv", None, frame_file),
    "shard": ("x.tar", None, ShardSource),
    "image": ("x.png", None, lambda path: VideoFolder(path.parent).find("x").frames([0])),
    "line index": ("img_x.lineidx", table, lambda path: TSVReader(path.with_suffix(".tsv"))),
    "id index": ("img_x.id2lineidx.pkl", table, load_id2lineidx),
    "YAML": ("x.yaml", captions, caption_folder),
    "captions": ("x.caption.tsv", captions, caption_folder),
    "frames of captions": ("x.img.tsv", captions, caption_folder),
    "line list": ("x.linelist.tsv", captions, caption_folder),
    "vocabulary": ("vocab.txt", bert, in_folder(TextTokenizer)),
    "tokenizer": ("tokenizer_config.json", bert, in_folder(TextTokenizer)),
    "BERT's configuration": ("config.json", bert, lambda path: bert_config(str(path.parent), "text")),
    "BERT's weights": ("model.safetensors", weights, lambda path: read_state(find_bert(str(path.parent)))),
    "BERT's weights, old": ("pytorch_model.bin", bert, lambda path: read_state(find_bert(str(path.parent)))),
    "BERT's part": (
        "model-00002-of-00002.safetensors",
        bert_parts,
        lambda path: read_state(find_bert(str(path.parent))),
    ),
    "checkpoint": ("x.pt", None, read_state),
    "safetensors": ("x.safetensors", None, read_state),
    "exported weights": ("model.safetensors", None, in_folder(read_state)),
    "exported configuration": ("config.json", weights, in_folder(load_pretrained)),
    "part": ("model-00002-of-00002.safetensors", parts, in_folder(read_state)),
    "index of parts": ("model.safetensors.index.json", parts, in_folder(read_state)),
    "metadata of FSDP": (".metadata", pieces, in_folder(read_state)),
    "piece of FSDP": ("__0_0.distcp", pieces, in_folder(read_state)),
    "state of DeepSpeed": ("mp_rank_00_model_states.pt", step, in_folder(read_state)),
    "step of DeepSpeed": ("latest", step, in_folder(read_state)),
    "backbone": ("x.pth", None, backbone),
}
# An empty one of these is told in words of its own, which say what is missing in it.
OWN_WORDS = {"line index": "0 lines", "id index": "img_x.id2lineidx.pkl", "captions": "x.caption.tsv"}
OWN_WORDS |= {"frames of captions": "x.img.tsv"}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("mistaken", MISTAKEN)
def test_it_is_told_with_the_files_name(tmp_path: Path, place: Place, mistaken: str):
    (name, fill, read), (content, words) = place, MISTAKEN[mistaken]
    if fill:
        fill(tmp_path)
    (tmp_path / name).write_bytes(content)
    if mistaken == "empty":
        words = next((own for key, own in OWN_WORDS.items() if PLACES[key] is place), words)
    with pytest.raises(LavenderError) as raised:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("mistaken", ["pointer", "page"])
def test_a_binary_line_index_is_left_aside(tmp_path: Path, mistaken: str, caplog: pytest.LogCaptureFixture):
    table(tmp_path)
    content, words = MISTAKEN[mistaken]
    (tmp_path / "img_x.lineidx.8b").write_bytes(content)
    assert len(TSVReader(tmp_path / "img_x.tsv")) == 2
    assert f"{tmp_path / 'img_x.lineidx.8b'}: " in caplog.text
    assert words in caplog.text


def test_these_files_are_read_where_nothing_is_mistaken(tmp_path: Path):
    """So that what the table above refuses is refused for its content."""
    table(tmp_path)
    (tmp_path / "img_x.id2lineidx.pkl").write_bytes(pickle.dumps({"a": 0, "b": 8}))
    assert frame_file(tmp_path / "img_x.tsv").find("b").video_id == "b"  # type: ignore[attr-defined]
    (tmp_path / "captions").mkdir()
    captions(tmp_path / "captions")
    assert len(caption_folder(tmp_path / "captions" / "x.yaml")) == 2  # type: ignore[arg-type]
    (tmp_path / "parts").mkdir()
    bert_parts(tmp_path / "parts")
    assert find_bert(str(tmp_path / "parts"))
    assert read_state(tmp_path / "parts").keys() == {"a", "b"}
