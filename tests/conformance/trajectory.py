"""Trains the kit's micro model on its QA batch for a few steps; writes losses, gradient norms and some parameters.

python tests/conformance/trajectory.py optimizer|optimizer_decay torch|deepspeed OUT.json
"""

import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from conftest import Kit  # noqa: E402

from lavender.config.schema import Config  # noqa: E402
from lavender.data.frames import decode_image, evaluation_indices  # noqa: E402
from lavender.data.transforms import ClipTransform  # noqa: E402
from lavender.data.tsv import TSVReader, split_columns  # noqa: E402
from lavender.engine.engines import build_engine  # noqa: E402
from lavender.engine.optim import build_optimizer, set_learning_rates  # noqa: E402
from lavender.runtime import distributed  # noqa: E402
from lavender.runtime.launchers import leave  # noqa: E402
from lavender.tasks.base import labelled_loss, select_labelled  # noqa: E402


def question_batch(kit: Kit) -> dict:
    """Test items 0–3 of `toy-qa`: frames from the TSV, tokens from the kit."""
    questions = json.loads((kit.data / "txt_toy-qa.json").read_text())["test"][:4]
    reader = TSVReader(kit.data / "img_toy.tsv")
    rows = {reader.video_id(row): reader.row(row) for row in range(len(reader))}
    transform = ClipTransform(["img_center_crop"], 224, training=False)
    clips, present = [], []
    for question in questions:
        fields = rows.get(question["video"])
        frames = [torch.zeros(5, 3, 224, 224, dtype=torch.uint8)]
        if fields:
            images = split_columns(fields, "kit")[2]
            chosen = [decode_image(images[i], "kit") for i in evaluation_indices(len(images), 5)]
            frames = [transform(chosen, None)]
        clips += frames
        present.append(fields is not None)
    case = kit.case("qaoe_mlm_plain")
    return {
        "img": torch.stack(clips),
        "present": torch.tensor(present),
        "ids": torch.from_numpy(case["txt"][:4]),
        "mask": torch.from_numpy(case["mask"][:4]),
        "labels": torch.from_numpy(case["mask_ans"][:4]),
    }


def question_loss(model, batch) -> dict:
    video = model.encode_video(batch["img"], batch["present"])
    text = model.encode_text(batch["ids"], batch["mask"])
    states, labels = select_labelled(model.fuse(video, text)[:, -text.states.shape[1] :], batch["labels"])
    return {"loss": labelled_loss(model.fc_mtm(states), labels)}


def main(name: str, engine_name: str, out: str) -> None:
    kit = Kit()
    case = kit.case(name)
    device = torch.device("cpu")
    config = Config(size_batch=4, max_grad_norm=1.0, deepspeed=engine_name == "deepspeed", precision="fp32")
    distributed.start(device)
    model = kit.model()
    for unused in (model.enc_img.emb_odr, model.emb_task):
        unused.requires_grad_(False)
    optimizer = build_optimizer(model, lr=1e-3, backbone_lr_mul=0.5, decay=float(case.get("decay", 1e-3)))
    engine = build_engine(model, optimizer, config, device)
    batch = question_batch(kit)
    losses, norms = [], []
    for step in range(len(case["losses"])):
        set_learning_rates(engine.optimizer, step, int(case["max_iter"]))
        losses.append(engine.train_batch(question_loss, batch)["loss"].item())
        norms.append(engine.grad_norm)
    state = engine.weights()
    names = [key.removeprefix("after_10__") for key in case if key.startswith("after_10__")]
    found = {"engine": engine.name, "losses": losses, "grad_norms": norms}
    found["parameters"] = {key: state[key].tolist() for key in names}
    if distributed.is_main():
        Path(out).write_text(json.dumps(found))
    distributed.stop()
    if distributed.is_launched():
        leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
