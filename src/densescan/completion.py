"""What a completion is asked for, and what it gives."""

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from densescan.data.io import write_points
from densescan.data.scan import Scan
from densescan.diffusion import dpm_solver_pp
from densescan.diffusion.samplers import Sampler, consistent, ddim, ddpm, renoise
from densescan.errors import InputError

SamplerName = Literal["sde-dpm-solver++", "dpm-solver++", "ddpm", "ddim", "consistent", "renoise"]
LastStep = Literal["diffusers-0.18", "diffusers-new"]
_Mark = float | torch.cuda.Event
FAR, MOST_FAR = 10.0, 0.02
"""How far a sampled point may lie from where it was noised [m], and the share that may lie farther without a word."""
MIN_POINTS = 2  # fewer have no spread, which the post-processing needs


@dataclass(frozen=True)
class CompletionConfig:
    """How a scan is completed. The defaults are those of the released few-step students."""

    scan_points: int = 18_000
    """N: the scan is reduced to this many points by farthest point sampling; a smaller one is used whole."""
    repeat: int = 10
    """K: each point is repeated so many times, so that the scene has N K points before refinement."""
    steps: int = 8
    """Sampling steps: 50 for a teacher, 8 to 1 for a student."""
    guidance_scale: float = 3.5
    """Classifier-free guidance; 1 asks the network once a step instead of twice."""
    sampler: SamplerName = "sde-dpm-solver++"
    """Sampling algorithm; `consistent` is the one that agrees with the noising of Eq. 1."""
    eta: float = 0.0
    """Share of fresh noise a step, in [0, 1], of the samplers `ddim`, `consistent` and `renoise`."""
    last_step: LastStep = "diffusers-0.18"
    """Where the DPM solvers end: at the noise of t = 0, as released, or without noise."""
    lam: float = 1.0
    """Noise at the start of sampling [m] (Eq. 19)."""
    min_range: float = 3.5
    """Points of the scan nearer to the sensor are dropped: the car itself [m]."""
    max_range: float = 50.0
    """Points farther from the sensor are dropped, before and after sampling [m]."""
    voxel_size: float | None = None
    """Edge of the networks' voxels [m]; None: what they were trained with."""
    refine: bool = True
    """Let the refiner, if there is one, multiply the points by six."""
    bfloat16: bool = False
    """Multiply matrices in bfloat16 where the hardware does, about twice as fast, not bit-equal to float32; elsewhere
    the scene is computed, and its `config` says so, in float32."""
    int8: bool = False
    """Multiply convolutions with many pairs in whole numbers of 8 bits where the processor does: at full width in a
    quarter less time than in bfloat16, nearly as exact. Elsewhere, as on every GPU, they are like the rest, and
    `config` says so."""

    def __post_init__(self) -> None:
        for name, least in (("scan_points", MIN_POINTS), ("repeat", 1), ("steps", 1)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}, got {value}")
        for name in ("guidance_scale", "eta", "lam", "min_range", "max_range"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not math.isfinite(value):
                raise InputError(f"{name} must be a finite number, got {value}")
        if self.voxel_size is not None and not 0 < self.voxel_size < math.inf:
            raise InputError(f"voxel_size must be positive, got {self.voxel_size} m; the releases use 0.05")
        if not 0 <= self.eta <= 1:
            raise InputError(f"eta must lie in [0, 1], got {self.eta}; 0 is deterministic")
        if self.lam < 0:
            raise InputError(f"lam must be a noise scale of at least 0 m, got {self.lam}; usual is 1")
        if not 0 <= self.min_range < self.max_range:
            got = f"{self.min_range} to {self.max_range} m"
            raise InputError(f"expected 0 <= min_range < max_range, got {got}; usual is 3.5 to 50 m")
        for name, known in (("sampler", get_args(SamplerName)), ("last_step", get_args(LastStep))):
            if getattr(self, name) not in known:
                raise InputError(f"unknown {name} {getattr(self, name)!r}; known are {', '.join(known)}")

    def changed(self, **changes: Any) -> "CompletionConfig":
        """A copy with other values of some parameters.

        Raises: InputError: an unknown parameter, or a bad value of one.
        """
        try:
            return replace(self, **changes)
        except TypeError as error:
            known = ", ".join(CompletionConfig.__dataclass_fields__)
            raise InputError(
                f"unknown parameter of a completion in {sorted(changes)}; known are {known}"
            ) from error


@dataclass(frozen=True)
class Completion:
    """A dense scene and how it came about."""

    points: Float32[np.ndarray, "L 3"]
    """The scene [m], sensor frame: refined where there is a refiner, otherwise equal to `coarse`."""
    coarse: Float32[np.ndarray, "M 3"]
    """The scene before refinement [m], sensor frame."""
    scan: Scan
    """The scan as it was given."""
    seconds: dict[str, float]
    """Wall-clock time of each stage; their sum is the whole, but in a stream, where scans overlap."""
    seed: int
    """Seed of the noise."""
    config: CompletionConfig
    """All parameters used."""

    def save(self, path: str | Path) -> None:
        """Write the scene; the ending of the file's name chooses the format: .ply, .pcd, .bin or .npy.

        Raises: InputError: unknown ending, or a place that cannot be written.
        """
        write_points(path, self.points)


class StageClock:
    """Seconds of each stage. On a GPU they are those that pass there, from the first of a stage's launches to the last:
    the host waits for none of them and launches the next stage meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stages: dict[str, tuple[_Mark, _Mark]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = self._mark()
        yield
        self._stages[name] = began, self._mark()

    @property
    def seconds(self) -> dict[str, float]:
        """Of every stage that is over; waits for the device."""
        return {name: _seconds_between(*marks) for name, marks in self._stages.items()}

    def _mark(self) -> _Mark:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


def _seconds_between(began: _Mark, ended: _Mark) -> float:
    if isinstance(began, float) and isinstance(ended, float):
        return ended - began
    assert not isinstance(began, float)
    assert not isinstance(ended, float)
    ended.synchronize()
    return began.elapsed_time(ended) / 1e3


def sampler_of(config: CompletionConfig) -> Sampler:
    """The algorithm of that name with the keywords of its own that the configuration sets."""
    samplers: dict[SamplerName, Sampler] = {
        "sde-dpm-solver++": partial(dpm_solver_pp, last_step=config.last_step),
        "dpm-solver++": partial(dpm_solver_pp, last_step=config.last_step),  # called without noise
        "ddpm": ddpm,
        "ddim": partial(ddim, eta=config.eta),
        "consistent": partial(consistent, eta=config.eta),
        "renoise": partial(renoise, churn=config.eta),
    }
    return samplers[config.sampler]


def check_enough(points: Tensor, scan: Scan, config: CompletionConfig) -> None:
    """Raises: InputError: fewer points of a scan lie within range than a completion needs."""
    if len(points) < MIN_POINTS:
        raise InputError(
            f"{scan.path or 'the scan'}: {len(points)} of {len(scan.points)} points lie between "
            f"{config.min_range:g} and {config.max_range:g} m from the sensor, at least {MIN_POINTS} are needed; "
            "check that the scan is in metres and in the sensor's frame, or widen the range"
        )


def share_of_strays(x_0: Tensor, x_init: Tensor) -> Float[Tensor, ""]:
    """Points start a metre from the scan, more or less: the share of those that end far from it."""
    far = ~((x_0 - x_init).square().sum(1) < FAR**2)  # NaN is far
    return far.float().mean()


def warn_of_strays(share: float, scan: Scan) -> None:
    """Where many points end far from the scan, their predictions ran away."""
    if share > MOST_FAR:
        warnings.warn(
            f"{scan.path or 'the scan'}: {share:.0%} of the sampled points were carried off by more than {FAR:g} m; "
            "these weights do not suit the scan or the parameters",
            stacklevel=6,
        )


def check_not_empty(coarse: Tensor, scan: Scan) -> None:
    """Raises: InputError: no point of a sampled scene is left."""
    if not len(coarse):
        raise InputError(
            f"{scan.path or 'the scan'}: no point of the sampled scene is finite and within range and height of the "
            "scan; these weights do not suit the scan or the parameters: try the model's own steps, lam and sampler"
        )


def to_numpy(points: Float[Tensor, "M 3"]) -> Float32[np.ndarray, "M 3"]:
    """From a GPU by way of memory that it copies to fast; there is little of that, so that it is not given away."""
    if points.device.type != "cuda":
        return points.cpu().numpy()
    staged = torch.empty(points.shape, dtype=points.dtype, pin_memory=True)
    return staged.copy_(points).numpy().copy()
