"""`densescan results`: what finished evaluations say: tables and comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from densescan.cli.console import say
from densescan.cli.options import Command, Inputs, Output
from densescan.errors import InputError
from densescan.evaluation.comparison import compare_runs, comparison_table
from densescan.evaluation.merging import merge
from densescan.evaluation.published import TABLE_1, TABLE_2
from densescan.evaluation.records import Run, read_run
from densescan.evaluation.tables import Settings, latex, markdown, ours, published
from densescan.recipes.beside import beside_the_paper

Published = Literal["semantic-kitti", "kitti-360"]
PUBLISHED = {"semantic-kitti": TABLE_1, "kitti-360": TABLE_2}

Columns = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


def table_texts(
    runs: Sequence[Run],
    with_published: Published | None = None,
    settings: Settings | None = None,
    as_latex: bool = False,
) -> list[str]:
    """A table for each split, then the published one."""
    tables = ours(runs, settings or Settings())
    if with_published is not None:
        tables.append(published(PUBLISHED[with_published]))
    return [latex(table) if as_latex else markdown(table) for table in tables]


@dataclass(frozen=True)
class Table(Command):
    """Show records as a table: means with 95 % bootstrap intervals, the best of each column bold.

    Records of different splits make tables of their own; so do the published rows.

    Examples:
      densescan results table runs/scores
      densescan results table runs/08 runs/08-steps --columns cd jsd_bev iou_0.2 --block 10
      densescan results table runs/08 --latex --published semantic-kitti
    """

    records: Annotated[Inputs, tyro.conf.arg(metavar="FOLDER [FOLDER ...]", help_behavior_hint="(required)")]
    """Folders with records, or single records (.jsonl)."""
    columns: Columns = ()
    """Figures to show; none: the usual ones of those that were measured."""
    no_intervals: Flag = False
    """Show the means alone."""
    block: int = 1
    """Resample so many consecutive frames together: neighbours in time are not independent."""
    latex: Flag = False
    """LaTeX (booktabs) in place of Markdown."""
    published: Published | None = None
    """Show the published rows of a data set below ours."""

    def run(self) -> None:
        """Print the tables.

        Raises: InputError: no record, one that is damaged, or an unknown column.
        """
        settings = Settings(self.columns, not self.no_intervals, self.block)
        runs = [read_run(path) for path in record_files(self.records)]
        say("\n\n".join(table_texts(runs, self.published, settings, self.latex)))


@dataclass(frozen=True)
class Paper(Command):
    """Show a table of the paper: our records with their intervals, and the printed values beside them.

    Rows find their records by the names that `densescan recipes commands` gives them; what was not scored has dashes.

    Examples:
      densescan results paper 1 runs/scores/held-out
      densescan results paper 3 runs/scores/held-out --columns cd jsd_bev --latex
      densescan results paper 8 runs/scores/held-out --further small mine
    """

    table: tyro.conf.Positional[int]
    """Number of the table, 1 to 8."""
    records: tyro.conf.Positional[Path]
    """Folder with records of one split."""
    further: Annotated[tuple[str, ...], tyro.conf.arg(metavar="METHOD [METHOD ...]")] = ()
    """Methods of these records that the paper does not have, in rows of their own."""
    columns: Columns = ()
    """Figures to show; none: CD, both JSD, and IoU at 0.5 and 0.2 m."""
    no_intervals: Flag = False
    """Show the means alone."""
    block: int = 1
    """Resample so many consecutive frames together: neighbours in time are not independent."""
    latex: Flag = False
    """LaTeX (booktabs) in place of Markdown."""

    def run(self) -> None:
        """Print the table.

        Raises: InputError: no such table, no record, or records of several splits.
        """
        settings = Settings(self.columns, not self.no_intervals, self.block)
        runs = [read_run(path) for path in record_files([self.records])]
        table = beside_the_paper(self.table, {run.header.method: run for run in runs}, settings, self.further)
        say(latex(table) if self.latex else markdown(table))


@dataclass(frozen=True)
class Compare(Command):
    """Compare two records frame by frame: mean difference with its interval, frames won, and p.

    Examples:
      densescan results compare runs/scores/small.jsonl runs/scores/jitter-0.1.jsonl
      densescan results compare runs/a/small.jsonl runs/b/small.jsonl --block 10 --columns cd iou_0.2
    """

    a: tyro.conf.Positional[Path]
    """One record."""
    b: tyro.conf.Positional[Path]
    """The other, of the same frames."""
    columns: Columns = ()
    """Figures to compare; none: all that both have."""
    block: int = 1
    """Resample so many consecutive frames together: neighbours in time are not independent."""
    latex: Flag = False
    """LaTeX (booktabs) in place of Markdown."""

    def run(self) -> None:
        """Print the comparison.

        Raises: InputError: no such records, or records of different frames.
        """
        a, b = read_run(self.a), read_run(self.b)
        table = comparison_table(a, b, compare_runs(a, b, self.columns, self.block), self.block)
        say(latex(table) if self.latex else markdown(table))


@dataclass(frozen=True)
class Merge(Command):
    """Make one record of those of several processes or machines that shared a split.

    Each evaluates some sequences into a folder of its own; records of one name become one.

    Examples:
      densescan evaluate data/street small --sequences 1000 1001 --out runs/scores-a
      densescan evaluate data/street small --sequences 1002 1003 --out runs/scores-b
      densescan results merge runs/scores-a runs/scores-b -o runs/scores
    """

    folders: Annotated[Inputs, tyro.conf.arg(metavar="FOLDER [FOLDER ...]", help_behavior_hint="(required)")]
    """Folders with the records of the parts."""
    output: Output
    """Folder that receives the merged records."""

    def run(self) -> None:
        """Write the records and say how many frames each holds.

        Raises: InputError: records that do not belong together, a frame in two of them, or an output that exists.
        """
        parts: dict[str, list[Path]] = {}
        for path in record_files(self.folders):
            parts.setdefault(path.name, []).append(path)
        self.output.mkdir(parents=True, exist_ok=True)
        for name, paths in sorted(parts.items()):
            run = merge(paths, self.output / name)
            say(f"{run.path}: {len(run.rows)} frames of {len(paths)} records")


def record_files(paths: Sequence[Path]) -> list[Path]:
    """The records that are named and those in the folders that are named.

    Raises: InputError: a folder without a record.
    """
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not found:
            raise InputError(f"{path} holds no record: name a folder that `densescan evaluate` wrote to")
        files += found
    return files
