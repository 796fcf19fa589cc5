"""Checkpoints: everything comes back, damage and strangers are refused, a full disk harms nothing."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from densescan.errors import InputError
from densescan.training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from densescan.training.ema import start_averages

State = tuple[dict[str, nn.Module], dict[str, nn.Module], torch.optim.Optimizer]


def make(seed: int = 0, width: int = 4, names: tuple[str, ...] = ("a", "b"), steps: int = 0) -> State:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        nets: dict[str, nn.Module] = {
            name: nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width)) for name in names
        }
        optimiser = torch.optim.Adam([p for net in nets.values() for p in net.parameters()], lr=0.1)
        averages = start_averages(nets)
        for _ in range(steps):
            torch.stack([net(torch.randn(8, 3)).square().sum() for net in nets.values()]).sum().backward()
            optimiser.step()
    return nets, averages, optimiser


def tensors(state: State) -> dict[str, torch.Tensor]:
    """Every tensor of a state by name, cloned."""
    nets, averages, optimiser = state
    found = {f"n{n}{k}": v.clone() for n, net in nets.items() for k, v in net.state_dict().items()}
    found |= {f"a{n}{k}": v.clone() for n, net in averages.items() for k, v in net.state_dict().items()}
    for index, values in optimiser.state_dict()["state"].items():
        found |= {f"o{index}{k}": v.clone() for k, v in values.items()}
    return found


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a
    )


def test_everything_comes_back_bit_by_bit(tmp_path: Path) -> None:
    saved, other = make(seed=0, steps=3), make(seed=1)
    path = save_checkpoint(tmp_path / "checkpoints", 17, *saved)
    assert path == tmp_path / "checkpoints" / "step-0000017.safetensors"
    assert not same(tensors(saved), tensors(other))
    assert load_checkpoint(path, *other) == 17
    assert same(tensors(saved), tensors(other))
    assert len(other[2].state_dict()["state"]) == 8


def test_the_newest_two_stay_and_the_newest_is_found(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for step in (9, 10, 100):
        save_checkpoint(tmp_path, step, *make())
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step-0000010.safetensors",
        "step-0000100.safetensors",
    ]
    (tmp_path / "step-best.safetensors").touch()
    (tmp_path / "step-0000999.safetensors.part").touch()
    assert latest_checkpoint(tmp_path) == tmp_path / "step-0000100.safetensors"


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".step-0000005.0123abcd.safetensors"
    left.write_bytes(b"half")
    assert latest_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, 6, *make())
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000006.safetensors"]


@pytest.mark.parametrize("keep", [0, 6, 200, -1], ids=["empty", "stump", "header", "last byte"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, keep: int) -> None:
    path = save_checkpoint(tmp_path, 1, *make(steps=1))
    path.write_bytes(path.read_bytes()[:keep])
    state = make(seed=1)
    before = tensors(state)
    with pytest.raises(InputError, match=f"cannot read the checkpoint {path} .*: delete it") as caught:
        load_checkpoint(path, *state)
    assert "\n" not in str(caught.value)
    assert same(before, tensors(state))


def test_an_unreadable_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "step-0000001.safetensors"
    path.mkdir()
    with pytest.raises(InputError, match=f"cannot read the checkpoint {path}"):
        load_checkpoint(path, *make())


@pytest.mark.parametrize(
    ("form", "difference"),
    [
        ({"width": 5}, r"averages/a/0.bias is of shape \(4,\), expected \(5,\)"),
        ({"names": ("a",)}, "this run has no averages/b/0.bias"),
        ({"names": ("a", "b", "c")}, "it lacks averages/c/0.bias"),
    ],
)
def test_a_checkpoint_of_other_networks_is_named(
    tmp_path: Path, form: dict[str, object], difference: str
) -> None:
    path = save_checkpoint(tmp_path, 1, *make(steps=1))
    state = make(seed=1, **form)  # type: ignore[arg-type]
    before = tensors(state)
    with pytest.raises(InputError, match=rf"{path} is a checkpoint of other networks \({difference}\)"):
        load_checkpoint(path, *state)
    assert same(before, tensors(state)), "nothing is half loaded"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: the system answers as for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_older_checkpoints_intact(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, *make(seed=step, width=200, steps=1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    newer = tmp_path / "step-0000003.safetensors"
    with largest_file(5_000), pytest.raises(InputError, match=f"cannot write {newer}: .*free some space"):
        save_checkpoint(tmp_path, 3, *make(seed=3, width=200, steps=1))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    state = make(seed=4, width=200)
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert load_checkpoint(newest, *state) == 2
    assert same(tensors(state), tensors(make(seed=2, width=200, steps=1)))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match=f"cannot make the folder {tmp_path}/run/checkpoints"):
        save_checkpoint(tmp_path / "run" / "checkpoints", 1, *make())
