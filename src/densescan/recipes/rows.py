"""The rows of the paper's Tables 1 to 8: what each of them trains and how it is scored, at every size."""

from dataclasses import dataclass
from difflib import get_close_matches

from densescan.errors import InputError
from densescan.evaluation.published import (
    DPO,
    DPO_REFINED,
    LIDIFF,
    LIDIFF_REFINED,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    TABLE_6,
    TABLE_7,
    TABLE_8,
    PublishedRow,
    PublishedTable,
)

TEACHER, TUNED, SCORE, STUDENT = "teacher", "diffusion-dpo", "score-distillation", "distillation-dpo"
"""Runs of the usual recipes; those of others are called after what they differ in."""
TEACHER_STEPS, STUDENT_STEPS = 50, 8


@dataclass(frozen=True)
class Row:
    """A row of a table: a model that is trained, and how it completes the scans."""

    name: str
    table: PublishedTable
    printed: PublishedRow
    run: str | None
    """The run whose model completes; None: a rival that is not implemented here, and has its published values alone."""
    steps: int = STUDENT_STEPS
    """Sampling steps."""
    refined: bool = True

    @property
    def method(self) -> str:
        """What `densescan evaluate` calls it: one name for all rows that are the same model, sampled alike."""
        return f"{self.run}-{self.steps}" + ("" if self.refined else "-coarse")

    @property
    def of_teacher(self) -> bool:
        """The model is sampled as a teacher is."""
        return self.run in (TEACHER, TUNED)


def _row(
    table: PublishedTable,
    name: str,
    printed: str,
    run: str | None,
    steps: int = STUDENT_STEPS,
    refined: bool = True,
) -> Row:
    """The row of a table that is printed under this name; where several are, the one of these steps."""
    (found,) = (row for row in table.rows if row.method == printed and row.steps in (None, steps))
    return Row(f"table-{table.number}-{name}", table, found, run, steps, refined)


def _existing(table: PublishedTable, *rivals: str) -> tuple[Row, ...]:
    """Rows of a comparison with existing models."""
    return (
        *(_row(table, rival.lower(), rival, None) for rival in rivals),
        _row(table, "lidiff", LIDIFF, TEACHER, TEACHER_STEPS, refined=False),
        _row(table, "lidiff-refined", LIDIFF_REFINED, TEACHER, TEACHER_STEPS),
        _row(table, "distillation-dpo", DPO, STUDENT, refined=False),
        _row(table, "distillation-dpo-refined", DPO_REFINED, STUDENT),
    )


TABLE_1_ROWS = _existing(TABLE_1, "LMSCNet", "LODE", "MID", "PVD")
TABLE_2_ROWS = _existing(TABLE_2, "LMSCNet", "LODE", "MID")
TABLE_3_ROWS = (
    *(
        row
        for steps in (TEACHER_STEPS, STUDENT_STEPS)
        for row in (
            _row(TABLE_3, f"lidiff-{steps}", LIDIFF, TEACHER, steps, refined=False),
            _row(TABLE_3, f"lidiff-refined-{steps}", LIDIFF_REFINED, TEACHER, steps),
        )
    ),
    *(_row(TABLE_3, f"distillation-dpo-{steps}", DPO_REFINED, STUDENT, steps) for steps in (8, 4, 2, 1)),
)
TABLE_4_ROWS = (
    _row(TABLE_4, "lam-1.1", "lambda = 1.1 (theirs)", STUDENT),
    *(
        _row(TABLE_4, f"lam-{lam}", f"lambda = {lam}", f"{STUDENT}-lam-{lam}")
        for lam in ("1.05", "1.2", "1.5", "2.0")
    ),
)
TABLE_5_ROWS = (
    _row(TABLE_5, "lidiff", "LiDiff", TEACHER, TEACHER_STEPS),
    _row(TABLE_5, "lidiff-tuned", "LiDiff*", TUNED, TEACHER_STEPS),
    _row(TABLE_5, "distillation-dpo", "Distillation-DPO", STUDENT),
    _row(TABLE_5, "distillation-dpo-tuned-teacher", "Distillation-DPO*", f"{STUDENT}-tuned-teacher"),
)
TABLE_6_ROWS = (
    _row(TABLE_6, "cd", "Distillation-DPO (CD)", STUDENT),
    _row(TABLE_6, "jsd", "Distillation-DPO (JSD)", f"{STUDENT}-jsd"),
)
TABLE_7_ROWS = (
    _row(TABLE_7, "two-assistants", "Distillation-DPO", STUDENT),
    _row(TABLE_7, "one-assistant", "One auxiliary diffusion model", f"{STUDENT}-one-assistant"),
)
TABLE_8_ROWS = (
    _row(TABLE_8, "lidiff", "LiDiff", TEACHER, TEACHER_STEPS),
    _row(TABLE_8, "score-distillation", "Score Distillation", SCORE),
    _row(TABLE_8, "distillation-dpo", "Distillation-DPO", STUDENT),
)

ROWS = {
    row.name: row
    for rows in (
        TABLE_1_ROWS, TABLE_2_ROWS, TABLE_3_ROWS, TABLE_4_ROWS, TABLE_5_ROWS, TABLE_6_ROWS, TABLE_7_ROWS, TABLE_8_ROWS,
    )
    for row in rows
}  # fmt: skip


def find_row(name: str) -> Row:
    """The row of that name.

    Raises: InputError: there is none.
    """
    if name not in ROWS:
        near = get_close_matches(name, ROWS, cutoff=0.7)
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(f"unknown row {name}: {meant}`densescan recipes` lists them")
    return ROWS[name]
