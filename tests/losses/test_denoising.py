"""The teacher's loss against its formula in NumPy, and its gradient."""

import numpy as np
import pytest
import torch

from densescan.losses.denoising import RELEASED_PRIOR_WEIGHT, denoising_loss


@pytest.mark.parametrize("prior_weight", [0.0, 0.7, RELEASED_PRIOR_WEIGHT])
def test_equals_its_formula(prior_weight: float) -> None:
    rng = np.random.default_rng(0)
    eps_hat, eps = rng.normal(0.3, 0.7, (2, 50, 3)), rng.normal(size=(2, 50, 3))
    loss = denoising_loss(torch.from_numpy(eps_hat), torch.from_numpy(eps), prior_weight)
    mse = np.mean((eps_hat - eps) ** 2)
    prior = np.mean(eps_hat) ** 2 + (np.std(eps_hat, ddof=1) - 1) ** 2
    assert loss.mse.item() == pytest.approx(mse, rel=1e-12)
    assert loss.prior.item() == pytest.approx(prior, rel=1e-12)
    assert loss.total.item() == pytest.approx(mse + prior_weight * prior, rel=1e-12)


def test_errors_in_metres_count_by_the_scale_of_their_sample() -> None:
    rng = np.random.default_rng(0)
    eps_hat, eps, sigma = rng.normal(size=(2, 50, 3)), rng.normal(size=(2, 50, 3)), np.array([0.1, 0.9])
    clouds = (torch.from_numpy(cloud) for cloud in (eps_hat, eps))
    loss = denoising_loss(*clouds, prior_weight=0.7, scale=torch.from_numpy(sigma))
    assert loss.mse.item() == pytest.approx(np.mean((sigma[:, None, None] * (eps_hat - eps)) ** 2), rel=1e-12)
    prior = np.mean(eps_hat) ** 2 + (np.std(eps_hat, ddof=1) - 1) ** 2
    assert loss.prior.item() == pytest.approx(prior, rel=1e-12), "the prior is on the noise"


def test_released_weight_is_the_default() -> None:
    eps_hat, eps = torch.full((1, 4, 3), 2.0), torch.zeros(1, 4, 3)
    assert denoising_loss(eps_hat, eps).total.item() == pytest.approx(4 + 5 * (4 + 1))


def test_a_right_prediction_of_unit_variance_costs_nothing() -> None:
    eps = torch.randn(1, 500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eps = (eps - eps.mean()) / eps.std()
    assert denoising_loss(eps, eps).total.item() == pytest.approx(0, abs=1e-20)


def test_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    eps_hat = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    eps = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: denoising_loss(x, eps).total, (eps_hat,))


def test_reduced_predictions_are_widened_before_they_are_summed() -> None:
    generator = torch.Generator().manual_seed(0)
    eps_hat = (0.9 * torch.randn(1, 3000, 3, generator=generator)).bfloat16()
    eps = torch.randn(1, 3000, 3, generator=generator)
    loss, wide = denoising_loss(eps_hat, eps), denoising_loss(eps_hat.float(), eps)
    assert loss.prior.dtype == loss.total.dtype == torch.float32
    assert torch.equal(torch.stack(loss), torch.stack(wide))
