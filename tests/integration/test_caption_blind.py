"""Captioning of a split without references, as blind tests have it."""

import re
import shutil
from pathlib import Path

KIT = Path(__file__).parents[1] / "conformance" / "kit"
WHICH = shutil.which
YAMLS = tuple(word for split in ("train", "val", "test") for word in (f"--{split}_yaml", f"CAP/{split}.yaml"))


def test_videos_without_references(train_here, kit_weights, monkeypatch, tmp_path: Path):
    """They are captioned like the others; the metrics are left out, and a line says so."""
    monkeypatch.setattr(shutil, "which", lambda name, *more, **other: name != "java" and WHICH(name, *more, **other))
    cap = Path(shutil.copytree(KIT / "data" / "CAP", tmp_path / "data" / "CAP", copy_function=shutil.copyfile))
    weights = Path(shutil.copy(kit_weights("captioning"), tmp_path / "ckpt.pt"))

    def evaluate():
        words = ("--path_ckpt", weights, "--size_epoch", 0, "--size_frame", 2, "--max_gen_length", 8)
        ground = {"data": cap.parent, "released": ("--config", "_args/args_msrvtt-cap.json", *YAMLS)}
        return train_here(*words, task="main_caption.py", **ground).check_passed()

    known = evaluate()
    written = {path: path.read_text() for path in tmp_path.glob("*.pred.*.tsv")}
    assert len(written) == 2
    for path in [*tmp_path.glob("*.pred.*"), cap / "test.caption.lineidx", cap / "test.caption_coco_format.json"]:
        path.unlink(missing_ok=True)
    videos = [record["video"] for record in known.predictions("test")]
    (cap / "test.caption.tsv").write_text("".join(f"{video}\t[]\n" for video in videos))
    lines = (cap / "test.yaml").read_text().splitlines(True)
    (cap / "test.yaml").write_text("".join(line for line in lines if "coco_format" not in line))
    blind = evaluate()
    assert {path: path.read_text() for path in written} == written
    assert blind.results["zero_shot"]["val"] == known.results["zero_shot"]["val"]
    assert known.results["zero_shot"]["test"]
    assert blind.results["zero_shot"]["test"] == {}
    assert re.search("test.*references", blind.log)
