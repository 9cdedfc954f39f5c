"""Writes a made-up corpus: short clips of one coloured shape in motion, with all text files for training.

    python -m lavender.demo.toy --output _demo --n_train 2000 --n_val 200 --n_test 40

Colour, shape and motion of each clip are known. Combinations of the three in val and test never occur in training, so
a right answer requires the video, or luck.
"""

import argparse
import functools
import itertools
import json
import math
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import cv2
import numpy as np
from tqdm import tqdm

from lavender.demo.toy_captions import write_caption_split
from lavender.runtime.errors import ConfigError, DataError, LavenderError
from lavender.runtime.quoting import shown

FRAMES = 20  # frames per clip; training sees four, at int(20 / 5 * (i + 1))
FRAMES_PER_SECOND = 12
WRITERS = 2
OPTIONS = 5  # of a multiple-choice question
SUBPIXEL_BITS = 8

COLOURS = {  # RGB
    "red": (225, 35, 35),
    "green": (40, 190, 60),
    "blue": (40, 85, 240),
    "yellow": (240, 220, 40),
    "purple": (185, 45, 200),
    "white": (240, 240, 240),
}


def _ring(corners: int, *radii: float) -> np.ndarray:
    """Corners on a circle, the first on top; several radii alternate. Returns (corners, 2), x right and y down."""
    angle = 2 * np.pi * np.arange(corners) / corners
    radius = np.resize(radii, corners)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


_CROSS = [(1, 3), (1, 1), (3, 1), (3, -1), (1, -1), (1, -3), (-1, -3), (-1, -1), (-3, -1), (-3, 1), (-1, 1), (-1, 3)]

SHAPES = {  # polygons around (0, 0), in sides of the frame; each covers a sixth to a quarter
    "circle": _ring(64, 0.28),
    "square": np.array([(-0.25, -0.25), (0.25, -0.25), (0.25, 0.25), (-0.25, 0.25)]),
    "triangle": _ring(3, 0.37),
    "star": _ring(10, 0.37, 0.17),
    "cross": 0.105 * np.array(_CROSS),
}

MOTIONS = {  # key word of the motion → its phrase
    "left": "moves left",
    "right": "moves right",
    "up": "moves up",
    "down": "moves down",
    "grows": "grows",
    "shrinks": "shrinks",
    "spins": "spins",
    "stays": "stays",
}
_DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}

# Other words of the vocabulary: from captions, questions, and prompts of the tasks.
_PHRASES = """a the. what color is the? what shape is it? what does the do? is the video-text paired, true or false?
is the video-text matched, true or false? which answer is correct, from [0, 1, 2, 3, 4]? answer the question about the
video. fill in the mask to complete the sentence. write a description about the video. answer: option 0:"""

Combination = tuple[str, str, str]  # colour, shape, motion


@dataclass(frozen=True)
class ToyClip:
    """One made-up clip. `motion` is a key of MOTIONS; `seed` determines position, size, shade, tilt and speed."""

    video_id: str
    colour: str
    shape: str
    motion: str
    seed: int


def split_combinations(seed: int) -> tuple[list[Combination], list[Combination]]:
    """All (colour, shape, motion), shuffled by `seed`: those for training, and a held-out fifth.

    The held-out ones form a Latin square: each colour and motion lack exactly one shape, so any two attributes meet in
    training. A circle never spins, which would be invisible.
    """
    random = Random(seed)
    colours, shapes, motions = (random.sample(list(names), len(names)) for names in (COLOURS, SHAPES, MOTIONS))
    training: list[Combination] = []
    held_out: list[Combination] = []
    for c, s, m in itertools.product(range(len(colours)), range(len(shapes)), range(len(motions))):
        if (shapes[s], motions[m]) == ("circle", "spins"):
            continue
        part = held_out if (c + s + m) % len(shapes) == 0 else training
        part.append((colours[c], shapes[s], motions[m]))
    random.shuffle(training)
    random.shuffle(held_out)
    return training, held_out


def make_clips(n_train: int, n_val: int, n_test: int, seed: int) -> dict[str, list[ToyClip]]:
    """Draws the clips of the three splits.

    Combinations are used in turn: a split repeats one only after all others, and test starts where val ended.

    Raises:
        ConfigError: no training clip, or a negative number of clips.
    """
    if n_train < 1 or n_val < 0 or n_test < 0:
        raise ConfigError(
            f"toy clips: n_train={n_train}, n_val={n_val}, n_test={n_test}; give n_train ≥ 1, the rest ≥ 0"
        )
    training, held_out = (itertools.cycle(combinations) for combinations in split_combinations(seed))
    random = Random(f"clips {seed}")
    return {
        split: [
            ToyClip(f"{split}_{number:05d}", *combination, seed=random.getrandbits(31))
            for number, combination in enumerate(itertools.islice(source, count))
        ]
        for split, source, count in (("train", training, n_train), ("val", held_out, n_val), ("test", held_out, n_test))
    }


def _chance(clip: ToyClip, purpose: str) -> Random:
    """Random generator of a clip for one purpose; a shared one would correlate e.g. background and article."""
    return Random(f"{purpose} {clip.seed}")


def caption(clip: ToyClip) -> str:
    """Caption such as "a red square moves left"; the seed chooses "a" or "the"."""
    return _caption(_chance(clip, "article").choice(["a", "the"]), (clip.colour, clip.shape, clip.motion))


def both_captions(clip: ToyClip) -> list[str]:
    """The caption with either article: all correct captions of the clip."""
    combination = (clip.colour, clip.shape, clip.motion)
    return sorted((_caption(article, combination) for article in ("a", "the")), key=lambda text: text != caption(clip))


def _caption(article: str, combination: Combination) -> str:
    colour, shape, motion = combination
    return f"{article} {colour} {shape} {MOTIONS[motion]}"


def visual_words(clip: ToyClip) -> dict[str, str]:
    """Caption words that only the video determines; each is one vocabulary entry."""
    return {"colour": clip.colour, "shape": clip.shape, "motion": clip.motion}


def background(clip: ToyClip, size: int, n_frames: int) -> np.ndarray:
    """The clip without its shape: (n_frames, size, size, 3) uint8, uniform dark grey."""
    return np.full((n_frames, size, size, 3), _chance(clip, "background").randint(12, 30), np.uint8)


def _outlines(clip: ToyClip, n_frames: int) -> np.ndarray:
    """Corners of the shape in each frame: (n_frames, corners, 2), in sides of the frame from its top left."""
    random = _chance(clip, "outline")
    progress = np.linspace(0, 1, n_frames)
    centre = 0.5 + np.array([random.uniform(-0.08, 0.08), random.uniform(-0.08, 0.08)])
    scale = np.full(n_frames, random.uniform(0.9, 1.05))
    angle = np.full(n_frames, math.radians(random.uniform(-8, 8)))
    centres = np.tile(centre, (n_frames, 1))
    if clip.motion in _DIRECTIONS:
        centres += np.outer(progress - 0.5, _DIRECTIONS[clip.motion]) * random.uniform(0.52, 0.64)
    elif clip.motion in ("grows", "shrinks"):
        scale *= 0.25 + 0.95 * (progress if clip.motion == "grows" else 1 - progress)
    elif clip.motion == "spins":  # about 30° between sampled frames: visible for all symmetries
        angle += random.uniform(0, 2 * math.pi) + random.choice([-1, 1]) * math.radians(150) * progress
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.stack([cosine, sine, -sine, cosine], axis=1).reshape(n_frames, 2, 2)
    return centres[:, None] + SHAPES[clip.shape] @ turn


def render(clip: ToyClip, size: int, n_frames: int) -> np.ndarray:
    """Draws the clip: (n_frames, size, size, 3) uint8 RGB, antialiased; the frames span the whole motion."""
    shade = _chance(clip, "shade").uniform(0.85, 1.0)
    paint = [round(shade * channel) for channel in COLOURS[clip.colour]]
    corners = _outlines(clip, n_frames) * size - 0.5  # OpenCV's 0 is the centre of the first pixel
    frames = background(clip, size, n_frames)
    for frame, polygon in zip(frames, np.round(corners * 2**SUBPIXEL_BITS).astype(np.int32), strict=True):
        cv2.fillPoly(frame, [polygon], paint, cv2.LINE_AA, SUBPIXEL_BITS)
    return frames


def write_video(path: Path, frames: np.ndarray, fps: float) -> None:
    """Writes (T, H, W, 3) uint8 RGB frames as an MPEG-4 file.

    Raises:
        DataError: the file lacks frames afterwards (no encoder, no space, no folder).
    """
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (frames.shape[2], frames.shape[1]))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    written = max(0, int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)))  # OpenCV hides a failed write
    if written < len(frames):
        raise DataError(f"{path}: {written} of {len(frames)} frames written; check that its folder exists and has room")


def write_toy(
    folder: Path,
    n_train: int = 2000,
    n_val: int = 200,
    n_test: int = 40,
    size: int = 96,
    seed: int = 88,
    name: str = "toy",
) -> None:
    """Writes the corpus to `folder`; equal arguments give equal files.

    `_<name>_{train,val,test}/*.mp4`, `_<name>blank_val/*.mp4` (same ids without shapes: an unanswerable
    control), `txt_<name>.json` and `txt_<name>blank.json` (captions), `txt_<name>-{retrieval,qa,mc,action}.json`,
    `CAP/` (a captioning folder: the splits and `blank`, for the frame files made by the tools), `bert/`
    (configuration and vocabulary of a small BERT without weights) and `facts.json` (what each clip shows).

    Args:
        size: side of the square frames in pixels, a multiple of 16.

    Raises:
        ConfigError: a number or name is invalid.
        DataError: the folder cannot be written, or holds clips of another corpus.
    """
    if size < 32 or size % 16:
        raise ConfigError(f"toy clips: size={size}; give a multiple of 16 (the video codec's blocks) from 32 on")
    if not re.fullmatch(r"\w+", name):
        raise ConfigError(f"toy clips: name={shown(name)}; use letters, digits and _ only")
    clips = make_clips(n_train, n_val, n_test, seed)
    videos = {folder / f"_{name}_{split}" / f"{clip.video_id}.mp4": clip for split in clips for clip in clips[split]}
    blanks = {folder / f"_{name}blank_val" / f"{clip.video_id}.mp4": clip for clip in clips["val"]}
    _make_folders(folder / "bert", {*videos, *blanks})
    jobs = [(path, clip, render) for path, clip in videos.items()]
    jobs += [(path, clip, background) for path, clip in blanks.items()]
    # Threads suffice: OpenCV releases the GIL.
    with ThreadPoolExecutor(WRITERS) as writers:
        done = writers.map(lambda job: write_video(job[0], job[2](job[1], size, FRAMES), FRAMES_PER_SECOND), jobs)
        for _ in tqdm(done, "toy clips", len(jobs), unit="clip", leave=False, disable=None):  # on a terminal
            pass
    texts = {f"txt_{name}{ending}.json": content for ending, content in _annotations(clips, seed).items()}
    for file, content in {**texts, "facts.json": _facts(clips)}.items():
        (folder / file).write_text(json.dumps(content) + "\n", encoding="utf-8")
    frames = {"train": f"{name}_train_0", "val": f"{name}_val", "test": f"{name}_test", "blank": f"{name}blank_val"}
    for split, stem in frames.items():
        captions = {clip.video_id: both_captions(clip) for clip in clips["val" if split == "blank" else split]}
        write_caption_split(folder / "CAP", split, f"../{stem}.tsv", captions)
    _write_bert(folder / "bert")


def _make_folders(bert: Path, videos: set[Path]) -> None:
    """Creates all folders; rejects a video folder with other clips, which would enter the frame files."""
    for folder in {bert, *(path.parent for path in videos)}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise DataError(f"{folder}: cannot make this folder ({fault.strerror}); choose another --output") from fault
        strangers = set(folder.glob("*.mp4")) - videos
        if strangers:
            raise DataError(f"{min(strangers)}: of another corpus; remove {folder} or choose another --output")


def _facts(clips: dict[str, list[ToyClip]]) -> dict:
    return {
        clip.video_id: {"split": split, **visual_words(clip), "caption": caption(clip)}
        for split, split_clips in clips.items()
        for clip in split_clips
    }


def _annotations(clips: dict[str, list[ToyClip]], seed: int) -> dict[str, dict]:
    """Suffix of the file's name → content, in the text formats."""
    training, held_out = split_combinations(seed)
    answers = {word: index for index, word in enumerate([*COLOURS, *SHAPES, *MOTIONS])}
    files: dict[str, dict] = {"": {}, "-retrieval": {}, "-qa": {}, "-mc": {}, "-action": {}}
    for split, split_clips in clips.items():
        # Wrong captions use combinations of the same split: trained ones would be recognisable.
        combinations = training if split == "train" else held_out
        files[""][split] = {clip.video_id: [caption(clip)] for clip in split_clips}
        files["-retrieval"][split] = [
            {"video": clip.video_id, "caption": caption(clip)}
            for clip in (split_clips if split == "train" else _one_of_each(split_clips))
        ]
        files["-qa"][split] = [item for clip in split_clips for item in _open_questions(clip, answers)]
        files["-mc"][split] = [_caption_choice(clip, combinations) for clip in split_clips]
        files["-action"][split] = [_motion_choice(clip) for clip in split_clips]
    files["-qa"]["ans2label"] = answers
    return {**files, "blank": {"train": {}, "val": files[""]["val"]}}


def _one_of_each(clips: list[ToyClip]) -> list[ToyClip]:
    """First clip of each combination: in a gallery, a caption must match only one clip."""
    first: dict[Combination, ToyClip] = {}
    for clip in clips:
        first.setdefault((clip.colour, clip.shape, clip.motion), clip)
    return list(first.values())


def _open_questions(clip: ToyClip, answers: dict[str, int]) -> list[dict]:
    questions = {  # not the shape, which is hard to learn in minutes
        f"what color is the {clip.shape}?": clip.colour,
        f"what does the {clip.colour} {clip.shape} do?": clip.motion,
    }
    return [
        {"video": clip.video_id, "question": question, "answer": answers[word], "answer_text": word}
        for question, word in questions.items()
    ]


def _caption_choice(clip: ToyClip, combinations: list[Combination]) -> dict:
    truth = caption(clip)
    phrase = functools.partial(_caption, truth.split()[0])
    return _choice(clip, "", truth, [phrase(combination) for combination in combinations])


def _motion_choice(clip: ToyClip) -> dict:
    return _choice(clip, f"what does the {clip.colour} {clip.shape} do?", MOTIONS[clip.motion], list(MOTIONS.values()))


def _choice(clip: ToyClip, question: str, truth: str, pool: list[str]) -> dict:
    random = _chance(clip, "options")
    options = [truth, *random.sample([text for text in pool if text != truth], OPTIONS - 1)]
    random.shuffle(options)
    numbered = {f"option_{number}": option for number, option in enumerate(options)}
    return {"video": clip.video_id, "question": question, **numbered, "answer": options.index(truth)}


def _write_bert(folder: Path) -> None:
    """Writes configuration, vocabulary and tokenizer settings of a small BERT; [PAD] is token 0.

    Matrices start at N(0, 0.08): at BERT's own 0.02 a model this narrow learns nothing visual in minutes.
    """
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1) if not chr(code).isupper()]
    pieces = ["##" + letter for letter in letters if letter.isalnum()]
    text = " ".join([_PHRASES, *COLOURS, *SHAPES, *MOTIONS.values()])
    words = sorted({word for word in re.findall("[a-z]+", text) if len(word) > 1})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *pieces, *words]
    configuration = {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": 128,
        "initializer_range": 0.08,
        "intermediate_size": 512,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": len(vocabulary),
    }
    settings = {"do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": 512}
    (folder / "config.json").write_text(json.dumps(configuration, indent=1) + "\n", encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write a made-up corpus of coloured shapes in motion.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    parser.add_argument("--n_train", type=int, default=2000, help="training clips")
    parser.add_argument("--n_val", type=int, default=200, help="validation clips; captions repeat after about 46")
    parser.add_argument("--n_test", type=int, default=40, help="test clips")
    parser.add_argument("--size", type=int, default=96, help="side of the frames in pixels")
    parser.add_argument("--seed", type=int, default=88)
    parser.add_argument("--name", default="toy", help="name of the data set, part of the file names")
    options = vars(parser.parse_args(arguments))
    try:
        write_toy(options.pop("output"), **options)
    except LavenderError as fault:
        print(f"error: {fault}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
