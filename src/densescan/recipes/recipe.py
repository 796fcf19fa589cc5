"""A recipe: the frozen configuration that a run of `densescan train STAGE --recipe NAME` starts from."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from densescan.completion import CompletionConfig
from densescan.training.config import LoopConfig
from densescan.training.diffusion_dpo import DiffusionDpoConfig
from densescan.training.distillation_dpo import DistillationDpoConfig
from densescan.training.refinement import RefinerConfig
from densescan.training.score_distillation import ScoreDistillationConfig
from densescan.training.teacher import TeacherConfig

StageName = Literal["teacher", "refiner", "diffusion-dpo", "score-distillation", "distillation-dpo"]
STAGES: tuple[StageName, ...] = get_args(StageName)
StageConfig = (
    TeacherConfig | RefinerConfig | DiffusionDpoConfig | ScoreDistillationConfig | DistillationDpoConfig
)

NOT_RUN = "not run here"

FROM_TEACHER = (("--teacher", "teacher"),)
"""What most stages are given: the run of the teacher."""


@dataclass(frozen=True)
class Standing:
    """What a recipe costs and gives, as far as it was run."""

    time: str = NOT_RUN
    hardware: str = NOT_RUN
    score: str = NOT_RUN


@dataclass(frozen=True)
class Recipe:
    """One stage at one size."""

    stage: StageName
    size: str
    """Which family of recipes it belongs to, such as `small`."""
    about: str
    """What is trained, and where it departs from the paper."""
    config: StageConfig
    loop: LoopConfig
    variant: str = ""
    """What tells it from others of its stage and size; empty: the usual one."""
    needs: tuple[tuple[str, str], ...] = ()
    """Models of other runs of its size that it begins with: the option that takes each, and the run."""
    completion: CompletionConfig = field(default_factory=CompletionConfig)
    """How scenes of a teacher are sampled; other stages take it over from what they begin with."""
    standing: Standing = Standing()

    @property
    def name(self) -> str:
        """What `--recipe` takes."""
        return f"{self.size}-{self.variant}" if self.variant else self.size

    @property
    def run(self) -> str:
        """The name of its run, the same at every size; the folder of the run is called so."""
        return f"{self.stage}-{self.variant}" if self.variant else self.stage

    def command(
        self, runs: str = "runs", data: tuple[str, ...] = ("--data", "data/train")
    ) -> tuple[str, ...]:
        """The command that trains it. runs: folder of all runs. data: the options that name the training data."""
        models = [part for option, run in self.needs for part in (option, f"{runs}/{run}/model")]
        train = ("densescan", "train", self.stage, "--recipe", self.name)
        return *train, *models, *data, "--out", f"{runs}/{self.run}"

    @property
    def doc(self) -> str:
        """What it is, its time, hardware, command and the score to expect."""
        return (
            f"{self.about}\n\nTime: {self.standing.time}.\nHardware: {self.standing.hardware}.\n"
            f"Command: {' '.join(self.command())}\nScore to expect: {self.standing.score}."
        )
