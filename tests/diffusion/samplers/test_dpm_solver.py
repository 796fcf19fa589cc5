"""DPM-Solver++ (2M) against recorded trajectories of diffusers 0.18.0 and 0.42.1, the installed diffusers, a Gaussian.

tests/data_arrays/sampler_small.npz holds trajectories (steps + 1, 1, 64, 3) of DPMSolverMultistepScheduler
(sde-dpmsolver++, order 2, linear betas) under the predictor below, from x_T of torch.Generator().manual_seed(1234),
with the noise that scheduler.step drew.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from densescan.diffusion import dpm_solver_pp
from densescan.errors import InputError

ARRAYS = Path(__file__).parents[2] / "data_arrays" / "sampler_small.npz"
LAST_STEP = {"0.18.0": "diffusers-0.18", "0.42.1": "diffusers-new"}


def recorded_predictor(x, t):
    return torch.tanh(0.7 * x + 0.1 * torch.cos(t.float() / 100)) + 0.05 * x


def replay(schedule, x, noise, last_step):
    """Every state of a run from x[0] with the recorded noise."""
    draws, states = iter(torch.from_numpy(noise)), [torch.from_numpy(x[0])]
    dpm_solver_pp(
        recorded_predictor, torch.zeros_like(states[0]), states[0], schedule, len(x) - 1,
        noise=lambda like: next(draws), last_step=last_step, on_step=lambda i, x_t: states.append(x_t),
    )  # fmt: skip
    return torch.stack(states).numpy()


@pytest.mark.parametrize("version", LAST_STEP)
@pytest.mark.parametrize("steps", [8, 2, 1])
def test_trajectory_equals_the_arrays_of_the_repository(schedule, version, steps):
    recorded = np.load(ARRAYS)
    x = recorded[f"{version}_x_{steps}"]
    states = replay(schedule, x, recorded[f"noise_{steps}"], LAST_STEP[version])
    np.testing.assert_allclose(states, x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("version", LAST_STEP)
@pytest.mark.parametrize("steps", [50, 8, 4, 2, 1])
def test_trajectory_equals_the_recorded_one(schedule, shared, version, steps):
    recorded = np.load(shared / "reference" / f"sampler_diffusers_{version}.npz")
    x = recorded[f"x_{steps}"]
    states = replay(schedule, x, recorded[f"noise_{steps}"], LAST_STEP[version])
    np.testing.assert_allclose(states, x, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("steps", [50, 8, 4, 2])
def test_second_scene_starts_afresh(schedule, shared, steps):
    recorded = np.load(shared / "reference" / "sampler_diffusers_0.18.0.npz")
    fresh, stale = recorded[f"second_reset_x_{steps}"], recorded[f"second_x_{steps}"]
    replay(schedule, recorded[f"x_{steps}"], recorded[f"noise_{steps}"], "diffusers-0.18")
    states = replay(schedule, fresh, recorded[f"second_noise_{steps}"], "diffusers-0.18")
    np.testing.assert_allclose(states, fresh, rtol=2e-6, atol=1e-5)
    assert np.abs(states - stale).max() > 1e-3


def test_guided_network_run_is_reproduced(schedule, shared):
    run = np.load(shared / "reference" / "pipeline_cr025.npz")
    x_init = torch.from_numpy(np.tile(run["scan"], (10, 1)))
    eps, draws, states = (
        iter(torch.from_numpy(run["T2.eps"])),
        iter(torch.from_numpy(run["T2.step_noise"])),
        [],
    )
    x_T = x_init + torch.from_numpy(run["T2.z_init"])
    dpm_solver_pp(lambda x, t: next(eps), x_init, x_T, schedule, 2, noise=lambda like: next(draws),
                  on_step=lambda i, x_t: states.append(x_t))  # fmt: skip
    np.testing.assert_array_equal(x_T.numpy(), run["T2.x"][0])
    np.testing.assert_allclose(torch.stack(states).numpy(), run["T2.x"][1:], rtol=0, atol=3e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("steps", [1, 3, 8, 14, 15, 50])
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize(("final", "last_step"), [("sigma_min", "diffusers-0.18"), ("zero", "diffusers-new")])
def test_trajectory_equals_the_installed_diffusers(schedule, diffusers, steps, stochastic, final, last_step):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_start=3.5e-5, beta_end=0.007, beta_schedule="linear", solver_order=2, final_sigmas_type=final,
        algorithm_type="sde-dpmsolver++" if stochastic else "dpmsolver++")  # fmt: skip
    scheduler.set_timesteps(steps)
    draws = torch.randn(steps + 1, 2, 16, 3, generator=torch.Generator().manual_seed(3))
    theirs = [draws[-1]]
    for i, t in enumerate(scheduler.timesteps):
        eps_hat = recorded_predictor(theirs[-1], t)
        theirs.append(scheduler.step(eps_hat, t, theirs[-1], variance_noise=draws[i]).prev_sample)
    noise, ours = iter(draws), []
    dpm_solver_pp(
        recorded_predictor, torch.zeros_like(draws[-1]), draws[-1], schedule, steps, last_step=last_step,
        noise=(lambda like: next(noise)) if stochastic else None, on_step=lambda i, x: ours.append(x),
    )  # fmt: skip
    torch.testing.assert_close(torch.stack(ours), torch.stack(theirs[1:]), rtol=1e-5, atol=2e-5)


def test_flow_reaches_the_gaussian_at_second_order(schedule, shrinking):
    u = torch.linspace(-2, 2, 9, dtype=torch.float64)

    def error(steps):
        x_0 = dpm_solver_pp(shrinking.eps, torch.zeros_like(u), shrinking.noised(u), schedule, steps,
                            last_step="diffusers-new")  # fmt: skip
        return (x_0 - shrinking.clean(u)).abs().max().item()

    assert error(16) < error(8) / 3
    assert error(32) < error(16) / 4
    assert error(50) < 1e-3


@pytest.mark.parametrize(("last_step", "floor"), [("diffusers-0.18", 0.006), ("diffusers-new", 0.0)])
def test_stochastic_run_reaches_the_gaussian(shrinking, last_step, floor):
    mean, std = shrinking.moments(dpm_solver_pp, 400, last_step=last_step)
    assert mean == pytest.approx(shrinking.mean, abs=0.003)
    assert std == pytest.approx((shrinking.std**2 + floor**2) ** 0.5, rel=0.01)


def test_one_step_is_the_posterior_mean(schedule, shrinking):
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64)
    x_0 = dpm_solver_pp(shrinking.eps, torch.zeros_like(x_T), x_T, schedule, 1, last_step="diffusers-new")
    torch.testing.assert_close(x_0, shrinking.posterior_mean(x_T, 999), rtol=0, atol=2e-6)


def test_unknown_last_step_is_refused(schedule):
    with pytest.raises(InputError, match=r"last_step must be diffusers-0\.18 or diffusers-new, got 'zero'"):
        dpm_solver_pp(recorded_predictor, torch.zeros(2), torch.zeros(2), schedule, 2, last_step="zero")
