"""`densescan info`: what a scan, a model or this installation is."""

import platform
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from densescan.cli.console import PROGRAM, rows, say
from densescan.cli.options import Command
from densescan.completion import CompletionConfig
from densescan.data.io import read_scan
from densescan.nets.minkunet import NetConfig
from densescan.weights.folder import CARD, TENSORS, bundled_names, model_folder, read_model


@dataclass(frozen=True)
class Info(Command):
    """Describe a scan, a model, or this installation.

    Examples:
      densescan info
      densescan info 000123.bin
      densescan info small
    """

    path: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[PATH]")] = None
    """A scan file, a model folder or a bundled model's name; none: versions, devices and bundled models."""

    def run(self) -> None:
        """Print the description.

        Raises: InputError: a path that is neither scan nor model, or damaged.
        """
        if self.path is None:
            say(describe_installation())
        elif self.path in bundled_names() or Path(self.path).is_dir():
            say(describe_model(self.path))
        else:
            say(describe_scan(Path(self.path)))


def describe_installation() -> str:
    """Versions, threads, devices and models, a line each."""
    packages = {name: version(name) for name in (PROGRAM, "torch", "numpy", "scipy", "safetensors")}
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return rows(
        {
            "python": f"{platform.python_version()} on {platform.platform()}",
            **packages,
            "torch threads": str(torch.get_num_threads()),
            "devices": ", ".join(["cpu", *(f"cuda ({name})" for name in gpus)]),
            "bundled models": ", ".join(bundled_names()) or "none",
        }
    )


def describe_scan(path: Path) -> str:
    """Number, distances and extents of a scan's points.

    Raises: InputError: no readable scan.
    """
    with warnings.catch_warnings(record=True) as dropped:
        warnings.simplefilter("always")
        scan = read_scan(path)
    distance = np.linalg.norm(scan.points, axis=1)
    low, high = scan.points.min(axis=0), scan.points.max(axis=0)
    default = CompletionConfig()
    used = int(((distance > default.min_range) & (distance < default.max_range)).sum())
    remission = scan.remission
    lines = {
        "scan": str(path),
        "points": f"{len(scan):,}",
        "dropped": "; ".join(str(warning.message).removeprefix(f"{path}: ") for warning in dropped) or "none",
        "used": f"{used:,} lie between {default.min_range:g} and {default.max_range:g} m from the sensor",
        "distance": f"{distance.min():.2f} to {distance.max():.2f} m, median {np.median(distance):.2f} m",
    }
    for axis, name in enumerate(("x forward", "y left", "z up")):
        lines[name] = f"{low[axis]:.2f} to {high[axis]:.2f} m"
    lines["remission"] = "none" if remission is None else f"{remission.min():g} to {remission.max():g}"
    return rows(lines)


def describe_model(name_or_path: str) -> str:
    """Form, size, parameters of completion and card of a model.

    Raises: InputError: no such model, or a damaged one.
    """
    folder = model_folder(name_or_path)
    networks, config = read_model(name_or_path)
    lines = {"model": str(folder), "file": f"{(folder / TENSORS).stat().st_size / 1e6:.1f} MB"}
    for name, network in networks.present().items():
        form = config.refiner if name == "refiner" else config.net
        parameters = sum(p.numel() for p in network.parameters())
        lines[name] = f"{parameters:,} parameters, {_fields(form)}"
    lines["completion"] = _fields(config.completion)
    card = folder / CARD
    return rows(lines) + (f"\n\n{card.read_text().strip()}" if card.is_file() else "")


def _fields(config: NetConfig | CompletionConfig | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in vars(config).items()) if config else ""
