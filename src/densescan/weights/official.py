"""Official checkpoints of LiDiff, its refiner, ScoreLiDAR and Distillation-DPO, as their authors release them."""

import pathlib
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densescan.completion import CompletionConfig
from densescan.errors import InputError
from densescan.nets.minkunet import RELEASED_WIDTHS, NetConfig
from densescan.nets.networks import PREFIXES, Networks
from densescan.weights.folder import ModelConfig, build, fill, read_tensors, save_model

STUDENT_PREFIX = "generator."
DENOISER_PREFIXES = (STUDENT_PREFIX, "model.", "DiffModel.")
"""Where releases keep the denoiser that samples: students (ScoreLiDAR, Distillation-DPO), LiDiff, the DPO teacher."""
ENCODER_PREFIXES = ("partial_enc.", "DM_encoder.")
REFINER_PREFIXES = ("model_refine.",)
TRAINING_ONLY_PREFIXES = ("teacher.", "auxDiff.", "auxDiffBetter.", "auxDiffWorse.")
"""Networks that a training module stores beside the student and that sampling does not use."""

LIDIFF_COMPLETION = CompletionConfig(steps=50, guidance_scale=6.0)
STUDENT_COMPLETION = CompletionConfig(steps=8, guidance_scale=3.5)


def from_state_dict(state_dict: Mapping[str, Tensor], source: str = "the state dict") -> Networks:
    """The networks that an official state dict holds, in evaluation mode; those it lacks are None.

    The width is read off the first convolution. Of a distillation's training module the student is taken.
    Gives `.encoder(scan_points (B, N, 3)) -> cond`, `.denoiser(x_t (B, M, 3), t (B,), cond) -> eps_hat (B, M, 3)` and
    `.refiner(points (B, M, 3)) -> (B, 6 M, 3)`.

    source: what to call the origin in errors.
    Raises: InputError: no known network, or a missing, extra or misshapen tensor, each named.
    """
    renamed = _rename(state_dict)
    holds = {name: any(key.startswith(prefix) for key in renamed) for name, prefix in PREFIXES.items()}
    if not any(holds.values()):
        known = ", ".join(DENOISER_PREFIXES + ENCODER_PREFIXES + REFINER_PREFIXES)
        names = ", ".join(list(state_dict)[:3]) or "none"
        raise InputError(f"{source} holds no known network: expected tensors named {known}..., found {names}")
    model = "denoiser" if holds["denoiser"] else "encoder"
    config = ModelConfig(
        net=_net_config(renamed, PREFIXES[model], source) if holds[model] else None,
        refiner=_net_config(renamed, PREFIXES["refiner"], source) if holds["refiner"] else None,
    )
    networks = build(config)
    if not holds["encoder"]:
        networks.encoder = None
    if not holds["denoiser"]:
        networks.denoiser = None
    return fill(networks, renamed, source).eval()


def _rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring every network's tensors under the prefix that LiDiff gives it; leave out what only training used."""
    denoiser = next((p for p in DENOISER_PREFIXES if any(key.startswith(p) for key in state_dict)), None)
    renamed = {}
    for key, value in state_dict.items():
        if key.startswith(TRAINING_ONLY_PREFIXES):
            continue
        if denoiser is not None and key.startswith(denoiser):
            key = PREFIXES["denoiser"] + key.removeprefix(denoiser)
        for prefix in ENCODER_PREFIXES:
            if key.startswith(prefix):
                key = PREFIXES["encoder"] + key.removeprefix(prefix)
        renamed[key] = value.detach().float() if value.is_floating_point() else value.detach()
    return renamed


def _net_config(tensors: Mapping[str, Tensor], prefix: str, source: str) -> NetConfig:
    name = prefix + "stem.0.kernel"
    if name not in tensors:
        raise InputError(f"{source} lacks {name}: the file is incomplete, get it again")
    if tensors[name].ndim != 3:
        raise InputError(f"{source}: {name} has shape {tuple(tensors[name].shape)}, expected (27, 3, C)")
    return NetConfig(width=tensors[name].shape[2] / RELEASED_WIDTHS[0])


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a Lightning `.ckpt`, a plain `.pt`/`.pth` or a `.safetensors` file; runs no code from it.

    Raises: InputError: no such file, not a checkpoint, or one that holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path} is {'a directory' if path.is_dir() else 'missing'}: name a checkpoint file (.ckpt)"
        )
    if path.suffix == ".safetensors":
        return read_tensors(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            warnings.simplefilter("ignore")  # on pickle protocols; what matters is an error
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise InputError(f"{path} cannot be read as a checkpoint: {_refusal(str(error))}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as a checkpoint: it is damaged or of another format; get the file again"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(
            f"{path} holds no state dict: expected a Lightning checkpoint with the key `state_dict`"
        )
    return content


def _harmless() -> list[Any]:
    """Classes beyond torch's own that training modules leave in checkpoints and that cannot run code."""
    scalar = np.float64(0).__reduce__()[0]  # builds NumPy scalars; where it lives depends on NumPy's version
    scalars = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    dtypes = [np.dtype, *{type(np.dtype(code)) for code in "?bhilqBHILQefd"}]
    paths = [(pathlib.PosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")]
    return [*scalars, *dtypes, *paths]


def _refusal(reason: str) -> str:
    """torch's many lines on what it would not unpickle, in one."""
    found = re.search(r"GLOBAL ([\w.]+)", reason)
    if found is None:
        return "it is damaged or no checkpoint; get the file again"
    return (
        f"it holds an object of {found[1]}, which could run code and is refused; "
        "save its `state_dict` alone in an environment that trusts it"
    )


def convert(checkpoints: Sequence[Path], folder: str | Path) -> Networks:
    """Merge official checkpoints (denoiser, refiner) into one model folder.

    Raises: InputError: a file that cannot be read or does not fit, a network given twice, no denoiser or no encoder.
    """
    merged = Networks()
    student = False
    for path in checkpoints:
        tensors = read_checkpoint(path)
        student |= any(key.startswith(STUDENT_PREFIX) for key in tensors)
        for name, network in from_state_dict(tensors, str(path)).present().items():
            if name in merged.present():
                raise InputError(f"{path} holds a second {name}: give each network once")
            setattr(merged, name, network)
    missing = [name for name in ("encoder", "denoiser") if name not in merged.present()]
    if missing:
        raise InputError(
            f"no {' and no '.join(missing)} in {', '.join(map(str, checkpoints))}: add the diffusion checkpoint"
        )
    card = _card(checkpoints, merged)
    save_model(folder, merged, STUDENT_COMPLETION if student else LIDIFF_COMPLETION, card)
    return merged


def _card(checkpoints: Sequence[Path], networks: Networks) -> str:
    files = "".join(f"- {path.name}\n" for path in checkpoints)
    return (
        f"# Converted weights\n\nConverted from official checkpoints; their authors' licence applies.\n\n{files}\n"
        f"Networks: {', '.join(networks.present())}.\n"
    )
