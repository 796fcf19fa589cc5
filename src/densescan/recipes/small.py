"""The size `small`: what two processor cores train in hours, on simulated streets, and complete a scan with in seconds.

Half the released width on voxels of 0.1 m, batch norm as released but kept within bounds, and the sampler that agrees
with Eq. 1: the form that came out best in docs/experiments.md, sections 12 and 15.
"""

from dataclasses import replace

from densescan.completion import CompletionConfig
from densescan.nets.minkunet import NetConfig
from densescan.recipes.recipe import FROM_TEACHER, NOT_RUN, Recipe, Standing
from densescan.recipes.students import preferring, score_distilled
from densescan.training.config import LoopConfig
from densescan.training.diffusion_dpo import DiffusionDpoConfig
from densescan.training.distillation_dpo import DistillationDpoConfig
from densescan.training.refinement import RefinerConfig
from densescan.training.score_distillation import ScoreDistillationConfig
from densescan.training.teacher import TeacherConfig

SIZE = "small"

SMALL_NET = NetConfig(width=0.5, norm="bounded", voxel_size=0.1, point_features="local")
"""Half the released width on voxels of 0.1 m."""

SMALL_COMPLETION = CompletionConfig(guidance_scale=1.0, sampler="consistent", bfloat16=True)
"""How its scenes are sampled: by the sampler that agrees with the noising of its training, see docs/experiments.md."""

TWO_CORES = (
    "two processor cores (AMD EPYC, AVX-512 with bfloat16), one thread a run; busy with other work meanwhile"
)
BUNDLED = "that of the bundled model, of which this is a stage: `densescan weights show small`"

SMALL_TEACHER = Recipe(
    "teacher",
    SIZE,
    "The teacher of the bundled weights: the plain least-squares loss, see docs/experiments.md.",
    TeacherConfig(net=replace(SMALL_NET, see_scan=True), prior_weight=0.0),
    LoopConfig(max_steps=4500, batch_size=2, lr=1e-3),
    completion=SMALL_COMPLETION,
    standing=Standing("2.6 hours", TWO_CORES, BUNDLED),
)

SMALL_REFINER_CONFIG = RefinerConfig(net=SMALL_NET)
SMALL_REFINER = Recipe(
    "refiner",
    SIZE,
    "The refiner of the bundled weights, first stage: on jittered copies of the scan.",
    SMALL_REFINER_CONFIG,
    LoopConfig(max_steps=2400, batch_size=2, lr=1e-3),
    standing=Standing("0.9 hours", TWO_CORES, BUNDLED),
)

SMALL_REFINER_TUNING = Recipe(
    "refiner",
    SIZE,
    "The refiner, second stage: it goes on with what the teacher really leaves, four steps a crop. The bundled refiner "
    "learnt so from the bundled student (`--completer`), which is better for that one.",
    replace(
        SMALL_REFINER_CONFIG,
        completer="runs/teacher/model",
        start_from="runs/refiner/model",
        steps=4,
        statistics="frozen",
    ),
    LoopConfig(max_steps=300, batch_size=2, lr=4e-4, warmup_steps=20, workers=0),
    variant="tuning",
    needs=(("--completer", "teacher"), ("--start-from", "refiner")),
    standing=Standing("0.3 hours", TWO_CORES, BUNDLED),
)

SMALL_DIFFUSION_DPO = Recipe(
    "diffusion-dpo",
    SIZE,
    "The teacher, fine-tuned by pairs of its own completions. With a rate of 1e-4 the loss ran away at the first step.",
    DiffusionDpoConfig(),
    LoopConfig(max_steps=300, batch_size=2, lr=5e-6, warmup_steps=20),
    needs=FROM_TEACHER,
    standing=Standing(score=f"{NOT_RUN} to the end"),
)

SMALL_DISTILLATION_LOOP = LoopConfig(max_steps=600, batch_size=2, lr=3e-5, warmup_steps=20)
"""Of all students: at 1e-4 the first steps made the student worse."""
SMALL_SCORE_DISTILLATION = score_distilled(SIZE, ScoreDistillationConfig(), SMALL_DISTILLATION_LOOP)
SMALL_DISTILLATION_DPO = preferring(SIZE, DistillationDpoConfig(), SMALL_DISTILLATION_LOOP)
"""Samples of a pair have noises of their own, and students learn through the last of 1, 2, 4 or 8 steps; the release
differs in both."""

SMALL_CHAMFER = Recipe(
    "distillation-dpo",
    SIZE,
    "Ours, in none of the tables: the usual student, which sees the Chamfer distance to the truth too; the student of "
    "the bundled weights, see docs/experiments.md.",
    DistillationDpoConfig(chamfer_weight=1.0),
    SMALL_DISTILLATION_LOOP,
    variant="chamfer",
    needs=FROM_TEACHER,
    standing=Standing("1.6 hours", TWO_CORES, BUNDLED),
)

SMALL_CHAMFER_ALONE = Recipe(
    "score-distillation",
    SIZE,
    "Ours, in none of the tables: the teacher's few-step sampler, trained by the Chamfer distance to the truth and by "
    "nothing else; a quarter of the time of a step of the others.",
    ScoreDistillationConfig(score_weight=0.0, chamfer_weight=1.0, head_start=0),
    SMALL_DISTILLATION_LOOP,
    variant="chamfer-alone",
    needs=FROM_TEACHER,
    standing=Standing("0.3 hours for 500 steps", TWO_CORES, "docs/experiments.md, section 14"),
)

SMALL = (
    SMALL_TEACHER,
    SMALL_REFINER,
    SMALL_REFINER_TUNING,
    SMALL_DIFFUSION_DPO,
    *SMALL_SCORE_DISTILLATION,
    *SMALL_DISTILLATION_DPO,
    SMALL_CHAMFER,
    SMALL_CHAMFER_ALONE,
)
