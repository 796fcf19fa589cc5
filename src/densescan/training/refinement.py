"""Stage two: the refiner, trained on the Chamfer distance."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from densescan.data.dataset import Crop, CropConfig
from densescan.diffusion import gaussian
from densescan.errors import InputError
from densescan.losses.refinement import chamfer_loss
from densescan.nets.minkunet import NetConfig
from densescan.nets.refiner import OFFSETS_PER_POINT, Refiner
from densescan.weights.folder import load, read_model


@dataclass(frozen=True)
class RefinerConfig:
    """The refiner's form and what it learns to mend.

    Raises: InputError: no copies, or limits of the jitter in the wrong order.
    """

    net: NetConfig = field(default_factory=NetConfig)
    crops: CropConfig = field(default_factory=lambda: CropConfig(truth_points=40_000, truth_margin=2.0))
    repeat: int = 10
    """How many jittered copies of each point of the scan make the input."""
    min_jitter: float = 0.05
    """The copies are displaced by Gaussian noise of a random standard deviation, at least this [m] ..."""
    max_jitter: float = 0.5
    """... and at most this."""
    completer: str | None = None
    """Model whose completions of the crops are refined, in place of jittered copies: a bundled name or a folder."""
    steps: int = 8
    """Sampling steps of that model."""
    start_from: str | None = None
    """Model whose refiner training starts from: a bundled name or a folder. None: random weights."""

    def __post_init__(self) -> None:
        if self.repeat < 1 or not 0 <= self.min_jitter <= self.max_jitter:
            raise InputError(
                f"expected repeat >= 1 and 0 <= min_jitter <= max_jitter, got {self.repeat}, {self.min_jitter} and "
                f"{self.max_jitter}: change these values"
            )


class RefinementStage:
    """Train the refiner on what a completer leaves, scattered about the surface: jittered copies of the scan stand in
    for it, or a given model completes every crop afresh.

    Only points and truth within the crop's radius count; beyond it both serve as neighbours alone.
    """

    def __init__(self, config: RefinerConfig) -> None:
        self.config = config
        self.crops = config.crops
        self.refiner = Refiner(config.net)
        if config.start_from is not None:
            trained, _ = read_model(config.start_from)
            if trained.refiner is None or trained.refiner.config != config.net:
                raise InputError(
                    f"{config.start_from} holds no refiner of this form: start from another, or from none"
                )
            self.refiner.load_state_dict(trained.refiner.state_dict())
        self.completer = load(config.completer) if config.completer is not None else None
        self.networks: dict[str, nn.Module] = {"refiner": self.refiner}

    def loss(self, batch: Crop, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The mean Chamfer loss of the crops [m], each refined on its own; see `Stage.loss`."""
        losses = [self._crop_loss(Crop(*parts), generator) for parts in zip(*batch, strict=True)]
        total, forth, back = torch.stack([torch.stack(loss) for loss in losses]).mean(0)
        logs = {"loss": total.item(), "scene_to_truth": forth.item(), "truth_to_scene": back.item()}
        return total, logs

    def _crop_loss(self, crop: Crop, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        scene = (
            self._jittered(crop.scan, generator)
            if self.completer is None
            else self._completed(crop.scan, generator)
        )
        refined = self.refiner(scene[None])[0]
        inside = _within(scene, crop).repeat_interleave(OFFSETS_PER_POINT)
        return chamfer_loss(refined, crop.truth, inside, _within(crop.truth, crop))

    def _jittered(self, scan: Tensor, generator: torch.Generator) -> Tensor:
        c = self.config
        scene = scan.repeat_interleave(c.repeat, dim=0)
        spread = torch.rand(1, generator=generator) * (c.max_jitter - c.min_jitter) + c.min_jitter
        return scene + spread * torch.randn(scene.shape, generator=generator)

    def _completed(self, scan: Tensor, generator: torch.Generator) -> Tensor:
        assert self.completer is not None
        config = replace(self.completer.config, steps=self.config.steps, repeat=self.config.repeat)
        with torch.no_grad():
            return self.completer.sample(scan, config, gaussian(generator))


def _within(points: Tensor, crop: Crop) -> Tensor:
    return (points[:, :2] - crop.centre).norm(dim=1) < crop.radius
