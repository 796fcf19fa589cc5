"""All recipes by stage and name."""

from collections.abc import Iterable
from difflib import get_close_matches

from densescan.errors import InputError
from densescan.recipes.published import PUBLISHED
from densescan.recipes.recipe import STAGES, Recipe, StageName
from densescan.recipes.released import RELEASED
from densescan.recipes.small import SMALL
from densescan.recipes.tiny import TINY

RECIPES: dict[StageName, dict[str, Recipe]] = {
    stage: {recipe.name: recipe for recipe in (*SMALL, *TINY, *RELEASED, *PUBLISHED) if recipe.stage == stage}
    for stage in STAGES
}


def find_recipe(stage: StageName, name: str) -> Recipe:
    """The recipe of a stage.

    Raises: InputError: there is no such recipe.
    """
    known = RECIPES[stage]
    if name not in known:
        raise InputError(f"unknown recipe {name} of {stage}: {suggestions(name, known)}")
    return known[name]


def suggestions(name: str, known: Iterable[str]) -> str:
    """What an unknown name may have meant, and all known ones."""
    known = list(known)
    near = get_close_matches(name, known, cutoff=0.7)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{meant}known are {', '.join(known)}"
