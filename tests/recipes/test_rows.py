"""The rows of the tables: all of the paper's, each once, and each made of recipes that exist."""

from dataclasses import replace

import pytest

from densescan.errors import InputError
from densescan.evaluation.published import TABLES
from densescan.recipes.catalogue import RECIPES
from densescan.recipes.description import describe
from densescan.recipes.rows import ROWS, Row, find_row
from densescan.recipes.sizes import SIZES, Size, find_size
from densescan.recipes.students import scores

RIVALS = ("LMSCNet", "LODE", "MID", "PVD")
IMPLEMENTED = [row for row in ROWS.values() if row.run is not None]
every_size = pytest.mark.parametrize("size", SIZES.values(), ids=lambda size: size.name)


def test_every_published_row_stands_once() -> None:
    ours = [(row.table.number, row.printed) for row in ROWS.values()]
    for number, printed in ((table.number, printed) for table in TABLES for printed in table.rows):
        assert ours.count((number, printed)) == 1, (number, printed)
    assert len(ours) == sum(len(table.rows) for table in TABLES)


def test_rivals_alone_have_no_recipe() -> None:
    without = [row for row in ROWS.values() if row.run is None]
    assert {row.printed.method for row in without} == set(RIVALS)
    assert all(row.printed.method not in RIVALS for row in IMPLEMENTED)


def test_steps_and_refinement_are_those_of_the_paper() -> None:
    for row in IMPLEMENTED:
        if row.printed.steps is not None:
            assert row.steps == row.printed.steps, row.name
        else:
            assert row.steps == (50 if row.of_teacher else 8), row.name
        unrefined = row.table.number <= 3 and "refined" not in row.printed.method
        assert row.refined is not unrefined, row.name


def test_rows_of_the_same_scores_are_the_same_method() -> None:
    """The paper repeats its usual models from table to table: these must be one run, evaluated once."""
    for row in IMPLEMENTED:
        same = [
            other
            for other in IMPLEMENTED
            if other.table.data_set == row.table.data_set
            and (other.printed.cd, other.printed.jsd) == (row.printed.cd, row.printed.jsd)
        ]
        assert {other.method for other in same} == {row.method}
    assert len({row.method for row in IMPLEMENTED}) == len(
        {(row.printed.cd, row.printed.jsd) for row in IMPLEMENTED if row.table.data_set == "SemanticKITTI"}
    )


@every_size
def test_every_chain_names_recipes_in_an_order_in_which_they_can_run(size: Size) -> None:
    for row in IMPLEMENTED:
        assert row.run is not None
        chain = size.chain(row.run, size.refiner)
        assert chain[[recipe.run for recipe in chain].index(row.run)].size == size.name
        done: set[str] = set()
        for recipe in chain:
            assert RECIPES[recipe.stage][recipe.name] is recipe
            assert {needed for _, needed in recipe.needs} <= done
            done.add(recipe.run)
        assert len(done) == len(chain), "nothing is trained twice"


@every_size
def test_every_row_says_what_it_takes_and_gives(size: Size) -> None:
    for row in ROWS.values():
        text = describe(row, size)
        assert scores(row.printed) in text
        assert row.printed.method in text.splitlines()[0]
        if row.run is None:
            assert "without an implementation" in text
            continue
        labels = [line.split(": ")[0] for line in text.splitlines()]
        assert labels[-6:] == ["Size", "Sampled", "Time", "Hardware", "Score to expect", "Command"]
        assert f"--recipe {size.recipe(row.run).name}:" in text
        assert f"steps={row.steps}," in text


def test_a_row_can_tell_what_came_of_it() -> None:
    row = find_row("table-4-lam-1.2")
    measured = replace(find_size("small"), scores=(("distillation-dpo-lam-1.2-8", "CD 0.123 m"),))
    assert "Score to expect: CD 0.123 m; published at full size" in describe(row, measured)
    assert "Score to expect: not run here; published: CD 0.359" in describe(row, find_size("published"))


def test_unknown_names_are_mistakes_of_one_line() -> None:
    with pytest.raises(InputError, match=r"unknown row table-4-lam-1\.3: did you mean table-4-lam-1"):
        find_row("table-4-lam-1.3")
    with pytest.raises(InputError, match="unknown size smal: did you mean small"):
        find_size("smal")


def test_rows_are_frozen() -> None:
    row: Row = find_row("table-1-pvd")
    with pytest.raises(AttributeError):
        row.steps = 3  # type: ignore[misc]
    assert hash(row) == hash(find_row("table-1-pvd"))
