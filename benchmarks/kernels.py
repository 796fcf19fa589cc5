"""Every convolution of the denoiser on real kernel maps: counted work, measured seconds, share of the roofline.

    python benchmarks/kernels.py --points 18000 --record benchmarks/results/kernels-18000.json
    python benchmarks/kernels.py --device cuda --points 180000 --record benchmarks/results/kernels-gpu.json

The maps are those of a scan, repeated and noised as in sampling; pairs are counted, not estimated. Features and weights
are random. The roofline is measured in the same run: a large matrix product in the same type, and a large copy. Every
backend's outputs, and gradients with --backward, are compared with sums in float64 of a sample of rows.
The last two columns are no measurement: the least time that the counted work takes on an H200 in bfloat16, and the
same with what tiles of 128 rows multiply in vain.
"""

import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import tyro
from convolutions import TILE, Conv, Size, convolutions_of, maps_of, noisy_scene
from random_networks import REPEAT
from roofline import H200, Machine, TypeName, Work, measure, median_seconds
from runs import EXAMPLE
from samples import errors_of
from torch import Tensor

from densescan.data.io import read_scan
from densescan.errors import InputError
from densescan.geometry.crop import within_range
from densescan.geometry.sampling import farthest_point_sampling
from densescan.nets.denoiser import Denoiser
from densescan.nets.minkunet import NetConfig
from densescan.sparse.backends import Backend, using
from densescan.sparse.backends.table import table_of
from densescan.sparse.functional import sparse_conv
from densescan.sparse.kernel_map import KernelMap
from densescan.training.record import environment, write_json

ON_GPU = torch.cuda.is_available()
LARGEST_ERROR = {"float32": 2e-3, "bfloat16": 2e-2, "float16": 3e-3}  # relative; float32 may be TF32 on a GPU


@dataclass(frozen=True)
class Options:
    """What to measure."""

    scan: Path = EXAMPLE
    """Scan whose maps are used."""
    points: int = 18_000
    """Points of the scene before refinement; the releases use 180,000."""
    noise: tuple[float, ...] = (0.985, 0.24, 0.05)
    """Standard deviations of the noise [m]: of the first step, of a late one, and about that of a finished scene."""
    width: float = 1.0
    """Factor on the released channel counts."""
    dtype: TypeName = "bfloat16" if ON_GPU else "float32"
    """Type that is multiplied."""
    device: str = "cuda" if ON_GPU else "cpu"
    """`cpu` or `cuda`."""
    backends: tuple[Backend, ...] = ("torch", "triton") if ON_GPU else ("torch",)
    """What to measure: plain PyTorch, Triton's kernels."""
    backward: bool = False
    """Measure forward and both gradients in place of forward alone."""
    repeats: int = 3
    """Runs; the median counts."""
    threads: int | None = None
    """Threads of the processor; None: PyTorch's choice."""
    seed: int = 0
    """Of noise, features and weights."""
    record: Path | None = None
    """Write everything to this JSON file."""

    def __post_init__(self) -> None:
        if self.device == "cpu" and "triton" in self.backends:
            raise InputError("Triton's kernels are timed on a GPU: add --device cuda, or leave out triton")
        if self.points < REPEAT or self.points % REPEAT:
            raise InputError(f"points must be a multiple of {REPEAT}, got {self.points}")


@dataclass
class Row:
    """A convolution on one scene."""

    noise: float
    conv: Conv
    times: int
    """Occurrences in a forward pass."""
    size: Size
    work: Work
    """Of one forward pass, or of forward and backward."""
    work_bfloat16: Work
    """The same in bfloat16, for the expected times."""
    seconds: dict[Backend, float] = field(default_factory=dict)
    errors: dict[Backend, float] = field(default_factory=dict)
    """Largest relative error of output and gradients."""


def measure_row(row: Row, kernel_map: KernelMap, options: Options) -> None:
    """Time a convolution by every backend and compare its outputs with float64."""
    generator = torch.Generator().manual_seed(options.seed)
    dtype, conv = getattr(torch, options.dtype), row.conv
    offsets = len(table_of(kernel_map).rows)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(options.device, dtype)

    feats, kernel = draw(row.size.n_in, conv.c_in), draw(offsets, conv.c_in, conv.c_out)
    grad_out = draw(row.size.n_out, conv.c_out)
    feats, kernel = (x.requires_grad_(options.backward) for x in (feats, kernel))

    def run() -> list[Tensor]:
        out = sparse_conv(feats, kernel, kernel_map)
        return [out, *torch.autograd.grad(out, (feats, kernel), grad_out)] if options.backward else [out]

    for backend in options.backends:
        with using(backend):
            row.errors[backend] = errors_of(run(), feats, kernel, grad_out, kernel_map, options.seed)
            row.seconds[backend] = median_seconds(run, options.device, options.repeats)
        if not row.errors[backend] <= LARGEST_ERROR[options.dtype]:
            sys.exit(f"{conv.name} on level {conv.level} by {backend} is off by {row.errors[backend]:.1e}")


def rows_of_scene(
    scan: Tensor, sigma: float, convs: Counter[Conv], options: Options
) -> list[tuple[Row, KernelMap]]:
    """All convolutions with a map, with the work they are on one scene."""
    voxels = noisy_scene(scan, sigma, NetConfig().voxel_size, options.seed, options.device)
    maps, rows = maps_of(voxels), []
    for conv, times in sorted(convs.items(), key=lambda item: (item[0].level, item[0].kind, item[0].c_in)):
        kernel_map = maps[conv.kind, conv.level]
        if kernel_map is not None:
            size = Size.of(kernel_map, kernel_map.n_in)
            # Backward: two products as large as the first; inputs are read and gradients written once more.
            passes = 3 if options.backward else 1
            bytes_each = torch.finfo(getattr(torch, options.dtype)).bits // 8
            works = (size.work(conv, size_of) * passes for size_of in (bytes_each, 2))
            rows.append((Row(sigma, conv, times, size, *works), kernel_map))
    return rows


def table_lines(rows: list[Row], machine: Machine, backends: tuple[Backend, ...]) -> list[str]:
    """A line a convolution, and the sum of each scene, as Markdown."""
    columns = [f"{name} [ms] | of the roofline" for name in backends]
    head = [
        "noise [m]",
        "convolution",
        "stride",
        "times",
        "rows",
        "pairs",
        "padding",
        "GFLOP",
        "MB",
        *columns,
    ]
    lines = [f"| {' | '.join([*head, 'H200 [ms]', 'padded'])} |"]
    lines.append("|---:|---|" + "---:|" * (lines[0].count("|") - 3))
    for sigma in dict.fromkeys(row.noise for row in rows):
        scene = [row for row in rows if row.noise == sigma]
        lines += [_line(row, machine, backends) for row in scene] + [_sum_line(scene, machine, backends)]
    return lines


def _line(row: Row, machine: Machine, backends: tuple[Backend, ...]) -> str:
    size, work, conv = row.size, row.work, row.conv
    cells = [f"{row.noise:g}", conv.name, f"{1 << conv.level}", f"{row.times}", f"{size.n_out:,}"]
    cells += [f"{size.pairs:,}", f"{size.padding:.2f}", f"{work.flop / 1e9:.2f}", f"{work.bytes / 1e6:.1f}"]
    for backend in backends:
        share = work.seconds(machine) / row.seconds[backend]
        cells += [f"{1e3 * row.seconds[backend]:.2f}", f"{share:.0%}"]
    cells += [f"{1e3 * row.work_bfloat16.seconds(H200, padding):.4f}" for padding in (1.0, size.padding)]
    return f"| {' | '.join(cells)} |"


def _sum_line(rows: list[Row], machine: Machine, backends: tuple[Backend, ...]) -> str:
    work = sum((row.work * row.times for row in rows), Work(0, 0))
    cells = [f"{rows[0].noise:g}", "**a forward pass**", "", f"{sum(row.times for row in rows)}", "", "", ""]
    cells += [f"{work.flop / 1e9:.1f}", f"{work.bytes / 1e6:.0f}"]
    for backend in backends:
        seconds = sum(row.times * row.seconds[backend] for row in rows)
        share = sum(row.times * row.work.seconds(machine) for row in rows) / seconds
        cells += [f"{1e3 * seconds:.1f}", f"{share:.0%}"]
    for padded in (False, True):
        least = sum(
            row.times * row.work_bfloat16.seconds(H200, row.size.padding if padded else 1.0) for row in rows
        )
        cells.append(f"{1e3 * least:.3f}")
    return f"| {' | '.join(cells)} |"


def read_reduced(path: Path, points: int) -> Tensor:
    """The scan as the completer reduces it: within range, by farthest point sampling."""
    scan = torch.from_numpy(read_scan(path).points)
    scan = scan[within_range(scan, 3.5, 50.0)]
    if len(scan) < points:
        raise InputError(f"{path.name} has {len(scan)} points within range, {points} are needed: take fewer")
    return scan[farthest_point_sampling(scan, points)]


def main(options: Options) -> None:
    """Measure, verify, print, record."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    scan = read_reduced(options.scan, options.points // REPEAT)
    with torch.device("meta"):
        convs = convolutions_of(Denoiser(NetConfig(width=options.width)))
    machine = measure(options.device, getattr(torch, options.dtype))
    print(
        f"{machine.name}: {machine.flops / 1e9:.0f} GFLOP/s in {options.dtype}, {machine.bandwidth / 1e9:.1f} GB/s"
    )
    rows: list[Row] = []
    for sigma in options.noise:
        scene = rows_of_scene(scan, sigma, convs, options)
        for row, kernel_map in scene:
            measure_row(row, kernel_map, options)
        rows += [row for row, _ in scene]
    print("\n".join(table_lines(rows, machine, options.backends)))
    print(
        f"\nPadding: in tiles of {TILE} rows. Largest relative error: {max(max(r.errors.values()) for r in rows):.1e}"
    )
    if options.record is not None:
        found = {"rows": [asdict(row) for row in rows], "machine": asdict(machine)}
        settings = asdict(options) | {"scan": options.scan.name, "record": None}
        write_json(options.record, {"environment": environment(), "options": settings, **found})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
