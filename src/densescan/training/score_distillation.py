"""Score distillation (Eq. 3 to 6), and ScoreLiDAR, which adds a structural loss."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from densescan.diffusion.process import noise_scene
from densescan.diffusion.samplers.interface import EpsFn
from densescan.diffusion.schedule import Schedule
from densescan.errors import InputError
from densescan.losses.distillation import score_distillation
from densescan.losses.structural import high_curvature_points, structural_loss
from densescan.training.batch import Batch, Loss
from densescan.training.crop_distance import within
from densescan.training.distillation import Distillation, DistillationConfig, Generated
from densescan.training.engine import Engine
from densescan.training.student import Sample

ASSISTANT = "assistant"


@dataclass(frozen=True)
class ScoreDistillationConfig(DistillationConfig):
    """Score distillation alone by default; ScoreLiDAR has a scene_weight of 0.5 and a point_weight of 0.01.

    Raises: InputError: a value outside its range.
    """

    score_weight: float = 1.0
    """Weight of the distillation itself (Eq. 6). 0: no assistant; the student learns from the other terms alone, which
    know the truth, and the teacher is merely what it starts from."""
    scene_weight: float = 0.0
    """Weight of the squared distance between scene and truth (ScoreLiDAR)."""
    point_weight: float = 0.0
    """Weight of the squared difference of distances between key points (ScoreLiDAR)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = (self.score_weight, self.scene_weight, self.point_weight, self.chamfer_weight)
        if min(weights) < 0 or max(weights) == 0:
            raise InputError(
                "expected a score_weight, scene_weight, point_weight and chamfer_weight of at least 0, and one above, "
                f"got {', '.join(map(str, weights))}: ScoreLiDAR has 1, 0.5, 0.01 and 0"
            )

    @property
    def structural(self) -> bool:
        """Either term counts."""
        return max(self.scene_weight, self.point_weight) > 0


class ScoreDistillationStage(Distillation):
    """Train a few-step student whose distribution is the teacher's, by one assistant that learns the student's.

    Source: Eq. 3 to 6 and 20; ScoreLiDAR.   Deviation: the gradient goes through x_0, where the release of ScoreLiDAR
    multiplies by the added noise and has none; the structural terms have correspondences, see `losses.structural`, and
    compare what lies within the crop's radius. More choices and their reasons: `DistillationConfig`, `Distillation`.
    """

    config: ScoreDistillationConfig

    def __init__(self, config: ScoreDistillationConfig, schedule: Schedule | None = None) -> None:
        super().__init__(config, (ASSISTANT,) if config.score_weight else (), schedule)

    def step(self, batches: Sequence[Batch], engine: Engine) -> dict[str, float]:
        """The student samples, the assistant learns its samples, then the student learns; see `Stage.step`."""
        with engine.autocast():
            generated = [self.generate(batch) for batch in batches]
        logs: dict[str, float] = {}
        for _ in range(self.config.assistant_steps if self.assistants else 0):
            logs = engine.update(ASSISTANT, (self.assistant_loss(one) for one in generated))
        losses = (self.student_turn(self.student_loss, one, engine.step) for one in generated)
        student = engine.update("student", losses)
        return {**student, **{f"{ASSISTANT}/{name}": value for name, value in logs.items()}}

    def samples(
        self, eps_fn: EpsFn, x_init: Float[Tensor, "B M 3"], batch: Batch, steps: int
    ) -> tuple[Sample, ...]:
        """One sample of each crop."""
        draws, lam = batch.draws, self.completion.lam
        x_T = noise_scene(x_init, lam, draws.normal("start", x_init))
        return (self.sampler.sample(eps_fn, x_init, x_T, steps, draws.noise("sampling")),)

    def assistant_loss(self, generated: Generated) -> Loss:
        """Eq. 20 on the samples."""
        errors = self.denoising_errors(self.assistants[ASSISTANT], generated.x_0(0), generated, ASSISTANT)
        return Loss(errors.mean(), {})

    def student_loss(self, generated: Generated) -> Loss:
        """Eq. 6, the structural terms and the Chamfer distance, where they have a weight."""
        (x_0,) = self.last_steps(generated)
        total, figures = x_0.new_zeros(()), dict[str, float]()
        if self.assistants:
            level = self.draw_level(generated.batch, "student", x_0)
            scored = self.scored(x_0, self.assistants[ASSISTANT], generated.cond, level)
            distillation, gap = score_distillation(scored)
            total = self.config.score_weight * distillation
            figures = {"distillation": distillation.item(), "gap": gap.item()}
        if self.config.structural:
            terms = torch.stack(
                [self._structural(*one) for one in zip(x_0, generated.batch.singly(), strict=True)]
            )
            added, scene_wise, point_wise, left_out = terms.mean(0)
            total = total + added
            figures |= {"scene_wise": scene_wise.item(), "point_wise": point_wise.item()}
            figures["structural/left_out"] = left_out.item()
        chamfer, found = self.chamfer_term(generated.batch, x_0)
        return Loss(total + chamfer, {**figures, **found})

    def _structural(self, x_0: Float[Tensor, "M 3"], batch: Batch) -> Float[Tensor, "4"]:
        """The loss, its two terms, and whether the crop is left out of it: too little of its truth is within it."""
        scene, truth = x_0[within(x_0.detach(), batch)], batch.crop.truth[0]
        truth = truth[within(truth, batch)]
        seed = int(batch.draws.integers("key points", 2**62))
        try:
            key_points = high_curvature_points(truth, torch.Generator().manual_seed(seed))
            weights = (self.config.scene_weight, self.config.point_weight)
            loss = structural_loss(scene, truth, key_points, *weights)
        except InputError:  # counted by the last figure
            return torch.tensor([0.0, 0.0, 0.0, 1.0], device=x_0.device)
        return torch.stack([*loss, torch.zeros_like(loss.total)])
