"""Models of the hub, without a network: a hub that only remembers what it was given."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError

from lavender import Predictor
from lavender.inference.hub import check_upload, push
from lavender.inference.model_card import write_card
from lavender.models.pretrained import export
from lavender.runtime.errors import ConfigError, WeightsError
from tests.warm import warm

ROOT = Path(__file__).parents[3]


class FakeApi:
    """In place of `HfApi`."""

    visible: bool = False
    fault: Exception | None = None
    made: tuple[str, Any]
    files: dict[str, bytes]

    def create_repo(self, name: str, private: bool | None, exist_ok: bool) -> str:
        if FakeApi.fault:
            raise FakeApi.fault
        FakeApi.made = name, private
        return f"https://hub.example/{name}"

    def repo_info(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(private=not FakeApi.visible)

    def create_commit(self, name: str, operations: list[Any], commit_message: str) -> None:
        FakeApi.files = {}
        for one in operations:
            with one.as_file() as file:
                FakeApi.files[one.path_in_repo] = file.read()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    FakeApi.visible, FakeApi.fault, FakeApi.files = False, None, {}
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    return FakeApi


@pytest.fixture
def exported(make_model, kit: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    torch.save(make_model().state_dict(), run / "ckpt_violet_toy-qa_1.pt")
    bert = str(kit / "bert_micro")
    arguments = {"txt_backbone": bert, "fusion_encoder": bert, "type": "qaoe", "task": "toy-qa", "size_img": 64}
    (run / "args.json").write_text(json.dumps({**arguments, "data_dir": "/home/someone/data", "dataset": "toy"}))
    description = export(run / "ckpt_violet_toy-qa_1.pt", tmp_path / "out")
    write_card(run / "ckpt_violet_toy-qa_1.pt", tmp_path / "out", description, "me/it")
    (tmp_path / "out" / "evil.pkl").write_bytes(b"x")
    return tmp_path / "out"


def test_there_and_back(hub, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert push(exported, "me/it", private=True) == "https://hub.example/me/it"
    assert hub.made == ("me/it", True)
    assert {"README.md", "args.json", "config.json", "model.safetensors", "vocab.txt"} <= hub.files.keys()
    assert {Path(name).suffix for name in hub.files} <= {".md", ".json", ".txt", ".safetensors"}
    assert b"someone" not in b"".join(content for name, content in hub.files.items() if name.endswith(".json"))
    for name, content in hub.files.items():
        (tmp_path / "fetched").mkdir(exist_ok=True)
        (tmp_path / "fetched" / name).write_bytes(content)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(tmp_path / "fetched"))
    there, here = (Predictor.from_pretrained(name, device="cpu") for name in ("me/it", exported))
    frames = torch.arange(64 * 64 * 3, dtype=torch.uint8).view(1, 64, 64, 3)
    assert there.answer(frames, "who").guesses == here.answer(frames, "who").guesses


def test_faults(hub, exported: Path):
    hub.visible = True
    with pytest.raises(ConfigError, match="public"):
        push(exported, "me/it", private=True)
    assert hub.files == {}
    for fault in (OSError("no network"), ConnectionError("offline"), huggingface_hub.errors.HFValidationError("bad")):
        hub.fault = fault
        with pytest.raises(WeightsError, match=r"me/it.*hf auth login"):
            push(exported, "me/it")
    assert issubclass(HfHubHTTPError, OSError)  # what a hub that refuses raises


def test_no_network(tmp_path: Path):
    code = "from lavender.inference.hub import download; download('nobody/nowhere')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = warm().run("-c", code, env=environment)
    last = done.stderr.splitlines()[-1]
    assert "WeightsError: nobody/nowhere: no such checkpoint here" in last
    assert "hub" in last


def test_before_a_model_is_exported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ConfigError, match="HF_TOKEN"):
        check_upload("me/it")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    check_upload("me/it")
    for name in ("it", "me/", "/it", "a/b/c", "me/it it", "https://huggingface.co/me/it"):
        with pytest.raises(ConfigError, match="OWNER/NAME"):
            check_upload(name)
