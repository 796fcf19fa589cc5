"""From one sparse scan to a dense scene."""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from densescan.diffusion import Schedule, dpm_solver_pp, gaussian, noise_scene
from densescan.diffusion.samplers import EpsFn, NoiseFn, Sampler, consistent, ddim, ddpm, renoise
from densescan.errors import InputError
from densescan.geometry.crop import clean_scene, within_range
from densescan.geometry.sampling import farthest_point_sampling
from densescan.nets.encoder import Condition
from densescan.nets.fused import fuse
from densescan.nets.networks import Networks

SamplerName = Literal["sde-dpm-solver++", "dpm-solver++", "ddpm", "ddim", "consistent", "renoise"]
LastStep = Literal["diffusers-0.18", "diffusers-new"]
MIN_POINTS = 2  # fewer have no spread, which the post-processing needs

OnStep = Callable[[int, int], None]


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
    """Multiply matrices in bfloat16: faster where the processor has it, not bit-equal to float32."""

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


@dataclass(frozen=True)
class Completion:
    """A dense scene and how it came about."""

    points: Float32[np.ndarray, "L 3"]
    """The scene [m], sensor frame: refined where there is a refiner, otherwise equal to `coarse`."""
    coarse: Float32[np.ndarray, "M 3"]
    """The scene before refinement [m], sensor frame."""
    seconds: dict[str, float]
    """Wall-clock time of each stage; their sum is the whole."""
    seed: int
    """Seed of the noise."""
    config: CompletionConfig
    """All parameters used."""

    def save(self, path: str | Path) -> None:
        """Write the scene; the ending of the file's name chooses the format: .ply, .pcd, .bin or .npy.

        Raises: InputError: unknown ending, or a place that cannot be written.
        """
        write_points(path, self.points)


@dataclass
class _Clock:
    """Seconds per stage."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] = time.perf_counter() - began


class Completer:
    """Completes scans with one set of networks.

    networks: encoder and denoiser, and a refiner if there is one. config: parameters of every completion unless a
    call says otherwise. device: where the networks run. Their weights are taken as they are at the first completion.
    Raises: InputError: no encoder or no denoiser.
    """

    def __init__(
        self,
        networks: Networks,
        config: CompletionConfig | None = None,
        device: str | torch.device = "cpu",
        schedule: Schedule | None = None,
    ) -> None:
        if networks.encoder is None or networks.denoiser is None:
            missing = "encoder" if networks.encoder is None else "denoiser"
            raise InputError(f"a completer needs an encoder and a denoiser; these weights hold no {missing}")
        self.device = torch.device(device)
        self.networks = networks.to(self.device).eval()
        self.config = config or CompletionConfig()
        self.schedule = schedule or Schedule()
        self._fused: dict[torch.dtype, Networks] = {}

    @torch.inference_mode()
    def __call__(
        self, scan: Scan | np.ndarray, *, seed: int = 0, on_step: OnStep | None = None, **changes: Any
    ) -> Completion:
        """Complete a scan. The same scan, seed and parameters give the same scene, whatever was completed before.

        Args: scan: sensor frame, x forward, y left, z up [m]; an array needs x, y, z in its first three columns. seed:
            of the noise. on_step: called after every sampling step with (steps done, steps). changes: fields of
            `CompletionConfig` that differ from this completer's, such as steps=4.
        Raises: InputError: too few points within range, an unknown parameter or a bad value of one, or weights that
            leave no point of the scene.
        """
        scan = scan if isinstance(scan, Scan) else _as_scan(scan)
        config = _changed(self.config, changes)
        self._check(config, seed)
        clock = _Clock(self.device)
        generator = torch.Generator().manual_seed(seed)
        with clock.stage("crop"):  # 1. keep what lies around the car, within range
            points = torch.from_numpy(scan.points)
            points = points[within_range(points, config.min_range, config.max_range)]
            _check_enough(points, scan, config)
        with clock.stage("reduce"):  # 2. an even subset of N points
            points = points[farthest_point_sampling(points, config.scan_points)].to(self.device)
        with clock.stage("encode"):  # 3. the condition, once a scan
            eps_fn = self._eps_fn(points, config)
        with clock.stage("denoise"):  # 4. K noisy copies of each point, denoised
            x_0 = self._denoise(eps_fn, points, config, gaussian(generator), on_step)
        with clock.stage("clean"):  # 5. drop what lies out of range, or above or below the scan
            coarse = x_0[clean_scene(x_0, points.repeat(config.repeat, 1), config.max_range)]
            _check_not_empty(coarse, scan)
        with clock.stage("refine"):  # 6. six points for one, each moved by up to 1 m
            scene = self._refine(coarse, config)
        return Completion(scene.cpu().numpy(), coarse.cpu().numpy(), clock.seconds, seed, config)

    def sample(
        self, points: Float[Tensor, "N 3"], config: CompletionConfig, noise: NoiseFn
    ) -> Float[Tensor, "M 3"]:
        """Stages 3 and 4 alone: the sampled scene of a reduced scan, neither cleaned nor refined [m]; M = N K."""
        return self._denoise(self._eps_fn(points, config), points, config, noise, None)

    def _denoise(
        self,
        eps_fn: EpsFn,
        points: Float[Tensor, "N 3"],
        config: CompletionConfig,
        noise: NoiseFn,
        on_step: OnStep | None,
    ) -> Float[Tensor, "M 3"]:
        x_init = points.repeat(config.repeat, 1)[None]
        x_T = noise_scene(x_init, config.lam, noise(x_init))
        x_0 = sampler_of(config)(
            eps_fn, x_init, x_T, self.schedule, config.steps,
            noise=None if config.sampler == "dpm-solver++" else noise,
            on_step=on_step and (lambda i, _: on_step(i + 1, config.steps)),
        )  # fmt: skip
        return x_0[0]

    def _check(self, config: CompletionConfig, seed: int) -> None:
        if config.steps > self.schedule.T:
            raise InputError(f"steps must be at most {self.schedule.T}, got {config.steps}")
        if not 0 <= seed < 2**63:
            raise InputError(f"seed must lie in [0, 2^63), got {seed}")

    def _for_inference(self, config: CompletionConfig) -> Networks:
        """The networks as they are used: fused, once for each type, with voxels of the size asked for."""
        dtype = torch.bfloat16 if config.bfloat16 else torch.float32
        if dtype not in self._fused:
            self._fused[dtype] = self.networks.map(lambda net: fuse(net, dtype))
        networks = self._fused[dtype]
        return networks if config.voxel_size is None else networks.with_voxel_size(config.voxel_size)

    def _eps_fn(self, points: Float[Tensor, "N 3"], config: CompletionConfig) -> EpsFn:
        networks = self._for_inference(config)
        assert networks.encoder is not None
        assert networks.denoiser is not None
        encoder, denoiser = networks.encoder, networks.denoiser
        cond = encoder(points[None])
        if config.guidance_scale == 1.0:
            return lambda x_t, t: denoiser(x_t, t.reshape(1), cond).float()
        uncond: Condition = encoder.unconditional()
        scale = float(config.guidance_scale)
        return lambda x_t, t: denoiser.guided(x_t, t.reshape(1), cond, uncond, scale).float()

    def _refine(self, coarse: Float[Tensor, "M 3"], config: CompletionConfig) -> Float[Tensor, "L 3"]:
        refiner = self._for_inference(config).refiner
        if refiner is None or not config.refine:
            return coarse
        scene: Tensor = refiner(coarse[None])[0].float()
        return scene


def _as_scan(array: np.ndarray) -> Scan:
    """The first three columns of an array; points that are not finite are dropped with a warning that counts them."""
    array = np.asarray(array)
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise InputError(
            f"expected a scan as an array of numbers (N, 3) or wider, got shape {array.shape} of {array.dtype}"
        )
    finite = np.isfinite(array[:, :3]).all(axis=1)
    if not finite.all():
        dropped = int((~finite).sum())
        warnings.warn(f"dropped {dropped} of {len(array)} points that are not finite", stacklevel=3)
    return Scan(np.ascontiguousarray(array[finite, :3], np.float32))


def _changed(config: CompletionConfig, changes: dict[str, Any]) -> CompletionConfig:
    try:
        return replace(config, **changes)
    except TypeError as error:
        known = ", ".join(CompletionConfig.__dataclass_fields__)
        raise InputError(
            f"unknown parameter of a completion in {sorted(changes)}; known are {known}"
        ) from error


def _check_enough(points: Tensor, scan: Scan, config: CompletionConfig) -> None:
    if len(points) < MIN_POINTS:
        raise InputError(
            f"{scan.path or 'the scan'}: {len(points)} of {len(scan.points)} points lie between "
            f"{config.min_range:g} and {config.max_range:g} m from the sensor, at least {MIN_POINTS} are needed; "
            "check that the scan is in metres and in the sensor's frame, or widen the range"
        )


def _check_not_empty(coarse: Tensor, scan: Scan) -> None:
    if not len(coarse):
        raise InputError(
            f"{scan.path or 'the scan'}: no point of the sampled scene is finite and within range and height of the "
            "scan; these weights do not suit the scan or the parameters: try the model's own steps, lam and sampler"
        )


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
