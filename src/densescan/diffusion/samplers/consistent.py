"""Samplers that invert the process of training (Eq. 1): points are noised in place and never shrink.

Both alternate x_0_hat = x_t - sigma_t * eps_hat and x_s = x_0_hat + sigma_s * (old and fresh noise mixed),
end on x_0_hat, and differ in how much of the noise is fresh. An error of eps_hat enters x_0_hat times
sigma_t, 0.985 at t = 999, where the variance-preserving samplers multiply it by sigma_t / alpha_t, 5.7 there.
Eq. 1 puts x_T at 0.985 m about the points, `noise_scene` as released at lam * 1.0 m: with lam = 1 the start
is 1.5 % wider than level T - 1.
"""

import math
from collections.abc import Callable
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
from densescan.diffusion.schedule import Level, Schedule


def consistent(
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
    """Sample by the steps of DDIM under Eq. 1; the right distribution for every eta as the steps grow.

    Args: as `Sampler`. eta: 0 is deterministic, 1 is ancestral; the share of fresh noise in the step from
    sigma_t to sigma_s is eta * sqrt(1 - sigma_s^2 / sigma_t^2), which goes to 0 as the steps shrink.
    Returns: x_0 [m].
    Raises: InputError: eta outside [0, 1] or positive without noise, bad steps, shapes that differ.
    Source: Eq. 1; Song et al., 2021 (DDIM), Eq. 12 and 16, in variance-exploding form.
    Deviation: the releases sample as if points shrank (`dpm_solver_pp`).
    """
    check_share("eta", eta, noise)

    def fresh_share(now: Level, to: Level) -> float:
        return eta * math.sqrt(1 - (to.sigma / now.sigma) ** 2)

    return _sample(eps_fn, x_init, x_T, schedule, steps, fresh_share, noise, on_step)


def renoise(
    eps_fn: EpsFn,
    x_init: Float[Tensor, "*shape"],
    x_T: Float[Tensor, "*shape"],
    schedule: Schedule,
    steps: int,
    *,
    noise: NoiseFn | None = None,
    churn: float = 1.0,
    on_step: OnStep | None = None,
) -> Float[Tensor, "*shape"]:
    """Sample with the same share of fresh noise in every step: the sampler of few-step students.

    It suits a student whose x_0_hat is a sample. For a denoiser, whose x_0_hat is a mean, many steps contract
    the result: of the variance of a Gaussian x_0 only (1 + sqrt(1 - churn^2)) / 2 is left. `consistent` has no
    such bias.

    Args: as `Sampler`. churn: the share: x_s = x_0_hat + sigma_s (sqrt(1 - churn^2) eps_hat + churn * noise).
    Returns: x_0 [m].
    Raises: InputError: churn outside [0, 1] or positive without noise, bad steps, shapes that differ.
    Source: Eq. 1; Song et al., 2023 (consistency models), algorithm 1.
    Deviation: churn < 1 keeps a part of the old noise.
    """
    check_share("churn", churn, noise)
    return _sample(eps_fn, x_init, x_T, schedule, steps, lambda now, to: churn, noise, on_step)


def _sample(
    eps_fn: EpsFn,
    x_init: Tensor,
    x_T: Tensor,
    schedule: Schedule,
    steps: int,
    fresh_share: Callable[[Level, Level], float],
    noise: NoiseFn | None,
    on_step: OnStep | None,
) -> Tensor:
    offset = start_offset(x_init, x_T)
    for i, (now, to) in enumerate(pairwise(schedule.levels(steps))):
        eps_hat = predict_eps(eps_fn, x_init + offset, now.t)
        share = fresh_share(now, to)
        offset = offset - now.sigma * eps_hat
        if to.sigma > 0:
            offset = offset + to.sigma * math.sqrt(1 - share**2) * eps_hat
        if noise is not None and share * to.sigma > 0:
            offset = offset + to.sigma * share * noise(offset)
        if on_step is not None:
            on_step(i, x_init + offset)
    return x_init + offset
