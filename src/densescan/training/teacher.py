"""Stage one: the teacher, LiDiff's local point diffusion."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from densescan.data.dataset import Crop, CropConfig
from densescan.diffusion.process import add_noise
from densescan.diffusion.schedule import Schedule
from densescan.errors import InputError
from densescan.losses.denoising import RELEASED_PRIOR_WEIGHT, denoising_loss
from densescan.nets.denoiser import Denoiser
from densescan.nets.encoder import Condition, ConditionEncoder, drop_condition
from densescan.nets.minkunet import NetConfig


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

    def __post_init__(self) -> None:
        if not (0 <= self.uncond_prob <= 1 and self.prior_weight >= 0):
            raise InputError(
                f"expected uncond_prob in [0, 1] and prior_weight >= 0, got {self.uncond_prob} and "
                f"{self.prior_weight}: the release uses 0.1 and {RELEASED_PRIOR_WEIGHT}"
            )


class TeacherStage:
    """Train encoder and denoiser to predict the noise of Eq. 1.

    Source: LiDiff, Eq. 1 and 2.   Deviation: LiDiff trains on whole scenes; the unconditional samples, as follows.

    Unconditional samples: the encoder sees the all-zero scan in evaluation mode. With batch norm that one voxel would
    otherwise collapse to the bias and enter the running statistics; with frozen statistics training sees exactly the
    null condition that sampling uses. The norms of the own family see no batch, and make no difference between the two.
    """

    def __init__(self, config: TeacherConfig, schedule: Schedule | None = None) -> None:
        self.config = config
        self.crops = config.crops
        self.schedule = schedule or Schedule()
        self.encoder = ConditionEncoder(config.net)
        self.denoiser = Denoiser(config.net)
        self.networks: dict[str, nn.Module] = {"encoder": self.encoder, "denoiser": self.denoiser}

    def loss(self, batch: Crop, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The denoising loss at one random t a crop; see `Stage.loss`."""
        x_0, size = batch.truth, len(batch.truth)
        t = torch.randint(self.schedule.T, (size,), generator=generator)
        eps = torch.randn(x_0.shape, generator=generator)
        dropped = torch.rand(size, generator=generator) < self.config.uncond_prob
        cond = self.encoder(batch.scan)
        if dropped.any():
            cond = drop_condition(cond, self._null_condition(), dropped)
        eps_hat = self.denoiser(add_noise(x_0, t, eps, self.schedule), t, cond)
        loss = denoising_loss(eps_hat, eps, self.config.prior_weight)
        return loss.total, {"loss": loss.total.item(), "mse": loss.mse.item(), "prior": loss.prior.item()}

    def _null_condition(self) -> Condition:
        training = self.encoder.training
        self.encoder.eval()
        try:
            return self.encoder.unconditional()
        finally:
            self.encoder.train(training)
