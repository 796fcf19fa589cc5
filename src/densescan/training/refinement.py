"""Stage two: the refiner, trained on the Chamfer distance."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from densescan.data.dataset import CropConfig
from densescan.errors import InputError
from densescan.losses.refinement import ChamferLoss
from densescan.nets.minkunet import NetConfig
from densescan.nets.refiner import OFFSETS_PER_POINT, Refiner
from densescan.training.batch import Batch, Loss, Validation
from densescan.training.batch_norm import Statistics
from densescan.training.crop_distance import chamfer_in_crop, figures, within
from densescan.training.engine import Engine, Trained
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
    statistics: Statistics = "updated"
    """Running statistics of batch norms, where the refiner has any."""

    def __post_init__(self) -> None:
        if self.repeat < 1 or not 0 <= self.min_jitter <= self.max_jitter:
            raise InputError(
                f"expected repeat >= 1 and 0 <= min_jitter <= max_jitter, got {self.repeat}, {self.min_jitter} and "
                f"{self.max_jitter}: change these values"
            )


class RefinementStage:
    """Train the refiner on what a completer leaves, scattered about the surface: jittered copies of the scan stand in
    for it, or a given model completes every crop afresh.

    Only points and truth within the crop's radius count; beyond it both serve as neighbours alone. Batch norm, where
    there is any: `updated` by default, by each crop alone, for the refiner begins with random weights; `frozen` is
    for going on from a trained one. The networks of the given model are only asked.
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
        self.results: dict[str, nn.Module] = {"refiner": self.refiner}
        self.trained = {"refiner": Trained(self.results, statistics={"refiner": config.statistics})}
        self.frozen = self.completer.networks.present() if self.completer is not None else {}

    def step(self, batches: Sequence[Batch], engine: Engine) -> dict[str, float]:
        """One optimiser step; see `Stage.step`."""
        return engine.update("refiner", (self.loss(batch) for batch in batches))

    def loss(self, batch: Batch) -> Loss:
        """The mean Chamfer loss of the crops [m]."""
        # Statistics that are updated are those of each crop alone.
        parts = [batch] if self.config.statistics == "frozen" else batch.singly()
        losses = [loss for part in parts for loss in self._distances(self._scenes(part), part)[0]]
        total, forth, back = torch.stack([torch.stack(loss) for loss in losses]).mean(0)
        return Loss(total, {"scene_to_truth": forth.item(), "truth_to_scene": back.item()})

    def validate(self, batch: Batch) -> Validation:
        """The Chamfer distance after and before refinement [m]; see `Stage`."""
        scenes = self._scenes(batch)
        (distance,), refined = self._distances(scenes, batch)
        before = figures(chamfer_in_crop(scenes[0], batch), "unrefined_")
        clouds = {
            "scan": batch.crop.scan[0],
            "unrefined": scenes[0],
            "refined": refined[0],
            "truth": batch.crop.truth[0],
        }
        return Validation({**figures(distance), **before}, clouds)

    def _distances(
        self, scenes: Float[Tensor, "B M 3"], batch: Batch
    ) -> tuple[list[ChamferLoss], Float[Tensor, "B L 3"]]:
        """The refined scenes, and the distance of each; points count by where they came from."""
        refined = self.refiner(scenes)
        losses = []
        for scene, moved, one in zip(scenes, refined, batch.singly(), strict=True):
            inside = within(scene, one).repeat_interleave(OFFSETS_PER_POINT)
            losses.append(chamfer_in_crop(moved, one, inside))
        return losses, refined

    def _scenes(self, batch: Batch) -> Float[Tensor, "B M 3"]:
        """What the refiner is given for each crop [m]."""
        scans, draws, c = batch.crop.scan, batch.draws, self.config
        if self.completer is None:
            scenes = scans.repeat_interleave(c.repeat, dim=1)
            spread = draws.uniform("spread").to(scenes) * (c.max_jitter - c.min_jitter) + c.min_jitter
            return scenes + spread[:, None, None] * draws.normal("jitter", scenes)
        config = replace(self.completer.config, steps=c.steps, repeat=c.repeat)
        with torch.no_grad():
            return self.completer.sample(scans, config, draws.noise("sampling"))
