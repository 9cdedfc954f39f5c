"""The toy corpus: what is held out, what the pixels show, what the files say."""

import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lavender.demo import toy
from lavender.demo.toy import COLOURS, MOTIONS, SHAPES, ToyClip, caption, make_clips, render, visual_words
from lavender.runtime.errors import ConfigError, DataError

SEEN = [int(toy.FRAMES / 5 * (i + 1)) for i in range(4)]  # the frames that the extractor takes


def combination(clip: ToyClip) -> tuple[str, str, str]:
    return clip.colour, clip.shape, clip.motion


def mask(frames: np.ndarray) -> np.ndarray:
    return frames.max(axis=-1) > 90  # (T, H, W) where the shape is


def centre(shape_mask: np.ndarray) -> np.ndarray:
    return np.argwhere(shape_mask).mean(axis=0)[::-1] / len(shape_mask)  # x, y in sides of the frame


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    toy.write_toy(folder, n_train=12, n_val=6, n_test=5, size=64, seed=3)
    return folder


def load(folder: Path, file: str) -> dict:
    return json.loads((folder / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("seed", range(6))
def test_held_out_combinations_never_train(seed: int) -> None:
    training, held_out = toy.split_combinations(seed)
    everything = set(itertools.product(COLOURS, SHAPES, MOTIONS)) - {(c, "circle", "spins") for c in COLOURS}
    assert not set(training) & set(held_out)
    assert set(training) | set(held_out) == everything
    assert 0.18 < len(held_out) / len(everything) < 0.22
    clips = make_clips(400, 60, 60, seed)
    assert {combination(clip) for clip in clips["train"]} == set(training)
    assert {combination(clip) for clip in clips["val"] + clips["test"]} == set(held_out)


def test_every_two_attributes_meet_in_training() -> None:
    training, _ = toy.split_combinations(88)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        values = (COLOURS, SHAPES, MOTIONS)
        possible = set(itertools.product(values[first], values[second])) - {("circle", "spins")}
        assert {(item[first], item[second]) for item in training} == possible


def test_the_seed_chooses_what_is_held_out() -> None:
    assert set(toy.split_combinations(1)[1]) != set(toy.split_combinations(2)[1])
    assert make_clips(5, 2, 2, seed=1) == make_clips(5, 2, 2, seed=1)
    assert make_clips(5, 2, 2, seed=1) != make_clips(5, 2, 2, seed=2)


def test_repeats_are_spread_and_test_goes_on_after_val() -> None:
    clips = make_clips(1000, 20, 26, seed=88)
    assert len({combination(clip) for clip in clips["val"] + clips["test"]}) == 46
    counts = Counter(combination(clip) for clip in clips["train"]).values()
    assert max(counts) - min(counts) <= 1
    ids = [clip.video_id for split in clips.values() for clip in split]
    assert len(set(ids)) == len(ids) == 1046


@pytest.mark.parametrize("counts", [(0, 5, 5), (5, -1, 5), (5, 5, -1)])
def test_impossible_numbers_of_clips(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match="n_train"):
        make_clips(*counts, seed=1)


def test_caption_and_visual_words() -> None:
    clips = [ToyClip("x", "red", "square", "left", seed) for seed in range(20)]
    assert {caption(clip) for clip in clips} == {"a red square moves left", "the red square moves left"}
    assert caption(ToyClip("x", "white", "star", "spins", 1)).endswith(" white star spins")
    assert visual_words(clips[0]) == {"colour": "red", "shape": "square", "motion": "left"}


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_covers_about_a_quarter(shape: str) -> None:
    frames = render(ToyClip("x", "yellow", shape, "stays", 5), 96, 4)
    assert frames.shape == (4, 96, 96, 3)
    assert frames.dtype == np.uint8
    assert 0.13 < mask(frames).mean() < 0.29
    assert (frames == frames[:1]).all()
    assert frames[0, 0, 0].max() <= 30


@pytest.mark.parametrize(
    ("shape", "of_hull", "of_circle"),
    [
        ("circle", 1.0, 1.0),
        ("square", 1.0, 2 / np.pi),
        ("triangle", 1.0, 1.299 / np.pi),
        ("star", 0.57, 0.43),
        ("cross", 20 / 28, 20 / 31.4),
    ],
)
def test_each_shape_has_its_own_outline(shape: str, of_hull: float, of_circle: float) -> None:
    drawn = mask(render(ToyClip("x", "white", shape, "stays", 5), 192, 1))[0]
    points = np.argwhere(drawn).astype(np.int32)
    _, radius = cv2.minEnclosingCircle(points)
    assert drawn.sum() / cv2.contourArea(cv2.convexHull(points)) == pytest.approx(of_hull, rel=0.07)
    assert drawn.sum() / (np.pi * radius**2) == pytest.approx(of_circle, rel=0.07)


@pytest.mark.parametrize("colour", COLOURS)
def test_colour_is_nearest_to_itself(colour: str) -> None:
    for seed in range(5):
        painted = render(ToyClip("x", colour, "square", "stays", seed), 64, 1)[0]
        inside = np.median(painted[mask(painted)], axis=0)
        distance = {name: float(np.linalg.norm(inside - np.array(value))) for name, value in COLOURS.items()}
        nearest, second = sorted(distance, key=lambda name: distance[name])[:2]
        assert nearest == colour
        assert distance[second] > 2 * distance[nearest]


@pytest.mark.parametrize(("shape", "motion"), sorted(set(itertools.product(SHAPES, MOTIONS)) - {("circle", "spins")}))
def test_motion_shows_in_the_frames_that_training_sees(shape: str, motion: str) -> None:
    for seed in range(4):
        masks = mask(render(ToyClip("x", "white", shape, motion, seed), 96, toy.FRAMES))[SEEN]
        travel = centre(masks[-1]) - centre(masks[0])
        growth = masks[-1].sum() / masks[0].sum()
        change = [np.mean(one != two) for one, two in itertools.pairwise(masks)]
        along = {"left": -travel[0], "right": travel[0], "up": -travel[1], "down": travel[1]}
        if motion in along:
            assert along[motion] > 0.22
            assert abs(travel).min() < 0.03
        else:
            assert abs(travel).max() < 0.05
        if motion == "grows":
            assert growth > 3
        elif motion == "shrinks":
            assert growth < 1 / 3
        elif motion == "spins":
            assert min(change) > 0.02
            assert 0.9 < growth < 1.1
        elif motion == "stays":
            assert max(change) == 0


def test_clips_of_one_combination_vary_by_their_seed_only() -> None:
    one, same, other = (render(ToyClip("x", "red", "star", "up", seed), 64, 5) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_background_does_not_tell_the_article() -> None:
    clips = [ToyClip("x", "red", "star", "up", seed) for seed in range(200)]
    shades: dict[str, list[int]] = {"a": [], "the": []}
    for clip in clips:
        shades[caption(clip).split()[0]].append(int(toy.background(clip, 2, 1)[0, 0, 0, 0]))
    assert abs(np.mean(shades["a"]) - np.mean(shades["the"])) < 3


def test_video_survives_the_codec(tmp_path: Path) -> None:
    for number, colour in enumerate(COLOURS):
        frames = render(ToyClip("x", colour, "square", "right", number), 64, toy.FRAMES)
        toy.write_video(tmp_path / "x.mp4", frames, toy.FRAMES_PER_SECOND)
        with av.open(str(tmp_path / "x.mp4")) as container:
            assert container.streams.video[0].average_rate == toy.FRAMES_PER_SECOND
            decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert decoded.shape == frames.shape
        assert np.abs(decoded.astype(int) - frames).mean() < 6
        inside = mask(frames)
        assert np.abs(np.median(decoded[inside], axis=0) - np.median(frames[inside], axis=0)).max() < 10


def test_video_that_cannot_be_written(tmp_path: Path) -> None:
    frames = render(ToyClip("x", "red", "star", "up", 1), 32, 3)
    with pytest.raises(DataError, match=r"missing.x\.mp4: 0 of 3 frames written"):
        toy.write_video(tmp_path / "missing" / "x.mp4", frames, 12)


def test_folders_and_blank_clips(corpus: Path) -> None:
    names = {
        folder: sorted(path.stem for path in (corpus / folder).glob("*.mp4"))
        for folder in ("_toy_train", "_toy_val", "_toy_test", "_toyblank_val")
    }
    assert [len(videos) for videos in names.values()] == [12, 6, 5, 6]
    assert names["_toyblank_val"] == names["_toy_val"]
    for video_id in names["_toyblank_val"]:
        with av.open(str(corpus / "_toyblank_val" / f"{video_id}.mp4")) as container:
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert len(frames) == toy.FRAMES
        assert frames.max() < 40
    assert load(corpus, "txt_toyblank.json") == {"train": {}, "val": load(corpus, "txt_toy.json")["val"]}


def test_facts_tell_what_the_clips_are(corpus: Path) -> None:
    facts = load(corpus, "facts.json")
    clips = make_clips(12, 6, 5, seed=3)
    assert list(facts) == [clip.video_id for split_clips in clips.values() for clip in split_clips]
    captions, pairs = load(corpus, "txt_toy.json"), load(corpus, "txt_toy-retrieval.json")
    for split, split_clips in clips.items():
        assert pairs[split] == [{"video": clip.video_id, "caption": caption(clip)} for clip in split_clips]
        assert captions[split] == {clip.video_id: [caption(clip)] for clip in split_clips}
        for clip in split_clips:
            assert facts[clip.video_id] == {"split": split, **visual_words(clip), "caption": caption(clip)}


def test_in_a_gallery_a_caption_means_one_clip() -> None:
    clips = make_clips(60, 60, 60, seed=3)
    pairs = toy._annotations(clips, seed=3)["-retrieval"]
    assert len(pairs["train"]) == 60
    for split in ("val", "test"):
        words = [tuple(item["caption"].split()[1:]) for item in pairs[split]]
        assert len(set(words)) == len(words)
        assert set(words) == {tuple(caption(clip).split()[1:]) for clip in clips[split]}


def test_answers_of_the_questions_are_right(corpus: Path) -> None:
    facts = load(corpus, "facts.json")
    for split, count in (("train", 12), ("val", 6), ("test", 5)):
        captions = load(corpus, "txt_toy-mc.json")[split]
        actions = load(corpus, "txt_toy-action.json")[split]
        questions = load(corpus, "txt_toy-qa.json")[split]
        assert (len(captions), len(actions), len(questions)) == (count, count, 2 * count)
        for item in captions:
            assert item[f"option_{item['answer']}"] == facts[item["video"]]["caption"]
        for item in actions:
            assert item[f"option_{item['answer']}"] == MOTIONS[facts[item["video"]]["motion"]]
        for item in captions + actions:
            assert len({item[f"option_{number}"] for number in range(5)}) == 5
        answers = load(corpus, "txt_toy-qa.json")["ans2label"]
        for item in questions:
            fact = facts[item["video"]]
            asked = {"color": "colour", "does": "motion"}[item["question"].split()[1]]
            assert item["answer_text"] == fact[asked]
            assert answers[item["answer_text"]] == item["answer"]
            assert fact[asked] not in item["question"]
    assert sorted(answers.values()) == list(range(len(COLOURS) + len(SHAPES) + len(MOTIONS)))


def test_wrong_captions_were_no_more_trained_on_than_the_right_one() -> None:
    clips = make_clips(50, 46, 10, seed=7)
    trained = {" ".join((c, s, MOTIONS[m])) for c, s, m in toy.split_combinations(7)[0]}
    questions = toy._annotations(clips, 7)["-mc"]
    for split, expected in (("train", True), ("val", False), ("test", False)):
        options = [item[f"option_{number}"].split(maxsplit=1)[1] for item in questions[split] for number in range(5)]
        assert {option in trained for option in options} == {expected}
    assert set(Counter(item["answer"] for item in questions["val"])) == {0, 1, 2, 3, 4}


def test_bert_folder_reads_every_text_without_unknown_words(corpus: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(corpus / "bert"))
    assert tokenizer.pad_token_id == 0
    texts = [text for file in corpus.glob("txt_*.json") for text in _texts(load(corpus, file.name))]
    texts += ["is the video-text paired, true or false?", "which answer is correct, from [0, 1, 2, 3, 4]?"]
    texts += ["is the video-text matched, true or false?", "answer the question about the video. answer: [MASK]"]
    texts += ["fill in the mask to complete the sentence.", "write a description about the video. option 3: a"]
    assert len(texts) > 100
    for text in texts:
        tokens = tokenizer.tokenize(text)
        assert "[UNK]" not in tokens
        assert not [token for token in tokens if token.startswith("##")], text
    assert tokenizer.tokenize("Zebra!") == ["z", "##e", "##b", "##r", "##a", "!"]
    config = transformers.AutoConfig.from_pretrained(str(corpus / "bert"))
    assert config.vocab_size == len(tokenizer)
    assert (config.hidden_size, config.num_hidden_layers, config.hidden_dropout_prob) == (128, 2, 0.0)
    assert config.initializer_range == 0.08


def _texts(node: object) -> list[str]:
    """Every caption, question, option and answer of an annotation file."""
    if isinstance(node, dict):
        return [text for key, value in node.items() if key != "video" for text in _texts(value)]
    if isinstance(node, list):
        return [text for value in node for text in _texts(value)]
    return [node] if isinstance(node, str) else []


def test_the_vocabulary_is_the_same_for_every_corpus(corpus: Path, tmp_path: Path) -> None:
    toy.write_toy(tmp_path, n_train=1, n_val=0, n_test=0, size=32, seed=9)
    assert (tmp_path / "bert" / "vocab.txt").read_bytes() == (corpus / "bert" / "vocab.txt").read_bytes()


def test_writing_again_gives_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    toy.write_toy(tmp_path, n_train=12, n_val=6, n_test=5, size=64, seed=3)
    files = [path.relative_to(corpus) for path in corpus.rglob("*") if path.is_file()]
    assert len(files) == 12 + 6 + 5 + 6 + 6 + 1 + 3 + 4 * 5  # the last: the captioning folder
    for file in files:
        assert (tmp_path / file).read_bytes() == (corpus / file).read_bytes(), file


def test_a_smaller_corpus_is_not_mixed_with_the_old_clips(tmp_path: Path) -> None:
    toy.write_toy(tmp_path, n_train=3, n_val=0, n_test=0, size=32)
    with pytest.raises(DataError, match=r"train_00002\.mp4: of another corpus"):
        toy.write_toy(tmp_path, n_train=2, n_val=0, n_test=0, size=32)
    toy.write_toy(tmp_path, n_train=2, n_val=0, n_test=0, size=32, name="other")
    assert len(list((tmp_path / "_other_train").glob("*.mp4"))) == 2


def test_impossible_sizes_names_and_folders(tmp_path: Path) -> None:
    for size in (0, 16, 97):
        with pytest.raises(ConfigError, match=f"size={size}"):
            toy.write_toy(tmp_path, 1, 0, 0, size=size)
    with pytest.raises(ConfigError, match="name='a/b'"):
        toy.write_toy(tmp_path, 1, 0, 0, name="a/b")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose another --output"):
        toy.write_toy(tmp_path / "file", 1, 0, 0)


def test_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lavender.demo.toy", "--output", str(tmp_path), "--n_val", "1", "--n_test", "0"]
    root = Path(toy.__file__).parents[2]
    good = subprocess.run([*command, "--n_train", "2", "--size", "32"], cwd=root, capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    assert len(list(tmp_path.glob("_toy_*/*.mp4"))) == 3
    bad = subprocess.run([*command, "--n_train", "0"], cwd=root, capture_output=True, text=True)
    assert (bad.returncode, bad.stderr.count("\n")) == (2, 1)
    assert bad.stderr.startswith("error: toy clips: n_train=0")
