"""Captioning metrics in detail: several references, odd texts in both tokenizers, a METEOR that fails."""

import math
import shutil
import subprocess
import sys

import pytest

from lavender.metrics import caption as module
from lavender.metrics.caption import caption_metrics

pytest.importorskip("pycocoevalcap")
needs_java = pytest.mark.skipif(not shutil.which("java"), reason="there is no Java on this machine")


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None)


def test_bleu_of_several_references_by_hand(no_java):
    """ "the" counts twice, as often as one reference has it: 3 of 4 words; of pairs "the cat" alone, 1 of 3.

    With the second caption 5 of 6 words and 2 of 4 pairs. 6 words against 3 + 4: of references of 3 and 5, equally
    near to 4, the shorter counts.
    """
    captions = ["the the the cat", "a dog"]
    found = caption_metrics(captions, [["the cat sat", "a cat the mat the"], ["a dog runs fast"]])
    short = math.exp(1 - 7 / 6)
    assert found["Bleu_1"] == pytest.approx(short * 5 / 6, rel=1e-6)
    assert found["Bleu_2"] == pytest.approx(short * math.sqrt(5 / 6 * 2 / 4), rel=1e-6)


def test_rouge_takes_precision_and_recall_of_the_best_references(no_java):
    """Precision 1 from the longer, recall 1 from the shorter."""
    assert caption_metrics(["a star moves"], [["a star", "a star moves left up"]])["ROUGE_L"] == pytest.approx(1.0)
    found = caption_metrics(["a star moves"], [["no star", "a star moves left up"]])["ROUGE_L"]
    precision, recall, square = 1.0, 3 / 5, 1.2**2
    assert found == pytest.approx((1 + square) * precision * recall / (recall + square * precision))


def test_cider_by_hand_where_half_agrees(no_java):
    """ "a" is in all references and weighs nothing, every other n-gram log 2.

    "a red ring" and "a red star" share one of two words and one of two pairs, but not the triple: (½ + ½ + 0 + 0) / 4.
    The other caption agrees in all it has, which is no quadruple: 3/4.
    """
    found = caption_metrics(["a red ring", "a blue ring"], [["a red star"], ["a blue ring"]])
    assert found["CIDEr"] == pytest.approx(10 * (0.25 + 0.75) / 2)


def test_cider_of_another_length_and_several_references_by_hand(no_java):
    """ "a red star now" has a word more than its first reference, and nothing in common with its second."""
    found = caption_metrics(["a red star now", "a blue ring"], [["a red star", "what else"], ["a blue ring"]])
    agreement = 2 / math.sqrt(6) + 2 / math.sqrt(6) + 1 / math.sqrt(2) + 0
    first = agreement / 4 * math.exp(-1 / (2 * 6**2)) / 2
    # "a" is in the references of both videos, as a video has each n-gram once
    assert found["CIDEr"] == pytest.approx(10 * (first + 0.75) / 2)


def test_a_caption_of_nothing_scores_nothing_and_shifts_no_line(no_java):
    texts = ["a red star moves left", "a blue ring spins around"]
    for empty in ("", " ", ".", "|||", "\n"):
        found = caption_metrics([empty, *texts], [["a dog runs"], *([text] for text in texts)])
        assert found["ROUGE_L"] == pytest.approx(2 / 3)
        assert found["CIDEr"] == pytest.approx(10 * 2 / 3)


# --- tokens -----------------------------------------------------------------------------------------------------------

PLAIN = [
    "A man's dog doesn't bark.",
    "they're here, we've seen it; he'll say it's fine!",
    "two people (a man and a woman) are talking",
    'a sign says "stop" [in red]',
    "She runs. He walks. They stop?",
    "a left-hand turn at 3.5 km",
    "cannot see what you're gonna do",
    "a café in zürich",
    "...",
]
ODD = ["", "a\u2028b", "a\x85b\x0bc", "🙂", "\u200b", "a ||| b", "a\r\nb", "!!!", "\x1c", "end\n"]


@needs_java
def test_both_tokenizers_agree_on_plain_captions_and_keep_odd_ones_in_place():
    """Between any two odd captions stands one that is known again."""
    texts = dict(enumerate([[text] for text in PLAIN]))
    texts |= {100 + number: [text, f"mark {number}"] for number, text in enumerate(ODD)}
    by_java, by_nltk = module._tokenize_by_java(texts), module._tokenize_by_nltk(texts)
    assert list(by_java) == list(by_nltk) == list(texts)
    for number, text in enumerate(PLAIN):
        assert by_nltk[number] == by_java[number], text
    for found in (by_java, by_nltk):
        for number, text in enumerate(ODD):
            first, second = found[100 + number]
            assert second == f"mark {number}", repr(text)
            assert "\n" not in first
            assert "|||" not in first
    assert by_java[0] == ["a man 's dog does n't bark"]
    assert by_java[4] == ["she runs he walks they stop"]


# --- a METEOR that fails ----------------------------------------------------------------------------------------------


WITHOUT_A_JAR = """
import pycocoevalcap.meteor.meteor
from lavender.metrics import caption

pycocoevalcap.meteor.meteor.METEOR_JAR = "nowhere.jar"
caption._tokenize_by_java = caption._tokenize_by_nltk
print(sorted(caption.caption_metrics(["a red star", "a dog"], [["a red star"], ["a dog"]])))
"""


@needs_java
def test_a_meteor_that_fails_is_left_out_and_does_not_hold_up_the_run():
    """As where Java cannot have the 2 GiB that it asks for."""
    try:
        done = subprocess.run([sys.executable, "-c", WITHOUT_A_JAR], capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"it waits for ever: {error.stderr!r}")
    assert done.stdout == f"{sorted(set(module.NAMES) - {'METEOR'})}\n", done.stderr


def test_java_is_ended_before_the_other_processes_give_up(monkeypatch):
    spice = pytest.importorskip("pycocoevalcap.spice.spice")
    assert 2 * module.JAVA_SECONDS < 30 * 60
    monkeypatch.setattr(module, "JAVA_SECONDS", 0.2)
    monkeypatch.setattr(spice, "subprocess", spice.subprocess)
    monkeypatch.setattr(spice.Spice, "__init__", lambda self: None)  # which downloads CoreNLP
    monkeypatch.setattr(spice.Spice, "compute_score", lambda *_: spice.subprocess.check_call(["sleep", "60"]))
    with pytest.raises(subprocess.TimeoutExpired):
        module._spice({0: ["a"]}, {0: ["a"]})
