"""Checkpoints that are folders: parts with and without an index, DeepSpeed's states."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lavender.models.checkpoint_folder import DEEPSPEED_FILE, read_state
from lavender.runtime.errors import WeightsError
from tests.unit.models.test_checkpoint_file import saved

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b.weight": torch.full((2,), 0.5), "c.bias": torch.ones(1)}


def in_parts(folder: Path, suffix: str = ".safetensors", index: bool = True) -> Path:
    """`STATE` in three files, as transformers splits a large model."""
    folder.mkdir()
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    files = {name: f"{stem}-{number:05}-of-00003{suffix}" for number, name in enumerate(STATE, start=1)}
    write: Callable[[dict[str, Tensor], Path], None] = save_file if suffix == ".safetensors" else torch.save
    for name, file in files.items():
        write({name: STATE[name]}, folder / file)
    if index:
        content = {"metadata": {"total_size": 36}, "weight_map": files}
        (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return in_parts(tmp_path / "parts")


def assert_read(path: Path) -> None:
    state = read_state(path)
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in STATE.items())


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_all_parts_are_read(tmp_path: Path, suffix: str, index: bool):
    assert_read(in_parts(tmp_path / "parts", suffix, index))


def test_an_index_may_be_named_itself(parts: Path):
    assert_read(parts / "model.safetensors.index.json")


@pytest.mark.parametrize("index", [True, False])
def test_a_missing_part_is_named(tmp_path: Path, index: bool):
    folder = in_parts(tmp_path / "parts", index=index)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-00002-of-00003\.safetensors .* 3 files"):
        read_state(folder)


def test_a_part_alone_is_no_checkpoint(parts: Path):
    with pytest.raises(WeightsError, match=rf"00002-of-00003.*2 of 3.*{parts}"):
        read_state(parts / "model-00002-of-00003.safetensors")


def test_what_the_index_says_is_held_against_the_parts(parts: Path):
    save_file({"other": torch.zeros(1)}, parts / "model-00002-of-00003.safetensors")
    with pytest.raises(WeightsError, match=r"00002-of-00003.*b\.weight.*index"):
        read_state(parts)
    save_file({name: STATE[name] for name in ("a.weight", "b.weight")}, parts / "model-00002-of-00003.safetensors")
    with pytest.raises(WeightsError, match=r"00002-of-00003.*a\.weight.*another part"):
        read_state(parts)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": "../x.safetensors"}}',
        '{"weight_map": {"a": "/x.safetensors"}}',
    ],
)
def test_an_index_that_is_none(parts: Path, content: str):
    save_file(STATE, parts.parent / "x.safetensors")
    (parts / "model.safetensors.index.json").write_text(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors\.index\.json"):
        read_state(parts)


def test_an_index_that_lacks_a_part(parts: Path):
    """The weights of the part would stay random."""
    index = parts / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = {name: file for name, file in content["weight_map"].items() if "00003-of" not in file}
    index.write_text(json.dumps(content))
    for path in (parts, index):
        with pytest.raises(WeightsError, match=rf"^{index}: it names 2 of 3 files"):
            read_state(path)
    index.unlink()
    assert_read(parts)


def test_two_sets_without_an_index_are_ambiguous(tmp_path: Path):
    folder = in_parts(tmp_path / "parts", index=False)
    save_file(STATE, folder / "ema-00001-of-00002.safetensors")
    with pytest.raises(WeightsError, match=r"ema-.*model-"):
        read_state(folder)


def test_the_one_file_of_transformers(tmp_path: Path):
    assert_read(saved(STATE, tmp_path / "pytorch_model.bin").parent)


# --- DeepSpeed --------------------------------------------------------------------------------------------------------


def test_folders_of_deepspeed(tmp_path: Path):
    saved({"module": {"a": torch.ones(2)}}, tmp_path / "global_step5" / DEEPSPEED_FILE)
    with pytest.raises(WeightsError, match="global_step5"):
        read_state(tmp_path)
    (tmp_path / "latest").write_text("global_step5\n")
    assert read_state(tmp_path)["a"].tolist() == [1, 1]
    saved({}, tmp_path / "global_step5" / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    with pytest.raises(WeightsError, match=r"zero_to_fp32\.py"):
        read_state(tmp_path)


def test_the_step_that_latest_names_may_be_missing(tmp_path: Path):
    saved({"module": {"a": torch.ones(2)}}, tmp_path / "global_step5" / DEEPSPEED_FILE)
    (tmp_path / "latest").write_text("global_step6")
    with pytest.raises(WeightsError, match=r"latest.*global_step6"):
        read_state(tmp_path)


@pytest.mark.parametrize("prefix", ["", "bf16_"])
def test_optimizer_states_without_the_weights(tmp_path: Path, prefix: str):
    step = tmp_path / "global_step5"
    states = [f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(2)]
    for name in states:
        saved({"optimizer_state_dict": {"a": torch.ones(2)}}, step / name)
    (tmp_path / "latest").write_text("global_step5")
    with pytest.raises(WeightsError, match=rf"2 files.*{states[0]}.*_model_states\.pt.*zero_to_fp32\.py"):
        read_state(tmp_path)
    with pytest.raises(WeightsError, match=rf"{states[0]}.*piece.*{step}"):
        read_state(step / states[0])
    (tmp_path / "latest").unlink()
    with pytest.raises(WeightsError, match=f"give one of {step.name}"):
        read_state(tmp_path)


def test_a_universal_checkpoint(tmp_path: Path):
    saved({"param": torch.ones(2)}, tmp_path / "zero" / "a.weight" / "fp32.pt")
    with pytest.raises(WeightsError, match="universal"):
        read_state(tmp_path)


# --- other folders ----------------------------------------------------------------------------------------------------


def test_a_folder_of_folders_names_them(parts: Path, tmp_path: Path):
    shutil.copytree(parts, tmp_path / "checkpoint-2")
    for folder in (parts, tmp_path / "checkpoint-2"):
        save_file(STATE, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="give one of checkpoint-2, parts"):
        read_state(tmp_path)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_relative_path_is_told_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(WeightsError, match=f"{kind}: no such checkpoint .*{tmp_path}"):
        read_state(Path(kind))
