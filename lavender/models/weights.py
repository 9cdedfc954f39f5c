"""Weights in: BERT folders, Video Swin files, LAVENDER checkpoints, and what of each was used."""

import hashlib
import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM
from transformers.utils import logging as transformers_logging

from lavender.config.schema import Config
from lavender.models.heads import classifier_name
from lavender.models.lavender import Heads, Lavender
from lavender.runtime.errors import WeightsError
from lavender.runtime.logging import LOGGER
from lavender.text.bert_folder import find_bert, has_weights

VIDEO_SWIN_FOLDER = Path("_models/video_swin_transformer")
HEADS = ("fc.", "fc_", "emb_task")  # what a checkpoint of another task may lack
GROWING_TABLES = {"enc_img.emb_pos": 2, "enc_img.emb_len": 1}  # name → the dimension that counts places
KNOWN_EXTRAS = ("position_ids", "token_type_ids", "relative_position_index")  # buffers of older versions
SHARED_BIAS = ("fc_mtm.predictions.bias", "fc_mtm.predictions.decoder.bias")


# What torch, safetensors and transformers raise at a cut, damaged or hostile file, as tried with many of them.
UNREADABLE = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, AssertionError),
    *(OSError, TypeError, SafetensorError),
)


@dataclass
class LoadReport:
    """What became of a file's weights in a model; names are those of the model's `state_dict()`."""

    source: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    other_shape: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)

    def lines(self) -> Iterable[str]:
        """The report as a table, a line each."""
        yield f"weights from {self.source}: {len(self.loaded)} loaded"
        notes = {
            "missing": "not in the file, stay as initialised",
            "left_over": "in the file, not in this model",
            "other_shape": "of another shape, stay as initialised",
            "resized": "of another length, the common rows loaded",
        }
        for name, note in notes.items():
            for group, names in _by_module(getattr(self, name)).items():
                label = "fresh head" if name != "left_over" and group.startswith(HEADS) else name.replace("_", " ")
                yield f"  {label:12} {group:40} {len(names):4}  {note}"


def _reason(error: BaseException) -> str:
    """A library's message in a few words: what was met, without its advice to switch the safeguard off."""
    met = re.search(r"GLOBAL ([\w.]+)|class ([\w.]+)", str(error))
    if met and isinstance(error, pickle.UnpicklingError):
        return f"it asks for {met.group(1) or met.group(2)}, which is no weight"
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:120]


def _by_module(names: list[str]) -> dict[str, list[str]]:
    """Names by their first two parts, so that a table of 500 names is a few lines."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(".".join(name.split("(")[0].split(".")[:2]), []).append(name)
    return groups


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pt`/`.pth` file, of a `state_dict`, `model` or `module` key inside it; runs no code of it.

    Raises:
        WeightsError: missing, not a torch file, or not a dictionary of tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such checkpoint; check --path_ckpt (or the file under _models/)")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise WeightsError(f"{path}: cannot be read as a file of weights alone ({_reason(error)})") from error
    for key in ("state_dict", "model", "module"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds no dictionary of tensors, so it is not a checkpoint")
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def load_state(module: nn.Module, state: dict[str, Tensor], source: str) -> LoadReport:
    """Copies into `module` every tensor that fits it by name and shape; tables of places by their common rows."""
    report, own = LoadReport(source), module.state_dict()
    fitting: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(KNOWN_EXTRAS):
            continue
        if name not in own:
            report.left_over.append(name)
        elif own[name].shape == tensor.shape:
            fitting[name] = tensor
        elif name in GROWING_TABLES and _differs_in(own[name], tensor, GROWING_TABLES[name]):
            fitting[name] = _common_rows(own[name], tensor, GROWING_TABLES[name])
            report.resized.append(name)
        else:
            report.other_shape.append(f"{name} ({_shape(tensor)} in the file, {_shape(own[name])} here)")
    given = [name for name in SHARED_BIAS if name in fitting]
    if given:  # one parameter under two names: either will do, and the second wins
        fitting.update(dict.fromkeys((name for name in SHARED_BIAS if name in own), fitting[given[-1]]))
    report.loaded = list(fitting)
    refused = {text.split(" (")[0] for text in report.other_shape}
    report.missing = [
        name for name in own if name not in fitting and name not in refused and not name.endswith(KNOWN_EXTRAS)
    ]
    module.load_state_dict(fitting, strict=False)
    return report


def _differs_in(own: Tensor, tensor: Tensor, dimension: int) -> bool:
    """Whether two tables have the same shape but for one dimension."""
    sides = zip(own.shape, tensor.shape, strict=False)
    return own.ndim == tensor.ndim and all(a == b for n, (a, b) in enumerate(sides) if n != dimension)


def _common_rows(own: Tensor, tensor: Tensor, dimension: int) -> Tensor:
    rows = min(own.shape[dimension], tensor.shape[dimension])
    table = own.clone()
    table.narrow(dimension, 0, rows).copy_(tensor.narrow(dimension, 0, rows))
    return table


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))


def build_model(config: Config, heads: Heads) -> Lavender:
    """The model of a configuration with its weights: backbone and BERT, or the checkpoint of `path_ckpt`.

    Raises:
        WeightsError: a file that is named is missing, broken, or of another model.
    """
    text, fusion = _bert_config(config.txt_backbone), _bert_config(config.fusion_encoder)
    if config.swinbert:
        raise WeightsError('"swinbert" checkpoints are not supported yet: set it to false')
    if text.hidden_size != fusion.hidden_size:
        raise WeightsError(
            f"txt_backbone is {text.hidden_size} wide and fusion_encoder {fusion.hidden_size}: they must be equal"
        )
    model = Lavender(
        "large_384" if (config.vis_backbone_size, config.size_img) == ("large", 384) else config.vis_backbone_size,
        text,
        fusion,
        heads,
        embed_only=config.txt_backbone_embed_only,
        max_size_frame=config.max_size_frame,
        max_size_patch=config.max_size_patch,
        drop_path=config.vis_backbone_drop_path,
    )
    load_bert(model, config)
    if config.path_ckpt:
        own_head = classifier_name(config.type, config.task) if "fc" in heads.classifiers else ""
        load_checkpoint(model, Path(config.path_ckpt), config.reinit_head, own_head)
    else:
        load_backbone(model, config)
    return model


def _bert_config(name: str) -> BertConfig:
    folder = find_bert(name)
    try:
        bert = BertConfig.from_pretrained(folder)
    except UNREADABLE as error:
        raise WeightsError(f"{folder / 'config.json'}: not a BERT configuration ({_reason(error)})") from error
    bert._attn_implementation = "sdpa"
    return bert


def load_bert(model: Lavender, config: Config) -> None:
    """Word embeddings (and the text encoder) of `txt_backbone`; fusion layers and MLM head of `fusion_encoder`."""
    sources = [(config.txt_backbone, {"enc_txt.emb_txt": "bert.embeddings", "enc_txt.txt_trsfr": "bert.encoder"})]
    fusion = {"trsfr": "bert.encoder", "fc_mtm": "cls"}
    if config.fusion_encoder_rand_init:
        LOGGER.info("fusion encoder: only its shape is taken from %s; random weights", config.fusion_encoder)
        del fusion["trsfr"]
    sources.append((config.fusion_encoder, fusion))
    for name, parts in sources:
        folder = find_bert(name)
        if not has_weights(folder):
            LOGGER.info("%s holds config and vocabulary only: random weights for %s", folder, ", ".join(parts))
            continue
        bert, info = _read_bert(folder)
        absent = {key for key in info["missing_keys"] if not key.endswith("decoder.bias")}
        for ours, theirs in parts.items():
            if not any(own.startswith(ours + ".") for own in model.state_dict()):
                continue
            given = {k: v for k, v in bert.get_submodule(theirs).state_dict().items() if f"{theirs}.{k}" not in absent}
            _log(load_state(model.get_submodule(ours), given, f"{folder} ({theirs} → {ours})"))


def _read_bert(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The BERT model of a folder, and transformers' account of what was missing."""
    transformers_logging.set_verbosity_error()
    try:
        return BertForMaskedLM.from_pretrained(  # type: ignore[return-value]
            folder, output_loading_info=True, dtype=torch.float32
        )
    except UNREADABLE as error:
        raise WeightsError(f"{folder}: its weights cannot be read ({_reason(error)})") from error


def load_backbone(model: Lavender, config: Config) -> None:
    """Video Swin's own weights, as `vis_backbone_init` says."""
    if config.vis_backbone_init == "random":
        LOGGER.info("video backbone: random weights")
        return
    if config.vis_backbone_init != "3d":
        raise WeightsError(f'vis_backbone_init "{config.vis_backbone_init}" is not supported yet: use "3d" or "random"')
    path = Path(config.vis_backbone_path) if config.vis_backbone_path else VIDEO_SWIN_FOLDER / video_swin_file(config)
    if not path.is_file():
        raise WeightsError(
            f"{path}: the Video Swin weights are not there; put the file there, name another with --vis_backbone_path, "
            "or start without them: --vis_backbone_init random"
        )
    state = read_state(path)
    state = {
        name.removeprefix("backbone."): tensor for name, tensor in state.items() if not name.startswith("cls_head")
    }
    report = load_state(model.enc_img.swin, state, str(path))
    _log(report)
    _refuse_poor_fit(report, path)


def video_swin_file(config: Config) -> str:
    """The released name of a Kinetics backbone, e.g. `swin_base_patch244_window877_kinetics600_22k.pth`."""
    pretraining = "22k" if config.vis_backbone_size in ("base", "large") else "1k"
    large_window = (config.vis_backbone_size, config.size_img) == ("large", 384)
    size, window = ("large_384", "window81212") if large_window else (config.vis_backbone_size, "window877")
    return f"swin_{size}_patch244_{window}_kinetics{config.kinetics}_{pretraining}.pth"


def load_checkpoint(model: Lavender, path: Path, reinit_head: bool = False, own_head: str = "") -> LoadReport:
    """A LAVENDER checkpoint.

    Args:
        reinit_head: leaves the heads as they are (BERT's, or a new MLP).
        own_head: what a multi-head checkpoint calls the head that is `fc` here, where it has one of that name.
    """
    state = read_state(path)
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise WeightsError(f"{path}: {len(broken)} weights are not finite (the first: {broken[0]}); use an earlier one")
    if own_head and any(name.startswith(f"{own_head}.") for name in state):
        LOGGER.info("%s: its %s becomes fc", path, own_head)
        others = {name: tensor for name, tensor in state.items() if not name.startswith(("fc.", f"{own_head}."))}
        own = {name: tensor for name, tensor in state.items() if name.startswith(f"{own_head}.")}
        state = others | {f"fc{name.removeprefix(own_head)}": tensor for name, tensor in own.items()}
    if reinit_head:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(("fc_mtm.", "fc.", "fc_"))}
    report = load_state(model, state, str(path))
    _log(report)
    _refuse_poor_fit(report, path)
    return report


def _refuse_poor_fit(report: LoadReport, path: Path) -> None:
    """A file of another model is an error; a head of another task is not."""
    heads = (*HEADS, "fc_mtm.")
    other_shape, missing, loaded = (
        [name for name in names if not name.startswith(heads)]
        for names in (report.other_shape, report.missing, report.loaded)
    )
    if other_shape or len(missing) > len(loaded):
        raise WeightsError(
            f"{path} is not of this model: {len(other_shape)} weights are of another shape, {len(missing)} are missing "
            f"(the first: {[*other_shape, *missing][0]}); check vis_backbone_size, txt_backbone and fusion_encoder"
        )


def _log(report: LoadReport) -> None:
    for line in report.lines():
        LOGGER.info(line)


def weights_digest(model: nn.Module) -> str:
    """A name for what the weights are, whatever file they came from: the same weights have the same one."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
