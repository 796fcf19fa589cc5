"""The teacher's loss: predict the noise, with a prior on its mean and spread."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

RELEASED_PRIOR_WEIGHT = 5.0
"""Weight of the prior in the released training."""


class DenoisingLoss(NamedTuple):
    """The loss and what it is made of."""

    total: Float[Tensor, ""]
    mse: Float[Tensor, ""]
    prior: Float[Tensor, ""]


def denoising_loss(
    eps_hat: Float[Tensor, "B M 3"],
    eps: Float[Tensor, "B M 3"],
    prior_weight: float = RELEASED_PRIOR_WEIGHT,
    scale: Float[Tensor, " B"] | None = None,
) -> DenoisingLoss:
    """mse(eps_hat, eps) + prior_weight (mean(eps_hat)^2 + (std(eps_hat) - 1)^2), over all entries of the batch.

    The second term is LiDiff's. It pulls the prediction towards unit variance, whereas the least-squares estimate of
    noise that is only partly predictable has less: weight 0 gives the plain estimate.
    Args: eps_hat: predicted noise; a reduced type is widened to that of `eps` first. eps: true noise, standard normal.
        scale: what the error of each sample is multiplied by, sigma_t for errors in metres; None: 1.
    Source: LiDiff's training objective.   Deviation: none; the standard deviation is the unbiased one.
    """
    eps_hat = eps_hat.to(eps.dtype)  # mean and spread in bfloat16 would have two digits
    error = eps_hat - eps if scale is None else scale[:, None, None] * (eps_hat - eps)
    mse = error.square().mean()
    prior = eps_hat.mean().square() + (eps_hat.std() - 1.0).square()
    return DenoisingLoss(mse + prior_weight * prior, mse, prior)
