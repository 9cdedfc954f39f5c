"""What a run reports, and where."""

import json
from pathlib import Path

import numpy as np
import pytest

from lavender.config.load import load_config
from lavender.engine.trackers import TRACKERS, Tracker, Trackers, draw, record_line
from lavender.runtime.errors import ConfigError

CLIPS = [np.full((2, 64, 96, 3), shade, np.uint8) for shade in (0, 200)]
RECORDS = [{"question": "what?", "answer": "red", "prediction": "blue"}, {"question": "who?", "prediction": "dog"}]


def test_a_picture_of_examples():
    sheet = draw([(clip, record_line(record)) for clip, record in zip(CLIPS, RECORDS, strict=True)])
    assert sheet.shape == (2 * 130, 480, 3)
    assert (sheet[50, 50], sheet[180, 50]) == (pytest.approx([0, 0, 0]), pytest.approx([200, 200, 200]))
    assert sheet[112:130].min() < 128, "a text stands under the frames"
    assert record_line(RECORDS[0]) == "question: what?   answer: red   prediction: blue"


def test_tensorboard(tmp_path: Path):
    trackers = Trackers(["tensorboard"], tmp_path, {"lr": 0.5})
    assert not list(tmp_path.iterdir())
    trackers.scalar("train/loss", 1.0, 1)
    trackers.examples("val/examples", CLIPS, RECORDS, 1)
    trackers.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.value for event in events.Scalars("train/loss")] == [1.0]
    assert len(events.Images("val/examples")) == 1
    (options,) = events.Tensors("options/text_summary")
    assert b'"lr": 0.5' in options.tensor_proto.string_val[0]


def test_none(tmp_path: Path):
    trackers = Trackers([], tmp_path, {})
    trackers.scalar("a", 1.0, 1)
    trackers.examples("b", CLIPS, RECORDS, 1)
    trackers.close()
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_fails_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log):
    class Broken(Tracker):
        def __init__(self, *_: object):
            self.calls = 0

        def scalar(self, name: str, value: float, step: int) -> None:
            self.calls += 1
            raise OSError("disk full")

        picture = close = scalar  # type: ignore[assignment]

    monkeypatch.setitem(TRACKERS, "tensorboard", Broken)
    trackers = Trackers(["tensorboard"], tmp_path, {})
    for step in range(3):
        trackers.scalar("a", 1.0, step)
    trackers.close()
    assert log.text.count("disk full") == 1


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wandb = pytest.importorskip("wandb")
    for name, value in {"MODE": "offline", "DIR": "", "CONFIG_DIR": str(tmp_path), "CACHE_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    folder = tmp_path / "_run_1"
    folder.mkdir()
    trackers = Trackers(["wandb"], folder, {"lr": 0.5})
    trackers.scalar("train/loss", 1.25, 1)
    trackers.examples("val/examples", CLIPS, RECORDS, 1)
    trackers.close()
    wandb.teardown()  # as at the end of the process: it writes out what its own process holds
    (record,) = folder.rglob("run-*.wandb")
    content = record.read_bytes()
    assert b"train/loss" in content
    assert b"1.25" in content
    assert list(folder.rglob("*.png")), "the picture"


def test_options():
    words = ["--config", "_args/args_msvd-qa.json"]
    assert load_config(words).report_to == ["tensorboard"]
    assert load_config([*words, "--report_to", "tensorboard,wandb"]).report_to == ["tensorboard", "wandb"]
    assert load_config([*words, "--report_to", "[]"]).report_to == []
    with pytest.raises(ConfigError, match="report_to"):
        load_config([*words, "--report_to", "tensorbord"])


def test_wandb_that_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lavender.config.checks.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        load_config(["--config", "_args/args_msvd-qa.json", "--report_to", "wandb"])


def test_the_options_are_kept(tmp_path: Path):
    assert json.loads(json.dumps(load_config(["--config", "_args/args_msvd-qa.json"]).to_dict()))["report_to"] == [
        "tensorboard"
    ]
