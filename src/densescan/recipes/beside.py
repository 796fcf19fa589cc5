"""A table of the paper with what was measured here, and what is printed there in columns of its own."""

from collections.abc import Mapping, Sequence

from densescan.errors import InputError
from densescan.evaluation.records import Run
from densescan.evaluation.tables import (
    COLUMNS,
    NONE,
    SECONDS,
    Cell,
    Settings,
    Table,
    figure_cells,
    optional,
    provenance,
)
from densescan.recipes.rows import ROWS

FIGURES = ("cd", "jsd_bev", "jsd_3d", "iou_0.5", "iou_0.2")
"""Shown unless others are asked for."""
RIVALS = ("bare", "jitter", "refined")
"""How the names of trivial rivals begin; they stand in every table."""
TABLES = tuple(sorted({row.table.number for row in ROWS.values()}))


def beside_the_paper(
    number: int, runs: Mapping[str, Run], settings: Settings | None = None, further: Sequence[str] = ()
) -> Table:
    """Table `number` of the paper: rivals, then its rows, then further methods; dashes where nothing was measured.

    Args: runs: records of one split, by the name of their method; rows find theirs by `Row.method`. further: names of
        methods that the paper does not have.
    Raises: InputError: no such table, no record, records of several splits, or no record of a further method.
    """
    settings = settings or Settings()
    if number not in TABLES:
        raise InputError(f"the paper has tables {TABLES[0]} to {TABLES[-1]}, got {number}")
    splits = {str(run.header.split): run.header.split for run in runs.values()}
    if len(splits) != 1:
        names = ", ".join(split["name"] for split in splits.values()) or "none"
        raise InputError(f"expected records of one split, got those of {names}")
    rows = [row for row in ROWS.values() if row.table.number == number]
    missing = [name for name in further if name not in runs]
    if missing:
        raise InputError(f"no record of {missing[0]} among these: {', '.join(runs)}")
    rivals = [name for name in runs if name.startswith(RIVALS)]
    found = [runs[name] for name in rivals] + [runs.get(row.method) for row in rows]
    found += [runs[name] for name in further]
    columns = settings.columns or FIGURES
    labels = [(name, NONE) for name in rivals] + [
        (row.printed.method, NONE if row.run is None else f"{row.steps}") for row in rows
    ]
    labels += [(name, steps_of(runs[name])) for name in further]
    printed = [[Cell(NONE)] * 3 for _ in rivals] + [
        [Cell(f"{p.cd:.3f}"), Cell(f"{p.jsd:.3f}"), Cell(optional(p.seconds, 2))]
        for p in (row.printed for row in rows)
    ]
    printed += [[Cell(NONE)] * 3 for _ in further]
    cells = figure_cells(found, columns, settings)
    (split,), about = splits.values(), rows[0].table.about
    return Table(
        f"Table {number} ({about}): {split['name']}, {split['frames']} frames",
        ["method", "steps", *(COLUMNS[name].heading for name in columns), SECONDS]
        + ["printed: CD", "printed: JSD", "printed: s"],
        [
            [*map(Cell, label), *ours, *theirs]
            for label, ours, theirs in zip(labels, cells, printed, strict=True)
        ],
        [
            *provenance([run for run in found if run is not None], settings),
            f"Printed: {rows[0].table.data_set}, on the authors' frames, models and hardware.",
        ],
    )


def steps_of(run: Run) -> str:
    """Sampling steps of a model's record; a dash for other methods."""
    completion = run.header.options.get("completion")
    return f"{completion['steps']}" if completion else NONE
