"""A resumed run equals an uninterrupted one, bit by bit: stopped after each step, and killed at a random one."""

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from densescan.data.dataset import CropConfig
from densescan.nets.minkunet import NetConfig
from densescan.training.checkpoint import latest_checkpoint
from densescan.training.loop import LoopConfig, fit
from densescan.training.teacher import TeacherConfig, TeacherStage

LOOP = LoopConfig(max_steps=5, batch_size=2, warmup_steps=2, workers=0, bfloat16=False, checkpoint_every=2)
NET = NetConfig(width=0.25, voxel_size=0.2)  # the released form: running statistics must come back, too
CROPS = CropConfig(scan_points=150, truth_points=300, min_reduced=600, max_reduced=800, max_range=20.0)


def record(run: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """All tensors of the last checkpoint, and the logged figures without the time they took."""
    newest = latest_checkpoint(run / "checkpoints")
    assert newest is not None
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return load_file(newest), [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def check_equal(run: Path, uninterrupted: Path) -> None:
    (tensors, rows), (expected, expected_rows) = record(run), record(uninterrupted)
    assert rows == expected_rows
    assert tensors.keys() == expected.keys()
    assert any(key.startswith("optimiser/") for key in tensors)
    assert not [key for key in tensors if not torch.equal(tensors[key], expected[key])]


@pytest.fixture(scope="module")
def whole(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("whole")
    fit(make_teacher(), street, LOOP, run)
    return run


def make_teacher() -> TeacherStage:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TeacherStage(TeacherConfig(net=NET, crops=CROPS))


def test_stopped_after_each_step(street: Path, whole: Path, tmp_path: Path) -> None:
    for step in range(1, LOOP.max_steps + 1):
        averages = fit(make_teacher(), street, replace(LOOP, max_minutes=0.0), tmp_path)
        assert (
            latest_checkpoint(tmp_path / "checkpoints")
            == tmp_path / f"checkpoints/step-{step:07d}.safetensors"
        )
    check_equal(tmp_path, whole)
    saved = record(whole)[0]
    for name, net in averages.items():
        for key, value in net.state_dict().items():
            assert torch.equal(value, saved[f"averages/{name}/{key}"]), "the averages are what it returns"


CHILD = """
import sys, time
from pathlib import Path
import torch
from densescan.data.dataset import CropConfig
from densescan.nets.minkunet import NetConfig
from densescan.training.loop import LoopConfig, fit
from densescan.training.teacher import TeacherConfig, TeacherStage
torch.manual_seed(0)
stage = TeacherStage(TeacherConfig(net={net!r}, crops={crops!r}))
fit(stage, sys.argv[1], {loop!r}, Path(sys.argv[2]), lambda *_: time.sleep(0.05))
"""


def test_killed_at_a_random_step(street: Path, whole: Path, tmp_path: Path) -> None:
    code = CHILD.format(net=NET, crops=CROPS, loop=LOOP)
    log, wanted = tmp_path / "metrics.jsonl", random.randint(1, 3)
    deadline = time.monotonic() + 300
    with subprocess.Popen([sys.executable, "-c", code, str(street), str(tmp_path)]) as child:
        try:
            while not (log.is_file() and log.read_bytes().count(b"\n") >= wanted):
                assert child.poll() is None, "it ended by itself"
                assert time.monotonic() < deadline, "it never got there"
                time.sleep(0.01)
        finally:
            child.kill()
    assert child.returncode == -signal.SIGKILL
    fit(make_teacher(), street, LOOP, tmp_path)
    check_equal(tmp_path, whole)
