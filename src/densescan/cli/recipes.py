"""`densescan recipes`: the rows of the paper's tables, and the commands that make them."""

import io
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from densescan.cli.console import say
from densescan.cli.options import Command
from densescan.errors import InputError
from densescan.recipes.catalogue import RECIPES, find_recipe, suggestions
from densescan.recipes.commands import Places, Script, script
from densescan.recipes.description import describe
from densescan.recipes.recipe import STAGES, StageName
from densescan.recipes.rows import ROWS, Row, find_row
from densescan.recipes.sizes import SIZES, find_size

NARROWEST = 120
"""Characters that a table may take where the terminal has fewer."""
NONE = "–"

SizeName = Annotated[str, tyro.conf.arg(metavar="{" + ",".join(SIZES) + "}")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class PlaceOptions:
    """Where things lie."""

    out: str | None = None
    """Folder that receives data, runs, models and scores; none: runs/SIZE."""
    semantic_kitti: str = Places.semantic_kitti
    """Where SemanticKITTI lies."""
    kitti_360: str = Places.kitti_360
    """Where KITTI-360 lies."""

    def script(self, rows: Iterable[Row], size_name: str) -> Script:
        """What makes these rows.

        Raises: InputError: no such size.
        """
        size = find_size(size_name)
        places = Places(self.out or f"runs/{size.name}", self.semantic_kitti, self.kitti_360)
        return script(rows, size, places)


@dataclass(frozen=True)
class List(Command):
    """List the rows of the paper's tables with their published scores, or the recipes of all stages.

    `densescan recipes show NAME` tells all of one, `densescan recipes commands` prints what makes them. A run is what
    is trained last; rows of one run share it.

    Examples:
      densescan recipes
      densescan recipes --table 4
      densescan recipes --stages
    """

    table: int | None = None
    """The rows of this table alone."""
    stages: Flag = False
    """What `densescan train STAGE --recipe NAME` can start from, in place of the rows."""

    def run(self) -> None:
        """Print the list.

        Raises: InputError: no such table.
        """
        if self.stages:
            say(_drawn(_stage_table()))
            return
        rows = [row for row in ROWS.values() if self.table in (None, row.table.number)]
        if not rows:
            raise InputError(f"unknown table {self.table}: known are 1 to 8")
        say(_drawn(_row_table(rows)))
        say("\n".join(f"--size {size.name}: {size.about}" for size in SIZES.values()))


@dataclass(frozen=True)
class Show(Command):
    """Show a row of the paper's tables, or the recipe of a stage: parts, time, hardware, commands, score to expect.

    Examples:
      densescan recipes show table-4-lam-1.05
      densescan recipes show table-3-distillation-dpo-1 --size small
      densescan recipes show distillation-dpo/small-jsd
    """

    name: tyro.conf.Positional[str]
    """A row, or STAGE/RECIPE."""
    size: SizeName = "published"
    """As published, or the same at a size for small machines."""
    places: Annotated[PlaceOptions, tyro.conf.arg(name="")] = field(default_factory=PlaceOptions)

    def run(self) -> None:
        """Print the description.

        Raises: InputError: no such row, recipe or size.
        """
        stage, separator, recipe = self.name.partition("/")
        if separator:
            say(find_recipe(_stage(stage), recipe).doc)
            return
        row = find_row(self.name)
        commands = self.places.script([row], self.size)
        say("\n\n".join(filter(None, (describe(row, find_size(self.size)), shell(commands)))))


@dataclass(frozen=True)
class Commands(Command):
    """Print the commands that make rows of the paper's tables, in order, ready for a shell.

    Shared parts are made once, and each command goes on with interrupted work.

    Examples:
      densescan recipes commands --size small > small.sh
      densescan recipes commands table-8-score-distillation --size small | bash -e
      densescan recipes commands --semantic-kitti /data/SemanticKITTI/dataset --out runs/paper
    """

    rows: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[ROW ...]")] = ()
    """Rows as `densescan recipes` lists them; none: all."""
    size: SizeName = "published"
    """As published, or the same at a size for small machines."""
    places: Annotated[PlaceOptions, tyro.conf.arg(name="")] = field(default_factory=PlaceOptions)

    def run(self) -> None:
        """Print the commands.

        Raises: InputError: no such row or size, or rows of rivals alone, which are not implemented.
        """
        rows = [find_row(name) for name in self.rows or ROWS]
        text = shell(self.places.script(rows, self.size))
        if not text:
            raise InputError(
                f"no commands for {', '.join(self.rows)}: these rivals are not implemented, name other rows"
            )
        say(text)


def shell(commands: Script) -> str:
    """The commands for a shell, under the headings of their parts."""
    parts = [
        "\n".join([f"# {heading}", *map(shlex.join, lines)])
        for heading, lines in commands.parts().items()
        if lines
    ]
    return "\n\n".join(parts)


def _row_table(rows: list[Row]) -> Table:
    table = Table(
        box=SIMPLE_HEAD,
        caption="published scores: CD in metres, JSD seen from above, EMD as released, seconds",
    )
    for heading in ("row", "run", "steps", "CD ↓", "JSD ↓", "EMD ↓", "s ↓"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        printed = row.printed
        values = (f"{printed.cd:.3f}", f"{printed.jsd:.3f}", _number(printed.emd), _number(printed.seconds))
        table.add_row(row.name, row.run or "none here", NONE if row.run is None else str(row.steps), *values)
    return table


def _stage_table() -> Table:
    table = Table(Column("stage", no_wrap=True), Column("recipe", no_wrap=True), "about", box=SIMPLE_HEAD)
    for stage, recipes in RECIPES.items():
        for recipe in recipes.values():
            table.add_row(stage, recipe.name, recipe.about)
    return table


def _stage(name: str) -> StageName:
    """The stage of that name.

    Raises: InputError: there is none.
    """
    for stage in STAGES:
        if stage == name:
            return stage
    raise InputError(f"unknown stage {name}: {suggestions(name, STAGES)}")


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _drawn(table: Table) -> str:
    """The table as text."""
    page = io.StringIO()
    Console(file=page, width=max(Console().width, NARROWEST)).print(table)
    return page.getvalue().rstrip()
