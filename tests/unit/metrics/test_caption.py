"""Captioning metrics against values worked out by hand, and what is told where something is missing."""

import math
import shutil

import pytest

from lavender.metrics import caption as module
from lavender.metrics.caption import caption_metrics, missing_for_metrics

pytest.importorskip("pycocoevalcap")
needs_java = pytest.mark.skipif(not shutil.which("java"), reason="there is no Java on this machine")


@pytest.fixture
def no_java(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: None)


def test_bleu_by_hand(no_java):
    """4 of 5 words, 3 of 4 pairs, 2 of 3 triples and 1 of 2 quadruples are in the reference; no brevity penalty."""
    found = caption_metrics(["a red star moves fast"], [["a red star moves left"]])
    shares = (4 / 5, 3 / 4, 2 / 3, 1 / 2)
    for n in range(1, 5):
        assert found[f"Bleu_{n}"] == pytest.approx(math.prod(shares[:n]) ** (1 / n), rel=1e-6)


def test_short_captions_pay_for_it(no_java):
    found = caption_metrics(["a red star"], [["a red star moves left"]])
    assert found["Bleu_1"] == pytest.approx(math.exp(1 - 5 / 3), rel=1e-6)


def test_rouge_by_hand(no_java):
    """The longest common subsequence has 3 words: precision 3/4, recall 3/5, weighed with β = 1.2."""
    found = caption_metrics(["a star moves up"], [["a red star moves left"]])
    precision, recall, square = 3 / 4, 3 / 5, 1.2**2
    assert found["ROUGE_L"] == pytest.approx((1 + square) * precision * recall / (recall + square * precision))


def test_cider_by_hand(no_java):
    """Captions that equal their references, of two videos without a common word: 10 for each of the four n-grams.

    A word in all references tells nothing: its weight is log(2/2) = 0, so a caption of it alone scores 0.
    """
    texts = ["red star moves left", "blue cross spins around"]
    assert caption_metrics(texts, [[text] for text in texts])["CIDEr"] == pytest.approx(10.0)
    swapped = caption_metrics(texts[::-1], [[text] for text in texts])
    assert swapped["CIDEr"] == pytest.approx(0.0)
    same = caption_metrics(["star", "star"], [["star"], ["star"]])
    assert same["CIDEr"] == pytest.approx(0.0)


@pytest.mark.slow
@needs_java
def test_meteor_and_the_tokenizer_of_the_package():
    """Lines stay with their videos whatever a caption holds: nothing, line ends, or METEOR's separator."""
    captions = ["", "a\nblue ||| cross", "a red star moves left"]
    references = [["a dog"], ["a blue cross"], ["a red star moves left", "the star"]]
    found = caption_metrics(captions, references)
    assert set(found) == set(module.NAMES)
    assert found["ROUGE_L"] == pytest.approx((0 + 1 + 1) / 3)
    assert found["METEOR"] > 0.5
    plain = module._tokenize_by_nltk({0: references[2], 1: ["a man's dog doesn't bark (loudly). it sleeps!"]})
    assert plain == module._tokenize_by_java({0: references[2], 1: ["a man's dog doesn't bark (loudly). it sleeps!"]})


@needs_java
@pytest.mark.slow
def test_it_is_what_the_package_computes(tmp_path):
    """Against COCOEvalCap over COCO files, without SPICE, which needs the network."""
    import json
    from unittest import mock

    from pycocoevalcap.eval import COCOEvalCap
    from pycocotools.coco import COCO

    captions = ["a red star moves left", "a dog runs", "the blue cross"]
    references = [["a red star moves left", "the star moves"], ["a cat runs fast"], ["a blue cross spins"]]
    pairs = [(number, text) for number, texts in enumerate(references) for text in texts]
    annotations = [{"image_id": n, "caption": text, "id": key} for key, (n, text) in enumerate(pairs)]
    truth = {"images": [{"id": n} for n in range(3)], "annotations": annotations}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps([{"image_id": n, "caption": c} for n, c in enumerate(captions)]))
    coco = COCO(str(tmp_path / "truth.json"))
    with mock.patch("pycocoevalcap.eval.Spice") as spice:
        spice.return_value.compute_score.return_value = (0.0, [{}] * 3)
        evaluation = COCOEvalCap(coco, coco.loadRes(str(tmp_path / "found.json")))
        evaluation.evaluate()
    expected = {name: evaluation.eval[name] for name in module.NAMES}
    assert caption_metrics(captions, references) == pytest.approx(expected, rel=1e-9)


def test_without_java_it_says_so(no_java, log):
    found = caption_metrics(["a red star"], [["a red star"]])
    assert set(found) == set(module.NAMES) - {"METEOR"}
    assert "there is no Java" in log.text
    assert "default-jre-headless" in missing_for_metrics()


@pytest.mark.parametrize(
    ("absent", "words"), [("pycocoevalcap", "pip install pycocoevalcap"), ("nltk", "neither Java")]
)
def test_without_a_package_nothing_is_scored(no_java, monkeypatch, log, absent: str, words: str):
    monkeypatch.setattr(module, "_installed", lambda package: package != absent)
    assert caption_metrics(["a"], [["a"]]) == {}
    assert words in log.text


def test_a_metric_that_fails_is_left_out_and_named(no_java, monkeypatch, log):
    from pycocoevalcap.rouge.rouge import Rouge

    def broken(*_: object) -> None:
        raise OSError("no memory")

    monkeypatch.setattr(Rouge, "compute_score", broken)
    assert set(caption_metrics(["a b"], [["a b"]])) == set(module.NAMES) - {"METEOR", "ROUGE_L"}
    assert "ROUGE_L could not be computed and is left out: OSError: no memory" in log.text
