import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lavender.config.schema import Config
from lavender.engine import run as run_module
from lavender.engine.engines import TorchEngine
from lavender.engine.run import run
from lavender.runtime.errors import ConfigError, DataError
from lavender.runtime.logging import LOGGER, stop_logging
from lavender.tasks.pretrain import PretrainTask

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _process_put_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_module, "keep_freed_memory", lambda: None)
    state = LOGGER.propagate, LOGGER.level, list(LOGGER.handlers)
    yield
    stop_logging()
    LOGGER.propagate, LOGGER.level, LOGGER.handlers = state


# --- a whole run ------------------------------------------------------------------------------------------------------


@pytest.fixture
def options(config: Config, tmp_path: Path) -> Config:
    config.size_img, config.path_output = 32, str(tmp_path / "snapshot")
    return config


def only_folder(options: Config) -> Path:
    (folder,) = Path(options.path_output).iterdir()
    return folder


def test_a_run_from_its_configuration_to_its_results(options: Config):
    results = run(PretrainTask, options)
    folder = only_folder(options)
    assert json.loads((folder / "results.json").read_text()) == results
    assert json.loads((folder / "args.json").read_text()) == options.to_dict()
    log = (folder / "stdout.txt").read_text()
    for line in (f"output: {folder}", "options: {", "engine: Lavender, fp32", "model: ", f"done: {folder}"):
        assert line in log
    assert LOGGER.handlers == []


def test_two_runs_give_the_same_results(options: Config):
    assert run(PretrainTask, options) == run(PretrainTask, options)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The engines that are built."""
    built: list[Any] = []
    plain = TorchEngine.__init__

    def watch(engine, *arguments):
        plain(engine, *arguments)
        built.append(engine)

    monkeypatch.setattr(TorchEngine, "__init__", watch)
    return built


def test_what_no_loss_reaches_is_left_as_it_is(options: Config, engines: list[Any]):
    run(PretrainTask, options)
    still = {name for name, parameter in engines[0].model.named_parameters() if not parameter.requires_grad}
    assert still == {"enc_img.emb_odr", "emb_task"}, "DDP would wait for their gradients"
    folder = only_folder(options)
    first, last = (
        torch.load(folder / f"ckpt_violet_pretrain_{name}.pt", weights_only=True) for name in ("init_0_0", "toy_1_1")
    )
    assert torch.equal(first["enc_img.emb_odr"], last["enc_img.emb_odr"])
    assert torch.equal(first["emb_task"], last["emb_task"])
    assert not torch.equal(first["enc_img.emb_cls"], last["enc_img.emb_cls"])


def test_missing_data_show_before_the_model_is_built(options: Config, monkeypatch: pytest.MonkeyPatch):
    def built(*_: Any) -> None:
        raise AssertionError("too late")

    monkeypatch.setattr(run_module, "build_model", built)
    options.dataset = ["nowhere"]
    with pytest.raises(DataError, match="nowhere"):
        run(PretrainTask, options)


def test_a_missing_part_shows_before_training(options: Config):
    options.size_part = 3
    with pytest.raises(DataError, match=r"toy_train_2\.tsv is missing"):
        run(PretrainTask, options)
    assert list(Path(options.path_output).iterdir()) == []


def test_the_engine_of_a_checkpointed_run(options: Config, engines: list[Any]):
    pytest.importorskip("fairscale")
    options.use_checkpoint = True
    run(PretrainTask, options)
    block = engines[0].model.enc_img.swin.layers[0].blocks[0]
    assert "checkpoint" in repr(block.forward)


def test_an_evaluation_needs_a_checkpoint(options: Config):
    options.size_epoch = 0
    with pytest.raises(ConfigError, match=r"--path_ckpt .*--allow_random true"):
        run(PretrainTask, options)
    assert not Path(options.path_output).exists()
    options.allow_random = True
    assert run(PretrainTask, options)["epochs"] == []
    assert list(only_folder(options).glob("*.pt")) == []


def test_too_few_frames_show_before_the_model_is_built(options: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_module, "build_model", lambda *_: pytest.fail("too late"))
    options.size_frame = 6
    with pytest.raises(DataError, match=r"6 frames .*repeat_frames"):
        run(PretrainTask, options)
    assert list(Path(options.path_output).iterdir()) == []
