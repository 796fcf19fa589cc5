"""`densescan train`, the stages that begin with a teacher: fine-tuning by preference, and students."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from densescan.cli.options import Command, with_defaults
from densescan.cli.train import chosen_recipe, recipe_option, train
from densescan.cli.training_data import TrainingData
from densescan.recipes.recipe import StageName
from densescan.training.config import LoopConfig
from densescan.training.diffusion_dpo import DiffusionDpoConfig, DiffusionDpoStage
from densescan.training.distillation_dpo import DistillationDpoConfig, DistillationDpoStage
from densescan.training.score_distillation import ScoreDistillationConfig, ScoreDistillationStage

Flat = tyro.conf.arg(name="")


@dataclass(frozen=True)
class _FromTeacher(Command):
    """What these commands share."""

    make_stage: ClassVar[type]
    stage_name: ClassVar[StageName]

    data: Annotated[TrainingData, Flat]
    out: Path
    """The run's folder."""
    recipe: str = "small"
    loop: Annotated[LoopConfig, Flat] = field(default_factory=LoopConfig)

    @classmethod
    def for_args(cls, args: Sequence[str]) -> "type[Command]":
        """This command with the defaults of the recipe that the arguments name."""
        recipe = chosen_recipe(cls.stage_name, args)
        return with_defaults(cls, stage=recipe.config, loop=recipe.loop)

    def run(self) -> None:
        """Train and write the model.

        Raises: InputError: no data, no teacher, or a run of another form. FloatingPointError: a loss is not finite.
        """
        stage = self.stage  # type: ignore[attr-defined]  # every command has one
        train(lambda: self.make_stage(stage), self, lambda made: made.completion)


@dataclass(frozen=True)
class DiffusionDpo(_FromTeacher):
    """Fine-tune a teacher by its own preferences (Diffusion-DPO): a stronger teacher to distil.

    The same command goes on with an interrupted run. OUT/model receives the fine-tuned encoder and denoiser.

    Examples:
      densescan train diffusion-dpo --teacher runs/teacher/model --data data/train --out runs/tuned-teacher
      densescan train diffusion-dpo --data data/train --out runs/tuned-teacher --pairs.metric jsd --steps 4
    """

    make_stage: ClassVar = DiffusionDpoStage
    stage_name: ClassVar = "diffusion-dpo"
    recipe: Annotated[str, recipe_option("diffusion-dpo")] = "small"
    stage: Annotated[DiffusionDpoConfig, Flat] = field(default_factory=DiffusionDpoConfig)


@dataclass(frozen=True)
class ScoreDistillation(_FromTeacher):
    """Distil a teacher into a student of few steps (score distillation; with structural terms: ScoreLiDAR).

    The same command goes on with an interrupted run. OUT/model receives the student; `densescan weights merge` adds a
    refiner.

    Examples:
      densescan train score-distillation --teacher runs/teacher/model --data data/train --out runs/student
      densescan train score-distillation --data data/train --out runs/scorelidar --scene-weight 0.5 --point-weight 0.01
    """

    make_stage: ClassVar = ScoreDistillationStage
    stage_name: ClassVar = "score-distillation"
    recipe: Annotated[str, recipe_option("score-distillation")] = "small"
    stage: Annotated[ScoreDistillationConfig, Flat] = field(default_factory=ScoreDistillationConfig)


@dataclass(frozen=True)
class DistillationDpo(_FromTeacher):
    """Distil a teacher into a student that prefers its own better samples (Distillation-DPO).

    The same command goes on with an interrupted run. OUT/model receives the student; `densescan weights merge` adds a
    refiner.

    Examples:
      densescan train distillation-dpo --teacher runs/teacher/model --data data/train --out runs/student
      densescan train distillation-dpo --data data/train --out runs/student --objective preference-as-released
      densescan train distillation-dpo --data data/train --out runs/student --pairs.metric jsd --one-assistant
    """

    make_stage: ClassVar = DistillationDpoStage
    stage_name: ClassVar = "distillation-dpo"
    recipe: Annotated[str, recipe_option("distillation-dpo")] = "small"
    stage: Annotated[DistillationDpoConfig, Flat] = field(default_factory=DistillationDpoConfig)
