"""Tables of the paper with our records: every row finds its own, what was not scored has dashes."""

from dataclasses import replace

import pytest

from densescan.errors import InputError
from densescan.evaluation.published import TABLES
from densescan.evaluation.tables import Settings, markdown
from densescan.recipes.beside import beside_the_paper

PLAIN = Settings(columns=("cd",), intervals=False)


def test_ours_and_the_printed_values_side_by_side(record):
    names = ("bare", "jitter:0.1", "distillation-dpo-8", "distillation-dpo-1", "teacher-50-coarse", "other")
    runs = {name: record(name, [0.1 * i, 0.3 * i]) for i, name in enumerate(names, 2)}
    table = beside_the_paper(3, runs, PLAIN)
    assert table.title == "Table 3 (sampling steps): street, 2 frames"
    rows = [line.split(" | ") for line in markdown(table).splitlines() if line.startswith("| ")][2:]
    assert rows == [
        ["| bare", "–", "**0.400**", "1.00", "–", "–", "– |"],
        ["| jitter:0.1", "–", "0.600", "1.00", "–", "–", "– |"],
        ["| LiDiff", "50", "1.200", "1.00", "0.434", "0.444", "17.75 |"],
        ["| LiDiff (refined)", "50", "–", "–", "0.375", "0.416", "17.87 |"],
        ["| LiDiff", "8", "–", "–", "0.447", "0.432", "3.35 |"],
        ["| LiDiff (refined)", "8", "–", "–", "0.411", "0.406", "3.48 |"],
        ["| Distillation-DPO (refined)", "8", "0.800", "1.00", "0.354", "0.387", "3.38 |"],
        ["| Distillation-DPO (refined)", "4", "–", "–", "0.369", "0.389", "1.97 |"],
        ["| Distillation-DPO (refined)", "2", "–", "–", "0.401", "0.390", "1.22 |"],
        ["| Distillation-DPO (refined)", "1", "1.000", "1.00", "0.601", "0.437", "0.82 |"],
    ]


def test_further_methods_have_rows_of_their_own(record):
    runs = {name: record(name, [0.2, 0.4]) for name in ("bare", "ours")}
    sampled = replace(runs["ours"].header, options={"completion": {"steps": 2}})
    runs["ours"] = replace(runs["ours"], header=sampled)
    rows = beside_the_paper(8, runs, PLAIN, further=("ours", "bare")).rows
    assert [[cell.text for cell in row] for row in rows[-2:]] == [
        ["ours", "2", "0.300", "1.00", "–", "–", "–"],
        ["bare", "–", "0.300", "1.00", "–", "–", "–"],
    ]
    with pytest.raises(InputError, match="no record of mine among these: bare, ours"):
        beside_the_paper(8, runs, PLAIN, further=("mine",))


@pytest.mark.parametrize("published", TABLES, ids=lambda table: f"table {table.number}")
def test_every_table_has_all_its_printed_rows(record, published):
    table = beside_the_paper(published.number, {"bare": record("bare", [0.5, 0.6])}, PLAIN)
    printed = {(row[0].text, row[4].text) for row in table.rows[1:]}
    assert printed == {(row.method, f"{row.cd:.3f}") for row in published.rows}
    rivals = [row[1].text for row in table.rows if row[0].text in ("LMSCNet", "LODE", "MID", "PVD")]
    assert set(rivals) <= {"–"}


def test_what_is_refused(record):
    with pytest.raises(InputError, match="tables 1 to 8, got 9"):
        beside_the_paper(9, {"bare": record("bare", [0.5])})
    with pytest.raises(InputError, match="one split, got those of none"):
        beside_the_paper(1, {})
    apart = {"bare": record("bare", [0.5]), "jitter:0.1": record("jitter:0.1", [0.5, 0.6])}
    with pytest.raises(InputError, match="one split, got those of street, street"):
        beside_the_paper(1, apart)
