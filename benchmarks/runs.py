"""One run of each pipeline, in a process of its own: what `completion` measures."""

import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from load import Load, measure_load
from plain import PlainPipeline
from random_networks import REPEAT, random_networks, steered, true_noise
from safetensors.torch import load_file, save_file
from shares import time_shares
from torch import Tensor

from densescan.completer import Completer
from densescan.completion import Completion, CompletionConfig
from densescan.data.io import read_scan
from densescan.data.simulator import simulate_frame
from densescan.diffusion import Schedule, gaussian, noise_scene
from densescan.errors import InputError
from densescan.geometry.crop import within_range
from densescan.geometry.sampling import farthest_point_sampling
from densescan.sparse.int8 import multiplies_int8
from densescan.weights.official import from_state_dict

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "src" / "densescan" / "data" / "examples" / "street.bin"


@dataclass(frozen=True)
class Options:
    """What to measure."""

    scan: Path | None = None
    """Scan to complete; the bundled example if none is given."""
    points: int = 18_000
    """Points of the scene before refinement; the releases use 180,000."""
    steps: int = 8
    """Sampling steps."""
    guidance: float = 3.5
    """Guidance scale; at 1 ours asks the network once a step, the plain pipeline still twice."""
    width: float = 1.0
    """Factor on the released channel counts."""
    refine: bool = True
    """Refine the scene."""
    repeats: int = 1
    """Runs of each pipeline; the median counts."""
    threads: int = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    """Processor cores, and threads, that a pipeline may use."""
    skip_plain: bool = False
    """Measure ours alone."""
    plain_steps: int | None = None
    """Take so many of the steps, evenly spread, by the plain network and the rest by ours; the seconds of the rest are
    interpolated between those measured, and the table says so."""
    bfloat16: bool = torch.cpu._is_avx512_bf16_supported()
    """Measure ours in bfloat16, too; by default where the processor multiplies it."""
    int8: bool = multiplies_int8(torch.device("cpu"))
    """And ours with convolutions in whole numbers of 8 bits, the rest in bfloat16 where that is measured."""
    shares: bool = True
    """One more run of ours to see where its time goes."""
    seed: int = 0
    """Of the weights and of the noise."""
    record: bool = False
    """Write everything to benchmarks/results/completion-POINTS.json."""

    def __post_init__(self) -> None:
        if self.points < REPEAT or self.points % REPEAT:
            raise InputError(f"points must be a multiple of {REPEAT}, got {self.points}")
        if self.plain_steps is not None and not 1 <= self.plain_steps <= self.steps:
            raise InputError(f"plain_steps must lie in [1, {self.steps}], got {self.plain_steps}")
        if self.repeats < 1 or self.threads < 1:
            raise InputError(f"repeats and threads must be at least 1, got {self.repeats} and {self.threads}")

    @property
    def kinds(self) -> dict[str, dict[str, bool]]:
        """What changes from ours in float32, by name."""
        kinds = {"float32": {}} | ({"bfloat16": {"bfloat16": True}} if self.bfloat16 else {})
        return kinds | ({"int8": {"bfloat16": self.bfloat16, "int8": True}} if self.int8 else {})

    @property
    def completion(self) -> CompletionConfig:
        """The same as the completer's configuration."""
        return CompletionConfig(self.points // REPEAT, REPEAT, self.steps, self.guidance, refine=self.refine)


@dataclass(frozen=True)
class Run:
    """One pipeline's result."""

    seconds: dict[str, float]
    """Wall clock of each stage."""
    megabytes: float
    """Largest resident memory of the process, libraries and weights included."""
    points: np.ndarray
    """The scene [m], (L, 3)."""
    coarse: np.ndarray
    """The scene before refinement [m], (M, 3)."""
    note: str = ""
    """What a reader of the seconds must know."""

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())


class PlainPredictor:
    """The plain network at some of the steps and ours at the rest, steered; it keeps the seconds of the plain ones."""

    def __init__(
        self, pipeline: PlainPipeline, tensors: dict[str, Tensor], steps: int, plain_steps: int
    ) -> None:
        self.pipeline, self.steps = pipeline, steps
        self.fast = steered(tensors) if plain_steps < steps else None
        self.chosen = np.linspace(0, steps - 1, plain_steps).round().astype(int).tolist()
        self.step = 0
        self.measured: dict[str, list[float]] = {"encode": [], "denoise": []}

    def __call__(self, x_t: Tensor, t: int, x_init: Tensor, scale: float) -> Tensor:
        i, self.step = self.step, self.step + 1
        if i not in self.chosen:
            cond, uncond = (
                self.fast.encoder(x_init[None, : len(x_init) // REPEAT]),
                self.fast.encoder.unconditional(),
            )
            return self.fast.denoiser.guided(x_t[None], torch.tensor([t]), cond, uncond, scale)[0]
        encoded, began = self.pipeline.seconds.get("encode", 0.0), time.perf_counter()
        eps_hat = self.pipeline.predict(x_t, t, x_init, scale) + true_noise(x_t, x_init, t)
        elapsed, encoded = time.perf_counter() - began, self.pipeline.seconds["encode"] - encoded
        self.measured["encode"].append(encoded)
        self.measured["denoise"].append(elapsed - encoded)
        return eps_hat

    def seconds(self) -> dict[str, float]:
        """Of the network at all steps: those measured, and straight lines between them."""
        every = np.arange(self.steps)
        return {name: float(np.interp(every, self.chosen, s).sum()) for name, s in self.measured.items()}


def in_own_process(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """The result of a call in a fresh Python."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **keywords).result()


def _limit(threads: int) -> None:
    """Keep this process, and libraries that take every core they see, to so many cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)


def _megabytes() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def prepare(options: Options, folder: Path) -> str:
    """Write scan, order of selection and weights for the other processes. Returns what the scan is."""
    _limit(options.threads)
    path = options.scan or (EXAMPLE if EXAMPLE.is_file() else None)
    scan = read_scan(path).points if path else simulate_frame(0).scan
    config = options.completion
    points = torch.from_numpy(scan)
    points = points[within_range(points, config.min_range, config.max_range)]
    if len(points) < config.scan_points:
        raise InputError(
            f"{options.points} scene points need {config.scan_points} scan points within range, got {len(points)}"
        )
    order = farthest_point_sampling(points, config.scan_points)
    networks = random_networks(options.width, options.seed, points[order])
    save_file(networks.state_dict(), folder / "weights.safetensors")
    np.savez(folder / "scan.npz", scan=scan, order=order.numpy())
    return f"{path.name if path else 'simulated frame 0'}, {len(scan):,} points"


def _ours(options: Options, folder: Path, **changes: Any) -> Callable[..., Completion]:
    """A call that completes the scan with `Completer`; changes: of its configuration, or another seed."""
    _limit(options.threads)
    completer = Completer(steered(load_file(folder / "weights.safetensors")), options.completion)
    scan = np.load(folder / "scan.npz")["scan"]
    return partial(completer, scan, **{"seed": options.seed, **changes})


def run_ours(options: Options, folder: Path, **changes: Any) -> Run:
    """Complete with `Completer`, after one step that fuses the networks and does not count."""
    complete = _ours(options, folder, **changes)
    complete(steps=1)
    runs = [complete() for _ in range(options.repeats)]
    median = sorted(runs, key=lambda run: sum(run.seconds.values()))[len(runs) // 2]
    return Run(median.seconds, _megabytes(), median.points, median.coarse)


def scene_of_ours(options: Options, folder: Path, **changes: Any) -> np.ndarray:
    """The scene [m], (L, 3)."""
    return _ours(options, folder, **changes)().points


def shares_of_ours(options: Options, folder: Path) -> dict[str, float]:
    """Seconds of `Completer` by kind of work."""
    return time_shares(_ours(options, folder))


def load_of_ours(options: Options, folder: Path, kind: str) -> Load:
    """What the convolutions of `Completer` in a type compute, in what time, and what the processor could do."""
    complete = _ours(options, folder, **options.kinds[kind])
    complete(steps=1)
    return measure_load(complete, getattr(torch, kind))


def run_plain(options: Options, folder: Path) -> Run:
    """Complete with `PlainPipeline`."""
    _limit(options.threads)
    tensors = load_file(folder / "weights.safetensors")
    pipeline, inputs = PlainPipeline(tensors), np.load(folder / "scan.npz")
    plain_steps = options.plain_steps or options.steps
    runs = []
    for _ in range(options.repeats):
        predict = PlainPredictor(pipeline, tensors, options.steps, plain_steps)
        noise = gaussian(torch.Generator().manual_seed(options.seed))
        result = pipeline(inputs["scan"], options.completion, noise, inputs["order"], predict)
        seconds = result.seconds | (predict.seconds() if plain_steps < options.steps else {})
        runs.append((sum(seconds.values()), seconds, result))
    _, seconds, result = sorted(runs, key=lambda run: run[0])[len(runs) // 2]
    same = int((result.chosen == inputs["order"]).sum())
    note = f"Farthest point sampling: {same:,} of {len(result.chosen):,} selections are the same."
    if plain_steps < options.steps:
        taken = ", ".join(str(i + 1) for i in predict.chosen)
        note += f" EXTRAPOLATED: plain seconds were measured at step {taken} of {options.steps}, else interpolated."
    return Run(seconds, _megabytes(), result.points, result.coarse, note)


def compare_predictions(options: Options, folder: Path) -> dict[str, float]:
    """How far the two networks' guided predictions for the same points lie apart, at t = T - 1 [std of eps]."""
    _limit(options.threads)
    tensors, inputs, t = (
        load_file(folder / "weights.safetensors"),
        np.load(folder / "scan.npz"),
        Schedule().T - 1,
    )
    config, networks = options.completion, from_state_dict(tensors)
    points = torch.from_numpy(inputs["scan"])
    points = points[within_range(points, config.min_range, config.max_range)][
        torch.from_numpy(inputs["order"])
    ]
    x_init = points.repeat(REPEAT, 1)
    x_t = noise_scene(x_init, config.lam, gaussian(torch.Generator().manual_seed(options.seed))(x_init))
    with torch.inference_mode():
        plain = PlainPipeline(tensors).predict(x_t, t, x_init, config.guidance_scale)
        cond, uncond = networks.encoder(points[None]), networks.encoder.unconditional()
        ours = networks.denoiser.guided(x_t[None], torch.tensor([t]), cond, uncond, config.guidance_scale)[0]
    apart = (ours - plain).norm(dim=1)
    return {"median": float(apart.median()), "largest": float(apart.max())}
