"""Captioning metrics of COCO, computed by `pycocoevalcap`."""

import contextlib
import importlib.util
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace

from lavender.runtime.logging import LOGGER

Texts = dict[int, list[str]]  # number of a video → its tokenized captions
NAMES = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr")
JAVA_SECONDS = 600  # METEOR and SPICE together must stay below the 30-minute timeout of other processes
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}


def missing_for_metrics() -> str:
    """Sentence about what the captioning metrics lack on this machine; "" if nothing is missing."""
    if not _installed("pycocoevalcap"):
        return "pycocoevalcap is not installed, so captions are not scored: pip install pycocoevalcap==1.2"
    if not shutil.which("java"):
        if not _installed("nltk"):
            return "there is neither Java nor NLTK to split texts into words, so captions are not scored: install one"
        return (
            "there is no Java, so METEOR and SPICE are left out, and texts are split into words by NLTK, not by the "
            "PTB tokenizer: other metrics may differ in the last digits. Debian: apt-get install default-jre-headless"
        )
    return ""


def can_score() -> bool:
    """Whether any metric works on this machine."""
    return _installed("pycocoevalcap") and (bool(shutil.which("java")) or _installed("nltk"))


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def caption_metrics(captions: Sequence[str], references: Sequence[Sequence[str]], spice: bool = False) -> dict:
    """BLEU-1 to 4, METEOR, ROUGE-L and CIDEr (and SPICE) over all captions; the log names metrics left out.

    Args:
        captions: one per video; references: one or more per video.

    Returns:
        metric → value, with the package's names: fractions, CIDEr up to 10.
    """
    if notice := missing_for_metrics():
        LOGGER.warning("%s", notice)
    if not can_score():
        return {}
    found, wanted = _tokenized(
        {number: [caption] for number, caption in enumerate(captions)},
        {number: list(texts) for number, texts in enumerate(references)},
    )
    metrics: dict[str, float] = {}
    for names, compute in _scorers(spice):
        try:
            score = compute(wanted, found)
        except Exception as fault:  # Java can fail in many ways, which must not end the run
            LOGGER.warning("%s could not be computed and is left out: %s: %s", names[0], type(fault).__name__, fault)
            continue
        values = score if isinstance(score, list) else [score]
        metrics |= {name: float(value) for name, value in zip(names, values, strict=True)}
    return metrics


def _scorers(spice: bool) -> Iterator[tuple[Sequence[str], Callable]]:
    """Yields metric names and the function that computes them from references and captions."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    yield NAMES[:4], lambda wanted, found: Bleu(4).compute_score(wanted, found, verbose=0)[0]
    if shutil.which("java"):
        yield ("METEOR",), _meteor
    yield ("ROUGE_L",), lambda wanted, found: Rouge().compute_score(wanted, found)[0]
    yield ("CIDEr",), lambda wanted, found: Cider().compute_score(wanted, found)[0]
    if spice and shutil.which("java"):
        yield ("SPICE",), _spice


def _meteor(wanted: Texts, found: Texts) -> float:
    """METEOR by a Java process, with the timeout `JAVA_SECONDS`."""
    from pycocoevalcap.meteor.meteor import Meteor

    meteor = Meteor()
    watchdog = threading.Timer(JAVA_SECONDS, meteor.meteor_p.kill)
    watchdog.start()
    try:
        return meteor.compute_score(wanted, found)[0]
    finally:
        watchdog.cancel()
        if meteor.lock.locked():  # Java has died: the destructor would wait for this lock forever
            meteor.lock.release()
            with contextlib.suppress(OSError):
                meteor.meteor_p.stdin.close()


def _spice(wanted: Texts, found: Texts) -> float:
    """SPICE by a Java process, killed after `JAVA_SECONDS` (subprocess.TimeoutExpired)."""
    from pycocoevalcap.spice import spice

    spice.subprocess = SimpleNamespace(check_call=partial(subprocess.check_call, timeout=JAVA_SECONDS))
    return spice.Spice().compute_score(wanted, found)[0]


def _one_line(text: str) -> str:
    """Text as one line for line-based programs: "." for an empty text, without METEOR's separator."""
    return " ".join(text.replace("|||", " ").split()) or "."


def _tokenized(*texts: Texts) -> list[Texts]:
    """Tokenizes captions and references with the same tokenizer: Java's, or NLTK's if that does not run."""
    if shutil.which("java"):
        try:
            tokenized = [_tokenize_by_java(each) for each in texts]
            if all(
                list(map(len, ours.values())) == list(map(len, each.values()))
                for ours, each in zip(tokenized, texts, strict=True)
            ):
                return tokenized
            fault = "it gave fewer lines than texts"
        except (OSError, ValueError) as error:  # read-only folder, or not enough memory
            fault = str(error)
        LOGGER.warning("the PTB tokenizer (Java) did not run: %s; texts are split into words by NLTK", fault)
    return [_tokenize_by_nltk(each) for each in texts]


def _tokenize_by_java(texts: Texts) -> Texts:
    """Lower-case words without punctuation, by Stanford's PTB tokenizer."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    return tokenizer.tokenize({n: [{"caption": _one_line(text)} for text in group] for n, group in texts.items()})


def _tokenize_by_nltk(texts: Texts) -> Texts:
    """Like `_tokenize_by_java`, without Java: 15 of 1,200 web captions differed (abbreviations, rare signs)."""
    from nltk.tokenize.treebank import TreebankWordTokenizer
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    treebank = TreebankWordTokenizer()

    def words(text: str) -> str:
        sentences = re.split(r"(?<=[.?!])\s+", _one_line(text).lower())
        found = [_BRACKETS.get(word, word) for sentence in sentences for word in treebank.tokenize(sentence)]
        return " ".join(word for word in found if word not in PUNCTUATIONS)

    return {number: [words(text) for text in group] for number, group in texts.items()}
