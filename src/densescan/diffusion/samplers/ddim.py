"""DDIM: deterministic steps along the predicted noise, with a dial towards ancestral sampling."""

import math
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from densescan.diffusion.samplers.interface import (
    EpsFn,
    NoiseFn,
    OnStep,
    check_share,
    predict_eps,
    start_offset,
)
from densescan.diffusion.schedule import Schedule


def ddim(
    eps_fn: EpsFn,
    x_init: Float[Tensor, "*shape"],
    x_T: Float[Tensor, "*shape"],
    schedule: Schedule,
    steps: int,
    *,
    noise: NoiseFn | None = None,
    eta: float = 0.0,
    on_step: OnStep | None = None,
) -> Float[Tensor, "*shape"]:
    """Sample by DDIM on the offset x_t - x_init, taken as a variance-preserving sample.

    Args: as `Sampler`. eta: 0 is deterministic, 1 is ancestral sampling (`ddpm`). The last step is noiseless
    and returns the estimate of x_0.
    Returns: x_0 [m].
    Raises: InputError: eta outside [0, 1] or positive without noise, bad steps, shapes that differ.
    Source: Song et al., 2021 (DDIM), Eq. 12 and 16.   Deviation: none.
    """
    check_share("eta", eta, noise)
    offset = start_offset(x_init, x_T)
    for i, (now, to) in enumerate(pairwise(schedule.levels(steps))):
        eps_hat = predict_eps(eps_fn, x_init + offset, now.t)
        x_0_hat = (offset - now.sigma * eps_hat) / now.alpha
        spread = eta * math.sqrt(1 - (now.alpha / to.alpha) ** 2) * to.sigma / now.sigma
        offset = to.alpha * x_0_hat + math.sqrt(to.sigma**2 - spread**2) * eps_hat
        if noise is not None and spread > 0:
            offset = offset + spread * noise(offset)
        if on_step is not None:
            on_step(i, x_init + offset)
    return x_init + offset
