"""The recipes of the stages: frozen, known by name, and different in what their names say."""

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from densescan.data.dataset import CropConfig
from densescan.errors import InputError
from densescan.nets.minkunet import NetConfig
from densescan.recipes.catalogue import RECIPES, find_recipe
from densescan.recipes.recipe import STAGES, Recipe
from densescan.training.config import LoopConfig
from densescan.training.diffusion_dpo import DiffusionDpoConfig
from densescan.training.distillation_dpo import DistillationDpoConfig
from densescan.training.refinement import RefinerConfig
from densescan.training.score_distillation import ScoreDistillationConfig
from densescan.training.teacher import TeacherConfig
from densescan.weights.official import LIDIFF_COMPLETION

ALL = [recipe for stage in STAGES for recipe in RECIPES[stage].values()]
KINDS = {
    "teacher": TeacherConfig,
    "refiner": RefinerConfig,
    "diffusion-dpo": DiffusionDpoConfig,
    "score-distillation": ScoreDistillationConfig,
    "distillation-dpo": DistillationDpoConfig,
}
every_recipe = pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: f"{recipe.stage}/{recipe.name}")


@every_recipe
def test_it_configures_its_stage_and_cannot_be_changed(recipe: Recipe) -> None:
    assert type(recipe.config) is KINDS[recipe.stage]
    for part, field in ((recipe, "config"), (recipe, "loop"), (recipe.config, "crops"), (recipe.loop, "lr")):
        with pytest.raises(FrozenInstanceError):
            setattr(part, field, None)
    hash(recipe)


@every_recipe
def test_its_text_says_what_it_takes_and_gives(recipe: Recipe) -> None:
    about, facts = recipe.doc.split("\n\n")
    assert len(about) > 20
    said = dict(line.split(": ", 1) for line in facts.splitlines())
    assert list(said) == ["Time", "Hardware", "Command", "Score to expect"]
    assert all(said.values())
    assert f"densescan train {recipe.stage} --recipe {recipe.name} " in said["Command"]


def test_no_two_of_a_stage_share_a_name() -> None:
    names = [(recipe.stage, recipe.name) for recipe in ALL]
    assert len(set(names)) == len(names)
    for stage in STAGES:
        assert {"small", "tiny", "released", "published"} <= RECIPES[stage].keys()


@pytest.mark.parametrize("size", ["small", "tiny", "published"])
def test_a_student_differs_from_the_usual_one_in_what_its_name_says_alone(size: str) -> None:
    usual = find_recipe("distillation-dpo", size)
    assert isinstance(usual.config, DistillationDpoConfig)
    assert (usual.config.pairs.lams, usual.config.pairs.metric) == ((1.0, 1.1), "cd")
    assert not usual.config.one_assistant
    changes = {
        **{
            f"lam-{lam}": {"pairs": replace(usual.config.pairs, lams=(1.0, lam))}
            for lam in (1.05, 1.2, 1.5, 2.0)
        },
        "jsd": {"pairs": replace(usual.config.pairs, metric="jsd")},
        "one-assistant": {"one_assistant": True},
        "tuned-teacher": {},
    }
    for variant, change in changes.items():
        other = find_recipe("distillation-dpo", f"{size}-{variant}")
        assert other.config == replace(usual.config, **change), variant
        assert other.loop == usual.loop
        teacher = "diffusion-dpo" if variant == "tuned-teacher" else "teacher"
        assert other.needs == (("--teacher", teacher),)
    plain, structural = (
        find_recipe("score-distillation", name).config for name in (size, f"{size}-scorelidar")
    )
    assert structural == replace(plain, scene_weight=0.5, point_weight=0.01)


def test_the_published_size_is_that_of_the_paper() -> None:
    teacher, refiner, student = (
        find_recipe(stage, "published") for stage in ("teacher", "refiner", "distillation-dpo")
    )
    for recipe in (teacher, refiner):
        assert isinstance(recipe.config, TeacherConfig | RefinerConfig)
        assert recipe.config.net == NetConfig(width=1.0, norm="batch", voxel_size=0.05)
        assert recipe.loop.lr == 1e-4
    for recipe in (teacher, refiner, student):
        crops = recipe.config.crops
        assert isinstance(crops, CropConfig)
        assert (crops.scan_points, crops.min_reduced, crops.max_reduced) == (18_000,) * 3
        assert crops.margin == 1.0
        assert crops.truth_points == 10 * 18_000
    assert teacher.completion == LIDIFF_COMPLETION
    config, loop = student.config, student.loop
    assert isinstance(config, DistillationDpoConfig)
    assert (config.student_steps, config.min_t, config.max_t) == ((1,), 0, 1000)
    assert (config.assistant_lr_factor, config.head_start, config.pairs.same_noise) == (1.0, 0, True)
    assert (loop.optimiser, loop.lr, loop.clip, loop.schedule) == ("sgd", 1e-5, 0.05, "constant")
    assert loop.max_steps * loop.batch_size == 10 * 19_130, "ten epochs"
    assert teacher.loop.max_steps * teacher.loop.batch_size == 20 * 19_130, "twenty epochs"


def test_a_smaller_size_is_smaller() -> None:
    sizes = [find_recipe("teacher", name) for name in ("tiny", "small", "published")]
    widths = [recipe.config.net.width for recipe in sizes if isinstance(recipe.config, TeacherConfig)]
    assert widths == sorted(set(widths))
    assert len(widths) == 3
    for stage in STAGES:
        tiny, small = find_recipe(stage, "tiny"), find_recipe(stage, "small")
        assert tiny.loop.max_steps < small.loop.max_steps
        assert tiny.config.crops.scan_points < small.config.crops.scan_points
        unchanged = {field.name for field in fields(LoopConfig)} - {"max_steps", "warmup_steps", "batch_size"}
        assert all(getattr(tiny.loop, name) == getattr(small.loop, name) for name in unchanged)


def test_an_unknown_name_is_met_by_near_ones_and_all() -> None:
    with pytest.raises(InputError, match=r"unknown recipe small-jds .*did you mean small-jsd") as raised:
        find_recipe("distillation-dpo", "small-jds")
    assert all(name in str(raised.value) for name in RECIPES["distillation-dpo"])
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="of teacher: known are small, tiny, released, published"):
        find_recipe("teacher", "xyz")
