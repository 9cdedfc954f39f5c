"""Configuration of each task of a new data set, and the commands that run it."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavender.prepare.texts import TaskFiles
from lavender.runtime.files import atomic_file

SCRIPTS = {  # kind of task → scripts, MLM variant first
    "retrieval": ("main_retrieval_tsv.py", "main_retrieval_task_specific.py"),
    "captioning": ("main_caption.py",),
    "pretrain": ("main_pretrain_mlm.py", "main_pretrain_task_specific.py"),
    "qaoe": ("main_qaoe_mlm.py", "main_qaoe_task_specific.py"),
    "qamc": ("main_qamc_mlm_gen_ans_idx.py", "main_qamc_task_specific.py"),
}
MODEL = {  # values of the released configurations
    "vis_backbone": "vidswin",
    "vis_backbone_size": "base",
    "vis_backbone_init": "3d",
    "kinetics": 600,
    "txt_backbone": "bert-base-uncased",
    "txt_backbone_embed_only": True,
    "fusion_encoder": "bert-base-uncased",
    "path_ckpt": "",
}
TRAINING = {"lr": 2e-5, "decay": 1e-3, "max_grad_norm": 1.0, "use_checkpoint": True, "deepspeed": True}


def write_config(task: TaskFiles, data: Path, folder: Path, frames: dict[str, Any], lengths: Sequence[int]) -> Path:
    """Writes `args_<task>.json`.

    Args:
        data: folder of the text files; frames: options of the frame source; lengths: number of stored frames per clip.
    """
    fewest, most = min(lengths), max(lengths)
    size_frame = min(most, 4 if task.kind in ("captioning", "pretrain") else 5)
    content = {
        **{"type": task.kind, "task": task.name, "data_dir": str(data.resolve()), **frames},
        **{"size_img": 224, "size_frame": size_frame},
        **({"repeat_frames": True} if fewest < size_frame else {}),
        **task.options,
        **TRAINING,
        **MODEL,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"args_{task.name}.json"
    with atomic_file(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    return path


def commands(task: TaskFiles, config: Path) -> list[str]:
    """Training commands: one process, then 8 GPUs. A pretrained checkpoint is named, but optional."""
    words = f"{SCRIPTS[task.kind][0]} --config {shlex.quote(str(config.resolve()))}"
    words += "" if task.kind == "pretrain" else " --path_ckpt CHECKPOINT"
    return [f"python {words}", f"torchrun --nproc_per_node=8 {words}"]
