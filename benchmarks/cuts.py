"""Device time of every convolution of a guided step, for several cuts into programs; on a GPU.

    python benchmarks/cuts.py --record benchmarks/results/gpu/cuts.json

The maps are those of a scan, repeated and noised as in sampling; features and weights are random, two copies side by
side as for guidance, or one, with the scales, shifts and residuals that the network has there. Each cut is recorded as
a CUDA graph of several launches, so that the host does not count. Kernels are compiled by many processes beforehand.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from convolutions import Conv, convolutions_of, maps_of, noisy_scene
from kernels import read_reduced
from random_networks import REPEAT
from runs import EXAMPLE
from torch import Tensor

from densescan.nets.denoiser import Denoiser
from densescan.nets.minkunet import NetConfig
from densescan.sparse.backends.table import NeighbourTable, padding, table_of
from densescan.sparse.backends.triton import Blocks, convolve, forward_blocks
from densescan.sparse.epilogue import Epilogue
from densescan.sparse.rows import RowScale
from densescan.training.record import environment, write_json

CUTS = [
    Blocks(*cut)
    for cut in (
        (128, 128, 64, 4, 3), (128, 128, 64, 4, 4), (128, 128, 64, 8, 3), (128, 128, 64, 8, 4), (128, 128, 32, 4, 4),
        (64, 128, 64, 4, 3), (64, 128, 64, 4, 4), (64, 128, 32, 4, 5), (128, 256, 64, 8, 3), (128, 256, 64, 8, 4),
        (64, 256, 64, 8, 3), (64, 256, 64, 4, 3), (256, 128, 64, 8, 3), (256, 128, 64, 8, 4), (128, 64, 64, 4, 3),
        (128, 64, 64, 4, 4), (64, 64, 64, 4, 4), (128, 64, 32, 4, 4), (128, 32, 32, 4, 3), (128, 32, 32, 4, 4),
        (64, 32, 32, 4, 4), (256, 32, 32, 8, 4),
    )
]  # fmt: skip
CONDITION, LAUNCHES, FEW_ROWS = 5000, 6, 600


@dataclass(frozen=True)
class Options:
    """What to measure."""

    scan: Path = EXAMPLE
    """Scan whose maps are used."""
    points: int = 180_000
    """Points of the scene before refinement."""
    noise: tuple[float, ...] = (0.985, 0.35, 0.1)
    """Standard deviations of the noise [m]."""
    copies: int = 2
    """Of the features, side by side: two are the branches of guidance, one is a step without it."""
    compilers: int = 14
    """Processes that compile."""
    record: Path | None = None
    """Write everything to this JSON file."""


def cuts_for(conv: Conv) -> Iterator[Blocks]:
    """Cuts that neither leave most of a block empty nor read the input more than three times."""
    for cut in CUTS:
        fits = cut.c_out < 2 * conv.c_out and cut.c_in < 2 * conv.c_in
        if fits and 3 * cut.c_out >= conv.c_out and (conv.c_out > 32 or cut.c_out == 32):
            yield cut


def case_of(conv: Conv, table: NeighbourTable, copies: int) -> Callable[[Blocks | None], Tensor]:
    """The convolution as the network has it: blocks -> output."""
    offsets = 27 if conv.kind == "3x3x3" else 8

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, device="cuda").bfloat16()

    feats, kernel = draw(table.n_in, copies, conv.c_in), draw(offsets, conv.c_in, conv.c_out) / 30
    second = conv.kind == "3x3x3" and conv.c_in == conv.c_out  # of a residual block
    residual = draw(table.n_out, copies, conv.c_out) if second else None
    epilogue = Epilogue(shift=draw(conv.c_out), residual=residual, relu=True)
    scale = None
    if conv.kind != "3x3x3":
        rows = torch.randint(0, CONDITION, (table.n_in, copies), device="cuda")
        scale = RowScale(draw(CONDITION, conv.c_in), rows)
    return lambda blocks: convolve(feats, kernel, table, epilogue, scale, blocks)


def compile_one(job: tuple[Conv, Blocks, int]) -> None:
    """Leave the kernel in Triton's cache."""
    conv, blocks, copies = job
    rows = torch.randint(-1, FEW_ROWS, (27 if conv.kind == "3x3x3" else 8, FEW_ROWS), dtype=torch.int32)
    case_of(conv, NeighbourTable.of_rows(rows.cuda(), FEW_ROWS), copies)(blocks)


def device_seconds(run: Callable[[], object]) -> float:
    """Of one launch, by the GPU's clock: the second fastest of four replays of several."""
    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(LAUNCHES):
            run()
    seconds = []
    for _ in range(4):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        seconds.append(begin.elapsed_time(end) / 1000.0 / LAUNCHES)
    return sorted(seconds)[1]


def measure(conv: Conv, times: int, table: NeighbourTable, copies: int) -> dict[str, Any]:
    """Seconds of all cuts, those of the one that is used first."""
    run = case_of(conv, table, copies)
    kernel = torch.empty(1, conv.c_in, conv.c_out, dtype=torch.bfloat16)
    used = forward_blocks(kernel, copies * table.n_out)
    seconds = {blocks: device_seconds(lambda b=blocks: run(b)) for blocks in (used, *cuts_for(conv))}
    pairs = int((table.rows >= 0).sum())
    return {
        "conv": asdict(conv),
        "times": times,
        "rows": table.n_out,
        "pairs": pairs,
        "padding": padding(table, used.rows // copies),
        "flop": 2.0 * copies * pairs * conv.c_in * conv.c_out,
        "seconds": [{**asdict(blocks), "seconds": s} for blocks, s in seconds.items()],
    }


def line(sigma: float, row: dict[str, Any]) -> str:
    """The used cut, and the fastest three."""
    conv, (used, *_) = Conv(**row["conv"]), row["seconds"]

    def text(cut: dict[str, Any]) -> str:
        blocks = "x".join(str(cut[name]) for name in ("rows", "c_out", "c_in"))
        return f"{blocks}, {cut['warps']} warps, {cut['stages']} stages {1e3 * cut['seconds']:.3f} ms"

    best = sorted(row["seconds"], key=lambda cut: cut["seconds"])[:3]
    rate = row["flop"] / used["seconds"] / 1e12
    return (
        f"{sigma:g} m, stride {1 << conv.level}, {conv.name} ({row['times']} times), {row['rows']:,} rows, padding "
        f"{row['padding']:.2f}: used {text(used)}, {rate:.0f} TFLOP/s; fastest {'; '.join(map(text, best))}"
    )


def main(options: Options) -> None:
    """Compile, measure, print, record."""
    scan = read_reduced(options.scan, options.points // REPEAT)
    with torch.device("meta"):
        every = convolutions_of(Denoiser(NetConfig()))
    convs = {conv: n for conv, n in every.items() if conv.kind != "1x1x1" and conv.c_in > 3}
    jobs = [(conv, cut, options.copies) for conv in convs for cut in cuts_for(conv)]
    with ProcessPoolExecutor(options.compilers, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(compile_one, jobs, chunksize=4))
    found: dict[str, list[dict[str, Any]]] = {}
    for sigma in options.noise:
        maps = maps_of(noisy_scene(scan, sigma, NetConfig().voxel_size, 0, "cuda"))
        rows = found.setdefault(f"{sigma:g}", [])
        for conv, times in sorted(
            convs.items(), key=lambda item: (item[0].level, item[0].kind, item[0].c_in)
        ):
            kernel_map = maps[conv.kind, conv.level]
            assert kernel_map is not None
            rows.append(measure(conv, times, table_of(kernel_map), options.copies))
            print(line(sigma, rows[-1]), flush=True)
        used, best = (
            sum(row["times"] * choose([cut["seconds"] for cut in row["seconds"]]) for row in rows)
            for choose in (lambda seconds: seconds[0], min)
        )
        print(
            f"{sigma:g} m, all convolutions of a step: used {1e3 * used:.2f} ms, fastest {1e3 * best:.2f} ms"
        )
    if options.record is not None:
        settings: dict[str, Any] = asdict(options) | {"scan": options.scan.name, "record": None}
        device = torch.cuda.get_device_name()
        write_json(
            options.record,
            {"environment": environment(), "options": settings, "device": device, "noise": found},
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
