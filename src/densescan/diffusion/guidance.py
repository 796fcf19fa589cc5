"""Classifier-free guidance: extrapolate from the prediction without the scan through the one with it."""

from jaxtyping import Float
from torch import Tensor


def guide(
    eps_uncond: Float[Tensor, "*shape"], eps_cond: Float[Tensor, "*shape"], scale: float
) -> Float[Tensor, "*shape"]:
    """Guided noise estimate: eps_uncond + scale * (eps_cond - eps_uncond).

    Args: eps_uncond: prediction without condition. eps_cond: prediction given the scan. scale: 0 ignores the
    scan, 1 is the plain conditional prediction, the releases use 6.0 (LiDiff) and 3.5 (distilled students).
    Source: Ho and Salimans, 2021 (classifier-free guidance).   Deviation: none.
    """
    return eps_uncond + scale * (eps_cond - eps_uncond)
