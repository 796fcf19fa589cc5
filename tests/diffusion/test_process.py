"""Noising against its definition: in place, by the level of each sample's own t."""

import pytest
import torch

from densescan.diffusion import add_noise, noise_scene
from densescan.errors import InputError


def test_each_sample_is_noised_by_its_own_level(schedule):
    x_0, eps = torch.randn(2, 3, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([0, 300, 999])
    x_t = add_noise(x_0, t, eps, schedule)
    survived = 1.0
    for step in range(1000):
        survived *= 1 - (3.5e-5 + (0.007 - 3.5e-5) * step / 999)
        for b in (t == step).nonzero().flatten().tolist():
            torch.testing.assert_close(x_t[b], x_0[b] + (1 - survived) ** 0.5 * eps[b], rtol=0, atol=1e-5)


def test_noise_does_not_depend_on_where_the_points_lie(schedule):
    eps = torch.randn(1, 50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([700])
    here, there = (add_noise(torch.full_like(eps, at), t, eps, schedule) - at for at in (0.0, 40.0))
    torch.testing.assert_close(here, there)


def test_gradient_reaches_the_points_unscaled(schedule):
    x_0 = torch.zeros(2, 4, 3, requires_grad=True)
    add_noise(x_0, torch.tensor([10, 900]), torch.ones(2, 4, 3), schedule).sum().backward()
    assert torch.equal(x_0.grad, torch.ones(2, 4, 3))


@pytest.mark.parametrize("t", [-1, 1000])
def test_steps_outside_the_schedule_are_refused(schedule, t):
    with pytest.raises(InputError, match=rf"t must lie in \[0, 1000\), got values from .*{t}"):
        add_noise(torch.zeros(2, 4, 3), torch.tensor([5, t]), torch.zeros(2, 4, 3), schedule)


def test_scene_starts_at_lam_times_the_noise():
    x_init, eps = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(noise_scene(x_init, 1.0, eps), x_init + eps)
    torch.testing.assert_close(noise_scene(x_init, 1.1, eps) - x_init, 1.1 * eps)


@pytest.mark.parametrize("lam", [-0.1, float("nan"), float("inf")])
def test_impossible_noise_scales_are_refused(lam):
    with pytest.raises(InputError, match="lam must be"):
        noise_scene(torch.zeros(2, 3), lam, torch.zeros(2, 3))
