"""The size `released`: the released form and choices on crops, for trials; what is published is in `published.py`."""

from densescan.evaluation.published import TABLE_8
from densescan.recipes.recipe import FROM_TEACHER, NOT_RUN, Recipe, Standing
from densescan.recipes.students import expected
from densescan.training.config import LoopConfig
from densescan.training.diffusion_dpo import DiffusionDpoConfig
from densescan.training.distillation_dpo import DistillationDpoConfig
from densescan.training.pairs import PairConfig
from densescan.training.refinement import RefinerConfig
from densescan.training.score_distillation import ScoreDistillationConfig
from densescan.training.teacher import TeacherConfig
from densescan.weights.official import LIDIFF_COMPLETION

SIZE = "released"
ON_CROPS = Standing(score=f"{NOT_RUN}; nothing is published of training on crops")

RELEASED_TEACHER = Recipe(
    "teacher",
    SIZE,
    "LiDiff's networks, released width, voxels and batch norm, trained by Adam on crops of 1,000 points of the scan.",
    TeacherConfig(),
    LoopConfig(),
    completion=LIDIFF_COMPLETION,
    standing=ON_CROPS,
)

RELEASED_REFINER = Recipe(
    "refiner",
    SIZE,
    "LiDiff's refiner in its released form, trained by Adam on crops.",
    RefinerConfig(),
    LoopConfig(),
    standing=ON_CROPS,
)

RELEASED_DISTILLATION_LOOP = LoopConfig(
    batch_size=1, optimiser="sgd", lr=1e-5, schedule="constant", warmup_steps=0, clip=0.05
)
"""The release's plain gradient descent. It counts epochs, ten of SemanticKITTI; `max_steps` is yours to set."""

RELEASED_DIFFUSION_DPO = Recipe(
    "diffusion-dpo",
    SIZE,
    "A teacher fine-tuned on pairs of its own completions by the plain gradient descent of the release, on crops.",
    DiffusionDpoConfig(),
    RELEASED_DISTILLATION_LOOP,
    needs=FROM_TEACHER,
    standing=ON_CROPS,
)

RELEASED_SCORE_CONFIG = ScoreDistillationConfig(
    student_steps=(1,), min_t=0, max_t=1000, assistant_lr_factor=1.0, head_start=0
)
"""Score distillation with the choices of the releases: through one step, at all noise levels."""
RELEASED_DPO_CONFIG = DistillationDpoConfig(
    student_steps=(1,),
    min_t=0,
    max_t=1000,
    assistant_lr_factor=1.0,
    head_start=0,
    pairs=PairConfig(same_noise=True),
)
"""Distillation-DPO with the choices of the release: also one noise for both samples of a pair."""

RELEASED_SCORE_DISTILLATION = Recipe(
    "score-distillation",
    SIZE,
    "A student by score distillation with the releases' choices, on crops: through one step, at all noise levels.",
    RELEASED_SCORE_CONFIG,
    RELEASED_DISTILLATION_LOOP,
    needs=FROM_TEACHER,
    standing=Standing(score=f"{expected(TABLE_8.rows[1])}, on whole scenes"),
)

RELEASED_DISTILLATION_DPO = Recipe(
    "distillation-dpo",
    SIZE,
    "A student by Distillation-DPO with the choices of the release, on crops: one noise for both samples of a pair.",
    RELEASED_DPO_CONFIG,
    RELEASED_DISTILLATION_LOOP,
    needs=FROM_TEACHER,
    standing=Standing(score=f"{expected(TABLE_8.rows[2])}, on whole scenes"),
)

RELEASED = (
    RELEASED_TEACHER,
    RELEASED_REFINER,
    RELEASED_DIFFUSION_DPO,
    RELEASED_SCORE_DISTILLATION,
    RELEASED_DISTILLATION_DPO,
)
