"""How the seconds of a completion grow with the number of points, on a processor.

    python benchmarks/scaling.py --record benchmarks/results/scaling.json                                # bundled model
    python benchmarks/scaling.py --width 1.0 --repeats 1 --record benchmarks/results/scaling-wide.json   # released form

With --width the networks are those of `completion.py`: random and steered, calibrated for each size.

The same scan is reduced to more and more points, each repeated ten times. The exponent is the slope of the straight
line through the logarithms of points and seconds: 1 where cost grows as points do.
"""

import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from kernels import read_reduced
from random_networks import REPEAT, random_networks, steered
from runs import EXAMPLE

import densescan
from densescan.completer import Completer
from densescan.data.io import read_scan
from densescan.errors import InputError
from densescan.training.record import environment, write_json


@dataclass(frozen=True)
class Options:
    """What to measure."""

    scan: Path = EXAMPLE
    """Scan to complete; it must have a tenth of the most points within range."""
    points: tuple[int, ...] = (18_000, 60_000, 180_000, 360_000)
    """Points of the scenes before refinement."""
    model: str = "small"
    """Bundled model or model folder."""
    width: float | None = None
    """Random networks of the released form at this width, 1 is what was released, instead of a model."""
    steps: int = 8
    """Sampling steps."""
    repeats: int = 3
    """Runs of each size after one step that does not count; the median counts."""
    threads: int | None = None
    """Threads; None: PyTorch's choice."""
    record: Path | None = None
    """Write everything to this JSON file."""


def completer_for(options: Options, points: int) -> Completer:
    """The model, or random networks for scenes of so many points."""
    if options.width is None:
        return densescan.load(options.model)
    reduced = read_reduced(options.scan, points // REPEAT)
    return Completer(steered(random_networks(options.width, 0, reduced).state_dict()))


def measure(options: Options, bfloat16: bool) -> dict[str, Any]:
    """Median seconds of each size, and the exponent."""
    scan = read_scan(options.scan)
    seconds = []
    for points in options.points:
        completer = completer_for(options, points)
        changes = {
            "scan_points": points // REPEAT,
            "repeat": REPEAT,
            "steps": options.steps,
            "bfloat16": bfloat16,
        }
        completer(scan, **changes | {"steps": 1})
        runs = [completer(scan, **changes) for _ in range(options.repeats)]
        if len(runs[0].coarse) < 0.5 * points:
            raise InputError(f"{options.scan.name} has too few points for scenes of {points:,}: take another")
        seconds.append(statistics.median(sum(run.seconds.values()) for run in runs))
        print(
            f"{'bfloat16' if bfloat16 else 'float32'}, {points:>9,} points: {seconds[-1]:7.2f} s", flush=True
        )
    exponent = float(np.polyfit(np.log(options.points), np.log(seconds), 1)[0])
    print(
        f"{'bfloat16' if bfloat16 else 'float32'}: seconds grow as points to the power {exponent:.2f}",
        flush=True,
    )
    return {"points": options.points, "seconds": seconds, "exponent": exponent}


def main(options: Options) -> None:
    """Measure, print, record."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    found = {name: measure(options, name == "bfloat16") for name in ("bfloat16", "float32")}
    if options.record is not None:
        settings: dict[str, Any] = asdict(options) | {"scan": options.scan.name, "record": None}
        write_json(options.record, {"environment": environment(), "options": settings, "growth": found})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
