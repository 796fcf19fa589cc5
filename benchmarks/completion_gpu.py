"""Seconds a stage, memory and points a second of completions on a GPU, and where the time goes.

    python benchmarks/completion_gpu.py --record benchmarks/results/completion-gpu.json

The scene of `completion.py`: networks of the released form at full width with random weights, steered, so that the
points settle as a trained network lets them. Each way of sampling is run several times after two runs that do not
count; the median counts. The scene of the Triton kernels is compared with that of plain PyTorch on the same GPU, as
clouds, beside the distance between two seeds: a rounding error that carries a point across a voxel's face moves its
neighbourhood.
"""

import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from kernels import read_reduced
from random_networks import REPEAT, SteeredDenoiser, random_networks
from runs import EXAMPLE
from torch import Tensor

from densescan.completer import Completer
from densescan.completion import Completion, CompletionConfig
from densescan.data.io import read_scan
from densescan.diffusion import Schedule
from densescan.metrics.chamfer import chamfer_distance
from densescan.nets.encoder import Condition
from densescan.nets.networks import Networks
from densescan.sparse.backends import using
from densescan.training.record import environment, write_json

WAYS: dict[str, dict[str, Any]] = {
    "8 steps, guided, refined": {},
    "8 steps, refined": {"guidance_scale": 1.0},
    "1 step, guided, refined": {"steps": 1},
    "1 step, refined": {"steps": 1, "guidance_scale": 1.0},
}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    scan: Path = EXAMPLE
    """Scan to complete."""
    points: int = 180_000
    """Points of the scene before refinement."""
    width: float = 1.0
    """Factor on the released channel counts."""
    repeats: int = 5
    """Runs of each way; the median counts."""
    float32: bool = True
    """Also in float32 (TF32 products as PyTorch is set)."""
    compare: bool = True
    """Compare scenes with those of plain PyTorch and of another seed."""
    profile: bool = False
    """Print the operations that take most of the time; to gather them takes most of a minute."""
    device: str = "cuda"
    """`cuda`, or `cpu` to try the script out."""
    record: Path | None = None
    """Write everything to this JSON file."""


class _Steered(SteeredDenoiser):
    """A steered denoiser that does not wait for the device to tell the noise level."""

    def _noise(self, x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:  # type: ignore[override]
        if not hasattr(self, "sigma_t"):
            self.sigma_t = Schedule().sigma_t.to(x_t)
        x_init = cond.scan.repeat(1, x_t.shape[1] // cond.scan.shape[1], 1)
        return (x_t - x_init) / self.sigma_t[t]


def completer_of(options: Options) -> Completer:
    """Full-width networks, calibrated and steered, on the device."""
    scan = read_reduced(options.scan, options.points // REPEAT).to(options.device)
    random = random_networks(options.width, 0, scan)
    assert random.denoiser is not None
    denoiser = _Steered(random.denoiser.config)
    denoiser.load_state_dict(random.denoiser.state_dict())
    networks = Networks(random.encoder, denoiser, random.refiner).eval()
    return Completer(networks, CompletionConfig(options.points // REPEAT, REPEAT), options.device)


def measure(completer: Completer, options: Options, **changes: Any) -> tuple[dict[str, Any], Completion]:
    """Median seconds of each stage and of all, peak memory [MiB] and refined points a second."""
    scan = read_scan(options.scan)
    on_gpu = completer.device.type == "cuda"
    for _ in range(2):
        completer(scan, **changes)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    runs, walls = [], []
    for _ in range(options.repeats):
        began = time.perf_counter()
        runs.append(completer(scan, **changes))
        walls.append(time.perf_counter() - began)
    totals = [sum(run.seconds.values()) for run in runs]
    middle = runs[totals.index(statistics.median_low(totals))]
    total = sum(middle.seconds.values())
    row = {
        "seconds": middle.seconds,
        "total": total,
        "fastest": min(totals),
        "slowest": max(totals),
        "with transfer": statistics.median(walls),
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None,
        "points_a_second": len(middle.points) / total,
    }
    return row, middle


def profile(completer: Completer, options: Options, **changes: Any) -> str:
    """The operations that take most time, on the GPU and on the processor."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    scan = read_scan(options.scan)
    with profiler(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        completer(scan, **changes)
    averages = found.key_averages()
    tables = [
        averages.table(sort_by=key, row_limit=22, max_name_column_width=48)
        for key in ("self_cuda_time_total", "self_cpu_time_total")
    ]
    return "\n".join(tables)


def main(options: Options) -> None:
    """Measure, compare, print, record."""
    completer = completer_of(options)
    rows: dict[str, Any] = {}
    scenes: dict[str, Completion] = {}
    types = {"bfloat16": {"bfloat16": True}} | ({"float32": {"bfloat16": False}} if options.float32 else {})
    for type_name, type_change in types.items():
        for way, changes in WAYS.items():
            name = f"{way}, {type_name}"
            rows[name], scenes[name] = measure(completer, options, **type_change, **changes)
            stages = ", ".join(f"{stage} {1e3 * s:.1f}" for stage, s in rows[name]["seconds"].items())
            memory = rows[name]["peak_mib"] or 0
            print(f"{name}: {1e3 * rows[name]['total']:.1f} ms ({stages}); {memory:.0f} MiB", flush=True)
    if options.profile:
        print(profile(completer, options, bfloat16=True))
    apart: dict[str, float] = {}
    if options.compare:
        scan, way = read_scan(options.scan), next(iter(WAYS))
        for type_name, change in types.items():
            ours = scenes[f"{way}, {type_name}"].points
            with using("torch"):
                plain = completer(scan, **change).points
            apart[f"{type_name}, plain PyTorch"] = chamfer_distance(ours, plain, workers=-1).cd
        ours = scenes[f"{way}, bfloat16"].points
        apart["bfloat16, another seed"] = chamfer_distance(
            ours, completer(scan, seed=1, bfloat16=True).points, workers=-1
        ).cd
        for name, distance in apart.items():
            print(f"Chamfer distance, {name}: {distance:.4f} m", flush=True)
    if options.record is not None:
        settings: dict[str, Any] = asdict(options) | {"scan": options.scan.name, "record": None}
        device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
        content = {"device": device, "rows": rows, "apart": apart}
        write_json(options.record, {"environment": environment(), "options": settings, **content})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
