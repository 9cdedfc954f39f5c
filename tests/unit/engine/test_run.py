import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lavender.config.schema import Config
from lavender.engine import run as run_module
from lavender.engine.parallel import TorchEngine
from lavender.engine.run import checkpoint_activations, main, run
from lavender.models.lavender import Lavender
from lavender.models.video_swin import SwinBlock
from lavender.runtime.errors import DataError, TrainingError
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


# --- activation checkpointing -----------------------------------------------------------------------------------------


@pytest.fixture
def pair(make_model) -> Callable[..., list[Lavender]]:
    """The same model twice, in training mode; the second recomputes its activations."""

    def build(offload: bool = False) -> list[Lavender]:
        pytest.importorskip("fairscale")
        models = [make_model(drop_path=0.3).train() for _ in range(2)]
        checkpoint_activations(models[1], offload)
        return models

    return build


def losses_and_gradients(model: Lavender, dtype: torch.dtype | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(11)  # drop path and dropout draw the same
    img = torch.randint(0, 256, (3, 2, 3, 64, 64), dtype=torch.uint8)
    ids = torch.randint(1, 350, (3, 5))
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        video, text = model.encode_video(img), model.encode_text(ids, torch.ones_like(ids))
        loss = model.fc_mtm(model.fuse(video, text)[:, -1]).float().logsumexp(-1).mean()
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("offload", [False, True])
def test_checkpointing_changes_neither_losses_nor_gradients(pair, offload: bool):
    (loss, plain), (again, recomputed) = (losses_and_gradients(model) for model in pair(offload))
    assert float(again) == pytest.approx(float(loss), rel=1e-6)
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        assert (recomputed[name] - gradient).abs().max() <= 1e-4 * gradient.abs().max() + 1e-8, name


def test_checkpointing_recomputes_in_the_precision_of_the_forward_pass(pair):
    """FairScale itself knows CUDA's fp16 alone: under bf16 it would recompute in another precision."""
    seen: list[list[torch.dtype]] = []
    for model in pair():
        seen.append([])
        hook = model.enc_img.swin.layers[2].blocks[0].mlp.fc1
        hook.register_forward_hook(lambda module, inputs, out, seen=seen[-1]: seen.append(out.dtype))
        losses_and_gradients(model, torch.bfloat16)
    assert seen == [[torch.bfloat16], [torch.bfloat16, torch.bfloat16]]


def test_checkpointing_wraps_every_block_and_keeps_the_names(pair):
    plain, model = pair()
    assert list(plain.state_dict()) == list(model.state_dict())
    calls: list[SwinBlock] = []
    for module in model.enc_img.swin.modules():
        if isinstance(module, SwinBlock):
            module.norm1.register_forward_hook(lambda norm, inputs, out: calls.append(norm))
    losses_and_gradients(model)
    assert len(calls) == 2 * 10, "each of the ten blocks once forward and once again for its gradient"
    calls.clear()
    with torch.inference_mode():
        model.encode_video(torch.zeros(1, 2, 3, 64, 64))
    assert len(calls) == 10


def test_a_missing_fairscale_is_an_error_with_the_line_to_type(make_model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "fairscale.nn.checkpoint", None)
    with pytest.raises(TrainingError, match=r"pip install fairscale==[\d.]+, or train with --use_checkpoint false"):
        checkpoint_activations(make_model(), offload=False)


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
    assert not list(only_folder(options).glob("*.pt"))


def test_main_tells_a_fault_of_the_input_in_one_line(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as exited:
        main(PretrainTask, ["--config", "nowhere.json"])
    assert exited.value.code == 2
    assert capsys.readouterr().err == "error: nowhere.json: no such file\n"


def test_main_leaves_on_an_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "run", interrupt)
    with pytest.raises(SystemExit) as exited:
        main(PretrainTask, [])
    assert exited.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_main_of_several_processes_leaves_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    class Left(BaseException):
        pass

    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(run_module.os, "_exit", leave)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(Left, match="2"):
        main(PretrainTask, ["--config", "nowhere.json"])
    assert capsys.readouterr().err == "error: nowhere.json: no such file [process 1]\n"


def test_the_engine_of_a_checkpointed_run(options: Config, engines: list[Any]):
    pytest.importorskip("fairscale")
    options.use_checkpoint = True
    run(PretrainTask, options)
    block = engines[0].model.enc_img.swin.layers[0].blocks[0]
    assert "checkpoint" in repr(block.forward)
