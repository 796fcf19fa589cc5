"""Rows of the tables in words: what is trained, how it is scored, what that takes and gives."""

from collections.abc import Sequence

from densescan.recipes.recipe import NOT_RUN, Recipe
from densescan.recipes.rows import Row
from densescan.recipes.sizes import PUBLISHED_SIZE, Size
from densescan.recipes.students import scores


def describe(row: Row, size: Size) -> str:
    """What a row is at a size: its parts, time, hardware, command and the score to expect."""
    title = f"Table {row.table.number} ({row.table.about}), {row.table.data_set}: {row.printed.method}"
    if row.run is None:
        return f"{title}\n\nA rival without an implementation here.\nPublished: {scores(row.printed)}."
    chain = size.chain(row.run, *((size.refiner,) if row.refined else ()))
    fields = (*(size.teachers if row.of_teacher else size.students), f"steps={row.steps}")
    sampling = ", ".join(f"{name}={value}" for name, value in dict(f.split("=") for f in fields).items())
    published = "published" if size.name == PUBLISHED_SIZE.name else "published at full size, on other data"
    lines = {
        "Size": f"{size.name}: {size.about}",
        "Sampled": f"{sampling}, {'refined' if row.refined else 'before refinement'}",
        "Time": _of_stages([(recipe, recipe.standing.time) for recipe in chain]),
        "Hardware": _of_stages([(recipe, recipe.standing.hardware) for recipe in chain]),
        "Score to expect": f"{dict(size.scores).get(row.method, NOT_RUN)}; {published}: {scores(row.printed)}",
    }
    command = f"Command: densescan recipes commands {row.name} --size {size.name}"
    stages = "\n".join(f"- {recipe.stage} --recipe {recipe.name}: {recipe.about}" for recipe in chain)
    said = "\n".join(f"{name}: {text}." for name, text in lines.items())
    return f"{title}\n\n{stages}\n\n{said}\n{command}"


def _of_stages(facts: Sequence[tuple[Recipe, str]]) -> str:
    """What is known of the stages, each text once."""
    said: dict[str, list[str]] = {}
    for recipe, text in facts:
        said.setdefault(text, []).append(recipe.run)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{', '.join(runs)}: {text}" for text, runs in said.items())
