"""Stage one: the teacher, LiDiff's local point diffusion."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from densescan.completer import Completer
from densescan.completion import CompletionConfig
from densescan.data.dataset import CropConfig
from densescan.diffusion.process import add_noise
from densescan.diffusion.schedule import Schedule
from densescan.errors import InputError
from densescan.losses.denoising import RELEASED_PRIOR_WEIGHT, denoising_loss
from densescan.nets.denoiser import Denoiser
from densescan.nets.encoder import Condition, ConditionEncoder, drop_condition
from densescan.nets.minkunet import NetConfig
from densescan.nets.networks import Networks
from densescan.training.batch import Batch, Loss, Validation
from densescan.training.batch_norm import Statistics, evaluating
from densescan.training.crop_distance import chamfer_in_crop, figures
from densescan.training.engine import Engine, Trained

VALIDATION_LEVELS = (0.3, 0.6, 0.999)
"""Shares of T at which the error of the noise is told."""
VALIDATION_SAMPLING = CompletionConfig(repeat=5, steps=4, guidance_scale=1.0, sampler="consistent")
"""How validation completes a crop: cheaply, and alike for all teachers, not as the model will be used."""


@dataclass(frozen=True)
class TeacherConfig:
    """The teacher's form and loss.

    Raises: InputError: a share outside [0, 1] or a negative weight.
    """

    net: NetConfig = field(default_factory=NetConfig)
    crops: CropConfig = field(default_factory=CropConfig)
    uncond_prob: float = 0.1
    """Share of samples that see no scan."""
    prior_weight: float = RELEASED_PRIOR_WEIGHT
    """Weight of LiDiff's prior on mean and spread of the predicted noise."""
    statistics: Statistics = "updated"
    """Running statistics of batch norms, where the networks have any."""

    def __post_init__(self) -> None:
        if not (0 <= self.uncond_prob <= 1 and self.prior_weight >= 0):
            raise InputError(
                f"expected uncond_prob in [0, 1] and prior_weight >= 0, got {self.uncond_prob} and "
                f"{self.prior_weight}: the release uses 0.1 and {RELEASED_PRIOR_WEIGHT}"
            )


class TeacherStage:
    """Train encoder and denoiser to predict the noise of Eq. 1.

    Source: LiDiff, Eq. 1 and 2.   Deviation: LiDiff trains on whole scenes, and takes its prior on mean and spread
    over the batch; here each crop has its own, so that a crop's loss does not depend on the others. And the
    unconditional samples:

    Unconditional samples: the encoder sees the all-zero scan in evaluation mode. With batch norm that one voxel would
    otherwise collapse to the bias and enter the running statistics; with frozen statistics training sees exactly the
    null condition that sampling uses. Layer norms make no difference between the two.

    Batch norm, where there is any: `updated` by default, as released, for the networks begin with random weights. The
    denoiser's statistics then average over noise levels: see docs/experiments.md. `frozen` is for going
    on from a trained model, and makes what is trained independent of batch and processes.
    """

    def __init__(self, config: TeacherConfig, schedule: Schedule | None = None) -> None:
        self.config = config
        self.crops = config.crops
        self.schedule = schedule or Schedule()
        self.encoder = ConditionEncoder(config.net)
        self.denoiser = Denoiser(config.net, self.schedule)
        self.results: dict[str, nn.Module] = {"encoder": self.encoder, "denoiser": self.denoiser}
        statistics = dict.fromkeys(self.results, config.statistics)
        self.trained = {"teacher": Trained(self.results, statistics=statistics)}
        self.frozen: dict[str, nn.Module] = {}

    def step(self, batches: Sequence[Batch], engine: Engine) -> dict[str, float]:
        """One optimiser step; see `Stage.step`."""
        return engine.update("teacher", (self.loss(batch) for batch in batches))

    def loss(self, batch: Batch) -> Loss:
        """The denoising loss at one random t a crop."""
        x_0, draws = batch.crop.truth, batch.draws
        t = draws.integers("t", self.schedule.T).to(x_0.device)
        drawn = draws.normal_ahead("eps", x_0)
        dropped = draws.uniform("uncond") < self.config.uncond_prob
        cond = self.encoder(batch.crop.scan)
        if dropped.any():
            cond = drop_condition(cond, self._null_condition(), dropped.to(x_0.device))
        eps = drawn()
        eps_hat = self.denoiser(add_noise(x_0, t, eps, self.schedule), t, cond)
        total, mse, prior = self._mean_loss(eps_hat, eps, self.denoiser.error_scale(t))
        return Loss(total, {"mse": mse.detach(), "prior": prior.detach()})

    def _mean_loss(self, eps_hat: Tensor, eps: Tensor, scale: Tensor) -> Tensor:
        """Total, mse and prior: of each crop alone, then their mean."""
        weight = self.config.prior_weight
        crops = zip(eps_hat[:, None], eps[:, None], scale[:, None], strict=True)
        losses = [denoising_loss(e_hat, e, weight, s) for e_hat, e, s in crops]
        return torch.stack([torch.stack(loss) for loss in losses]).mean(0)

    def _null_condition(self) -> Condition:
        with evaluating(self.encoder):
            return self.encoder.unconditional()

    def validate(self, batch: Batch) -> Validation:
        """Mean squared errors at three noise levels, and how well a few steps complete the crop [m]; see `Stage`."""
        crop, draws = batch
        cond, eps = self.encoder(crop.scan), draws.normal("eps", crop.truth)
        errors = {}
        for level in VALIDATION_LEVELS:
            t = torch.full((len(draws),), int(level * self.schedule.T), device=eps.device)
            eps_hat = self.denoiser(add_noise(crop.truth, t, eps, self.schedule), t, cond)
            errors[f"mse_t{int(t[0])}"] = denoising_loss(eps_hat, eps, 0.0).mse.item()
        completer = Completer(
            Networks(self.encoder, self.denoiser), VALIDATION_SAMPLING, eps.device, self.schedule
        )
        scene = completer.sample(crop.scan, VALIDATION_SAMPLING, draws.noise("sampling"))[0]
        found = {**errors, **figures(chamfer_in_crop(scene, batch))}
        return Validation(found, {"scan": crop.scan[0], "scene": scene, "truth": crop.truth[0]})
