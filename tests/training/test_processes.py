"""Two processes with half of each batch train what one trains with all of it."""

import json
import os
import runpy
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from densescan.training.config import LoopConfig
from densescan.training.loop import fit
from densescan.training.processes import Processes

CHILD = Path(__file__).with_name("child.py")
LOOP = LoopConfig(
    max_steps=5,
    batch_size=2,
    optimiser="sgd",
    lr=5e-3,
    warmup_steps=0,
    workers=0,
    bfloat16=False,
    cpu=True,
    validation_crops=3,
    checkpoint_every=2,
    seed=4,  # with some seeds an activation is within rounding of a ReLU's kink, and its gradient comes and goes
)
LAST = "checkpoints/step-0000005.safetensors"

make_stage = runpy.run_path(str(CHILD))["make_stage"]


def launch(count: int, arguments: list[str], timeout: float = 300) -> list[tuple[int, str]]:
    """Start processes as `torchrun` does; exit status and stderr of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    children = []
    for rank in map(str, range(count)):
        environment = {**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank}
        children.append(
            subprocess.Popen([sys.executable, *arguments], env=environment, stderr=subprocess.PIPE, text=True)
        )
    try:
        return [
            (child.returncode, error)
            for child in children
            for error in [child.communicate(timeout=timeout)[1]]
        ]
    finally:
        for child in children:
            child.kill()


@pytest.mark.parametrize("stage", ["teacher, layer norm", "teacher, frozen statistics"])
def test_two_processes_train_what_one_does(street: Path, tmp_path: Path, stage: str) -> None:
    """Gradient descent: Adam divides gradients near zero by themselves, so that rounding alone moves weights by lr."""
    alone, together = tmp_path / "alone", tmp_path / "together"
    begun = {
        f"networks/teacher/{name}/{key}": value
        for name, net in make_stage(stage).results.items()
        for key, value in net.state_dict().items()
    }
    fit(make_stage(stage), street, LOOP, alone, validation=street)
    found = launch(2, [str(CHILD), stage, str(street), str(together), json.dumps(asdict(LOOP)), str(street)])
    assert [status for status, _ in found] == [0, 0], found
    expected, tensors = load_file(alone / LAST), load_file(together / LAST)
    assert expected.keys() == tensors.keys()
    assert max((expected[key] - value).abs().max().item() for key, value in begun.items()) > 1e-3, "it moved"
    for key, value in expected.items():
        torch.testing.assert_close(
            tensors[key], value, rtol=1e-4, atol=3e-6, msg=lambda m, k=key: f"{k}: {m}"
        )
    rows, expected_rows = metrics(together), metrics(alone)
    assert [row.keys() for row in rows] == [row.keys() for row in expected_rows]
    for row, expected_row in zip(rows, expected_rows, strict=True):
        for name in row:
            if not name.startswith("seconds"):
                assert row[name] == pytest.approx(expected_row[name], rel=1e-2), name
    assert json.loads((together / "env.json").read_text())["processes"] == 2


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_process_alone_adds_nothing() -> None:
    alone = Processes(cpu=True)
    assert (alone.main, alone.index, alone.count, alone.device.type) == (True, 0, 1, "cpu")
    tensor = torch.arange(3.0)
    assert alone.sum(tensor) is tensor
    assert alone.sum_figures({"a": 1.5, "b": -2.0}) == {"a": 1.5, "b": -2.0}
    assert alone.any(True)
    assert not alone.any(False)
    assert alone.agree(3)
    net = nn.BatchNorm1d(2)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    alone.share([net])
    alone.average_buffers([net])
    alone.wait()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


TOGETHER = """
import json, sys, torch
from torch import nn
from densescan.training.processes import Processes
p = Processes(cpu=True)
net = nn.BatchNorm1d(1)
net.weight.data.fill_(p.index + 5)
net.running_mean.fill_(p.index + 1)
net.num_batches_tracked.fill_(p.index)
found = {
    "sum": p.sum(torch.tensor([1.0, p.index])).tolist(),
    "figures": p.sum_figures({"a": 0.1, "b": p.index}),
    "any": [p.any(p.index == 1), p.any(False)],
    "agree": [p.agree(7), p.agree(p.index)],
}
p.average_buffers([net])
found["averaged"] = [net.running_mean.item(), net.num_batches_tracked.item(), net.weight.item()]
p.share([net])
found["shared"] = [net.num_batches_tracked.item(), net.weight.item()]
print(json.dumps(found), file=sys.stderr)
"""


def test_processes_together() -> None:
    found = launch(2, ["-W", "ignore", "-c", TOGETHER])
    for index, (status, error) in enumerate(found):
        assert status == 0, error
        assert json.loads(error.splitlines()[-1]) == {
            "sum": [2.0, 1.0],
            "figures": {"a": 0.2, "b": 1.0},
            "any": [True, False],
            "agree": [True, False],
            "averaged": [1.5, index, index + 5],
            "shared": [0, 5.0],
        }
