"""How the seconds of a completion grow with the number of points, by the bundled model on a processor.

    python benchmarks/scaling.py --record benchmarks/results/scaling.json

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
from random_networks import REPEAT
from runs import EXAMPLE

import densescan
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
    steps: int = 8
    """Sampling steps."""
    repeats: int = 3
    """Runs of each size after one that does not count; the median counts."""
    threads: int | None = None
    """Threads; None: PyTorch's choice."""
    record: Path | None = None
    """Write everything to this JSON file."""


def measure(options: Options, bfloat16: bool) -> dict[str, Any]:
    """Median seconds of each size, and the exponent."""
    completer, scan = densescan.load(options.model), read_scan(options.scan)
    seconds = []
    for points in options.points:
        changes = {
            "scan_points": points // REPEAT,
            "repeat": REPEAT,
            "steps": options.steps,
            "bfloat16": bfloat16,
        }
        runs = [completer(scan, **changes) for _ in range(options.repeats + 1)][1:]
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
