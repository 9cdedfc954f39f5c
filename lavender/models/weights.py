"""Loading of weights: BERT folders, video backbones, LAVENDER and SwinBERT checkpoints, with a report of their use."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lavender.config.schema import Config
from lavender.models.backbones.table import build_backbone
from lavender.models.bert_config import BertConfig, read_bert
from lavender.models.checkpoint_file import UNREADABLE, plain_names, reason, refuse_not_finite, seen_names
from lavender.models.checkpoint_folder import read_state
from lavender.models.convert import (
    from_swinbert,
    is_swinbert,
    swinbert_names,
)
from lavender.models.encoders import SwinBertVideoEncoder
from lavender.models.heads import HEADS, classifier_name
from lavender.models.lavender import Heads, Lavender
from lavender.models.load_report import LoadReport, Origins
from lavender.models.shapes import shapes_only
from lavender.models.transformers_import import transformers
from lavender.runtime.errors import ConfigError, WeightsError
from lavender.runtime.files import read_text
from lavender.runtime.jsons import load_json
from lavender.runtime.logging import LOGGER
from lavender.text.bert_folder import bert_of, find_bert, has_weights

EXPORTED = "lavender"  # model_type in the config.json of an exported folder
GROWING_TABLES = {"enc_img.emb_pos": 2, "enc_img.emb_len": 1}  # name → dimension of the positions
KNOWN_EXTRAS = ("position_ids", "token_type_ids", "relative_position_index")  # buffers of older versions
SHARED_BIAS = ("fc_mtm.predictions.bias", "fc_mtm.predictions.decoder.bias")


def load_state(
    module: nn.Module, state: dict[str, Tensor], source: str, prefix: str = "", part: str = ""
) -> LoadReport:
    """Copies into `module` all tensors that fit by name and shape; position tables by their common rows.

    Args:
        prefix: prefix of the module's names in the whole model, for the report.
        part: part of the source that `state` is, for the report.
    """
    report, own = LoadReport(source, part, prefix), module.state_dict()
    fitting: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(KNOWN_EXTRAS):
            continue
        if name not in own:
            report.left_over.append(name)
        elif own[name].is_floating_point() and not (tensor.is_floating_point() and tensor.isfinite().all()):
            kind = "not finite" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
            raise WeightsError(f"{source}: {name} is {kind}, and no weight can be; use another file")
        elif own[name].shape == tensor.shape:
            fitting[name] = tensor
        elif name in GROWING_TABLES and _differs_in(own[name], tensor, GROWING_TABLES[name]):
            fitting[name] = _common_rows(own[name], tensor, GROWING_TABLES[name])
            report.resized.append(name)
        else:
            report.other_shape.append(f"{name} ({_shape(tensor)} in the file, {_shape(own[name])} here)")
    given = [name for name in SHARED_BIAS if name in fitting]
    if given:  # one parameter under two names: either suffices, the second wins
        fitting.update(dict.fromkeys((name for name in SHARED_BIAS if name in own), fitting[given[-1]]))
    report.loaded = list(fitting)
    report.counts = {name: min(own[name].numel(), state.get(name, own[name]).numel()) for name in fitting}
    refused = {text.split(" (")[0] for text in report.other_shape}
    report.missing = [
        name for name in own if name not in fitting and name not in refused and not name.endswith(KNOWN_EXTRAS)
    ]
    module.load_state_dict(fitting, strict=False)
    return report


def _differs_in(own: Tensor, tensor: Tensor, dimension: int) -> bool:
    """Whether two tables have the same shape except in one dimension."""
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
    """Builds the model of a configuration and loads its weights: backbone and BERT, or `path_ckpt`.

    Raises:
        WeightsError: a named file is missing, damaged, or of another model.
        ConfigError: captions may be longer than BERT's position table.
    """
    bert_of(config, "fusion_encoder")
    text = bert_config(config.txt_backbone, "text")
    fusion = bert_config(config.fusion_encoder, "fusion")
    if text.hidden_size != fusion.hidden_size:
        raise WeightsError(
            f"txt_backbone is {text.hidden_size} wide and fusion_encoder {fusion.hidden_size}: they must be equal"
        )
    for entry in config.entries() or [config]:
        if entry.swinbert and entry.type == "retrieval":
            raise WeightsError(
                '"swinbert" is for captioning: retrieval scores pairs in blocks without masks, and the zero token '
                "before each of SwinBERT's frames needs one; set it to false"
            )
        if entry.type == "captioning" and entry.max_gen_length > text.max_position_embeddings:
            raise ConfigError(
                f"max_gen_length is {entry.max_gen_length}, and {config.txt_backbone} has "
                f"{text.max_position_embeddings} positions: lower it"
            )
    backbone = build_backbone(config)
    backbone.check_frames(config)
    model = Lavender(
        backbone,
        text,
        fusion,
        heads,
        embed_only=config.txt_backbone_embed_only,
        max_size_frame=config.max_size_frame,
        max_size_patch=config.max_size_patch,
        swinbert=config.swinbert,
    )
    origins = Origins(model)
    for report in load_bert(model, config):
        origins.add(report)
    if config.path_ckpt:
        own_head = classifier_name(config.type, config.task) if "fc" in heads.classifiers else ""
        report = load_checkpoint(model, Path(config.path_ckpt), config.reinit_head, own_head)
        if not (config.size_epoch or config.allow_random):
            _refuse_random_parts(report, config)
        origins.add(report)
    else:
        found = load_backbone(model, config)
        if found:
            origins.add(found)
    origins.log()
    return model


def _refuse_random_parts(report: LoadReport, config: Config) -> None:
    """Requires all weights of an evaluation in the checkpoint: metrics of random weights would mean nothing."""
    unused = () if config.enable_task_token else ("emb_task",)
    absent = [name for name in (*report.missing, *report.other_shape) if not name.startswith(unused)]
    heads = [name for name in absent if name.startswith(HEADS)]
    if absent:
        raise WeightsError(
            f"{report.source} lacks the {'head' if heads else 'weights'} to evaluate: "
            f"{', '.join((heads or absent)[:4])} would be random; give a checkpoint that was trained on this task with "
            "this script, train it (--size_epoch 1 or more), or allow it: --allow_random true"
        )


def bert_config(name: str, part: str) -> BertConfig:
    """Configuration of a BERT folder; `part` (text, fusion) selects one of the two in an exported folder."""
    folder = find_bert(name)
    exported = exported_config(folder)
    try:
        return read_bert(exported[part] if exported else _config_json(folder))
    except UNREADABLE as error:
        raise WeightsError(f"{folder / 'config.json'}: not a BERT configuration ({reason(error)})") from error


def exported_config(folder: Path) -> dict[str, Any] | None:
    """`config.json` of a folder written by `_tools/export.py`; None if it is another file or missing."""
    try:
        config = _config_json(folder) if (folder / "config.json").is_file() else None
    except ValueError:
        return None
    return config if isinstance(config, dict) and config.get("model_type") == EXPORTED else None


def _config_json(folder: Path) -> Any:
    return load_json(read_text(folder / "config.json", WeightsError))


def load_bert(model: Lavender, config: Config) -> list[LoadReport]:
    """Loads word embeddings (and text encoder) of `txt_backbone`, fusion layers and MLM head of `fusion_encoder`."""
    sources = [(config.txt_backbone, {"enc_txt.emb_txt": "bert.embeddings", "enc_txt.txt_trsfr": "bert.encoder"})]
    fusion = {"trsfr": "bert.encoder", "fc_mtm": "cls"}
    if config.fusion_encoder_rand_init:
        LOGGER.debug("fusion encoder: only its shape is taken from %s; random weights", config.fusion_encoder)
        del fusion["trsfr"]
    sources.append((config.fusion_encoder, fusion))
    reports = []
    for name, parts in sources:
        folder = find_bert(name)
        if not has_weights(folder):
            LOGGER.debug("%s holds config and vocabulary only: random weights for %s", folder, ", ".join(parts))
            continue
        if exported_config(folder):
            LOGGER.debug(
                "%s is an exported model, read by --path_ckpt: random weights for %s", folder, ", ".join(parts)
            )
            continue
        bert, info = _read_bert(folder)
        absent = {key for key in info["missing_keys"] if not key.endswith("decoder.bias")}
        for ours, theirs in parts.items():
            if not any(own.startswith(ours + ".") for own in model.state_dict()):
                continue
            given = {k: v for k, v in bert.get_submodule(theirs).state_dict().items() if f"{theirs}.{k}" not in absent}
            report = load_state(model.get_submodule(ours), given, str(folder), f"{ours}.", f"{theirs} → {ours}")
            report.log()
            reports.append(report)
    return reports


def _read_bert(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """BERT model of a folder, and transformers' report of missing weights."""
    package, state = transformers(), read_state(folder)
    try:
        config = package.BertConfig.from_dict(_config_json(folder))
        with shapes_only():
            names = set(package.BertForMaskedLM(config).state_dict())
        old = {name.replace("LayerNorm.weight", "LayerNorm.gamma") for name in names}
        names |= old | {name.removeprefix("bert.") for name in (*names, *old)}
        return package.BertForMaskedLM.from_pretrained(
            None,
            config=config,
            state_dict=plain_names(state, names, folder),
            output_loading_info=True,
            dtype=torch.float32,
        )
    except UNREADABLE as error:
        raise WeightsError(f"{folder}: its weights cannot be read ({reason(error)})") from error


def load_backbone(model: Lavender, config: Config) -> LoadReport | None:
    """Loads the pretrained weights of the backbone (`vis_backbone_init`); None if it stays random."""
    backbone = model.backbone
    found = backbone.read_weights(config)
    if found is None:
        LOGGER.debug("video backbone: random weights")
        return None
    state, source = found
    report = load_state(backbone, state, source, f"enc_img.{backbone.place}.")
    report.log()
    more = [name for name in report.left_over if name.startswith(backbone.repeated())]
    faults = [*report.other_shape, *report.missing, *more]
    if faults:  # a model with fewer or more blocks is another model, even if names fit
        raise WeightsError(
            f"{source} is not of this model: {len(faults)} weights of the video backbone do not fit (the first: "
            f"{faults[0]}); check vis_backbone_size and vis_backbone"
        )
    return report


def load_checkpoint(model: Lavender, path: Path, reinit_head: bool = False, own_head: str = "") -> LoadReport:
    """Loads a LAVENDER checkpoint, or a SwinBERT one if the model has its video encoder.

    Args:
        path: as for `read_state`.
        reinit_head: do not load heads; the model keeps its own (BERT's, or a new MLP).
        own_head: name in a multi-head checkpoint of the head that is `fc` here.
    """
    state = _our_names(model, read_state(path), path)
    names = seen_names(state)
    refuse_not_finite(state, path)
    if own_head and any(name.startswith(f"{own_head}.") for name in state):
        LOGGER.info("%s: its %s becomes fc", path, own_head)
        others = {name: tensor for name, tensor in state.items() if not name.startswith(("fc.", f"{own_head}."))}
        own = {name: tensor for name, tensor in state.items() if name.startswith(f"{own_head}.")}
        state = others | {f"fc{name.removeprefix(own_head)}": tensor for name, tensor in own.items()}
    if reinit_head:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(("fc_mtm.", "fc.", "fc_"))}
    prefix = f"enc_img.{model.backbone.place}."
    seeing = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    state |= {prefix + name: tensor for name, tensor in model.backbone.resize(seeing).items()}
    report = load_state(model, state, str(path))
    report.log()
    _refuse_poor_fit(report, str(path), names)
    return report


def _our_names(model: Lavender, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint under our names; its video encoder must be of the model's kind."""
    own = model.state_dict().keys()
    state = plain_names(state, {*own, *swinbert_names(own)}, path)
    renamed = from_swinbert(state) if is_swinbert(state) else state
    swinbert = any(name.startswith("enc_img.img_embedding.") for name in renamed)
    if swinbert and not isinstance(model.enc_img, SwinBertVideoEncoder):
        raise WeightsError(f"{path} has SwinBERT's video encoder: add --swinbert true")
    if isinstance(model.enc_img, SwinBertVideoEncoder) and not swinbert and "enc_img.emb_cls" in renamed:
        raise WeightsError(f"{path} has LAVENDER's own video encoder: set --swinbert false")
    return renamed


def _refuse_poor_fit(report: LoadReport, source: str, names: str) -> None:
    """Raises WeightsError if the file belongs to another model; missing heads of another task are accepted."""
    heads = (*HEADS, "fc_mtm.")
    other_shape, missing, loaded = (
        [name for name in names if not name.startswith(heads)]
        for names in (report.other_shape, report.missing, report.loaded)
    )
    if other_shape or len(missing) > len(loaded):
        first = [*other_shape, *missing][0]
        raise WeightsError(
            f"{source} is not of this model: {len(other_shape)} weights are of another shape, {len(missing)} are "
            f"missing (the first: {first}); check vis_backbone_size, vis_backbone, txt_backbone and fusion_encoder; "
            f"{names}"
        )


def weights_digest(model: nn.Module) -> str:
    """Digest of the weights: equal weights have equal digests, whatever their file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
