"""The size `tiny`: every stage of the paper within about an hour on two cores, to see it work; its scenes are poor.

A quarter of the released width, otherwise the form of `small`, on small crops and few steps. `runs/tiny.sh` runs it.
"""

from dataclasses import replace

from densescan.data.dataset import CropConfig
from densescan.recipes.recipe import FROM_TEACHER, Recipe, Standing
from densescan.recipes.small import SMALL_COMPLETION, SMALL_NET, TWO_CORES
from densescan.recipes.students import preferring, score_distilled
from densescan.training.config import LoopConfig
from densescan.training.diffusion_dpo import DiffusionDpoConfig
from densescan.training.distillation_dpo import DistillationDpoConfig
from densescan.training.refinement import RefinerConfig
from densescan.training.score_distillation import ScoreDistillationConfig
from densescan.training.teacher import TeacherConfig

SIZE = "tiny"
REPEAT = 5
"""Noisy copies of each point of the scan: half the usual number."""

TINY_NET = replace(SMALL_NET, width=0.25)
TINY_CROPS = CropConfig(scan_points=500, truth_points=5_000)
TINY_WIDE_CROPS = CropConfig(scan_points=500, truth_points=10_000, truth_margin=2.0)
"""Crops whose truth goes on beyond the radius, for stages that measure how far scenes are from it."""

TINY_TEACHER = Recipe(
    "teacher",
    SIZE,
    "A teacher of a quarter of the width: the plain least-squares loss on small crops.",
    TeacherConfig(net=replace(TINY_NET, see_scan=True), crops=TINY_CROPS, prior_weight=0.0),
    LoopConfig(max_steps=800, batch_size=2, lr=1e-3, warmup_steps=100),
    completion=SMALL_COMPLETION,
)

TINY_REFINER_CONFIG = RefinerConfig(net=TINY_NET, crops=TINY_WIDE_CROPS, repeat=REPEAT)
TINY_REFINER = Recipe(
    "refiner",
    SIZE,
    "A refiner of a quarter of the width, on jittered copies of small scans.",
    TINY_REFINER_CONFIG,
    LoopConfig(max_steps=400, batch_size=2, lr=1e-3, warmup_steps=100),
)

TINY_REFINER_TUNING = Recipe(
    "refiner",
    SIZE,
    "Second stage of the refiner: it goes on with what the teacher really leaves, four steps a crop.",
    replace(
        TINY_REFINER_CONFIG,
        completer="runs/teacher/model",
        start_from="runs/refiner/model",
        steps=4,
        statistics="frozen",
    ),
    LoopConfig(max_steps=60, batch_size=2, lr=4e-4, warmup_steps=20, workers=0),
    variant="tuning",
    needs=(("--completer", "teacher"), ("--start-from", "refiner")),
)

TINY_DIFFUSION_DPO = Recipe(
    "diffusion-dpo",
    SIZE,
    "The teacher, fine-tuned by pairs of its own completions.",
    DiffusionDpoConfig(crops=TINY_WIDE_CROPS, repeat=REPEAT),
    LoopConfig(max_steps=40, batch_size=1, lr=5e-6, warmup_steps=10),
    needs=FROM_TEACHER,
)

TINY_DISTILLATION_LOOP = LoopConfig(max_steps=100, batch_size=1, lr=3e-5, warmup_steps=10)
TINY_HEAD_START = 20
"""Steps in which the assistants learn alone."""
TINY_SCORE_DISTILLATION = score_distilled(
    SIZE,
    ScoreDistillationConfig(crops=TINY_WIDE_CROPS, repeat=REPEAT, head_start=TINY_HEAD_START),
    TINY_DISTILLATION_LOOP,
)
TINY_DISTILLATION_DPO = preferring(
    SIZE,
    DistillationDpoConfig(crops=TINY_WIDE_CROPS, repeat=REPEAT, head_start=TINY_HEAD_START),
    TINY_DISTILLATION_LOOP,
)

MINUTES = {
    "teacher": 10,
    "refiner": 5,
    "refiner-tuning": 2,
    "diffusion-dpo": 2,
    "score-distillation": 2,
    "distillation-dpo": 4,
    "distillation-dpo-tuned-teacher": 4,
}
"""What the runs of runs/tiny.sh took, beside other work on the same cores."""


def _timed(recipe: Recipe) -> Recipe:
    """With its time, where it was run."""
    if recipe.run not in MINUTES:
        return recipe
    return replace(recipe, standing=Standing(f"{MINUTES[recipe.run]} minutes", TWO_CORES))


_ALL = (
    TINY_TEACHER,
    TINY_REFINER,
    TINY_REFINER_TUNING,
    TINY_DIFFUSION_DPO,
    *TINY_SCORE_DISTILLATION,
    *TINY_DISTILLATION_DPO,
)
TINY = tuple(_timed(recipe) for recipe in _ALL)
