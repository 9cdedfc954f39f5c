"""python -m lavender.predict answer phone.mp4 "what is the man doing" --path_ckpt _snapshot/_msrvtt-qa_20261128

Captions, answers, choices and matches for your own videos, and search in a folder of videos:

    caption CLIP …                       answer CLIP QUESTION
    choose CLIP QUESTION OPTION …        match CLIP TEXT …
    index FOLDER -o clips.index          search clips.index TEXT …
"""

import argparse
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavender.runtime.errors import LavenderError
from lavender.runtime.files import atomic_file

if TYPE_CHECKING:
    from lavender.inference.predictor import Predictor

BAD_INPUT, INTERRUPTED = 2, 130


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 1 if clips were left out, 2 for bad input."""
    arguments = _parser().parse_args(words)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        from lavender.inference.predictor import Predictor  # heavy: not needed for --help and usage errors

        predictor = Predictor.from_pretrained(arguments.path_ckpt, arguments.device, **_options(arguments))
        code = arguments.do(predictor, arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (LavenderError, OSError) as fault:
        print(f"error: {fault}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lavender.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--path_ckpt", required=True, help="a .pt file, a run's folder, an exported folder, or a hub name"
    )
    common.add_argument("--txt_backbone", help="folder or name of BERT, in place of the training's")
    common.add_argument("--fusion_encoder", help="the same of the fusion encoder")
    common.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    common.add_argument("--json", action="store_true", help="one JSON object a line, for programs")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, do: Any, what: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, parents=[common], help=what)
        command.set_defaults(do=do)
        return command

    command = add("caption", _caption, "a caption of each clip")
    command.add_argument("clips", nargs="+")
    command.add_argument("--num_beams", type=_count, default=1)
    command.add_argument("--keep", type=_count, default=1, help="captions of a clip")
    command = add("answer", _answer, "the most probable answers to a question")
    command.add_argument("clip")
    command.add_argument("question")
    command.add_argument("--k", type=_count, default=5)
    command = add("choose", _choose, "the options of a question with their probabilities")
    command.add_argument("clip")
    command.add_argument("question")
    command.add_argument("options", nargs="+")
    command = add("match", _match, "texts by how well they match a clip")
    command.add_argument("clip")
    command.add_argument("texts", nargs="+")
    command = add("index", _index, "encode the clips of a folder for search; after a stop it continues")
    command.add_argument("folder", type=Path)
    command.add_argument("-o", "--output", type=Path, required=True, help="folder of the index")
    command.add_argument("--captions", action="store_true", help="caption the clips, too")
    command = add("search", _search, "the clips of an index that match a text best")
    command.add_argument("index", type=Path)
    command.add_argument("texts", nargs="+")
    command.add_argument("--k", type=_count, default=5)
    command.add_argument("--sheet", type=Path, metavar="PNG", help="write a picture of the hits")
    command.add_argument(
        "--shortlist",
        type=_count,
        default=0,
        metavar="K",
        help="match only the K clips whose captions fit best (index --captions)",
    )
    return parser


def _count(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 2**31:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 1 on")


def _options(arguments: argparse.Namespace) -> dict[str, str]:
    names = ("txt_backbone", "fusion_encoder")
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name)}


def _caption(predictor: "Predictor", arguments: argparse.Namespace) -> int:
    results = predictor.caption(arguments.clips, arguments.num_beams, arguments.keep)
    return _print_results(results, arguments.json)


def _answer(predictor: "Predictor", arguments: argparse.Namespace) -> int:
    return _print_results([predictor.answer(arguments.clip, arguments.question, arguments.k)], arguments.json)


def _choose(predictor: "Predictor", arguments: argparse.Namespace) -> int:
    return _print_results([predictor.choose(arguments.clip, arguments.question, arguments.options)], arguments.json)


def _match(predictor: "Predictor", arguments: argparse.Namespace) -> int:
    return _print_results([predictor.match(arguments.clip, arguments.texts)], arguments.json)


def _index(predictor: "Predictor", arguments: argparse.Namespace) -> int:
    from lavender.inference.index import build_index

    faults = build_index(predictor, arguments.folder, arguments.output, arguments.captions)
    for entry in faults:
        print(f"skipped: {entry.fault}", file=sys.stderr)
    print(f"{arguments.output}: {len(faults)} clips could not be read" if faults else f"{arguments.output} is whole")
    return 1 if faults else 0


def _search(predictor: "Predictor", arguments: argparse.Namespace) -> int:
    from lavender.inference.index import GalleryIndex

    found = GalleryIndex(arguments.index).search(predictor, arguments.texts, arguments.k, arguments.shortlist)
    _print_results(found, arguments.json)
    if arguments.sheet:
        from lavender.inference.sheet import contact_sheet

        with atomic_file(arguments.sheet) as file:
            contact_sheet(found).save(file, format="PNG")
        print(f"{arguments.sheet}: written", file=sys.stderr)
    return 0


def _print_results(results: Sequence[Any], as_json: bool) -> int:
    for result in results:
        if as_json:
            facts = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
            facts.pop("frames", None)
            lists = {
                name: [dataclasses.asdict(one) for one in facts[name]] for name in ("guesses", "hits") if name in facts
            }
            print(json.dumps(facts | lists, ensure_ascii=False))
        else:
            print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
