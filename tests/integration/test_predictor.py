"""A predictor says of a clip what evaluation says of it, for every task."""

import base64
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from PIL import Image

from lavender import Predictor
from lavender.data.sources.tsv import TSVSource
from lavender.data.tsv import TSVReader, split_columns
from lavender.inference.clips import Video
from lavender.models.pretrained import export
from lavender.runtime.errors import LavenderError, WeightsError
from tests.conftest import KIT, MICRO, ROOT, Run

CLOSE = {"rel": 1e-4, "abs": 1e-6}
LIVELY = ("--size_epoch", 1, "--lr", 1e-3)


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(params=["arrays", pytest.param("folders of images", marks=pytest.mark.slow)])
def clip(request, kept_questions: Path, tmp_path: Path) -> Callable[[str], Video]:
    """`clip(video_id)`: the frames of the toy TSV, in one of the forms in which people have them."""
    source = TSVSource(kept_questions / "img_toy.tsv")

    def give(video_id: str) -> Video:
        video = source.find(video_id)
        if request.param == "arrays":
            return np.stack(video.frames(range(len(video))))
        folder = tmp_path / "clips" / video_id
        if not folder.is_dir():
            folder.mkdir(parents=True)
            reader = TSVReader(kept_questions / "img_toy.tsv")
            rows = (split_columns(reader.row(number), "") for number in range(len(reader)))
            (images,) = (images for name, _, images in rows if name == video_id)
            for number, image in enumerate(images):
                (folder / f"{number}.jpg").write_bytes(base64.b64decode(image))
        return folder

    return give


def check_answers(predictor: Predictor, run: Run, clip: Callable[[str], Video]) -> None:
    records = [record for record in run.predictions("test") if record["top"]]
    assert records
    results = predictor.answer([clip(record["video"]) for record in records], [one["question"] for one in records])
    for record, result in zip(records, results, strict=True):
        wanted = [(one["answer"], one["probability"]) for one in record["top"]]
        assert [one.probability for one in result.guesses] == pytest.approx([chance for _, chance in wanted], **CLOSE)
        assert result.text == record["prediction"]
        assert result.question == record["question"]
        assert len(result.frames) == 5


@pytest.mark.parametrize(
    "script", [pytest.param("main_qaoe_mlm.py", marks=pytest.mark.slow), "main_qaoe_task_specific.py"]
)
def test_answers(ask, clip, script: str):
    run = ask(script, "msvd-qa", *LIVELY, "--size_vocab", 4).check_passed()
    check_answers(Predictor.from_pretrained(run.folder, device="cpu"), run, clip)


def test_a_checkpoint_and_an_exported_folder(ask, clip, tmp_path: Path):
    run = ask("main_qaoe_mlm.py", "msvd-qa", *LIVELY, "--enable_prompt", "true").check_passed()
    (checkpoint,) = run.folder.glob("ckpt_*_1.pt")
    check_answers(Predictor.from_pretrained(checkpoint, device="cpu"), run, clip)
    export(checkpoint, tmp_path / "exported")
    check_answers(Predictor.from_pretrained(tmp_path / "exported", device="cpu"), run, clip)


@pytest.mark.parametrize(
    ("script", "config"),
    [
        ("main_qamc_mlm_gen_ans_idx.py", "tgif-action"),
        pytest.param("main_qamc_task_specific.py", "tgif-action", marks=pytest.mark.slow),
        pytest.param("main_retmc_mlm_head.py", "lsmdc-mc --dataset_type retmc", marks=pytest.mark.slow),
        ("main_retmc_task_specific.py", "lsmdc-mc --dataset_type retmc"),
    ],
)
def test_choices(ask, clip, script: str, config: str):
    name, *options = config.split()
    run = ask(script, name, *options, *LIVELY).check_passed()
    predictor = Predictor.from_pretrained(run.folder, device="cpu")
    for record in run.predictions("test")[:3]:
        result = predictor.choose(clip(record["video"]), record["question"], record["options"])
        assert result.number == record["prediction"]
        probs = [one["probability"] for one in record["top"]]
        assert [one.probability for one in result.guesses][: len(probs)] == pytest.approx(probs, **CLOSE)


def start_toy(train_here: Callable[..., Run], script: str, config: str, *options: object) -> Run:
    words: tuple[str, ...] = ("--config", f"_args/args_{config}.json", *map(str, options))
    return train_here(
        *LIVELY, "--size_batch", 2, task=script, data=KIT / "data", released=words, small=MICRO
    ).check_passed()


def test_captions(train_here, clip, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)  # METEOR without its Java: seconds less
    yamls = [f"--{split}_yaml=CAP/{split}.yaml" for split in ("train", "val", "test")]
    run = start_toy(train_here, "main_caption.py", "msrvtt-cap", *yamls, "--num_beams", 2, "--num_keep_best", 2)
    predictor = Predictor.from_pretrained(run.folder, device="cpu")
    for record in run.predictions("test")[:2]:
        result = predictor.caption(clip(record["video"]), num_beams=2, keep=2)
        assert [one.text for one in result.guesses] == [one["caption"] for one in record["captions"]]
        confidences = [one["conf"] for one in record["captions"]]
        assert [one.probability for one in result.guesses] == pytest.approx(confidences, **CLOSE)


@pytest.mark.parametrize(
    "script", ["main_retrieval_tsv.py", pytest.param("main_retrieval_task_specific.py", marks=pytest.mark.slow)]
)
def test_matches(train_here, clip, script: str):
    words = ("--dataset", "toy", "--task", "toy-retrieval")
    run = start_toy(train_here, script, "msrvtt-retrieval", *words)
    predictor = Predictor.from_pretrained(run.folder, device="cpu")
    records = run.predictions("test")
    videos = [clip(record["video"]) for record in records]
    found = predictor.search([record["prediction"] for record in records], videos, k=len(videos))
    for number, (record, one) in enumerate(zip(records, found, strict=True)):
        (score,) = (hit.score for hit in one.hits if hit.number == number)
        assert score == pytest.approx(record["score"], rel=1e-3, abs=1e-5)
        assert [hit.score for hit in one.hits] == sorted((hit.score for hit in one.hits), reverse=True)
    texts = [record["caption"] for record in records]
    match = predictor.match(videos[0], texts)
    assert sorted(one.text for one in match.guesses) == sorted(texts)
    assert predictor.features(videos[0]).shape[1] == 64


def test_a_checkpoint_without_a_head(ask, clip):
    run = ask("main_qaoe_task_specific.py", "msvd-qa", *LIVELY, "--size_vocab", 4).check_passed()
    predictor = Predictor.from_pretrained(run.folder, device="cpu")
    video = clip(run.predictions("test")[0]["video"])
    with pytest.raises(WeightsError, match=r"qaoe.*captioning"):
        predictor.caption(video)
    own = Predictor.from_pretrained(run.folder, device="cpu", answers=["w", "x", "y", "z"])
    assert own.answer(video, "who").text in "wxyz"


def _refuse(name: str, **_: object) -> None:
    raise OSError("no network")


def test_bad_input(ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", _refuse)
    run = ask("main_qaoe_mlm.py", "msvd-qa", "--size_epoch", 1).check_passed()
    predictor = Predictor.from_pretrained(run.folder, device="cpu")
    frames = np.zeros((3, 40, 60, 3), np.uint8)
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "zero.mp4").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    cases: list[tuple[Any, str, list[str]]] = [
        (tmp_path / "gone.mp4", "who", ["gone.mp4"]),
        (tmp_path / "text.mp4", "who", ["text.mp4"]),
        (tmp_path / "zero.mp4", "who", ["zero.mp4"]),
        (tmp_path / "empty", "who", ["empty", "image"]),
        ("https://example.org/a.mp4", "who", ["address"]),
        (b"no video", "who", ["bytes"]),
        (frames.astype(np.float32), "who", ["float32", "uint8"]),
        (frames[0], "who", ["(40, 60, 3)"]),
        (frames, "  ", ["question"]),
        ([frames, frames], ["a", "b", "c"], ["2 videos", "3 questions"]),
        ([], "who", ["no video"]),
    ]
    for video, question, words in cases:
        with pytest.raises(LavenderError) as caught:
            predictor.answer(video, question)
        assert [word for word in words if word not in str(caught.value)] == []
    with pytest.raises(LavenderError, match="two or more"):
        predictor.choose(frames, "who", ["one"])
    with pytest.raises(LavenderError, match=r"nowhere.*hub"):
        Predictor.from_pretrained("nobody/nowhere")
    with pytest.raises(LavenderError, match="size_frames"):
        Predictor.from_pretrained(run.folder, size_frames=3)
    images = [Image.fromarray(frame) for frame in frames]
    assert predictor.caption(images).text == predictor.caption(frames).text  # a list of images is one video
    assert predictor.match(list(frames), ["a dog"]) == predictor.match(frames, ["a dog"])
    assert [one.text for one in predictor.answer([images, frames], "who")] == [predictor.answer(frames, "who").text] * 2
    with pytest.raises(LavenderError, match="generator"):
        predictor.features(frame for frame in frames)
    result = predictor.answer(frames, "who")
    assert "<img" in result._repr_html_()
    assert "who" in str(result)
