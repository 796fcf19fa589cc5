"""DDPM: ancestral sampling, one draw from the posterior of the less noisy sample per step."""

import math
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from densescan.diffusion.samplers.interface import EpsFn, NoiseFn, OnStep, predict_eps, start_offset
from densescan.diffusion.schedule import Schedule
from densescan.errors import InputError


def ddpm(
    eps_fn: EpsFn,
    x_init: Float[Tensor, "*shape"],
    x_T: Float[Tensor, "*shape"],
    schedule: Schedule,
    steps: int,
    *,
    noise: NoiseFn | None = None,
    on_step: OnStep | None = None,
) -> Float[Tensor, "*shape"]:
    """Sample by q(x_s | x_t, x_0_hat) on the offset x_t - x_init, taken as a variance-preserving sample.

    Args: as `Sampler`; noise is required. The last step is noiseless and returns the estimate of x_0.
    Returns: x_0 [m].
    Raises: InputError: no noise, bad steps, shapes that differ.
    Source: Eq. 2; Ho et al., 2020, Eq. 6-7.   Deviation: a step may skip levels (s < t - 1); the variance is
    the posterior's ("fixed_small").
    """
    if noise is None:
        raise InputError("ddpm draws noise in every step, got noise=None; pass noise=gaussian(generator)")
    offset = start_offset(x_init, x_T)
    for i, (now, to) in enumerate(pairwise(schedule.levels(steps))):
        eps_hat = predict_eps(eps_fn, x_init + offset, now.t)
        x_0_hat = (offset - now.sigma * eps_hat) / now.alpha
        ratio = now.alpha / to.alpha
        beta = 1 - ratio**2
        mean = (to.alpha * beta * x_0_hat + ratio * to.sigma**2 * offset) / now.sigma**2
        spread = math.sqrt(beta) * to.sigma / now.sigma
        offset = mean + spread * noise(mean) if spread > 0 else x_0_hat
        if on_step is not None:
            on_step(i, x_init + offset)
    return x_init + offset
