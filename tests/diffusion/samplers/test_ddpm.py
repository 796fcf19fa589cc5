"""DDPM against the installed diffusers, the posterior's own definition, and a Gaussian."""

import pytest
import torch

from densescan.diffusion import Schedule, ddim, ddpm, gaussian


def curved(x, t):
    return torch.tanh(0.7 * x + 0.1 * torch.cos(t / 100)) + 0.05 * x


@pytest.mark.parametrize("steps", [1, 2, 8, 50])
def test_trajectory_equals_diffusers(schedule, diffusers, steps):
    scheduler = diffusers.DDPMScheduler(
        beta_start=3.5e-5,
        beta_end=0.007,
        beta_schedule="linear",
        variance_type="fixed_small",
        clip_sample=False,
    )
    scheduler.set_timesteps(timesteps=schedule.timesteps(steps))
    x_T = torch.randn(2, 16, 3, generator=torch.Generator().manual_seed(3))
    theirs, generator = [x_T], torch.Generator().manual_seed(4)
    for t in scheduler.timesteps:
        theirs.append(scheduler.step(curved(theirs[-1], t), t, theirs[-1], generator=generator).prev_sample)
    ours = []
    ddpm(curved, torch.zeros_like(x_T), x_T, schedule, steps, noise=gaussian(torch.Generator().manual_seed(4)),
         on_step=lambda i, x: ours.append(x))  # fmt: skip
    torch.testing.assert_close(torch.stack(ours), torch.stack(theirs[1:]), rtol=2e-5, atol=2e-5)


def test_a_step_of_one_level_is_equation_2(schedule):
    x, z = torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    states = []
    ddpm(
        curved,
        torch.zeros_like(x),
        x,
        schedule,
        999,
        noise=lambda like: z,
        on_step=lambda i, s: states.append(s),
    )
    beta, survived = schedule.betas[999].double(), schedule.alphas_cumprod[999].double()
    before = schedule.alphas_cumprod[998].double()
    mean = (x - beta / (1 - survived).sqrt() * curved(x, torch.tensor(999))) / (1 - beta).sqrt()
    std = (beta * (1 - before) / (1 - survived)).sqrt()
    torch.testing.assert_close(states[0], mean + std * z, rtol=0, atol=2e-6)


def test_it_is_ddim_at_full_eta():
    schedule, x_T = Schedule(T=100), torch.randn(16, 2, generator=torch.Generator().manual_seed(0)).double()
    ours, theirs = (
        sampler(
            curved,
            torch.zeros_like(x_T),
            x_T,
            schedule,
            20,
            noise=gaussian(torch.Generator().manual_seed(1)),
            **own,
        )
        for sampler, own in ((ddpm, {}), (ddim, {"eta": 1.0}))
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)


def test_many_steps_reach_the_gaussian(shrinking):
    mean, std = shrinking.moments(ddpm, 999)
    assert mean == pytest.approx(shrinking.mean, abs=0.003)
    assert std == pytest.approx(shrinking.std, rel=0.01)


def test_one_step_is_the_posterior_mean(schedule, shrinking):
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64)
    x_0 = ddpm(shrinking.eps, torch.zeros_like(x_T), x_T, schedule, 1, noise=torch.ones_like)
    torch.testing.assert_close(x_0, shrinking.posterior_mean(x_T, 999), rtol=0, atol=2e-6)
