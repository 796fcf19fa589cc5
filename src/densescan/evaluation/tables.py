"""Records as tables: one a split for ours, with intervals, and the published rows in a table of their own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from densescan.errors import InputError
from densescan.evaluation.measures import FIGURES, Figure
from densescan.evaluation.published import PublishedTable
from densescan.evaluation.records import Run
from densescan.evaluation.statistics import LEVEL, Interval, block_ids, bootstrap_mean, bootstrap_ratio

MICRO = {
    f"{key}_micro": Figure(f"{key}_micro", f"{figure.title} of all frames", figure.unit, True, headline=False)
    for key, figure in FIGURES.items()
    if key.startswith("iou")
}
"""IoU of the voxels of all frames counted together, as the releases report it, beside the mean over the frames."""
COLUMNS = FIGURES | MICRO
NONE = "–"
SECONDS = "s ↓"


@dataclass(frozen=True)
class Cell:
    """A text of a table."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """What a table says, in no markup yet."""

    title: str
    header: list[str]
    rows: list[list[Cell]]
    notes: list[str]


@dataclass(frozen=True)
class Settings:
    """How records become tables."""

    columns: tuple[str, ...] = ()
    """Figures to show; none: the headlines of all that were measured."""
    intervals: bool = True
    """Show the 95 % interval of each mean."""
    block: int = 1
    """Frames that are resampled together, see `densescan.evaluation.statistics`."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.columns if name not in COLUMNS]
        if unknown:
            raise InputError(f"unknown column {unknown[0]}: known are {', '.join(COLUMNS)}")
        block_ids([], self.block)


def estimate(run: Run, column: str, block: int = 1) -> Interval:
    """Mean of a column over the frames of a run, and its interval.

    Raises: InputError: a frame failed, or the column was not measured.
    """
    blocks = block_ids(run.keys, block)
    if column not in MICRO:
        return bootstrap_mean(run.values(column), blocks)
    tp, fn, fp = (run.values(f"{column.removesuffix('_micro')}_{count}") for count in ("tp", "fn", "fp"))
    return bootstrap_ratio(tp, tp + fn + fp, blocks)


def ours(runs: Sequence[Run], settings: Settings = Settings()) -> list[Table]:
    """A table for each split, in the order of their first runs; methods in the order given.

    The best mean of each column is bold. A run with failed or missing frames has no part in that.

    Raises: InputError: no run, or two runs of one name on one split.
    """
    if not runs:
        raise InputError(
            "expected records to make a table of, got none: name folders that hold .jsonl records"
        )
    by_split: dict[str, list[Run]] = {}
    for run in runs:
        same = by_split.setdefault(str(run.header.split), [])
        if run.header.method in [other.header.method for other in same]:
            raise InputError(
                f"{run.path}: a second run of {run.header.method} on {run.header.split['name']}; show one at a time"
            )
        same.append(run)
    return [_table(group, settings) for group in by_split.values()]


def _table(runs: list[Run], settings: Settings) -> Table:
    wanted = settings.columns or [name for name, figure in COLUMNS.items() if figure.headline]
    columns = [name for name in wanted if any(_has(run, name) for run in runs)]
    figures = figure_cells(runs, columns, settings)
    rows = [
        [Cell(run.header.method), Cell(_count(run)), *cells] for run, cells in zip(runs, figures, strict=True)
    ]
    split = runs[0].header.split
    header = ["method", "frames", *(COLUMNS[name].heading for name in columns), SECONDS]
    return Table(f"{split['name']}, {split['frames']} frames", header, rows, provenance(runs, settings))


def figure_cells(
    runs: Sequence[Run | None], columns: Sequence[str], settings: Settings = Settings()
) -> list[list[Cell]]:
    """Of each run the columns and the seconds, the best of each column bold; dashes where there is no run."""
    means = {name: [_estimate(run, name, settings.block) for run in runs] for name in columns}
    best = {name: _best(name, means[name], runs) for name in columns}
    rows = []
    for i, run in enumerate(runs):
        cells = []
        for name in columns:
            text = _number(means[name][i], COLUMNS[name].digits, settings.intervals)
            cells.append(Cell(text, _is_whole(run) and text.split(" ")[0] == best[name]))
        rows.append([*cells, Cell(_seconds(run))])
    return rows


def _has(run: Run, column: str) -> bool:
    return run.has(column.removesuffix("_micro"))


def _is_whole(run: Run | None) -> bool:
    return run is not None and not run.failed and 0 < len(run.rows) == run.header.split["frames"]


def _estimate(run: Run | None, column: str, block: int) -> Interval | None:
    return None if run is None or run.failed or not _has(run, column) else estimate(run, column, block)


def _best(column: str, means: list[Interval | None], runs: Sequence[Run | None]) -> str:
    """The best mean as it is printed: all that are printed alike are bold."""
    figure = COLUMNS[column]
    whole = [mean.mean for mean, run in zip(means, runs, strict=True) if mean is not None and _is_whole(run)]
    if not whole:
        return ""
    return f"{max(whole) if figure.higher_is_better else min(whole):.{figure.digits}f}"


def _number(mean: Interval | None, digits: int, with_interval: bool) -> str:
    if mean is None:
        return NONE
    text = f"{mean.mean:.{digits}f}"
    if not with_interval or np.isnan(mean.low):
        return text
    return f"{text} [{mean.low:.{digits}f}, {mean.high:.{digits}f}]"


def _count(run: Run) -> str:
    if run.failed:
        return f"{len(run.failed)} of {len(run.rows)} failed"
    return str(len(run.rows)) if _is_whole(run) else f"{len(run.rows)} of {run.header.split['frames']}"


def _seconds(run: Run | None) -> str:
    seconds = None if run is None or run.failed else run.seconds()
    return NONE if seconds is None else f"{np.median(seconds):.2f}"


def provenance(runs: Sequence[Run], settings: Settings = Settings()) -> list[str]:
    """What must be said below a table: what the intervals are, on what and by which code the runs were made."""
    unit = "frames" if settings.block == 1 else f"blocks of {settings.block} consecutive frames"
    notes = [f"[{LEVEL:.0%} bootstrap interval over {unit}]."] if settings.intervals else []
    hardware = sorted({row.hardware for run in runs for row in run.rows if row.hardware})
    commits = sorted({_short(row.commit) for run in runs for row in run.rows if row.commit})
    notes.append(
        f"Median seconds a scene, reading excluded, on {' and '.join(hardware) or 'unknown hardware'}."
    )
    notes += [f"Code: {', '.join(commits)}."] if commits else []
    return notes


def _short(commit: str) -> str:
    """The first digits of a commit, and whether files differed from it."""
    digits, dash, state = commit.partition("-")
    return digits[:12] + dash + state


def published(table: PublishedTable) -> Table:
    """The rows of the paper, labelled as such."""
    header = ["published", "steps", "CD [m] ↓", "JSD BEV ↓", "EMD as released ↓", SECONDS]
    rows = [
        [
            Cell(row.method),
            Cell(optional(row.steps, 0)),
            Cell(f"{row.cd:.3f}"),
            Cell(f"{row.jsd:.3f}"),
            Cell(optional(row.emd, 2)),
            Cell(optional(row.seconds, 2)),
        ]
        for row in table.rows
    ]
    notes = [
        "Values as printed, on the authors' frames and hardware: to be ranked with ours only on the same frames.",
        "Their EMD is the released computation, no transport distance: its column of ours is `EMD as released`.",
    ]
    return Table(f"Published: {table.data_set}, Table {table.number} ({table.about})", header, rows, notes)


def optional(value: float | int | None, digits: int) -> str:
    """A number, or a dash where there is none."""
    return NONE if value is None else f"{value:.{digits}f}"


def markdown(table: Table) -> str:
    """The table in Markdown."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rows = [
        line([f"**{cell.text}**" if cell.bold else cell.text.replace("|", r"\|") for cell in row])
        for row in table.rows
    ]
    rule = line(["---", *["---:"] * (len(table.header) - 1)])
    return "\n".join([f"**{table.title}**", "", line(table.header), rule, *rows, "", " ".join(table.notes)])


def latex(table: Table) -> str:
    """The table in LaTeX; needs the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        return f"{' & '.join(cells)} \\\\"

    rows = [
        line([f"\\textbf{{{escape(cell.text)}}}" if cell.bold else escape(cell.text) for cell in row])
        for row in table.rows
    ]
    lines = [
        f"% {' '.join([table.title + '.', *table.notes])}",
        f"\\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        "\\toprule",
        line([escape(text) for text in table.header]),
        "\\midrule",
        *rows,
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines)


_LATEX: dict[str, str] = {
    "\\": "\\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "[": "{[}",  # after a line's end a bracket would be read as an option
    "↑": "$\\uparrow$",
    "↓": "$\\downarrow$",
    "→": "$\\to$",
    NONE: "--",
}


def escape(text: str) -> str:
    """Text in which nothing is taken for LaTeX's own."""
    return "".join(_LATEX.get(character, character) for character in text)
