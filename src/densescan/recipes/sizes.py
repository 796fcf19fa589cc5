"""The sizes at which all rows exist: which recipes, on which data, sampled how."""

from dataclasses import dataclass

from densescan.errors import InputError
from densescan.recipes.catalogue import suggestions
from densescan.recipes.published import PUBLISHED
from densescan.recipes.recipe import Recipe
from densescan.recipes.small import SMALL
from densescan.recipes.tiny import TINY


@dataclass(frozen=True)
class DataSet:
    """Frames with ground truth: how they are made, and which of them count."""

    folder: str
    """Its name among the data of a run."""
    make: tuple[str, ...]
    """The command that makes it, with {folder} for its own and {semantic_kitti} or {kitti_360} for the sources."""
    sequences: tuple[str, ...] = ()
    """Those that count; none: all."""


@dataclass(frozen=True)
class Size:
    """A family of recipes with the data that it is trained and scored on."""

    name: str
    about: str
    recipes: tuple[Recipe, ...]
    training: DataSet
    scored: tuple[tuple[str, DataSet], ...]
    """What stands in for each data set of the paper."""
    refiner: str
    """The run whose refiner mends all scenes."""
    teachers: tuple[str, ...]
    """How teachers are sampled unless a row says otherwise: fields of `densescan.completion.CompletionConfig`."""
    students: tuple[str, ...]
    """How students are sampled."""
    scores: tuple[tuple[str, str], ...] = ()
    """What came of the methods that were evaluated at this size, by their names."""

    def recipe(self, run: str) -> Recipe:
        """The recipe of a run."""
        return next(recipe for recipe in self.recipes if recipe.run == run)

    def chain(self, *runs: str) -> tuple[Recipe, ...]:
        """The recipes of these runs after all that they need, each once, in the order of training."""
        ordered: dict[str, Recipe] = {}
        for run in runs:
            recipe = self.recipe(run)
            for needed in self.chain(*(source for _, source in recipe.needs)):
                ordered.setdefault(needed.run, needed)
            ordered.setdefault(run, recipe)
        return tuple(ordered.values())


TRAINING_SEQUENCES = ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10")
VALIDATION_SEQUENCE = "08"
"""Of SemanticKITTI, by its own split."""
KITTI_360_DRIVE = "2013_05_28_drive_0000_sync"
"""The paper does not say which drives it scores; this one is the first."""
_SEMANTIC_KITTI = (
    *("data", "prepare", "{semantic_kitti}", "{folder}"),
    *("--sequences", *TRAINING_SEQUENCES, VALIDATION_SEQUENCE),
)
_KITTI_360 = (
    *("data", "prepare", "{kitti_360}", "{folder}"),
    *("--sequences", KITTI_360_DRIVE, "--deskew", "--movers", "visibility"),
)

PUBLISHED_SIZE = Size(
    "published",
    "as published, on SemanticKITTI; the same models complete KITTI-360, for the paper names no others",
    PUBLISHED,
    training=DataSet("semantic-kitti", _SEMANTIC_KITTI, TRAINING_SEQUENCES),
    scored=(
        ("SemanticKITTI", DataSet("semantic-kitti", _SEMANTIC_KITTI, (VALIDATION_SEQUENCE,))),
        ("KITTI-360", DataSet("kitti-360", _KITTI_360)),
    ),
    refiner="refiner",
    teachers=("steps=50", "guidance_scale=6.0"),
    students=("steps=8", "guidance_scale=3.5"),
)


def _simulated(
    name: str, about: str, recipes: tuple[Recipe, ...], streets: int, held_out: int, other: int
) -> Size:
    """A size on simulated streets: so many to train on, others to score one frame of each, some by another sensor."""

    def drives(folder: str, first: int, count: int, *options: str) -> DataSet:
        return DataSet(
            folder, ("data", "simulate", "{folder}", "--seeds", f"{first}:{first + count}", *options)
        )

    return Size(
        name,
        about,
        recipes,
        training=drives("train", 0, streets),
        scored=(
            ("SemanticKITTI", drives("held-out", 1000, held_out, "--frames", "1")),
            ("KITTI-360", drives("other-sensor", 2000, other, "--frames", "1", "--sensor", "os1-128")),
        ),
        refiner="refiner-tuning",
        teachers=("steps=50", "guidance_scale=1.0"),
        students=("steps=8", "guidance_scale=1.0"),
    )


SMALL_SIZE = _simulated(
    "small",
    "half the width, on simulated streets; a sensor not seen in training takes KITTI-360's place",
    SMALL,
    streets=100,
    held_out=100,
    other=12,
)
TINY_SIZE = _simulated(
    "tiny",
    "a quarter of the width, on few simulated streets",
    TINY,
    streets=20,
    held_out=4,
    other=4,
)

SIZES = {size.name: size for size in (PUBLISHED_SIZE, SMALL_SIZE, TINY_SIZE)}


def find_size(name: str) -> Size:
    """The size of that name.

    Raises: InputError: there is none.
    """
    if name not in SIZES:
        raise InputError(f"unknown size {name}: {suggestions(name, SIZES)}")
    return SIZES[name]
