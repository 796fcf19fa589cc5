"""The size `published`: the paper's rows on SemanticKITTI, as near to the paper as its sources and these stages permit.

Nothing of it was run here, and neither time nor memory is known. What the sources leave open, or what differs:

- Whole scenes: 18,000 points of the scan, repeated 10 times, and 180,000 of the truth. LiDiff draws its truth from
  crops of its maps with a radius of 50 m; ours ends where the prepared map does, as it does for smaller crops.
- Teacher: LiDiff's configuration file has 20 epochs, Adam at 1e-4 and batches of two, and halves the rate every five
  epochs. Half a cosine stands in for the halving.
- Refiner: the file has batches of eight and at most 100 epochs. Where its authors stopped, and how they scatter the
  points that it mends, is not known; jittered copies of the scan stand in.
- Diffusion-DPO of the teacher: the paper says that it was done, and nothing more. Eight steps for the completions, beta
  of the release of Diffusion-DPO, the plain gradient descent of the students.
- Students: the release counts ten epochs, one scene on each of two GPUs, plain gradient descent at 1e-5 with gradients
  clipped to 0.05, and lowers the rate by a thousandth an epoch, which is left out. Its own loss has no gradient, see
  `losses.distillation`; the objective here is Eq. 13 in full. Statistics of batch norms are frozen. Its script
  begins with the teacher that Diffusion-DPO has fine-tuned, where the paper's usual student has LiDiff itself.
- All stages do without a running average of the weights, and compute in float32.
- Students sample in 8 steps with guidance 3.5, as released, though they learn without guidance.
"""

from dataclasses import replace

from densescan.data.dataset import CropConfig
from densescan.evaluation.published import TABLE_1, TABLE_5
from densescan.recipes.recipe import FROM_TEACHER, NOT_RUN, Recipe, Standing
from densescan.recipes.released import RELEASED_DISTILLATION_LOOP, RELEASED_DPO_CONFIG, RELEASED_SCORE_CONFIG
from densescan.recipes.students import expected, preferring, score_distilled, scores
from densescan.training.config import LoopConfig
from densescan.training.diffusion_dpo import DiffusionDpoConfig
from densescan.training.refinement import RefinerConfig
from densescan.training.teacher import TeacherConfig
from densescan.weights.official import LIDIFF_COMPLETION

SIZE = "published"
SCANS = 19_130
"""Of SemanticKITTI's training sequences, 00 to 07, 09 and 10."""
TEACHER_EPOCHS, REFINER_EPOCHS, STUDENT_EPOCHS = 20, 100, 10
TEACHER_BATCH, REFINER_BATCH, STUDENT_BATCH = 2, 8, 2

WHOLE_SCENES = CropConfig(
    scan_points=18_000, margin=1.0, truth_points=180_000, min_reduced=18_000, max_reduced=18_000
)
"""All points of a reduced scan, and as many of the truth as the released scenes have."""

PUBLISHED_LOOP = LoopConfig(
    max_steps=TEACHER_EPOCHS * SCANS // TEACHER_BATCH,
    batch_size=TEACHER_BATCH,
    lr=1e-4,
    ema=0.0,
    bfloat16=False,
    checkpoint_every=1000,
    validate_every=5000,
)

PUBLISHED_TEACHER = Recipe(
    "teacher",
    SIZE,
    "LiDiff on whole scenes, the teacher of all rows: 20 epochs of SemanticKITTI.",
    TeacherConfig(crops=WHOLE_SCENES),
    PUBLISHED_LOOP,
    completion=LIDIFF_COMPLETION,
    standing=Standing(score=f"{scores(TABLE_1.rows[4])} before refinement, as published; {NOT_RUN}"),
)

PUBLISHED_REFINER = Recipe(
    "refiner",
    SIZE,
    "LiDiff's refiner on whole scenes, on jittered copies of the scan: 100 epochs of SemanticKITTI at most.",
    RefinerConfig(crops=WHOLE_SCENES),
    replace(
        PUBLISHED_LOOP,
        max_steps=REFINER_EPOCHS * SCANS // REFINER_BATCH,
        batch_size=REFINER_BATCH,
        schedule="constant",
    ),
    standing=Standing(score=f"{expected(TABLE_1.rows[5])}, with the teacher's 50 steps"),
)

PUBLISHED_DISTILLATION_LOOP = replace(
    RELEASED_DISTILLATION_LOOP,
    max_steps=STUDENT_EPOCHS * SCANS // STUDENT_BATCH,
    batch_size=STUDENT_BATCH,
    ema=0.0,
    bfloat16=False,
    checkpoint_every=1000,
    validate_every=5000,
)

PUBLISHED_DIFFUSION_DPO = Recipe(
    "diffusion-dpo",
    SIZE,
    "The teacher, fine-tuned on pairs of its own completions (LiDiff* of Table 5); the paper gives no numbers of it.",
    DiffusionDpoConfig(crops=WHOLE_SCENES),
    PUBLISHED_DISTILLATION_LOOP,
    needs=FROM_TEACHER,
    standing=Standing(score=expected(TABLE_5.rows[1])),
)

PUBLISHED_SCORE_DISTILLATION = score_distilled(
    SIZE, replace(RELEASED_SCORE_CONFIG, crops=WHOLE_SCENES), PUBLISHED_DISTILLATION_LOOP, as_published=True
)
PUBLISHED_DISTILLATION_DPO = preferring(
    SIZE, replace(RELEASED_DPO_CONFIG, crops=WHOLE_SCENES), PUBLISHED_DISTILLATION_LOOP, as_published=True
)

PUBLISHED = (
    PUBLISHED_TEACHER,
    PUBLISHED_REFINER,
    PUBLISHED_DIFFUSION_DPO,
    *PUBLISHED_SCORE_DISTILLATION,
    *PUBLISHED_DISTILLATION_DPO,
)
