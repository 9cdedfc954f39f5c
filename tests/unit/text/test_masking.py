import numpy as np
import pytest

from lavender.text.masking import IGNORED, mask_words

PAD, UNKNOWN, CLS, SEP, MASK = 0, 1, 2, 3, 4
KEEP = (CLS, SEP, PAD, MASK)


def test_what_is_drawn_below_the_probability_is_hidden():
    ids = np.array([CLS, 7, 8, 9, UNKNOWN, SEP, PAD, MASK])
    draws = np.array([0.0, 0.149999, 0.15, 0.9, 0.1, 0.0, 0.0, 0.0])
    hidden, labels = mask_words(ids, draws, 0.15, KEEP, MASK)
    assert hidden.tolist() == [CLS, MASK, 8, 9, MASK, SEP, PAD, MASK]
    assert labels.tolist() == [IGNORED, 7, IGNORED, IGNORED, UNKNOWN, IGNORED, IGNORED, IGNORED]


def test_the_input_is_left_alone():
    ids = np.array([7, 8, 9])
    mask_words(ids, np.zeros(3), 0.5, KEEP, MASK)
    assert ids.tolist() == [7, 8, 9]


@pytest.mark.parametrize("probability", [0.0, 0.15, 0.5, 1.0])
def test_rate_and_what_hides(probability: float):
    stream = np.random.default_rng(0)
    ids = stream.integers(0, 50, (2000, 40))
    hidden, labels = mask_words(ids, stream.random(ids.shape), probability, KEEP, MASK)
    special = np.isin(ids, KEEP)
    chosen = labels != IGNORED
    assert not chosen[special].any()
    assert (hidden[special] == ids[special]).all()
    assert (hidden[chosen] == MASK).all(), "always [MASK], never another word or the word itself"
    assert (labels[chosen] == ids[chosen]).all()
    assert (hidden[~chosen] == ids[~chosen]).all()
    rate = chosen[~special].mean()
    assert rate == probability if probability in (0, 1) else abs(rate - probability) < 0.01


def test_captioning_may_hide_cls_and_sep():
    ids = np.array([CLS, 7, SEP, PAD, MASK])
    hidden, labels = mask_words(ids, np.zeros(5), 0.2, (PAD, MASK), MASK)
    assert hidden.tolist() == [MASK, MASK, MASK, PAD, MASK]
    assert labels.tolist() == [CLS, 7, SEP, IGNORED, IGNORED]
