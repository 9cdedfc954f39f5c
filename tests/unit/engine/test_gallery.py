import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lavender.config.schema import Config
from lavender.engine import gallery
from lavender.engine.gallery import FeatureStore, encode_videos, evaluate, evaluate_gallery, score_pairs
from lavender.engine.gallery_output import ScoreFile, fingerprint, write_results
from lavender.engine.output import RunFolder
from lavender.models.all_pairs import encode_texts
from lavender.runtime import distributed
from lavender.runtime.errors import DataError, TrainingError, WeightsError
from lavender.tasks.retrieval import RetrievalTask, RetrievalTaskSpecificTask

CPU = torch.device("cpu")
TEXTS = [("vid4", "a red circle"), ("vid0", "a dog"), ("vid4.mp4", "it moves to the left side"), ("vid2", "a dog")]
TEXTS += [("vid1", "a blue square moves"), ("vid3", "a cat"), ("vid0", "red"), ("vid3", "a red circle")]
PAIRS = 8 * 5


@pytest.fixture
def make(config: Config, kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RetrievalTask]:
    """8 texts of 5 lengths and 5 videos, two of them with two texts, in tiles of 2; a checkpoint by name alone."""
    monkeypatch.setattr(gallery, "TILE", 2)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "ckpt_9.pt").write_bytes(b"weights")

    def build(texts: list[tuple[str, str]] = TEXTS, **changes: Any) -> RetrievalTask:
        items = [{"video": video, "caption": caption} for video, caption in texts]
        (tmp_path / "txt_mine.json").write_text(json.dumps({"test": items}))
        paths = {"txt_dir": tmp_path, "path_output": tmp_path / "out", "path_ckpt": tmp_path / "weights" / "ckpt_9.pt"}
        options = {"type": "retrieval", "dataset": "toy", "task": "mine", "data_dir": kit / "data", **paths}
        return RetrievalTask(replace(config, size_img=32, **{**{k: str(v) for k, v in options.items()}, **changes}))

    return build


@pytest.fixture
def score(make, make_model) -> Callable[..., np.ndarray]:
    """Encodes and scores a task's gallery: the values of this process, NaN elsewhere."""

    def run(task: RetrievalTask | None = None, size_pairs: int = 3) -> np.ndarray:
        task = task or make()
        model = make_model(task.heads)
        with torch.inference_mode():
            share = encode_videos(model, task.gallery, CPU, "fp32")
            groups = encode_texts(model, (task.encode_caption(text) for text, _ in task.gallery.captions), CPU, "fp32")
            shape = (len(task.gallery.captions), len(task.gallery))
            file = ScoreFile(task.config, "name", shape, share.columns)
            score_pairs(task, model, share, groups, file, CPU, size_pairs)
        return file.values

    return run


def scored(monkeypatch: pytest.MonkeyPatch, stop_after: int = 1000) -> list[int]:
    """The sizes of the blocks that are scored from now on; after some blocks the user interrupts."""
    sizes: list[int] = []
    plain = RetrievalTask.pair_scores

    def watch(task, model, video, text):
        if len(sizes) == stop_after:
            raise KeyboardInterrupt
        sizes.append(len(video.states))
        return plain(task, model, video, text)

    monkeypatch.setattr(RetrievalTask, "pair_scores", watch)
    return sizes


def as_process(monkeypatch: pytest.MonkeyPatch, rank: int, of: int) -> None:
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world_size", lambda: of)


def saved(task: RetrievalTask, name: str = "process_0") -> Path:
    return Path(task.config.path_output) / "_retrieval_so_far_name" / f"{name}.npy"


# --- scores -----------------------------------------------------------------------------------------------------------


def test_the_scores_do_not_depend_on_how_many_pairs_are_fused_at_once(score, monkeypatch):
    alone, sizes = score(size_pairs=1), scored(monkeypatch)
    assert len(np.unique(alone.round(4))) == PAIRS - 2 * 5, "all differ but those of two texts that stand twice"
    for size in (2, 5, 1000, 0):
        sizes.clear()
        assert np.abs(score(size_pairs=size) - alone).max() < 1e-6
        assert sum(sizes) == PAIRS
        assert max(sizes) <= (size or gallery.PAIRS_AT_ONCE["cpu"])


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_any_number_of_processes_finds_the_same_to_the_last_bit(score, monkeypatch, processes: int):
    alone, together = score(), np.full((8, 5), np.nan, dtype=np.float32)
    for rank in range(processes):
        as_process(monkeypatch, rank, processes)
        values = score()
        mine = ~np.isnan(values)
        assert np.isnan(together[mine]).all(), "a pair is scored once"
        together[mine] = values[mine]
    assert np.array_equal(together, alone)


def test_scores_that_are_not_finite_end_the_evaluation(score, make, monkeypatch):
    monkeypatch.setattr(RetrievalTask, "pair_scores", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(TrainingError, match=r"scores are NaN or Inf: .*ckpt_9\.pt"):
        score()


# --- going on after a stop --------------------------------------------------------------------------------------------


def test_what_is_saved_is_not_scored_again(score, make, monkeypatch, log):
    task, whole = make(), score(size_pairs=1)
    done = whole.copy()
    done[1:, 2:] = np.nan  # parts of blocks and of tiles
    saved(task).parent.mkdir(parents=True)
    np.save(saved(task, "process_0"), np.where(np.arange(5) < 1, done, np.nan).astype(np.float32))
    np.save(saved(task, "process_7"), np.where(np.arange(5) < 1, np.nan, done).astype(np.float32))
    sizes = scored(monkeypatch)
    assert np.array_equal(score(task, size_pairs=1), whole)
    assert sizes == [1] * 7 * 3
    assert "19 of 40 pairs are scored" in log.text


def test_it_saves_every_few_minutes(score, make, monkeypatch):
    task = make(save_minutes=1e-9)
    as_process(monkeypatch, 1, 2)
    with monkeypatch.context() as patch:
        patch.setattr(ScoreFile, "__exit__", lambda *_: None)  # killed: nothing is saved on the way out
        values = score(task)
    assert np.array_equal(np.load(saved(task, "process_1")), values, equal_nan=True)


UNREADABLE = [b"PK\x03\x04junk", b"\x93NUMPY\x01\x00v\x00{'descr'", b"", b"scores", np.full((8, 5), None)]
FOREIGN = [np.ones((5, 8), np.float32), np.ones((8, 5))]


@pytest.mark.parametrize("number", range(len(UNREADABLE) + len(FOREIGN)))
def test_a_file_that_cannot_be_used_is_named_and_ignored(score, make, log, number: int):
    whole, path, content = score(), saved(make(), "process_3"), [*UNREADABLE, *FOREIGN][number]
    path.parent.mkdir(parents=True)
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content, allow_pickle=True)
    assert np.array_equal(score(), whole)
    assert f"{path}: not the scores of these texts and videos" in log.text


def test_the_fingerprint_is_that_of_what_the_scores_depend_on(make, tmp_path: Path):
    def of(precision: str = "fp32", **changes: Any) -> str:
        task = make(**changes)
        return fingerprint(task, task.gallery, precision)

    alike: list[dict] = [{}, {"size_batch": 7}, {"size_pairs": 7}, {"save_minutes": 7}, {"save_top_k": 7}]
    alike += [{"n_workers": 7}, {"path_output": str(tmp_path / "elsewhere")}, {"eval_split": "test"}]
    other: list[dict] = [{"size_txt": 9}, {"multi_clip_testing": True}, {"size_frame": 3}, {"enable_prompt": True}]
    other += [{"score_fn": "upstream"}, {"texts": TEXTS[:7]}, {"texts": TEXTS[::-1]}, {"dataset": "toy10"}]
    names = [of(**changes) for changes in other] + [of("bf16")]
    (name,) = {of(**changes) for changes in alike}
    (tmp_path / "weights" / "ckpt_9.pt").write_bytes(b"other weights")
    assert len({*names, name, of()}) == 11


# --- videos -----------------------------------------------------------------------------------------------------------


def test_unreadable_videos_are_told_together_left_out_or_replaced(make, score, kit: Path, tmp_path: Path, log):
    lines = (kit / "data" / "img_toy.tsv").read_text().splitlines()
    for number in (2, 4):
        lines[number] = f"vid{number}\t{{}}\t/9j/broken"
    (tmp_path / "img_toy.tsv").write_text("\n".join(lines) + "\n")
    spoilt = {"img_tsv_dir": str(tmp_path)}
    with pytest.raises(DataError, match=r"2 of 5 videos cannot be evaluated: .*line 5.*line 3.*--allow_missing"):
        score(make(**spoilt))
    whole, task = score(), make(allow_missing=True, **spoilt)
    left_out = score(task)
    assert task.gallery.videos == ["vid0", "vid1", "vid3"]
    assert np.abs(left_out - whole[[1, 4, 5, 6, 7]][:, [1, 3, 4]]).max() < 1e-6
    assert "2 of 5 videos left out (allow_missing): " in log.text
    zeros = score(make(on_bad_sample="zero", path_output=str(tmp_path / "zeros"), **spoilt))
    assert np.abs(zeros[:, 0] - zeros[:, 2]).max() < 1e-6, "two videos of zeros are one another's equal"
    assert "2 videos replaced by zeros: " in log.text


def test_features_that_do_not_fit_stay_in_host_memory(monkeypatch, log):
    asked: list[dict] = []
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, dtype, **place: asked.append(place) or empty(*size, dtype=dtype))
    needed = 10 * 6 * 4 * 2
    for free in (2 * needed + 1, 2 * needed):  # half of it is enough, and just not
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**9))
        store = FeatureStore(10, torch.ones(6, 4), torch.bfloat16, torch.device("cuda"))
        store.add(torch.ones(3, 6, 4))
        assert store.encoded().states.shape == (3, 6, 4)
    assert asked == [{"device": torch.device("cuda")}, {"pin_memory": True}]
    assert log.text.count("they stay in host memory") == 1


# --- a whole evaluation -----------------------------------------------------------------------------------------------


def test_the_results_and_their_files(make, tmp_path: Path):
    task = make(save_top_k=2)
    scores = np.zeros((8, 5), dtype=np.float32)
    scores[np.arange(8), [0, 1, 1, 2, 3, 4, 4, 0]] = 1.0
    folder = RunFolder(str(tmp_path / "out"), "mine")
    results = write_results(task.config, task.gallery, scores, folder, bad=3)
    metrics = results["zero_shot"]["test"]
    assert json.loads((folder.path / "results.json").read_text()) == results
    assert (metrics["r@1"], metrics["median_rank"], metrics["bad_samples"]) == (5 / 8, 1, 3)
    assert np.array_equal(np.load(folder.path / "scores_test.npy"), scores)
    ids = json.loads((folder.path / "scores_test.json").read_text())
    assert ids["videos"] == ["vid4", "vid0", "vid2", "vid1", "vid3"]
    assert [(text["video"], text["caption"]) for text in ids["texts"][:2]] == TEXTS[:2]
    lines = [json.loads(line) for line in folder.predictions("test").read_text().splitlines()]
    assert lines[2] == {
        **{"index": 2, "video": "vid4", "caption": "it moves to the left side", "rank": 3.5, "prediction": "vid0"},
        "top": [{"video": "vid0", "score": 1.0}, {"video": "vid4", "score": 0.0}],
    }
    old = json.loads((tmp_path / "weights" / "ckpt_9_results.json").read_text())
    assert old["test"] == {"r@1": "62.50", "r@5": "100.00", "r@10": "100.00", "median": "1"}


def test_an_evaluation_that_is_stopped_goes_on_where_it_was(make, make_model, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(gallery, "build_model", lambda config, heads: make_model(heads))
    task, folders = make(size_pairs=4), [RunFolder(str(tmp_path / name), "mine") for name in ("whole", "resumed")]
    whole = evaluate_gallery(task, task.config, CPU, folders[0])
    with monkeypatch.context() as patch:
        first = scored(patch, stop_after=5)
        with pytest.raises(KeyboardInterrupt):
            evaluate_gallery(task, task.config, CPU, folders[1])
    second = scored(monkeypatch)
    assert evaluate_gallery(task, task.config, CPU, folders[1]) == whole
    assert sum(first[:4]) + sum(second) == PAIRS, "all was saved but the block that the device was at"
    assert np.array_equal(*(np.load(folder.path / "scores_test.npy") for folder in folders))
    assert not list((tmp_path / "out").glob("_retrieval_so_far_*")), "nothing is left to go on with"


@pytest.mark.parametrize("kind", [RetrievalTask, RetrievalTaskSpecificTask])
def test_a_checkpoint_without_the_head_is_refused(make, make_model, tmp_path: Path, kind):
    """Each of both evaluations from the other's checkpoint; `allow_random` evaluates it all the same."""
    other = RetrievalTaskSpecificTask if kind is RetrievalTask else RetrievalTask
    config = make().config
    torch.save(make_model(other.heads).state_dict(), config.path_ckpt)
    config.path_output, config.resume = str(tmp_path / "out"), ""
    head = "fc_mtm" if kind is RetrievalTask else "fc.1.weight"
    with pytest.raises(WeightsError, match=rf"{config.path_ckpt} .*{head}.*--allow_random"):
        evaluate(kind, config)
    evaluate(kind, replace(config, allow_random=True))
    assert len(list(Path(config.path_output).glob("*/results.json"))) == 1
