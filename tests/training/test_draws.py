"""Random numbers belong to crop and purpose, whatever else is in the batch."""

import numpy as np
import pytest
import torch
from scipy import stats

from densescan.training.draws import Draws

LIKE = torch.zeros(3, 4, 2)


def test_a_crop_s_numbers_do_not_depend_on_its_batch() -> None:
    together = Draws(5, (7, 8, 9))
    noise, t, share = together.normal("eps", LIKE), together.integers("t", 1000), together.uniform("drop")
    for place, crop in enumerate((7, 8, 9)):
        alone = Draws(5, (crop,))
        assert torch.equal(alone.normal("eps", LIKE[:1])[0], noise[place])
        assert torch.equal(alone.integers("t", 1000), t[place : place + 1])
        assert torch.equal(alone.uniform("drop"), share[place : place + 1])


def test_another_purpose_moves_no_number() -> None:
    plain, busy = Draws(0, (1,)), Draws(0, (1,))
    busy.normal("before", LIKE[:1])
    busy.integers("t", 10)
    assert torch.equal(plain.normal("eps", LIKE[:1]), busy.normal("eps", LIKE[:1]))


def test_purposes_crops_and_seeds_differ() -> None:
    numbers = {
        Draws(seed, (crop,)).uniform(name).item() for seed in (0, 1) for crop in (0, 1) for name in "ab"
    }
    assert len(numbers) == 8


def test_asking_again_goes_on() -> None:
    draws, other = Draws(0, (1, 2)), Draws(0, (1, 2))
    first, second = draws.uniform("a"), draws.uniform("a")
    assert not torch.equal(first, second)
    assert torch.equal(other.uniform("a"), first)
    assert torch.equal(other.chosen([1]).uniform("a"), second[1:]), (
        "a crop alone goes on with the streams of the batch"
    )
    assert not torch.equal(other.uniform("a")[1:], second[1:])


def test_a_source_of_noise_goes_on_too() -> None:
    noise = Draws(0, (1, 2, 3)).noise("sampling")
    expected = Draws(0, (1, 2, 3))
    assert torch.equal(noise(LIKE), expected.normal("sampling", LIKE))
    assert torch.equal(noise(LIKE), expected.normal("sampling", LIKE))


def test_noise_drawn_ahead_is_the_same() -> None:
    draws, expected = Draws(0, (1, 2, 3)), Draws(0, (1, 2, 3))
    first = draws.normal_ahead("eps", LIKE)
    with torch.inference_mode():
        second = draws.normal_ahead("eps", LIKE)()
    assert torch.equal(first(), expected.normal("eps", LIKE))
    assert torch.equal(second, expected.normal("eps", LIKE))


def test_the_noise_is_normal_and_the_numbers_even() -> None:
    draws = Draws(3, range(2_000))
    eps = draws.normal("eps", torch.zeros(2_000, 5, dtype=torch.float64))
    assert eps.dtype == torch.float64
    assert stats.kstest(eps.flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(draws.uniform("u").numpy(), "uniform").pvalue > 1e-3
    t = draws.integers("t", 7, start=3).numpy()
    assert stats.chisquare(np.bincount(t, minlength=7)[3:]).pvalue > 1e-3
    assert (t.min(), t.max()) == (3, 6)


def test_a_tensor_of_another_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Draws(0, (1, 2, 3)).normal("eps", LIKE[:2])
