"""On paper: seconds of a guided, refined scene on an H200, from counted work. Nothing here is measured on a GPU.

    python benchmarks/expected.py --points 180000 --record benchmarks/results/expected-h200.json

Kernel maps are built from a scan at the noise of every sampling step, and pairs, bytes and padding counted on them.
Each convolution takes the longest of three times, at three levels of trust:

least      products at the peak of the matrix units, or bytes at the bandwidth of memory, every byte moved once.
tiled      also the products made in vain by tiles of 128 rows, and what is gathered and re-read through the L2 cache.
cautious   tiled, with half of every peak.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from convolutions import TILE, Conv, Size, convolutions_of, maps_of, noisy_scene
from kernels import read_reduced
from random_networks import REPEAT
from roofline import H200, Work
from runs import EXAMPLE

from densescan.diffusion import Schedule
from densescan.nets.denoiser import Denoiser
from densescan.nets.encoder import ConditionEncoder
from densescan.nets.minkunet import NetConfig
from densescan.nets.refiner import Refiner
from densescan.sparse.tensor import Voxels
from densescan.training.record import environment, write_json

L2_BANDWIDTH = 5.5e12
"""Bytes a second that an H200 reads from its L2 cache: a guess from what is reported of its kind, not measured here."""
COLUMNS = 128
"""Output channels of a program, at most: wider outputs gather their inputs again."""
HALF = 2  # bytes of a bfloat16 number
KEY = 8  # bytes of a voxel's key
SORT_PASSES = 8  # of a radix sort of 64-bit keys, 8 bits each
DISTANCE_OPS = 15  # integer instructions for one pair of the nearest-voxel search
INTEGER_RATE = 16.7e12  # 32-bit integer instructions a second: 132 multiprocessors, 64 a clock, 1.98 GHz
KINDS = ("least", "tiled", "cautious")


@dataclass(frozen=True)
class Options:
    """The scene."""

    scan: Path = EXAMPLE
    """Scan whose maps are counted."""
    points: int = 180_000
    """Points of the scene before refinement."""
    steps: int = 8
    """Sampling steps."""
    guided: bool = True
    """Ask the network twice a step; the stem is shared."""
    refined: bool = True
    """Refine the scene."""
    settled: float = 0.05
    """Spread of the finished scene about the scan [m], which the refiner sees."""
    width: float = 1.0
    """Factor on the released channel counts."""
    record: Path | None = None
    """Write everything to this JSON file."""


@dataclass(frozen=True)
class Part:
    """One line of the account: counted work and seconds at each level of trust."""

    name: str
    work: Work
    least: float
    tiled: float
    cautious: float

    def __add__(self, other: "Part") -> "Part":
        sums = (getattr(self, kind) + getattr(other, kind) for kind in KINDS)
        return Part(self.name, self.work + other.work, *sums)


def conv_part(name: str, conv: Conv, size: Size, copies: int) -> Part:
    """A convolution of `copies` sets of features over one map; norm, ReLU, residual and scale are fused into it."""
    offsets = {"3x3x3": 27, "down": 8, "up": 8, "1x1x1": 1}[conv.kind]
    one, weights = size.work(conv, HALF), HALF * offsets * conv.c_in * conv.c_out
    work = Work(copies * one.flop, copies * (one.bytes - weights) + weights)
    again = -(-conv.c_out // COLUMNS)
    gathered = HALF * copies * size.pairs * conv.c_in * again
    reread = HALF * copies * size.padding * size.pairs / TILE * conv.c_in * conv.c_out
    tiled = max(work.seconds(H200, size.padding), (gathered + reread) / L2_BANDWIDTH)
    return Part(name, work, work.seconds(H200), tiled, 2 * tiled)


def network_parts(name: str, convs: Counter[Conv], voxels: Voxels, copies: int) -> Part:
    """All convolutions of a network, or of a part of one, on a scene."""
    sizes: dict[tuple[str, int], Size] = {}
    level, levels = voxels, []
    for _ in range(5):
        levels.append(len(level))
        level = level.coarser
    maps = maps_of(voxels)
    total = Part(name, Work(0, 0), 0, 0, 0)
    for conv, times in convs.items():
        place = (conv.kind, conv.level)
        if place not in sizes:
            sizes[place] = Size.of(maps[place], levels[conv.level])
        for _ in range(times):
            total += conv_part(name, conv, sizes[place], copies)
    return total


def search_part(voxels: Voxels, points: int, n_targets: int) -> Part:
    """Voxels and maps of all levels, and the nearest condition voxel of every voxel, as if none were ruled out."""
    counts, level = [], voxels
    for _ in range(5):
        counts.append(len(level))
        level = level.coarser
    sorting = 5 * points * SORT_PASSES * 2 * (KEY + KEY)  # key and place are read and written in every pass
    searching = sum(
        9 * n * n.bit_length() * KEY for n in counts
    )  # through the caches; neighbours share their path
    tables = sum(
        27 * 4 * n * 6 for n in counts
    )  # written, gathered into order, read twice for patterns and tiles
    compared = DISTANCE_OPS * sum(counts) * n_targets
    moved = float(sorting + tables)
    least = moved / H200.bandwidth + searching / L2_BANDWIDTH + compared / INTEGER_RATE
    return Part("voxels, maps, matching", Work(compared, moved), least, least, 2 * least)


def account(options: Options) -> list[Part]:
    """The parts of a scene, those of all steps together."""
    scan = read_reduced(options.scan, options.points // REPEAT)
    config = NetConfig(width=options.width)
    with torch.device("meta"):
        nets = Denoiser(config), ConditionEncoder(config), Refiner(config)
    stem, whole = convolutions_of(nets[0], "stem"), convolutions_of(nets[0])
    scan_voxels = noisy_scene(scan, 0.0, config.voxel_size, 0)
    target = scan_voxels
    for _ in range(4):
        target = target.coarser
    found = [network_parts("encoder", convolutions_of(nets[1]), scan_voxels, 1)]
    schedule, copies = Schedule(), 1 + options.guided
    for t in schedule.timesteps(options.steps):
        voxels = noisy_scene(scan, float(schedule.sigma_t[t]), config.voxel_size, t)
        found.append(network_parts("stem", stem, voxels, 1))
        found.append(network_parts("denoiser without stem", whole - stem, voxels, copies))
        found.append(search_part(voxels, options.points, len(target)))
    if options.refined:
        settled = noisy_scene(scan, options.settled, config.voxel_size, 0)
        found.append(network_parts("refiner", convolutions_of(nets[2]), settled, 1))
    return [
        sum((p for p in found if p.name == name), Part(name, Work(0, 0), 0, 0, 0))
        for name in dict.fromkeys(part.name for part in found)
    ]


def lines_of(parts: list[Part]) -> list[str]:
    """The account as Markdown [ms]."""
    lines = [
        "| part | TFLOP | GB | least [ms] | tiled [ms] | cautious [ms] |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    total = sum(parts, Part("sum", Work(0, 0), 0, 0, 0))
    for part in [*parts, total]:
        times = " | ".join(f"{1e3 * getattr(part, kind):.2f}" for kind in KINDS)
        name = f"**{part.name}**" if part is total else part.name
        lines.append(f"| {name} | {part.work.flop / 1e12:.2f} | {part.work.bytes / 1e9:.2f} | {times} |")
    return lines


def main(options: Options) -> None:
    """Count, print, record."""
    parts = account(options)
    print(f"EXPECTED, not measured: {options.points:,} points, {options.steps} steps, {H200.name}")
    print("\n".join(lines_of(parts)))
    print(
        "\nNot counted: farthest point sampling and noise (CPU), the MLPs of the condition and the head (small),"
        "\nlaunches (hidden while the GPU has work queued) and the transfer of the result."
    )
    if options.record is not None:
        settings: dict[str, Any] = asdict(options) | {"scan": options.scan.name, "record": None}
        content = {"parts": [asdict(part) for part in parts], "machine": asdict(H200), "l2": L2_BANDWIDTH}
        write_json(options.record, {"environment": environment(), "options": settings, **content})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
