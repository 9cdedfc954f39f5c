"""Compiled parts give the numbers of the plain ones. Here they are traced and run as they are; slow tests compile."""

import copy
import logging
import shutil

import pytest
import torch
import torch._dynamo
from torch import Tensor

from lavender.models.activation_checkpoint import checkpoint_activations
from lavender.models.compiling import compile_model
from lavender.models.lavender import Lavender
from lavender.runtime.errors import TrainingError

CPU = torch.device("cpu")


@pytest.fixture
def model(make_model) -> Lavender:
    return make_model().train()


@pytest.fixture(autouse=True)
def quiet():
    """The compiler writes megabytes where somebody listens to its loggers, as pytest does."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    logging.getLogger("torch.__trace").disabled = True
    yield
    logging.getLogger("torch.__trace").disabled = False
    torch._dynamo.reset()


def without_dropout(model: Lavender) -> Lavender:
    """Compiled code draws other numbers; the drop paths of the video encoder stay, drawn outside of it."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def step(model: Lavender, size: int = 64) -> dict[str, Tensor]:
    """Output and gradients of a forward and backward pass."""
    torch.manual_seed(3)
    img, ids = torch.randint(0, 256, (2, 2, 3, size, size), dtype=torch.uint8), torch.randint(1, 300, (2, 6))
    video, text = model.encode_video(img), model.encode_text(ids, torch.ones_like(ids))
    out = model.fc_mtm(model.fuse(video, text))
    model.zero_grad()
    out.square().mean().backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    return {"out": out.detach(), **gradients}


def assert_alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        scale = float(value.abs().max()) + 1e-8
        assert float((value - other[name]).abs().max()) < 1e-4 * scale + 1e-7, name


def test_a_block_and_a_layer_are_traced_whole_and_give_the_same_numbers(model: Lavender):
    plain = without_dropout(model)
    compiled = copy.deepcopy(plain)
    plain_block, block = (one.backbone.blocks()[1] for one in (plain, compiled))
    block.compile_branches("eager")
    x = torch.randn(1, 2, 16, 16, block.norm1.normalized_shape[0])
    torch.manual_seed(1)
    expected = plain_block(x)
    torch.manual_seed(1)
    assert torch.allclose(block(x), expected, atol=1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("recomputed", [False, True])
def test_compiled_parts_give_the_same_numbers(model: Lavender, recomputed: bool):
    plain = without_dropout(model)
    compiled = copy.deepcopy(plain)
    if recomputed:
        checkpoint_activations(compiled, offload=False)
    names = list(compiled.state_dict())
    compile_model(compiled, CPU, "eager")  # the compiler itself would take ten minutes; see the next test
    assert list(compiled.state_dict()) == names
    for size in (64, 96):
        assert_alike(step(plain, size), step(compiled, size))
    assert not torch._dynamo.utils.counters["graph_break"]
    assert 4 < torch._dynamo.utils.counters["stats"]["unique_graphs"] < 64, "blocks of one size share their code"
    for one in (plain, compiled):
        one.eval()
    ids, clip = torch.ones(1, 4, dtype=torch.long), torch.zeros(1, 2, 3, 64, 64)
    with torch.inference_mode():
        outputs = [one.fuse(one.encode_video(clip), one.encode_text(ids, ids)) for one in (plain, compiled)]
    assert torch.allclose(*outputs, atol=1e-5)


@pytest.mark.slow
def test_a_block_and_a_layer_compiled_to_machine_code(model: Lavender):
    plain = without_dropout(model)
    compiled = copy.deepcopy(plain)
    width = plain.backbone.blocks()[1].norm1.normalized_shape[0]  # type: ignore[union-attr, index]
    block, layer = compiled.backbone.blocks()[1], compiled.trsfr.layers[0]
    block.compile_branches("inductor")  # type: ignore[operator]
    layer.compile()
    for one, other, x in (
        (plain.backbone.blocks()[1], block, torch.randn(1, 2, 16, 16, width)),
        (plain.trsfr.layers[0], layer, torch.randn(2, 12, plain.trsfr.layers[0].output.dense.out_features)),
    ):
        results = []
        for module in (one, other):
            torch.manual_seed(1)
            out = module(x)
            (out * torch.linspace(0, 1, out.numel()).view_as(out)).sum().backward()
            results.append({"out": out.detach(), **{name: p.grad for name, p in module.named_parameters()}})
        assert_alike(*results)


def test_a_missing_compiler_is_told(model: Lavender, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(TrainingError, match=r'"compile" is true.*g\+\+.*--compile false'):
        compile_model(model, CPU)
