"""Models without storage."""

import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.shapes import shapes_only

ROOT = Path(__file__).parents[3]


def test_names_and_shapes_are_those_of_a_model():
    with shapes_only():
        shapes = VideoSwin("micro").state_dict()
    real = VideoSwin("micro").state_dict()
    assert {name: tensor.shape for name, tensor in shapes.items()} == {name: one.shape for name, one in real.items()}
    parameters = [tensor for name, tensor in shapes.items() if not name.endswith("index")]
    assert all(tensor.is_meta for tensor in parameters)


def test_afterwards_modules_are_initialised_as_always():
    with shapes_only():
        nn.Linear(3, 3)
    torch.manual_seed(0)
    one = nn.Linear(3, 3).weight
    torch.manual_seed(0)
    assert torch.equal(one, nn.Linear(3, 3).weight)
    assert one.std() > 0


def test_torch_does_not_import_its_compiler():
    code = (
        "import sys\nfrom lavender.models.backbones.video_swin import VideoSwin\n"
        "from lavender.models.bert_config import BertConfig\nfrom lavender.models.lavender import Heads, Lavender\n"
        "from lavender.models.shapes import shapes_only\nwith shapes_only():\n"
        "    Lavender(VideoSwin('micro'), BertConfig(), BertConfig(), Heads())\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
