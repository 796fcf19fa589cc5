"""The commands of the rows: the program understands them, they fit together, and the scripts in runs/ give them."""

import json
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from densescan.cli.evaluate import Evaluate
from densescan.cli.options import Command
from densescan.evaluation.naming import parse_method
from densescan.recipes.commands import RIVALS, Places, Script, script
from densescan.recipes.rows import ROWS, find_row
from densescan.recipes.sizes import SIZES, Size, find_size
from densescan.weights.folder import ModelConfig

PAPER = Path(__file__).resolve().parents[2] / "runs" / "paper.sh"
Read = Callable[[Sequence[str]], Command]
STUB = """#!{python}
import json, os, sys
with open(os.environ["RECORD"], "a") as record:
    record.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
"""
RECIPES_ARE_REAL = """
if sys.argv[1] == "recipes":
    from densescan.cli import main
    sys.exit(main(sys.argv[1:]))
"""


def everything(size: Size) -> Script:
    return script(ROWS.values(), size, Places("OUT"))


def lines(commands: Script) -> list[tuple[str, ...]]:
    return [line for part in commands.parts().values() for line in part]


@pytest.mark.parametrize("size", SIZES.values(), ids=lambda size: size.name)
def test_the_program_understands_every_command(size: Size, read: Read) -> None:
    seen: set[tuple[str, ...]] = set()
    for line in lines(everything(size)):
        kind = (*line[1:3], *(part for part in line if part.startswith("--")))
        if kind not in seen:  # students differ in values alone, which the tests of recipes check
            seen.add(kind)
            command = read(line)
            if line[1] == "train":
                assert f"{command.out}" == f"OUT/runs/{_recipe(line, size)}"
    assert len(seen) >= 9


def _recipe(line: Sequence[str], size: Size) -> str:
    """The run that a command trains."""
    (run,) = (
        recipe.run
        for recipe in size.recipes
        if recipe.stage == line[2] and recipe.name == line[line.index("--recipe") + 1]
    )
    return run


@pytest.mark.parametrize("size", SIZES.values(), ids=lambda size: size.name)
def test_every_model_and_data_set_is_made_before_it_is_used(size: Size) -> None:
    made = {"OUT/scores"}
    for line in lines(everything(size)):
        outputs = [line[line.index(option) + 1] for option in ("--out", "-o") if option in line]
        if line[1] == "data":
            outputs = [part for part in line if part.startswith("OUT/")]
        used = [
            part.partition("=")[2].partition(":")[0] if "=OUT/" in part else part
            for part in line
            if "OUT/" in part and part not in outputs
        ]
        for path in used:
            assert path.removesuffix("/model") in made, (path, line)
        made |= set(outputs)


def test_every_method_of_a_row_is_scored_on_its_data(monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    monkeypatch.setattr("densescan.evaluation.methods.model_folder", Path)
    monkeypatch.setattr("densescan.evaluation.methods.read_config", lambda folder: ModelConfig())
    monkeypatch.setattr("densescan.evaluation.methods._digest", str)
    size = find_size("small")
    scored = {}
    for (name, _), line in zip(size.scored, everything(size).scores, strict=True):
        command = read(line)
        assert isinstance(command, Evaluate)
        parsed = [parse_method(text) for text in command.methods]
        assert [method.name for method in parsed[: len(RIVALS)]] == list(RIVALS)
        scored[name] = {method.name: method.options for method in parsed}
    for row in ROWS.values():
        if row.run is not None:
            completion = scored[row.table.data_set][row.method]["completion"]
            assert (completion["steps"], completion["refine"]) == (row.steps, row.refined)


def test_one_row_needs_only_its_own_parts() -> None:
    made = script([find_row("table-5-distillation-dpo-tuned-teacher")], find_size("published"), Places("OUT"))
    runs = [line[line.index("--out") + 1] for line in made.training]
    assert runs == [
        f"OUT/runs/{run}" for run in ("teacher", "diffusion-dpo", "distillation-dpo-tuned-teacher", "refiner")
    ]
    assert len(made.data) == len(made.models) == len(made.scores) == 1
    rival = script([find_row("table-1-pvd")], find_size("published"), Places("OUT"))
    assert lines(rival) == []


def test_teachers_and_students_are_sampled_as_they_are_published() -> None:
    merges = {line[line.index("-o") + 1]: line for line in everything(find_size("published")).models}
    assert merges["OUT/models/teacher"][-2:] == ("steps=50", "guidance_scale=6.0")
    assert merges["OUT/models/diffusion-dpo"][-2:] == ("steps=50", "guidance_scale=6.0")
    students = [line for name, line in merges.items() if "distil" in name]
    assert len(students) == 9
    assert all(line[-2:] == ("steps=8", "guidance_scale=3.5") for line in students)


# runs/paper.sh


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[..., list[list[str]]]:
    """Run the script with programs that only write down how they are called."""
    for program in ("densescan", "torchrun"):
        path = tmp_path / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(STUB.format(python=sys.executable))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run(script: Path = PAPER, **variables: str) -> list[list[str]]:
        record = tmp_path / "record.jsonl"
        record.unlink(missing_ok=True)
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        subprocess.run(
            ["bash", str(script)],
            env={"PATH": path, "RECORD": str(record), "OUT": "OUT", **variables},
            check=True,
            timeout=60,
        )
        return [json.loads(line) for line in record.read_text().splitlines()]

    return run


def test_the_script_of_the_paper_makes_all_rows(recorded: Callable[..., list[list[str]]]) -> None:
    """Order apart, its commands are those of the recipes, and tables at the end."""
    calls = recorded(GPUS="1")
    tables = [call for call in calls if call[1:3] == ["results", "table"]]
    assert [call[3] for call in tables] == ["OUT/scores/semantic-kitti", "OUT/scores/kitti-360"]
    ours = sorted(_ordered(call) for call in calls if call not in tables)
    expected = sorted(_ordered(line) for line in lines(everything(find_size("published"))))
    assert ours == expected


def _ordered(line: Sequence[str]) -> list[str]:
    """A command whose order of methods and of options does not count; one frame of one is every frame."""
    parts = shlex.join(line).replace(" --every 1", "").split()
    return sorted(parts) if parts[1] == "evaluate" else parts


def test_the_script_of_the_paper_is_understood(recorded: Callable[..., list[list[str]]], read: Read) -> None:
    for call in recorded(GPUS="1", EVERY="10"):
        if call[1] != "train" or call[call.index("--recipe") + 1] == "published":
            read(call)


def test_the_script_of_the_paper_shares_a_batch_among_gpus(
    recorded: Callable[..., list[list[str]]],
) -> None:
    calls = recorded(GPUS="4", KITTI_360="")
    shared = [call for call in calls if call[0] == "torchrun"]
    assert [call[call.index("train") + 1] for call in shared] == ["teacher", "refiner", "diffusion-dpo"]
    assert all(call[2:4] == ["--nproc-per-node", "2"] for call in shared)
    assert not any("kitti-360" in " ".join(call) for call in calls)
    alone = [call for call in calls if call[:2] == ["densescan", "train"]]
    assert len(alone) == 9


def test_the_script_of_the_paper_stops_at_the_first_failure(tmp_path: Path) -> None:
    (tmp_path / "densescan").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "densescan").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert subprocess.run(["bash", str(PAPER)], env={"PATH": path}, timeout=60).returncode == 3


# runs/tiny.sh


def test_the_tiny_script_makes_its_rows_and_looks_at_a_scan(tmp_path: Path) -> None:
    """Its commands are those of the recipes, in their order; then come a sheet, a scene and the tables."""
    program = tmp_path / "bin" / "densescan"
    program.parent.mkdir()
    program.write_text(STUB.format(python=sys.executable) + RECIPES_ARE_REAL)
    program.chmod(0o755)
    out, record = tmp_path / "out", tmp_path / "record.jsonl"
    (out / "models" / "distillation-dpo").mkdir(parents=True)
    (out / "scores" / "held-out").mkdir(parents=True)
    subprocess.run(
        ["bash", str(PAPER.with_name("tiny.sh"))],
        env={
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "RECORD": str(record),
            "OUT": str(out),
            "SCAN": "scan.bin",
        },
        check=True,
        timeout=120,
    )
    calls = [json.loads(line) for line in record.read_text().splitlines()]
    names = ("distillation-dpo-refined", "distillation-dpo-tuned-teacher", "score-distillation")
    rows = [find_row(f"table-{table}-{name}") for table, name in zip((1, 5, 8), names, strict=True)]
    expected = [list(line) for line in lines(script(rows, find_size("tiny"), Places(str(out))))]
    assert calls[0][1:3] == ["recipes", "commands"]
    assert calls[1 : 1 + len(expected)] == expected
    assert [call[1] for call in calls[1 + len(expected) :]] == ["results", "complete", "results"]
    assert "scan.bin" in calls[-2]


# runs/small.sh


def test_the_small_script_trains_and_scores_every_row_that_it_can(
    recorded: Callable[..., list[list[str]]], read: Read, tmp_path: Path
) -> None:
    calls = recorded(
        PAPER.with_name("small.sh"), OUT=str(tmp_path / "out"), JOBS="3", SCORED="elsewhere/drive"
    )
    for call in calls:
        read(call)
    rows = [row for row in ROWS.values() if row.run is not None and row.table.data_set == "SemanticKITTI"]
    runs = {call[call.index("--out") + 1].rpartition("/")[2] for call in calls if call[1] == "train"}
    followed = {"teacher", "score-distillation", "distillation-dpo"}
    assert runs == {row.run for row in rows} - {"teacher"} | {f"refiner-{name}" for name in followed}
    merged = {call[call.index("-o") + 1].rpartition("/")[2] for call in calls if call[2] == "merge"}
    for folder in (str(tmp_path / "out" / "data" / "held-out"), "elsewhere/drive"):
        scored = [part for call in calls if call[1:3] == ["evaluate", folder] for part in call]
        named = dict(part.split("=", 1) for part in scored if "=" in part and "/models/" in part)
        assert named.keys() == {row.method for row in rows}
        assert {value.rpartition("/")[2].partition(":")[0] for value in named.values()} == merged
    order = [call[call.index("--out") + 1].rpartition("/")[2] for call in calls if call[1] == "train"]
    assert order.index("diffusion-dpo") < order.index("distillation-dpo-tuned-teacher")
    assert order.index("score-distillation") < order.index("refiner-score-distillation")


def test_the_small_script_names_what_failed(tmp_path: Path) -> None:
    (tmp_path / "densescan").write_text(
        "#!/bin/sh\ncase $* in *small-jsd*) exit 3;; *evaluate*) exit 4;; esac\n"
    )
    (tmp_path / "densescan").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "OUT": str(tmp_path / "out")}
    script = ["bash", str(PAPER.with_name("small.sh"))]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "student distillation-dpo-jsd" in done.stderr
    assert "score" not in done.stderr
