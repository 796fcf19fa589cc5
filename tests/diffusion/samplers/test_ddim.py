"""DDIM against the installed diffusers, step by step, and a Gaussian."""

import pytest
import torch

from densescan.diffusion import ddim


def curved(x, t):
    return torch.tanh(0.7 * x + 0.1 * torch.cos(t / 100)) + 0.05 * x


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("steps", [9, 27])
def test_trajectory_equals_diffusers(schedule, diffusers, steps, eta):
    """On grids whose spacing is T // steps, as DDIMScheduler assumes; it ends at t = 0, we at its estimate of x_0."""
    scheduler = diffusers.DDIMScheduler(
        beta_start=3.5e-5, beta_end=0.007, beta_schedule="linear", clip_sample=False
    )
    scheduler.set_timesteps(steps)
    draws = torch.randn(steps + 1, 2, 16, 3, generator=torch.Generator().manual_seed(3))
    x, theirs = draws[-1], []
    for i, t in enumerate(schedule.timesteps(steps)):
        step = scheduler.step(curved(x, torch.tensor(t)), t, x, eta=eta, variance_noise=draws[i])
        x = step.prev_sample
        theirs.append(x)
    theirs[-1] = step.pred_original_sample
    noise, ours = iter(draws), []
    ddim(curved, torch.zeros_like(x), draws[-1], schedule, steps, eta=eta, noise=lambda like: next(noise),
         on_step=lambda i, x_t: ours.append(x_t))  # fmt: skip
    torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), rtol=2e-5, atol=2e-5)


def test_flow_reaches_the_gaussian(schedule, shrinking):
    u = torch.linspace(-2, 2, 9, dtype=torch.float64)

    def error(steps):
        x_0 = ddim(shrinking.eps, torch.zeros_like(u), shrinking.noised(u), schedule, steps)
        return (x_0 - shrinking.clean(u)).abs().max().item()

    assert error(500) < 5e-3
    assert error(500) == pytest.approx(error(250) / 2, rel=0.1)  # first order


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_stochastic_run_reaches_the_gaussian(shrinking, eta):
    mean, std = shrinking.moments(ddim, 999, eta=eta)
    assert mean == pytest.approx(shrinking.mean, abs=0.003)
    assert std == pytest.approx(shrinking.std, rel=0.01)


def test_one_step_is_the_posterior_mean(schedule, shrinking):
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64)
    x_0 = ddim(shrinking.eps, torch.zeros_like(x_T), x_T, schedule, 1)
    torch.testing.assert_close(x_0, shrinking.posterior_mean(x_T, 999), rtol=0, atol=2e-6)
