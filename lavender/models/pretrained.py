"""Export of weights: a folder of safetensors and configuration, loaded by one line, convertible back to `.pt`.

A folder holds `model.safetensors` (the checkpoint's tensors under their names), `config.json` (sizes, heads, both BERT
configurations), the vocabulary, and the run's `args.json`, if any. It needs no other file and no network.
"""

import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from lavender.config.load import from_dict, read_object
from lavender.config.schema import Config
from lavender.models.backbones.table import build_backbone, describe_backbone
from lavender.models.bert_config import BertConfig, read_bert
from lavender.models.checkpoint_file import UNREADABLE, State, reason, refuse_not_finite
from lavender.models.checkpoint_folder import WEIGHTS_FILE, read_state
from lavender.models.convert import from_swinbert, is_swinbert, model_names
from lavender.models.lavender import Heads, Lavender
from lavender.models.shapes import shapes_only
from lavender.models.weights import EXPORTED, KNOWN_EXTRAS, SHARED_BIAS, bert_config, exported_config, load_state
from lavender.runtime.errors import ConfigError, WeightsError
from lavender.runtime.files import atomic_file, looked_from
from lavender.text.bert_folder import bert_of

CONFIG_FILE, ARGUMENTS_FILE = "config.json", "args.json"
VOCABULARY = ("vocab.txt", "tokenizer_config.json")


@dataclass
class Description:
    """All values needed to build a model without its weights; the fields are those of `config.json`."""

    backbone: dict[str, Any]  # options of Config that build it; stored at the top level of the file
    max_size_frame: int
    max_size_patch: int
    swinbert: bool
    txt_backbone_embed_only: bool
    mlm: bool
    task_tokens: bool
    classifiers: dict[str, int]  # name → number of classes
    text: dict[str, Any]  # BERT configurations
    fusion: dict[str, Any]
    unused: list[str] = field(default_factory=list)  # tensors of the checkpoint that the model does not use

    def build(self) -> Lavender:
        """Builds the model with random weights."""
        text, fusion = (read_bert(part) for part in (self.text, self.fusion))
        return Lavender(
            build_backbone(Config(**self.backbone)),
            text,
            fusion,
            Heads(self.mlm, self.task_tokens, self.classifiers),
            embed_only=self.txt_backbone_embed_only,
            max_size_frame=self.max_size_frame,
            max_size_patch=self.max_size_patch,
            swinbert=self.swinbert,
        )

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> "Description":
        """Reads a description from the object in a `config.json`."""
        own = {item.name for item in fields(cls)} - {"backbone"}
        backbone = {name: value for name, value in written.items() if name not in own | {"model_type"}}
        return cls(backbone, **{name: value for name, value in written.items() if name in own})

    def to_json(self) -> dict[str, Any]:
        """Object for `config.json`."""
        written = asdict(self)
        return {"model_type": EXPORTED, **written.pop("backbone"), **written}


# --- in ---------------------------------------------------------------------------------------------------------------


def load_pretrained(folder: str | Path) -> Lavender:
    """Loads a folder of `_tools/export.py` as a model in evaluation mode; needs no network.

    Raises:
        WeightsError: the folder is missing or not an exported one, or the weights do not match its `config.json`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder{looked_from(folder)}; make one of a checkpoint: _tools/export.py")
    written = exported_config(folder)
    if written is None:
        raise WeightsError(f"{folder}: no {CONFIG_FILE} of an exported model there; make one: _tools/export.py")
    try:
        description = Description.from_json(written)
        with shapes_only():  # sizes in a damaged file may exceed any memory
            own = description.build().state_dict()
    except (*UNREADABLE, ConfigError) as error:
        raise WeightsError(f"{folder / CONFIG_FILE}: describes no model ({reason(error)}); export it again") from error
    state = read_state(folder)
    for name in description.unused:
        state.pop(name, None)
    if other := [name for name, tensor in state.items() if name in own and own[name].shape != tensor.shape]:
        raise WeightsError(
            f"{folder / WEIGHTS_FILE}: {other[0]} is not of the shape that {CONFIG_FILE} says; export it again"
        )
    model = description.build()
    report = load_state(model, state, str(folder))
    faults = [*report.missing, *report.other_shape, *report.resized, *report.left_over]
    if faults:
        raise WeightsError(
            f"{folder / WEIGHTS_FILE}: {len(faults)} weights are not as {CONFIG_FILE} says, the first: {faults[0]}; "
            "export it again"
        )
    return model.eval()


# --- out --------------------------------------------------------------------------------------------------------------


def export(
    checkpoint: Path,
    output: Path,
    txt_backbone: str = "",
    fusion_encoder: str = "",
    vis_backbone: str = "",
    size_img: int = 0,
) -> Description:
    """Writes a checkpoint as a folder; values missing from `args.json` are derived from the tensors.

    Args:
        checkpoint: a LAVENDER or SwinBERT checkpoint; the latter is written under our names.
        txt_backbone, fusion_encoder: BERT folders or names, instead of those in `args.json`.
        vis_backbone, size_img: options, instead of those in `args.json`.

    Raises:
        WeightsError: no checkpoint, or not of these BERTs.
    """
    arguments = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / ARGUMENTS_FILE
    named = {"txt_backbone": txt_backbone, "fusion_encoder": fusion_encoder}
    trained = trained_options(arguments, {option: name for option, name in named.items() if name})
    trained.vis_backbone, trained.size_img = vis_backbone or trained.vis_backbone, size_img or trained.size_img
    state, description = read_checkpoint(checkpoint, trained)
    output.mkdir(parents=True, exist_ok=True)
    vocabulary = bert_of(trained, "txt_backbone")
    for source in (*(vocabulary / name for name in VOCABULARY), arguments):
        if source.is_file():
            _copy(source, output / source.name)
    own = {name: tensor.contiguous().clone() for name, tensor in state.items()}  # own storage for each name
    with atomic_file(output / WEIGHTS_FILE) as file:
        file.write(save(own, {"format": "pt"}))
    with atomic_file(output / CONFIG_FILE) as file:  # written last: it marks a complete folder
        file.write(json.dumps(description.to_json(), indent=2).encode())
    return description


def trained_options(arguments: Path, others: Mapping[str, Any]) -> Config:
    """Options in the `args.json` beside a checkpoint; defaults if there is none.

    Args:
        others: overriding options.

    Raises:
        ConfigError: a value is invalid.
    """
    written = read_object(arguments) if arguments.is_file() else {}
    config = from_dict({**written, **others}, str(arguments), strict=False)
    own = (config.given.keys() & written.keys()) - others.keys()
    config.given |= dict.fromkeys(own, f"{arguments} (beside the checkpoint)")
    return config


def read_checkpoint(checkpoint: Path, trained: Config) -> tuple[State, Description]:
    """Reads the tensors of a checkpoint under our names, and a description of its model.

    Args:
        checkpoint: file or folder of a LAVENDER or SwinBERT checkpoint.
        trained: options of the run that wrote it, for its BERTs and, if needed, its backbone.

    Raises:
        WeightsError: no checkpoint, or not of these BERTs.
    """
    state = model_names(read_state(checkpoint), checkpoint)
    refuse_not_finite(state, checkpoint)
    state = from_swinbert(state) if is_swinbert(state) else state
    for option in ("txt_backbone", "fusion_encoder"):
        bert_of(trained, option)  # raises if it is missing
    berts = bert_config(trained.txt_backbone, "text"), bert_config(trained.fusion_encoder, "fusion")
    return state, describe(state, checkpoint, *berts, trained)


def describe(
    state: State, source: Path, text: BertConfig, fusion: BertConfig, trained: Config | None = None
) -> Description:
    """Describes the model of a checkpoint by the names and shapes of its tensors.

    Args:
        trained: options of the run that wrote it, if known; a backbone may need them.

    Raises:
        WeightsError: not a checkpoint of this model, or the BERTs differ.
    """
    places, frames = (state.get(f"enc_img.{name}") for name in ("emb_pos", "emb_len"))
    description = Description(
        backbone=describe_backbone(state, trained or Config(), source),
        max_size_frame=frames.shape[1] if frames is not None else 0,
        max_size_patch=math.isqrt(places.shape[2] - 1) if places is not None else 0,
        swinbert="enc_img.img_embedding.weight" in state,
        txt_backbone_embed_only=not any(name.startswith("enc_txt.txt_trsfr.") for name in state),
        mlm=any(name.startswith("fc_mtm.") for name in state),
        task_tokens="emb_task" in state,
        classifiers=_classifiers(state),
        text=text.to_dict(),
        fusion=fusion.to_dict(),
    )
    with shapes_only():  # names and shapes only
        own = description.build().state_dict()
    own = {name: tensor for name, tensor in own.items() if not name.endswith(KNOWN_EXTRAS)}
    given = set(SHARED_BIAS if any(name in state for name in SHARED_BIAS) else ()) | state.keys()
    missing = [name for name in own if name not in given]
    other = [name for name, tensor in state.items() if name in own and own[name].shape != tensor.shape]
    if missing or other:
        raise WeightsError(
            f"{source} is not of this model: {len(missing)} weights are missing and {len(other)} of another shape (the "
            f"first: {[*missing, *other][0]}); name its BERTs with --txt_backbone and --fusion_encoder"
        )
    description.unused = [name for name in state if name not in own and not name.endswith(KNOWN_EXTRAS)]
    return description


def _classifiers(state: State) -> dict[str, int]:
    """Name → number of classes of the task-specific heads, whose last layer is number 3."""
    heads = ((re.fullmatch(r"(fc|fc_\w+)\.3\.weight", name), tensor) for name, tensor in state.items())
    return {match[1]: len(tensor) for match, tensor in heads if match}


def to_pt(folder: Path, output: Path) -> None:
    """Writes an exported folder as a checkpoint in the released layout: same tensors, same names.

    Raises:
        WeightsError: the folder is not an exported one.
    """
    if exported_config(folder) is None:
        raise WeightsError(f"{folder}: no {CONFIG_FILE} of an exported model there")
    state = read_state(folder)
    first, second = (state.get(name) for name in SHARED_BIAS)
    if first is not None and second is not None and torch.equal(first, second):
        state[SHARED_BIAS[0]] = second  # one tensor under two names, as released: stored once
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(output) as file:
        torch.save(state, file)
    arguments = folder / ARGUMENTS_FILE
    if arguments.is_file() and not (output.parent / ARGUMENTS_FILE).exists():
        _copy(arguments, output.parent / ARGUMENTS_FILE)


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as reader, atomic_file(target) as file:
        shutil.copyfileobj(reader, file)
