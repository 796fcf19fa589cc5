"""`densescan train` with a teacher: each stage leaves a model that completes scans, and goes on where it stopped."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from densescan.cli import main
from densescan.completion import CompletionConfig
from densescan.nets.minkunet import NetConfig
from densescan.weights.folder import ModelConfig, build, load, read_model, save_model

STAGES = ("diffusion-dpo", "score-distillation", "distillation-dpo")
TINY = (
    *("--crops.scan-points", "60", "--crops.truth-points", "150", "--crops.min-reduced", "100"),
    *("--crops.max-reduced", "200", "--repeat", "2", "--workers", "0", "--no-bfloat16", "--lr", "1e-3"),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a tiny teacher and one scan beside a wall with its truth."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    form = NetConfig(width=1 / 8, norm="layer", voxel_size=0.4, point_features="local", see_scan=True)
    save_model(
        "teacher", build(ModelConfig(form)), CompletionConfig(sampler="consistent", steps=2), "# Tiny\n"
    )
    rng = np.random.default_rng(0)
    points = rng.uniform((4, -8, -1.8), (13, 8, -1.7), (1500, 3)).astype("<f4")
    points[::3, 1], points[::3, 2] = 8, rng.uniform(-1.7, 2, 500)
    folder = Path("d/sequences/00")
    for name in ("velodyne", "truth"):
        (folder / name).mkdir(parents=True)
    np.column_stack([points[:400], np.zeros(400, "<f4")]).tofile(folder / "velodyne" / "000000.bin")
    np.save(folder / "truth" / "000000.npy", points)
    return tmp_path


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_leaves_a_model_and_resumes(place, capsys, stage):
    head_start = () if stage == "diffusion-dpo" else ("--head-start", "0")
    command = ["train", stage, "--teacher", "teacher", "--data", "d", "--out", "r", "--max-steps", "2", *TINY]
    command += head_start
    assert main([*command, "--max-minutes", "0"]) == 0, capsys.readouterr().err
    assert re.search(r"last step +1, loss -?\d", capsys.readouterr().out)
    assert main(command) == 0
    assert re.search(r"last step +2, loss -?\d", capsys.readouterr().out)
    assert [json.loads(row)["step"] for row in Path("r/metrics.jsonl").read_text().splitlines()] == [1, 2]
    student, config = read_model("r/model")
    teacher = read_model("teacher")[0].state_dict()
    changed = [name for name, value in student.state_dict().items() if not torch.equal(value, teacher[name])]
    assert changed
    assert all(name.startswith("model.") for name in changed), "the encoder stays the teacher's"
    assert (config.completion.sampler, config.completion.repeat) == ("consistent", 2)
    scan = np.fromfile("d/sequences/00/velodyne/000000.bin", "<f4").reshape(-1, 4)[:, :3]
    assert np.isfinite(load("r/model")(scan, seed=0, steps=1, scan_points=50).points).all()


@pytest.mark.parametrize("stage", STAGES)
def test_recipes_decide_on_the_other_defaults(capsys, stage):
    shown = {}
    for recipe in ("small", "released"):
        assert main(["train", stage, "--help", "--recipe", recipe]) == 0
        shown[recipe] = capsys.readouterr().out
    for recipe, optimiser in (("small", "adam"), ("released", "sgd")):
        assert re.search(rf"--optimiser.*?\(default:[│\s]*{optimiser}\)", shown[recipe], flags=re.DOTALL)


def test_a_teacher_is_needed(place, capsys):
    command = ["train", "score-distillation", "--teacher", "nowhere", "--data", "d", "--out", "r", *TINY]
    assert main(command) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not Path("r").exists()
