"""The samplers of Eq. 1 against a Gaussian, whose every moment is known, and the inversion of `add_noise`."""

import pytest
import torch

from densescan.diffusion import add_noise, consistent, ddim, renoise


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_true_noise_inverts_the_process_of_training(schedule, steps):
    x_0, eps = torch.randn(2, 1, 20, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [30.0, 1.0]
    ).view(2, 1, 1, 1)
    x_T = add_noise(x_0, torch.tensor([999]), eps, schedule)
    states = []
    found = consistent(lambda x, t: eps, x_0.mean(1, keepdim=True).expand_as(x_0), x_T, schedule, steps,
                       on_step=lambda i, x: states.append(x))  # fmt: skip
    torch.testing.assert_close(found, x_0, rtol=0, atol=2e-5)
    for x_t, t in zip(states, schedule.timesteps(steps)[1:], strict=False):
        torch.testing.assert_close(x_t, add_noise(x_0, torch.tensor([t]), eps, schedule), rtol=0, atol=2e-5)


def test_flow_reaches_the_gaussian_at_first_order(schedule, in_place):
    u = torch.linspace(-2, 2, 9, dtype=torch.float64)

    def error(steps):
        x_0 = consistent(in_place.eps, torch.zeros_like(u), in_place.noised(u), schedule, steps)
        return (x_0 - in_place.clean(u)).abs().max().item()

    assert error(500) < 5e-3
    assert error(500) == pytest.approx(error(250) / 2, rel=0.1)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_variance_converges_for_every_eta(in_place, eta):
    moments = [in_place.moments(consistent, steps, eta=eta) for steps in (8, 50, 200, 999)]
    assert all(mean == pytest.approx(in_place.mean, abs=1e-6) for mean, _ in moments)
    missing = [1 - (std / in_place.std) ** 2 for _, std in moments]
    assert missing[0] > 2 * missing[1] > 4 * missing[2] > 8 * missing[3]
    assert missing[3] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("churn", [0.5, 1.0])
def test_renoising_a_mean_loses_the_documented_variance(in_place, churn):
    mean, std = in_place.moments(renoise, 999, churn=churn)
    assert mean == pytest.approx(in_place.mean, abs=1e-6)
    assert (std / in_place.std) ** 2 == pytest.approx((1 + (1 - churn**2) ** 0.5) / 2, abs=0.02)


def test_a_step_mixes_old_and_fresh_noise_as_written(schedule):
    x_T, eps, fresh = torch.randn(3, 12, 3, generator=torch.Generator().manual_seed(0))
    sigma, states = schedule.sigma_t, []
    for sampler in (
        lambda *a, **k: renoise(*a, churn=0.6, **k),
        lambda *a, **k: consistent(*a, eta=0.6, **k),
    ):
        sampler(lambda x, t: eps, torch.zeros_like(x_T), x_T, schedule, 2, noise=lambda like: fresh,
                on_step=lambda i, x: states.append(x))  # fmt: skip
    x_0_hat = x_T - sigma[999] * eps
    torch.testing.assert_close(states[0], x_0_hat + sigma[500] * (0.8 * eps + 0.6 * fresh))
    share = 0.6 * (1 - (sigma[500] / sigma[999]) ** 2).sqrt()
    torch.testing.assert_close(
        states[2], x_0_hat + sigma[500] * ((1 - share**2).sqrt() * eps + share * fresh)
    )


def test_without_fresh_noise_both_are_one(schedule, in_place):
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64)
    flow = consistent(in_place.eps, torch.zeros_like(x_T), x_T, schedule, 7)
    assert torch.equal(renoise(in_place.eps, torch.zeros_like(x_T), x_T, schedule, 7, churn=0.0), flow)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_it_is_ddim_in_coordinates_that_do_not_shrink(schedule, eta):
    """With x_t = z_t / alpha_t, variance preserving at ratio sigma_t / alpha_t, DDIM becomes this sampler's rule."""
    z_T, draws = (
        torch.randn(10, 2, generator=torch.Generator().manual_seed(0)).double(),
        torch.ones(10, 2).double(),
    )
    states = []
    ddim(lambda x, t: torch.tanh(x), torch.zeros_like(z_T), z_T, schedule, 2, eta=eta, noise=lambda like: draws,
         on_step=lambda i, z: states.append(z))  # fmt: skip
    ratio = (schedule.sigma_t / schedule.alpha_t).double()
    x_T, eps_hat = z_T / schedule.alpha_t[999], torch.tanh(z_T)
    share = eta * (1 - (ratio[500] / ratio[999]) ** 2).sqrt()
    x_s = x_T - ratio[999] * eps_hat + ratio[500] * ((1 - share**2).sqrt() * eps_hat + share * draws)
    torch.testing.assert_close(states[0] / schedule.alpha_t[500], x_s, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", [consistent, renoise])
def test_one_step_is_the_posterior_mean(schedule, in_place, sampler):
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64)
    x_0 = sampler(in_place.eps, torch.zeros_like(x_T), x_T, schedule, 1, noise=torch.ones_like)
    torch.testing.assert_close(x_0, in_place.posterior_mean(x_T, 999), rtol=0, atol=2e-6)
