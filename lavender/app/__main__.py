"""python -m lavender.app --path_ckpt _snapshot/_msrvtt-qa_20261128

A web page on this machine: choose or upload a clip, see the frames that the model sees, and ask about it. Without
--path_ckpt it shows the toy model of `make demo`.
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lavender.app.decoding import Limits
from lavender.app.toy import find_toy
from lavender.runtime.errors import ConfigError, LavenderError
from lavender.runtime.files import looked_from

BAD_INPUT = 2
EXAMPLES = 6


def main(words: Sequence[str] | None = None) -> int:
    """Serves the page until stopped; returns the exit code: 2 for bad input."""
    arguments = _parser().parse_args(words)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        _serve(arguments)
    except (LavenderError, OSError) as fault:
        print(f"error: {fault}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        pass
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lavender.app", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given = Limits()
    parser.add_argument("--path_ckpt", help="a .pt file, a run's folder, an exported folder, or a hub name")
    parser.add_argument("--txt_backbone", help="folder or name of BERT, in place of the training's")
    parser.add_argument("--fusion_encoder", help="the same of the fusion encoder")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--index", nargs="+", type=Path, default=[], help="indices to search (lavender.predict index)")
    parser.add_argument("--examples", type=Path, help=f"folder of example clips; the first {EXAMPLES} are shown")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: for other machines")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--password_file", type=Path, help="file with the password of the page (user: lavender)")
    limits = parser.add_argument_group("limits of a clip")
    limits.add_argument("--max_upload", type=_positive, default=given.upload, help="MB of a file (%(default)s)")
    limits.add_argument("--max_seconds", type=_positive, default=given.seconds, help="of a clip (%(default)s)")
    limits.add_argument("--max_pixels", type=int, default=given.pixels, help="of a frame (%(default)s)")
    limits.add_argument("--max_wait", type=_positive, default=given.wait, help="seconds of decoding (%(default)s)")
    return parser


def _positive(word: str) -> float:
    number = float(word)
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"{word} is not a number above 0")
    return number


def _serve(arguments: argparse.Namespace) -> None:
    if find_spec("gradio") is None:
        raise ConfigError("the page needs gradio: pip install -e '.[app]', or pip install gradio")
    checkpoint, clips = arguments.path_ckpt, arguments.examples
    if checkpoint is None:
        toy, toy_clips = find_toy()
        checkpoint, clips = str(toy), clips or toy_clips
    examples = _examples(clips, wanted=arguments.examples is not None)
    password = _password(arguments.password_file)
    limits = Limits(
        upload=arguments.max_upload,
        seconds=arguments.max_seconds,
        pixels=arguments.max_pixels,
        wait=arguments.max_wait,
    )
    names = ("txt_backbone", "fusion_encoder")
    options = {name: getattr(arguments, name) for name in names if getattr(arguments, name)}
    command = ["python", "-m", "lavender.predict", "index", "FOLDER", "-o", "clips.index", "--path_ckpt", checkpoint]

    from lavender.app.serving import serve  # heavy: not needed for --help and usage errors

    serve(
        checkpoint,
        arguments.device,
        options,
        limits,
        examples=examples,
        indexes=arguments.index,
        host=arguments.host,
        port=arguments.port,
        password=password,
        index_command=shlex.join(command),
    )


def _examples(folder: Path | None, wanted: bool) -> list[Path]:
    from lavender.data.video_folders import find_videos

    if folder is None or (not wanted and not folder.is_dir()):
        return []
    found = list(find_videos(folder).values()) if folder.is_dir() else []
    if not found:
        raise ConfigError(f"--examples {folder}: no videos are in this folder{looked_from(folder)}")
    return found[:EXAMPLES]


def _password(path: Path | None) -> str | None:
    if path is None:
        return None
    words = path.read_text(encoding="utf-8").split()
    if len(words) != 1:
        raise ConfigError(f"--password_file {path}: one password is expected in it, and nothing else")
    return words[0]


if __name__ == "__main__":
    sys.exit(main())
