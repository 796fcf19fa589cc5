"""Distillation-DPO (Eq. 11 to 20): a few-step student that prefers winning samples over losing ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from densescan.diffusion.samplers.interface import EpsFn
from densescan.diffusion.schedule import Schedule
from densescan.errors import InputError
from densescan.losses.distillation import (
    PreferenceLoss,
    Scored,
    full_objective,
    preference_as_printed,
    preference_as_released,
)
from densescan.training.batch import Batch, Loss
from densescan.training.distillation import Distillation, DistillationConfig, Generated
from densescan.training.engine import Engine
from densescan.training.pairs import PairConfig, Ranking, paired_samples, rank_pairs
from densescan.training.student import Sample

ObjectiveName = Literal["full", "score-distillation", "preference-as-printed", "preference-as-released"]


@dataclass(frozen=True)
class DistillationDpoConfig(DistillationConfig):
    """Choices of Distillation-DPO.

    Raises: InputError: an unknown objective, or a value outside its range.
    """

    pairs: PairConfig = field(default_factory=PairConfig)
    """How winners and losers are made and told apart."""
    objective: ObjectiveName = "full"
    """What the student minimises; `full` is Eq. 13, the only one that both climbs and stays on the teacher."""
    weight: float = 1.0
    """Of the preference in the full objective. 0 is score distillation; up to omega the teacher pulls everywhere."""
    omega: float = 1.0
    """Weight of the reward in Eq. 11; a larger one makes the preference weaker (Eq. 18)."""
    one_assistant: bool = False
    """One assistant learns winners and losers alike (Table 7)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in get_args(ObjectiveName):
            known = ", ".join(get_args(ObjectiveName))
            raise InputError(f"unknown objective {self.objective!r}: known are {known}")
        if not (self.weight >= 0 and self.omega > 0):
            raise InputError(
                f"expected weight >= 0 and omega > 0, got {self.weight} and {self.omega}: usual are 1 and 1"
            )


def objective(winner: Scored, loser: Scored, config: DistillationDpoConfig) -> PreferenceLoss:
    """The objective of that name; all of them see winners and losers."""
    match config.objective:
        case "full":
            return full_objective(winner, loser, config.weight, config.omega)
        case "score-distillation":
            return full_objective(winner, loser, weight=0.0)
        case "preference-as-printed":
            return preference_as_printed(winner, loser, config.omega)
        case "preference-as-released":
            return preference_as_released(winner, loser, config.omega)


class RankedPairs(NamedTuple):
    """Both samples of each crop of a batch, and which is better."""

    generated: Generated
    ranking: Ranking

    @property
    def winners(self) -> Float[Tensor, "B M 3"]:
        """The better samples, without gradient [m]."""
        return self.ranking.winners(self.generated.x_0(0), self.generated.x_0(1))

    @property
    def losers(self) -> Float[Tensor, "B M 3"]:
        """The worse samples, without gradient [m]."""
        return self.ranking.losers(self.generated.x_0(0), self.generated.x_0(1))


class DistillationDpoStage(Distillation):
    """Train a few-step student that is pulled to the teacher and towards its own better samples.

    Student and assistants learn in turn. Winner and loser of a crop are compared at one noise level and noise, which
    takes the difference between levels out of the preference; the assistants see each other's at levels of their own.
    Crops without a winner (a tie, or a metric without value) teach nothing; their share is logged.

    Source: Eq. 11 to 20.   Deviation: see `losses.distillation`; the student learns from the pairs that the assistants
    have just learnt, where the release makes new ones. More choices and their reasons: `DistillationConfig`,
    `Distillation`.
    """

    config: DistillationDpoConfig

    def __init__(self, config: DistillationDpoConfig, schedule: Schedule | None = None) -> None:
        assistants = ("assistant",) if config.one_assistant else ("assistant_w", "assistant_l")
        super().__init__(config, assistants, schedule)
        self.assistant_w, self.assistant_l = (
            self.assistants[name] for name in (assistants[0], assistants[-1])
        )

    def step(self, batches: Sequence[Batch], engine: Engine) -> dict[str, float]:
        """The student samples pairs, the assistants learn them, then the student learns; see `Stage.step`."""
        with engine.autocast():
            pairs = [self.pairs(batch) for batch in batches]
        logs: dict[str, float] = {}
        for _ in range(self.config.assistant_steps):
            for name in self.assistants:
                found = engine.update(name, (self.assistant_loss(name, pair) for pair in pairs))
                logs |= {f"{name}/{key}": value for key, value in found.items()}
        losses = (self.student_turn(self.student_loss, pair, engine.step) for pair in pairs)
        student = engine.update("student", losses)
        return {**student, **logs}

    def pairs(self, batch: Batch) -> RankedPairs:
        """Two samples of each crop, ranked."""
        generated = self.generate(batch)
        return RankedPairs(generated, self.rank(batch, generated.x_0(0), generated.x_0(1)))

    def rank(self, batch: Batch, first: Float[Tensor, "B M 3"], second: Float[Tensor, "B M 3"]) -> Ranking:
        """Which sample of each crop is the better one."""
        return rank_pairs(batch, first, second, self.config.pairs.metric)

    def samples(
        self, eps_fn: EpsFn, x_init: Float[Tensor, "B M 3"], batch: Batch, steps: int
    ) -> tuple[Sample, ...]:
        """Two samples of each crop (Eq. 19)."""
        return paired_samples(self.sampler, eps_fn, x_init, batch, steps, self.config.pairs)

    def assistant_loss(self, name: str, pairs: RankedPairs) -> Loss:
        """Eq. 20 on the samples that the assistant stands for, of the crops that are kept."""
        kept = pairs.ranking.kept
        if not kept.any():
            return Loss(None, {})
        sides = {"assistant_w": (pairs.winners,), "assistant_l": (pairs.losers,)}
        errors = [
            self.denoising_errors(self.assistants[name], x_0, pairs.generated, name)
            for x_0 in sides.get(name, (pairs.winners, pairs.losers))
        ]
        return Loss((torch.stack(errors).mean(0) * kept).mean(), {})

    def student_loss(self, pairs: RankedPairs) -> Loss:
        """The objective, on the crops that are kept; the Chamfer distance, where it has a weight, on all."""
        generated, ranking = pairs
        first, second = self.last_steps(generated)
        added, chamfer = self.chamfer_term(generated.batch, first, second)
        if not ranking.kept.any():
            total = added if self.config.chamfer_weight else None
            return Loss(total, {**ranking.figures, "gap_w": 0.0, "gap_l": 0.0, **chamfer})
        level = self.draw_level(generated.batch, "student", first)
        x_w, x_l = ranking.winners(first, second), ranking.losers(first, second)
        loss = objective(
            self.scored(x_w, self.assistant_w, generated.cond, level, ranking.kept),
            self.scored(x_l, self.assistant_l, generated.cond, level, ranking.kept),
            self.config,
        )
        gaps = {"gap_w": loss.gap_w.item() * ranking.share, "gap_l": loss.gap_l.item() * ranking.share}
        return Loss(loss.total * ranking.share + added, {**ranking.figures, **gaps, **chamfer})
