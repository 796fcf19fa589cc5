"""The commands that make rows of the tables: data, training, models, scores."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from densescan.recipes.recipe import Recipe
from densescan.recipes.rows import Row
from densescan.recipes.sizes import DataSet, Size

CommandLine = tuple[str, ...]
PROGRAM = "densescan"
RIVALS = ("bare", "jitter:0.1", "jitter:0.2")
"""What any model must beat, scored beside all rows."""
PUBLISHED_OPTION = {"SemanticKITTI": "semantic-kitti", "KITTI-360": "kitti-360"}


@dataclass(frozen=True)
class Places:
    """Where things lie."""

    out: str
    """Folder that receives data, runs, models and scores."""
    semantic_kitti: str = "SemanticKITTI/dataset"
    kitti_360: str = "KITTI-360"

    def data(self, data: DataSet) -> str:
        """Where a data set is made."""
        return f"{self.out}/data/{data.folder}"

    def model(self, run: str) -> str:
        """Where the model of a run lies, a refiner added."""
        return f"{self.out}/models/{run}"

    def make(self, data: DataSet) -> CommandLine:
        """The command that makes a data set."""
        known = {
            "folder": self.data(data),
            "semantic_kitti": self.semantic_kitti,
            "kitti_360": self.kitti_360,
        }
        return (PROGRAM, *(part.format(**known) for part in data.make))


@dataclass(frozen=True)
class Script:
    """All commands of some rows, each once, in an order in which they can run; each goes on with interrupted work."""

    data: tuple[CommandLine, ...]
    training: tuple[CommandLine, ...]
    models: tuple[CommandLine, ...]
    scores: tuple[CommandLine, ...]

    def parts(self) -> dict[str, tuple[CommandLine, ...]]:
        """The commands under the headings of their parts."""
        return {
            "data": self.data,
            "training": self.training,
            "models: with a refiner": self.models,
            "scores": self.scores,
        }


def script(rows: Iterable[Row], size: Size, places: Places) -> Script:
    """What makes these rows at a size; rivals that are not implemented are left out."""
    rows = [row for row in rows if row.run is not None]
    runs = list(dict.fromkeys(row.run for row in rows if row.run is not None))
    if not runs:
        return Script((), (), (), ())
    scored = [(name, data) for name, data in size.scored if any(row.table.data_set == name for row in rows)]
    sets = dict.fromkeys(places.make(data) for data in (size.training, *(data for _, data in scored)))
    methods = {name: [row for row in rows if row.table.data_set == name] for name, _ in scored}
    return Script(
        tuple(sets),
        tuple(training(recipe, size, places) for recipe in size.chain(*runs, size.refiner)),
        tuple(_merge(run, rows, size, places) for run in runs),
        tuple(_evaluate(name, data, methods[name], size, places) for name, data in scored),
    )


def training(recipe: Recipe, size: Size, places: Places) -> CommandLine:
    """The command that trains a stage of a size."""
    data = ("--data", places.data(size.training))
    sequences = ("--sequences", *size.training.sequences) if size.training.sequences else ()
    return recipe.command(f"{places.out}/runs", (*data, *sequences))


def _merge(run: str, rows: Sequence[Row], size: Size, places: Places) -> CommandLine:
    """The command that gives a model its refiner, and says how it is sampled."""
    sampling = size.teachers if any(row.of_teacher for row in rows if row.run == run) else size.students
    folders = [f"{places.out}/runs/{source}/model" for source in (run, size.refiner)]
    return (PROGRAM, "weights", "merge", *folders, "-o", places.model(run), "--completion", *sampling)


def _evaluate(name: str, data: DataSet, rows: Sequence[Row], size: Size, places: Places) -> CommandLine:
    """The command that scores rows on a data set."""
    methods = dict.fromkeys(
        f"{row.method}={places.model(row.run or '')}:steps={row.steps}" + ("" if row.refined else ":coarse")
        for row in rows
    )
    frames = ("--sequences", *data.sequences) if data.sequences else ()
    published = ("--published", PUBLISHED_OPTION[name])
    out = ("--out", f"{places.out}/scores/{data.folder}")
    return (PROGRAM, "evaluate", places.data(data), *RIVALS, *methods, *out, *frames, *published)
