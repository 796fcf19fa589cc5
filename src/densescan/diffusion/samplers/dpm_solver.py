"""DPM-Solver++ (2M): the multistep solver of the releases, as an SDE (their default) and as an ODE."""

import math
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from densescan.diffusion.samplers.interface import EpsFn, NoiseFn, OnStep, predict_eps, start_offset
from densescan.diffusion.schedule import CLEAN, Level, Schedule
from densescan.errors import InputError

FEW_STEPS = 15
"""Below this many steps the released solver makes its last step a first-order one."""


def dpm_solver_pp(
    eps_fn: EpsFn,
    x_init: Float[Tensor, "*shape"],
    x_T: Float[Tensor, "*shape"],
    schedule: Schedule,
    steps: int,
    *,
    noise: NoiseFn | None = None,
    last_step: str = "diffusers-0.18",
    on_step: OnStep | None = None,
) -> Float[Tensor, "*shape"]:
    """Sample by DPM-Solver++ (2M) on the offset x_t - x_init, taken as a variance-preserving sample.

    Args: as `Sampler`. noise: given, solve the SDE ("sde-dpmsolver++", as released); None, solve the ODE.
    last_step: "diffusers-0.18" ends at the noise level of t = 0 (sigma 0.006 m) as the releases do, by a
    second-order step from 15 steps on; "diffusers-new" ends noiseless, by a first-order step.
    Returns: x_0 [m].
    Raises: InputError: unknown last_step, bad steps, shapes that differ.
    Source: Lu et al., 2022 (DPM-Solver++), algorithm 2 and its SDE form.
    Deviation: the releases carry state from one scene to the next, so that their first step is a second-order
    one built on another scan; here it is always first order. Training never shrinks points (Eq. 1), this
    sampler takes it that they shrank: an error of eps_hat is multiplied by sigma_t / alpha_t. See
    `consistent`.
    """
    levels = schedule.levels(steps, end=_end(schedule, last_step))
    last = len(levels) - 2
    first_order_last = last_step == "diffusers-new" or last + 1 < FEW_STEPS
    offset = start_offset(x_init, x_T)
    x_0_before, h_before = offset, 0.0
    for i, (now, to) in enumerate(pairwise(levels)):
        eps_hat = predict_eps(eps_fn, x_init + offset, now.t)
        x_0_hat = (offset - now.sigma * eps_hat) / now.alpha
        h = to.half_log_snr - now.half_log_snr
        target = x_0_hat
        if i > 0 and not (i == last and first_order_last):
            target = x_0_hat + 0.5 * (h / h_before) * (x_0_hat - x_0_before)
        keep, pull, spread = _coefficients(now, to, h, stochastic=noise is not None)
        offset = keep * offset + pull * target
        if noise is not None and spread > 0:
            offset = offset + spread * noise(offset)
        x_0_before, h_before = x_0_hat, h
        if on_step is not None:
            on_step(i, x_init + offset)
    return x_init + offset


def _end(schedule: Schedule, last_step: str) -> Level:
    ends = {"diffusers-0.18": schedule.level(0), "diffusers-new": CLEAN}
    if last_step not in ends:
        raise InputError(f"last_step must be {' or '.join(ends)}, got {last_step!r}; the first is released")
    return ends[last_step]


def _coefficients(now: Level, to: Level, h: float, *, stochastic: bool) -> tuple[float, float, float]:
    """Weights of the state, of the estimated x_0 and of fresh noise, for a step of length h."""
    ratio = to.sigma / now.sigma
    if not stochastic:
        return ratio, -to.alpha * math.expm1(-h), 0.0
    fresh = -math.expm1(-2 * h)
    return ratio * math.exp(-h), to.alpha * fresh, to.sigma * math.sqrt(fresh)
