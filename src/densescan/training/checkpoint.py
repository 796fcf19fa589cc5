"""Training state on disk: tensors in safetensors, the rest in JSON, written atomically, no pickles."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from densescan.errors import InputError
from densescan.files import atomic_write


def save_checkpoint(
    folder: Path,
    step: int,
    networks: dict[str, nn.Module],
    averages: dict[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    keep: int = 2,
) -> Path:
    """Write `folder/step-N.safetensors`; the newest `keep` stay.

    Raises: InputError: the disk is full or the folder not writable.
    """
    tensors: dict[str, Tensor] = {}
    for kind, nets in (("networks", networks), ("averages", averages)):
        for name, net in nets.items():
            tensors |= {f"{kind}/{name}/{key}": value for key, value in net.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:07d}.safetensors"
    with atomic_write(path) as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata={"step": str(step)})
    for old in sorted(folder.glob("step-*.safetensors"))[:-keep]:
        old.unlink()
    return path


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run, or None."""
    return max(folder.glob("step-*.safetensors"), default=None)


def load_checkpoint(
    path: Path, networks: dict[str, nn.Module], averages: dict[str, nn.Module], optimiser: torch.optim.Optimizer
) -> int:
    """Restore everything and return the number of steps done.

    Raises: InputError: not a checkpoint, or one of other networks.
    """
    try:
        tensors = load_file(path)
        for kind, nets in (("networks", networks), ("averages", averages)):
            for name, net in nets.items():
                prefix = f"{kind}/{name}/"
                net.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} does not fit this run ({reason}): resume with the configuration it was started with"
        ) from error
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser/"):
            _, index, name = key.split("/")
            states.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
    return int(path.stem.removeprefix("step-"))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def clear_run(folder: Path) -> None:
    """Delete a run folder and all it holds."""
    shutil.rmtree(folder, ignore_errors=True)
