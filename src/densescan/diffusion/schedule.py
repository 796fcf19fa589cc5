"""The noise schedule: how much signal and noise is left at step t, and which steps a sampler visits."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from densescan.errors import InputError


class Level(NamedTuple):
    """One noise level as plain numbers: x_t = alpha * x_0 + sigma * eps for a variance-preserving sample."""

    t: int
    alpha: float
    sigma: float
    half_log_snr: float  # log(alpha / sigma), the "lambda" of DPM-Solver


CLEAN = Level(t=-1, alpha=1.0, sigma=0.0, half_log_snr=math.inf)
"""The noiseless level below t = 0, where a sampler that ends on its estimate of x_0 ends."""


@dataclass(frozen=True)
class Schedule:
    """Linear betas and all that follows from them, float32 on the CPU; t runs over [0, T).

    Deviation: none, the defaults are those of the released models; sigma_t at t = T - 1 is 0.985.
    """

    beta_start: float = 3.5e-5
    """beta at t = 0"""
    beta_end: float = 0.007
    """beta at t = T - 1"""
    T: int = 1000
    """number of noise levels the network is trained on"""

    def __post_init__(self) -> None:
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise InputError(
                f"betas must satisfy 0 < beta_start <= beta_end < 1, got {self.beta_start} and "
                f"{self.beta_end}; the released models use 3.5e-5 and 0.007"
            )
        if self.T < 2:
            raise InputError(f"T must be at least 2 noise levels, got {self.T}; the released models use 1000")

    @cached_property
    def betas(self) -> Float[Tensor, " T"]:
        """Variance added from t - 1 to t."""
        return torch.linspace(self.beta_start, self.beta_end, self.T, dtype=torch.float32)

    @cached_property
    def alphas_cumprod(self) -> Float[Tensor, " T"]:
        """Share of the signal's variance left at t: the product of 1 - betas up to and including t."""
        return torch.cumprod(1.0 - self.betas, dim=0)

    @cached_property
    def alpha_t(self) -> Float[Tensor, " T"]:
        """Scale of the signal at t: sqrt(alphas_cumprod)."""
        return self.alphas_cumprod.sqrt()

    @cached_property
    def sigma_t(self) -> Float[Tensor, " T"]:
        """Standard deviation of the noise at t: sqrt(1 - alphas_cumprod), in metres (Eq. 1)."""
        return (1.0 - self.alphas_cumprod).sqrt()

    @cached_property
    def lambda_t(self) -> Float[Tensor, " T"]:
        """Half the log signal-to-noise ratio at t: log(alpha_t / sigma_t)."""
        return self.alpha_t.log() - self.sigma_t.log()

    def level(self, t: int) -> Level:
        """The noise level of step t as plain numbers.

        Raises: InputError: t outside [0, T).
        """
        if not 0 <= t < self.T:
            raise InputError(f"t must lie in [0, {self.T}), got {t}; pass a step of this schedule")
        return Level(t, self.alpha_t[t].item(), self.sigma_t[t].item(), self.lambda_t[t].item())

    def timesteps(self, steps: int) -> list[int]:
        """The training steps that a sampler of `steps` steps visits, from T - 1 downwards, 0 excluded.

        Evenly spaced over [0, T - 1] and rounded half to even: the "linspace" spacing of diffusers, which the
        releases use. With steps = T two of them round to one t, which is visited once: T - 1 steps.

        Raises: InputError: steps outside [1, T].
        """
        if not 1 <= steps <= self.T:
            raise InputError(f"steps must lie in [1, {self.T}], got {steps}; the releases use 50 or 8")
        grid = np.linspace(0, self.T - 1, steps + 1).round().astype(int)[1:]
        return np.unique(grid)[::-1].tolist()

    def levels(self, steps: int, end: Level = CLEAN) -> list[Level]:
        """The levels that a sampler of `steps` steps passes: those of `timesteps(steps)`, then `end`."""
        return [*(self.level(t) for t in self.timesteps(steps)), end]
