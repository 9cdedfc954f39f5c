"""BERT folders and backbones that tests of a whole model's weights share."""

import shutil
from pathlib import Path

import torch
import transformers
from torch import Tensor

from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.lavender import Lavender


def save_bert(folder: Path, kit: Path, kind: str = "BertForMaskedLM", **changes) -> dict[str, Tensor]:
    """Makes a BERT folder with weights of its own; returns them under transformers' names."""
    bert = getattr(transformers, kind)(transformers.BertConfig.from_pretrained(kit / "bert_micro", **changes))
    with torch.no_grad():
        for parameter in bert.parameters():
            parameter.normal_(std=0.3)
    bert.save_pretrained(folder)
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copyfile(kit / "bert_micro" / name, folder / name)
    return {name: tensor.clone() for name, tensor in bert.state_dict().items()}


def assert_part(model: Lavender, ours: str, state: dict[str, Tensor], theirs: str, equal: bool = True) -> None:
    part = model.get_submodule(ours).state_dict()
    assert part
    for name, tensor in part.items():
        assert torch.equal(tensor, state[f"{theirs}.{name}"]) is equal, f"{ours}.{name}"


def backbone_state(prefix: str = "backbone.") -> dict[str, Tensor]:
    swin = VideoSwin("micro")
    with torch.no_grad():
        for parameter in swin.parameters():
            parameter.normal_()
    return {prefix + name: tensor for name, tensor in swin.state_dict().items()}
