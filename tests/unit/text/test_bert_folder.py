import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from lavender.runtime.errors import WeightsError
from lavender.text.bert_folder import LOCAL_MODELS, find_bert, has_weights, lowercases

NAME = "some/bert-of-nowhere"


class Hub:
    """Stands for the Hugging Face hub: notes what it is asked for, and gives a folder or fails."""

    def __init__(self, folder: Path, files: tuple[str, ...] = ("config.json", "vocab.txt", "model.safetensors")):
        self.folder, self.files = folder, files
        self.asked: list[tuple[str, list[str]]] = []
        self.error: Exception | None = None

    def __call__(self, name: str, allow_patterns: list[str], **options) -> str:
        self.asked.append((name, allow_patterns))
        if self.error:
            raise self.error
        self.folder.mkdir(exist_ok=True)
        for file in self.files:
            if file in allow_patterns:
                (self.folder / file).touch()
        return str(self.folder)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """An empty place to run in, beside a hub of our own."""
    monkeypatch.chdir(tmp_path)
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    return hub


def bert_folder(path: Path, *files: str) -> Path:
    path.mkdir(parents=True)
    for name in files or ("config.json", "vocab.txt"):
        (path / name).touch()
    return path


def test_a_folder_is_taken_as_it_is(hub: Hub, kit: Path):
    assert find_bert(str(kit / "bert_micro")) == kit / "bert_micro"
    assert hub.asked == []


def test_folder_before_models_before_hub(hub: Hub):
    assert find_bert(NAME) == hub.folder
    assert [name for name, _ in hub.asked] == [NAME]
    local = bert_folder(LOCAL_MODELS / NAME)
    assert find_bert(NAME) == local
    here = bert_folder(Path(NAME))
    assert find_bert(NAME) == here
    assert len(hub.asked) == 1


@pytest.mark.parametrize(
    ("weights", "calls"), [("model.safetensors", 1), ("pytorch_model.bin", 2), ("flax_model.msgpack", 2)]
)
def test_the_second_kind_of_weights_is_fetched_only_where_the_first_is_missing(hub: Hub, weights: str, calls: int):
    hub.files = ("config.json", "vocab.txt", weights)
    folder = find_bert(NAME)
    assert len(hub.asked) == calls
    assert has_weights(folder) == (weights != "flax_model.msgpack")
    assert all({"config.json", "vocab.txt", "tokenizer_config.json"} < set(patterns) for _, patterns in hub.asked)


def _proxy_error() -> Exception:
    """What the hub's client lets through behind a proxy that does not answer; it is no OSError."""
    import importlib

    client = next(name for name in ("httpx2", "httpx") if importlib.util.find_spec(name))
    return importlib.import_module(client).ProxyError("no route to the proxy")


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("cannot find it on disk\nand more"),
        OSError("Network is unreachable"),
        HFValidationError("no valid name"),
        _proxy_error(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_unreachable_hub_says_where_to_put_the_folder(hub: Hub, error: Exception):
    hub.error = error
    with pytest.raises(WeightsError) as raised:
        find_bert(NAME)
    message = str(raised.value)
    assert "\n" not in message
    assert f'"{NAME}"' in message
    assert f"put config.json, vocab.txt and model.safetensors into {LOCAL_MODELS / NAME}/" in message


@pytest.mark.parametrize("missing", ["config.json", "vocab.txt"])
@pytest.mark.parametrize("place", ["given", "local", "hub"])
def test_a_folder_without_config_or_vocabulary_is_refused(hub: Hub, missing: str, place: str):
    files = [name for name in ("config.json", "vocab.txt", "model.safetensors") if name != missing]
    name = NAME
    if place == "given":
        folder = bert_folder(Path("my_bert"), *files)
        name = "my_bert"
    elif place == "local":
        folder = bert_folder(LOCAL_MODELS / NAME, *files)
    else:
        hub.files, folder = tuple(files), hub.folder
    with pytest.raises(WeightsError, match=rf"^{folder}: no {missing}"):
        find_bert(name)


def test_a_file_is_no_folder(hub: Hub):
    Path("my_bert").touch()
    hub.error = HFValidationError("no valid name")
    with pytest.raises(WeightsError, match="my_bert"):
        find_bert("my_bert")


def test_has_weights(tmp_path: Path, kit: Path):
    assert not has_weights(kit / "bert_micro")
    for name in ("model.safetensors", "pytorch_model.bin"):
        assert has_weights(bert_folder(tmp_path / name, "config.json", name))


def test_lowercases(tmp_path: Path, kit: Path):
    assert lowercases(kit / "bert_micro")
    folder = Path(shutil.copytree(kit / "bert_micro", tmp_path / "bert"))
    for settings, expected in [({}, True), ({"do_lower_case": False}, False), ({"do_lower_case": True}, True)]:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        assert lowercases(folder) is expected


@pytest.mark.parametrize("content", ["{", "[]"])
def test_broken_tokenizer_settings_are_named(tmp_path: Path, content: str):
    folder = bert_folder(tmp_path / "bert")
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(WeightsError, match=r"tokenizer_config\.json"):
        lowercases(folder)
