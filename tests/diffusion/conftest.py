"""Closed forms for diffusion tests: a Gaussian x_0, whose noise predictor, posterior and samples are known exactly."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from torch import Tensor

from densescan.diffusion import Schedule


@dataclass(frozen=True)
class Normal:
    """x_0 ~ N(mean, std^2) about x_init = 0, noised to alpha_t x_0 + sigma_t eps, or to x_0 + sigma_t eps (Eq. 1)."""

    schedule: Schedule
    shrinks: bool
    mean: float = 0.4
    std: float = 0.3

    def level(self, t: int | Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule.alpha_t[t].double(), self.schedule.sigma_t[t].double()
        return (alpha if self.shrinks else torch.ones_like(alpha)), sigma

    def variance(self, t: int | Tensor) -> Tensor:
        alpha, sigma = self.level(t)
        return alpha**2 * self.std**2 + sigma**2

    def eps(self, x_t: Tensor, t: Tensor) -> Tensor:
        """E[eps | x_t]"""
        alpha, sigma = self.level(t)
        return sigma * (x_t - alpha * self.mean) / self.variance(t)

    def posterior_mean(self, x_t: Tensor, t: int) -> Tensor:
        """E[x_0 | x_t], by precision weighting and not by way of eps."""
        alpha, sigma = self.level(t)
        prior, seen = 1 / self.std**2, alpha**2 / sigma**2
        return (prior * self.mean + seen * x_t / alpha) / (prior + seen)

    def noised(self, u: Tensor) -> Tensor:
        """x_T of standard normal u, with the marginal distribution of t = T - 1."""
        t = self.schedule.T - 1
        return self.level(t)[0] * self.mean + self.variance(t).sqrt() * u

    def clean(self, u: Tensor) -> Tensor:
        """x_0 of standard normal u: where the exact probability flow takes noised(u)."""
        return self.mean + self.std * u

    def moments(self, sampler: Callable[..., Tensor], steps: int, **own: object) -> tuple[float, float]:
        """Mean and standard deviation that `sampler` ends with: exact, since its result is linear in all its draws."""
        u, draws = torch.zeros(1, dtype=torch.float64, requires_grad=True), []

        def noise(like: Tensor) -> Tensor:
            draws.append(torch.zeros_like(like, requires_grad=True))
            return draws[-1]

        x_0 = sampler(self.eps, torch.zeros_like(u), self.noised(u), self.schedule, steps, noise=noise, **own)
        weights = torch.stack(torch.autograd.grad(x_0.sum(), [u, *draws]))
        return x_0.item(), weights.square().sum().sqrt().item()


@pytest.fixture(scope="session")
def schedule() -> Schedule:
    return Schedule()


@pytest.fixture(scope="session")
def shrinking(schedule: Schedule) -> Normal:
    return Normal(schedule, shrinks=True)


@pytest.fixture(scope="session")
def in_place(schedule: Schedule) -> Normal:
    return Normal(schedule, shrinks=False)


@pytest.fixture(scope="session")
def diffusers() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("diffusers")
