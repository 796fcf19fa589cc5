"""Training state on disk: one safetensors file a checkpoint, written whole or not at all, no pickles.

Its tensors are `networks/NAME/KEY` and `averages/NAME/KEY` (state dicts) and `optimiser/INDEX/KEY` (Adam's state of
each parameter); the number of steps done is in its name.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from densescan.errors import InputError
from densescan.files import atomic_write
from densescan.training.record import make_folder

MAX_STEP = 9_999_999
"""The last step whose name has seven digits, so that the order of names is that of steps."""

_NAMES = f"step-{'[0-9]' * 7}.safetensors"


def save_checkpoint(
    folder: Path,
    step: int,
    networks: dict[str, nn.Module],
    averages: dict[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    keep: int = 2,
) -> Path:
    """Write `folder/step-N.safetensors`; the newest `keep` stay. Whatever goes wrong, the older ones are intact.

    Raises: InputError: the disk is full or the folder not writable.
    """
    tensors = _network_tensors(networks, averages)
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
    make_folder(folder)
    path = folder / f"step-{step:07d}.safetensors"
    with atomic_write(path) as temporary:
        try:
            save_file(
                {k: v.contiguous() for k, v in tensors.items()}, temporary, metadata={"step": str(step)}
            )
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from error
    for old in [*sorted(folder.glob(_NAMES))[:-keep], *folder.glob(".step-*.safetensors")]:
        old.unlink()  # the hidden ones were left by a killed process
    return path


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run, or None."""
    return max(folder.glob(_NAMES), default=None)


def load_checkpoint(
    path: Path,
    networks: dict[str, nn.Module],
    averages: dict[str, nn.Module],
    optimiser: torch.optim.Optimizer,
) -> int:
    """Restore everything and return the number of steps done. An error leaves everything as it was.

    Raises: InputError: not a checkpoint, a damaged one, or one of other networks.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"cannot read the checkpoint {path} ({reason}): delete it to go on from the one before"
        ) from error
    difference = _difference(_network_tensors(networks, averages), tensors)
    if difference:
        raise InputError(
            f"{path} is a checkpoint of other networks ({difference}): "
            "resume with the configuration it was started with, or start in another folder"
        )
    for kind, nets in (("networks", networks), ("averages", averages)):
        for name, net in nets.items():
            prefix = f"{kind}/{name}/"
            net.load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser/"):
            _, index, name = key.split("/")
            states.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
    return int(path.stem.removeprefix("step-"))


def _network_tensors(networks: dict[str, nn.Module], averages: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{kind}/{name}/{key}": value
        for kind, nets in (("networks", networks), ("averages", averages))
        for name, net in nets.items()
        for key, value in net.state_dict().items()
    }


def _difference(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """The first tensor that is missing, unknown or of another shape, in words; empty if there is none."""
    known = {key: value for key, value in found.items() if not key.startswith("optimiser/")}
    for key in sorted(expected.keys() | known.keys()):
        if key not in known:
            return f"it lacks {key}"
        if key not in expected:
            return f"this run has no {key}"
        if known[key].shape != expected[key].shape:
            return f"{key} is of shape {tuple(known[key].shape)}, expected {tuple(expected[key].shape)}"
    return ""
