"""One run of each pipeline, in a process of its own: what `completion` measures."""

import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.plain import PlainPipeline
from benchmarks.shares import time_shares
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from densescan.completer import Completer, CompletionConfig
from densescan.data.io import read_scan
from densescan.data.simulator import simulate_frame
from densescan.diffusion import Schedule, gaussian, noise_scene
from densescan.errors import InputError
from densescan.geometry.crop import within_range
from densescan.geometry.sampling import farthest_point_sampling
from densescan.nets.blocks import ResidualBlock
from densescan.nets.denoiser import Denoiser
from densescan.nets.encoder import Condition, ConditionEncoder
from densescan.nets.minkunet import NetConfig
from densescan.nets.networks import Networks
from densescan.nets.refiner import Refiner
from densescan.weights.official import from_state_dict

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "src" / "densescan" / "data" / "examples" / "street.bin"
REPEAT = 10  # scene points for each scan point, as released

# What keeps random networks tame:
CALIBRATION_STEPS = (999, 500, 125)
"""Steps whose noise the denoiser's batch norm is calibrated on: the less noise, the more neighbours has a voxel."""
SETTLED = 0.1
"""How far the points of a finished scene lie from the scan [m]; the refiner is calibrated on such a one."""
RESIDUAL_GAIN = 0.3
"""Last norm weight of residual blocks: at 1, what differs from the calibration grows from block to block."""
HEAD_GAIN = 0.3
"""Factor on the last layer: predictions become small errors, see `true_noise`, and small moves of refined points."""


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
    """Runs of each pipeline; the fastest counts."""
    threads: int = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    """Processor cores, and threads, that a pipeline may use."""
    skip_plain: bool = False
    """Measure ours alone."""
    plain_steps: int | None = None
    """Take so many of the steps, evenly spread, by the plain network and the rest by ours; the seconds of the rest are
    interpolated between those measured, and the table says so."""
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


def random_networks(width: float, seed: int, scan: Float[Tensor, "N 3"]) -> Networks:
    """Networks of the released form with random weights, tame at every noise level.

    scan: the reduced scan [m]; batch norm is calibrated on it, repeated and noised as in sampling.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config, schedule = NetConfig(width=width), Schedule()
        networks = Networks(ConditionEncoder(config), Denoiser(config), Refiner(config))
        for net in networks.present().values():
            net.train().apply(_prepare_for_calibration)
        x_init = scan.repeat(REPEAT, 1)[None]
        with torch.no_grad():
            cond = networks.encoder(scan[None])
            for t in CALIBRATION_STEPS:
                x_t = noise_scene(x_init, float(schedule.sigma_t[t]), torch.randn_like(x_init))
                networks.denoiser(x_t, torch.tensor([t]), cond)
            networks.refiner(noise_scene(x_init, SETTLED, torch.randn_like(x_init)))
            for net in (networks.denoiser, networks.refiner):
                net.last[2].weight.mul_(HEAD_GAIN)
                net.last[2].bias.mul_(HEAD_GAIN)
    return networks.eval()


def _prepare_for_calibration(module: nn.Module) -> None:
    if isinstance(module, nn.BatchNorm1d):
        module.momentum = None  # the running statistics become the mean over all passes
    if isinstance(module, ResidualBlock):
        nn.init.constant_(module.net[-1].bn.weight, RESIDUAL_GAIN)


def true_noise(
    x_t: Float[Tensor, "*shape"], x_init: Float[Tensor, "*shape"], t: int
) -> Float[Tensor, "*shape"]:
    """The noise that a perfect network would find: all that parts the points from the scan, in standard deviations.

    Both pipelines add it to their small random predictions. Random predictions alone would scatter the points over many
    metres, where voxels have no neighbours and little is left to compute, let alone to refine.
    """
    return (x_t - x_init) / Schedule().sigma_t[t]


class SteeredDenoiser(Denoiser):
    """A denoiser whose own output is the error that it makes beside the true noise."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
        """As `Denoiser`."""
        return super().forward(x_t, t, cond) + self._noise(x_t, t, cond)

    def guided(self, x_t: Tensor, t: Tensor, cond: Condition, uncond: Condition, scale: float) -> Tensor:
        """As `Denoiser`."""
        return super().guided(x_t, t, cond, uncond, scale) + self._noise(x_t, t, cond)

    @staticmethod
    def _noise(x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
        return true_noise(x_t, cond.scan.repeat(1, x_t.shape[1] // cond.scan.shape[1], 1), int(t))


def steered(tensors: dict[str, Tensor]) -> Networks:
    """The networks of a state dict with a steered denoiser."""
    networks = from_state_dict(tensors)
    denoiser = SteeredDenoiser(networks.denoiser.config)
    denoiser.load_state_dict(networks.denoiser.state_dict())
    return Networks(networks.encoder, denoiser, networks.refiner).eval()


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


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call in a fresh Python."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


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


def run_ours(options: Options, folder: Path) -> Run:
    """Complete with `Completer`."""
    _limit(options.threads)
    completer = Completer(steered(load_file(folder / "weights.safetensors")), options.completion)
    scan = np.load(folder / "scan.npz")["scan"]
    runs = [completer(scan, seed=options.seed) for _ in range(options.repeats)]
    best = min(runs, key=lambda run: sum(run.seconds.values()))
    return Run(best.seconds, _megabytes(), best.points, best.coarse)


def shares_of_ours(options: Options, folder: Path) -> dict[str, float]:
    """Seconds of `Completer` by kind of work."""
    _limit(options.threads)
    completer = Completer(steered(load_file(folder / "weights.safetensors")), options.completion)
    scan = np.load(folder / "scan.npz")["scan"]
    return time_shares(lambda: completer(scan, seed=options.seed))


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
    _, seconds, result = min(runs, key=lambda run: run[0])
    same = int((result.chosen == inputs["order"]).sum())
    note = f"Farthest point sampling: {same:,} of {len(result.chosen):,} selections are the same."
    if plain_steps < options.steps:
        taken = ", ".join(str(i + 1) for i in predict.chosen)
        note += f" EXTRAPOLATED: plain seconds were measured at step {taken} of {options.steps}, else interpolated."
    return Run(seconds, _megabytes(), result.points, result.coarse, note)
