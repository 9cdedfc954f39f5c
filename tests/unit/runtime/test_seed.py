import random
from itertools import product

import numpy as np
import pytest
import torch

from lavender.runtime.seed import EVALUATION, sample_rng, seed_process


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(1))


@pytest.fixture(autouse=True)
def _states_put_back():
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def test_a_process_repeats_its_numbers_and_others_draw_their_own():
    seed_process(88, 0)
    first = draws()
    seed_process(88, 0)
    assert draws() == first
    seed_process(88, 1)
    assert not set(draws()) & set(first)
    seed_process(89, 0)
    assert not set(draws()) & set(first)


def test_the_largest_seed_serves_every_process():
    for rank in range(3):  # schema.py lets seed be up to 2**32 - 1
        seed_process(2**32 - 1, rank)


def test_a_stream_repeats():
    np.testing.assert_array_equal(sample_rng(88, 3, 7).random(50), sample_rng(88, 3, 7, 0).random(50))


def test_each_part_of_its_name_gives_a_stream_of_its_own():
    names = list(product((0, 88), (0, 1, 2, EVALUATION), (0, 1, 2, 10**7), (0, 1)))
    firsts = {sample_rng(*name).integers(2**62) for name in names}
    assert len(firsts) == len(names)


def test_streams_are_independent():
    rows = np.stack([sample_rng(88, 1, index).random(400) for index in range(50)])
    assert abs(rows.mean() - 0.5) < 0.01
    correlations = np.asarray(np.corrcoef(rows))[np.triu_indices(50, 1)]
    assert np.abs(correlations).max() < 0.25  # 5 deviations of 1/√400


def test_a_stream_does_not_touch_the_process():
    seed_process(5, 0)
    first = draws()
    seed_process(5, 0)
    sample_rng(88, 1, 1).random(10)
    assert draws() == first
