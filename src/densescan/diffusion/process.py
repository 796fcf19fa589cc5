"""The forward process: noise points about themselves, to train (Eq. 1) and to start sampling (Eq. 19)."""

import math

from jaxtyping import Float, Int
from torch import Tensor

from densescan.diffusion.schedule import Schedule
from densescan.errors import InputError


def add_noise(
    x_0: Float[Tensor, "B M D"], t: Int[Tensor, " B"], eps: Float[Tensor, "B M D"], schedule: Schedule
) -> Float[Tensor, "B M D"]:
    """Noise each point about itself: x_t = x_0 + sqrt(1 - alphas_cumprod[t]) * eps, without shrinking.

    Args: x_0: clean points [m], any frame. t: one step in [0, T) per sample. eps: standard normal noise.
    Raises: InputError: t outside [0, T).
    Source: Eq. 1.   Deviation: none.
    """
    if t.numel() and (int(t.min()) < 0 or int(t.max()) >= schedule.T):
        raise InputError(
            f"t must lie in [0, {schedule.T}), got values from {int(t.min())} to {int(t.max())}; "
            "draw it with torch.randint(schedule.T, (B,))"
        )
    sigma = schedule.sigma_t.to(x_0)[t]
    return x_0 + sigma[:, None, None] * eps


def noise_scene(
    x_init: Float[Tensor, "*shape"], lam: float, eps: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """The start of sampling from the repeated scan: x_T = x_init + lam * eps.

    Args: x_init: the scan's points, each repeated K times [m]. lam: noise scale [m], by default 1.0, and 1.1
    for the second sample of a preference pair. eps: standard normal noise.
    Raises: InputError: lam negative or not finite.
    Source: Eq. 19.   Deviation: the equation scales by lam * sqrt(1 - alphas_cumprod[T - 1]) = 0.985 * lam;
    the released models start at lam * 1.0, and so does this.
    """
    if not (math.isfinite(lam) and lam >= 0):
        raise InputError(f"lam must be a finite noise scale >= 0, got {lam}; the releases use 1.0 and 1.1")
    return x_init + lam * eps
