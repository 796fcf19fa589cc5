"""`densescan recipes`: lists, descriptions and commands, and one line where a name is unknown."""

import shlex
import subprocess

import pytest

from densescan.cli import main
from densescan.recipes.catalogue import RECIPES
from densescan.recipes.rows import ROWS


@pytest.fixture
def shown(capsys):
    def run(*args: str) -> str:
        assert main(args) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return run


def test_every_row_is_listed_with_its_published_scores(shown):
    lines = [line.split() for line in shown("recipes").splitlines()]
    listed = {line[0]: line for line in lines if line and line[0] in ROWS}
    assert listed.keys() == ROWS.keys()
    assert listed["table-3-distillation-dpo-1"][1:] == [
        *("distillation-dpo", "1", "0.601", "0.437", "28.01", "0.82")
    ]
    assert listed["table-2-mid"][-4:] == ["0.637", "0.476", "–", "4.61"]


def test_a_table_alone_is_listed(shown):
    listed = [line.split()[0] for line in shown("recipes", "--table", "6").splitlines() if "table-" in line]
    assert listed == ["table-6-cd", "table-6-jsd"]


def test_the_recipes_of_all_stages_are_listed(shown):
    text = shown("recipes", "--stages").splitlines()
    lines = [line.split()[:2] for line in text if line[2:3].strip()]  # others go on with the text above
    for stage, recipes in RECIPES.items():
        assert [line[1] for line in lines if line[:1] == [stage]] == list(recipes)


def test_a_row_is_shown_with_its_commands(shown):
    text = shown("recipes", "show", "table-6-jsd", "--size", "tiny", "--out", "here")
    assert "Score to expect: not run here; published at full size, on other data: CD 0.382 m" in text
    commands = [line for line in text.splitlines() if line.startswith("densescan ")]
    assert commands[-1].startswith("densescan evaluate here/data/held-out ")
    assert "densescan train distillation-dpo --recipe tiny-jsd --teacher here/runs/teacher/model" in text
    assert shown("recipes", "commands", "table-6-jsd", "--size", "tiny", "--out", "here").strip() in text


def test_a_rival_is_shown_without_commands(shown):
    text = shown("recipes", "show", "table-1-pvd")
    assert "CD 1.256 m" in text
    assert "densescan train" not in text


def test_the_recipe_of_a_stage_is_shown(shown):
    text = shown("recipes", "show", "distillation-dpo/published-lam-1.5")
    assert text.strip() == RECIPES["distillation-dpo"]["published-lam-1.5"].doc


def test_the_commands_are_a_script_for_a_shell(shown, tmp_path):
    text = shown("recipes", "commands", "--size", "small", "--out", "a folder")
    path = tmp_path / "small.sh"
    path.write_text(text)
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0
    words = [shlex.split(line) for line in text.splitlines() if line and not line.startswith("#")]
    assert all(line[0] == "densescan" for line in words)
    assert [line[3] for line in words if line[1] == "data"][:1] == ["a folder/data/train"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("recipes", "--table", "9"), "known are 1 to 8"),
        (("recipes", "show", "table-1-pdv"), "did you mean table-1-pvd"),
        (("recipes", "show", "distilation-dpo/small"), "did you mean distillation-dpo"),
        (("recipes", "show", "teacher/smal"), "did you mean small"),
        (("recipes", "commands", "--size", "tinny"), "did you mean tiny"),
        (("recipes", "commands", "table-1-pvd"), "not implemented"),
        (("train", "refiner", "--recipe", "small-tunning", "--data", "d", "--out", "o"), "small-tuning"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, args, message):
    assert main(args) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1
    assert not told.out


@pytest.mark.parametrize("name", [(), ("show",), ("commands",)])
def test_help_has_examples(shown, name):
    assert "Examples:\n  densescan recipes" in shown("recipes", *name, "--help")
