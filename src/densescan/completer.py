"""From one sparse scan to a dense scene."""

import gc
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from densescan.ahead import ahead, error_as_result
from densescan.completion import (
    Completion,
    CompletionConfig,
    StageClock,
    check_enough,
    check_not_empty,
    sampler_of,
    share_of_strays,
    to_numpy,
    warn_of_strays,
)
from densescan.data.io import read_scan
from densescan.data.scan import Scan
from densescan.diffusion import Schedule, gaussian, gaussian_ahead, noise_scene
from densescan.diffusion.samplers import EpsFn, NoiseFn
from densescan.errors import InputError
from densescan.geometry.crop import clean_scene, within_range
from densescan.geometry.sampling import farthest_point_sampling
from densescan.nets.fused import fuse
from densescan.nets.networks import Networks
from densescan.nets.passes import Passes, RecordedPasses, Recordings
from densescan.sparse.backends import backend_of
from densescan.sparse.backends.recording import ALONE, NoRoom
from densescan.sparse.int8 import multiplies_int8
from densescan.sparse.matmul import multiplies_bfloat16
from densescan.sparse.memory import keep_freed

OnStep = Callable[[int, int], None]
_Kind = tuple[torch.dtype, bool]  # of fused networks, see `fuse`


@dataclass
class _Reduced:
    """A scan that is ready for the networks."""

    scan: Scan
    points: Float[Tensor, "N 3"]
    noise: NoiseFn
    config: CompletionConfig
    clock: StageClock


class Completer:
    """Completes scans with one set of networks.

    networks: encoder and denoiser, and a refiner if there is one. config: parameters of every completion unless a
    call says otherwise. device: where the networks run; on a processor, memory that is freed is kept for the next
    array, see `sparse.memory.keep_freed`. Weights are taken as they are at the first completion.
    record: on a GPU with Triton, record the launches for scans of a size that comes again, and replay them: the same
    scenes in a third of the time, for a gigabyte or two of memory that stays taken. Several threads may ask at once:
    one replays, the others launch.
    Raises: InputError: no encoder or no denoiser.
    """

    def __init__(
        self,
        networks: Networks,
        config: CompletionConfig | None = None,
        device: str | torch.device = "cpu",
        schedule: Schedule | None = None,
        record: bool = True,
    ) -> None:
        if networks.encoder is None or networks.denoiser is None:
            missing = "encoder" if networks.encoder is None else "denoiser"
            raise InputError(f"a completer needs an encoder and a denoiser; these weights hold no {missing}")
        self.device = torch.device(device)
        if self.device.type == "cpu":
            keep_freed()
        self.networks = networks.to(self.device).eval()
        self.config = config or CompletionConfig()
        self.schedule = schedule or Schedule()
        self._fused: dict[_Kind, Networks] = {}
        self._plain: dict[tuple[_Kind, float | None, float], Passes] = {}
        self._recordings = Recordings() if record else None

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
        config = self._checked(seed, changes)
        return self._completed(self._reduced(scan, config, seed), seed, on_step)

    def stream(
        self, scans: Iterable[Scan | np.ndarray | str | Path], *, seed: int = 0, **changes: Any
    ) -> Iterator[Completion | InputError]:
        """Complete one scan after another, each as a call would, ahead of whoever takes the scenes: on a GPU, while one
        is used, the next is sampled, and the scan after that is read and reduced; on a processor, whose cores the
        networks need, the next is read.

        Gives, in the order of the scans, each scene, or the error that its call would have raised, so that a bad scan
        does not end a drive.
        Args: scans: as for a call, or files. seed, changes: as for a call, for every scan.
        Raises: InputError: a bad parameter or seed, at once.
        """
        config = self._checked(seed, changes)

        @error_as_result
        def read(scan: Scan | np.ndarray | str | Path) -> Scan | np.ndarray:
            return read_scan(scan) if isinstance(scan, str | Path) else scan

        @error_as_result
        def reduced(scan: Scan | np.ndarray) -> _Reduced:
            return self._reduced(scan, config, seed)

        @error_as_result
        def completed(scan: _Reduced) -> Completion:
            return self._completed(scan, seed, on_step)

        asked_for = threading.Event()
        asked_for.set()

        def on_step(*_: int) -> None:
            if not asked_for.is_set():
                raise InputError("the stream was closed")

        def scenes() -> Iterator[Completion | InputError]:
            station = ahead if self._samples_ahead else map
            try:
                yield from station(completed, station(reduced, ahead(read, scans)))
            finally:
                asked_for.clear()

        return scenes()

    @property
    def _samples_ahead(self) -> bool:
        """Whether a stream samples in a thread of its own. OpenMP's threads of two callers, more than there are cores,
        sleep at every turn: all that a processor computes would take twice as long."""
        return self.device.type != "cpu"

    @torch.inference_mode()
    def _reduced(self, scan: Scan | np.ndarray, config: CompletionConfig, seed: int) -> _Reduced:
        scan, clock = scan if isinstance(scan, Scan) else Scan.of_array(scan), StageClock(self.device)
        with nullcontext() if self.device.type == "cpu" else ALONE:
            with clock.stage("crop"):  # 1. keep what lies around the car, within range
                points = torch.from_numpy(scan.points).to(self.device)
                points = points[within_range(points, config.min_range, config.max_range)]
                check_enough(points, scan, config)
            noise = self._noise(seed, min(len(points), config.scan_points) * config.repeat)
            with clock.stage("reduce"):  # 2. an even subset of N points
                points = self._subset(points, config.scan_points)
        return _Reduced(scan, points, noise, config, clock)

    def _noise(self, seed: int, count: int) -> NoiseFn:
        """Noise of so many points, from a processor: the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        return gaussian(generator) if self.device.type == "cpu" else gaussian_ahead(generator, (1, count, 3))

    @staticmethod
    def _subset(points: Float[Tensor, "N 3"], n: int) -> Float[Tensor, "K 3"]:
        """Farthest points, on a GPU by kernels of its own; both differ where points are equally far, and only there."""
        if backend_of(points) == "triton":
            from densescan.sparse.backends.farthest import farthest_points

            return points[farthest_points(points, n)]
        return points[farthest_point_sampling(points, n)]

    @torch.inference_mode()
    def _completed(self, reduced: _Reduced, seed: int, on_step: OnStep | None) -> Completion:
        plain = self._passes(reduced.config)
        recorded = self._recorded(plain, reduced)
        if recorded is None or not recorded.taken.acquire(blocking=False):  # another thread is at it
            return self._sampled(plain, reduced, seed, on_step)
        try:
            completion = self._replayed(recorded, reduced, seed, on_step)
        finally:
            recorded.taken.release()
        if completion is not None:
            return completion
        del recorded  # and its memory
        gc.collect()
        noise = self._noise(seed, len(reduced.points) * reduced.config.repeat)
        return self._sampled(plain, replace(reduced, noise=noise), seed, on_step)

    def _replayed(
        self, recorded: RecordedPasses, reduced: _Reduced, seed: int, on_step: OnStep | None
    ) -> Completion | None:
        """The scene by recorded passes; None: it has no room, or recordings none in memory, and they are let go of."""
        assert self._recordings is not None
        try:
            return self._sampled(recorded, reduced, seed, on_step)
        except NoRoom:
            self._recordings.forget(recorded)
        except torch.OutOfMemoryError:
            warnings.warn("not enough memory to record launches: slower from now on", stacklevel=6)
            self._recordings = None
        return None

    def _recorded(self, plain: Passes, reduced: _Reduced) -> RecordedPasses | None:
        """On a GPU, for scans of a size that comes again, a recording; results are the same."""
        wanted = self.device.type == "cuda" and backend_of(reduced.points) == "triton"
        if self._recordings is None or not wanted:
            return None
        return self._recordings.of(plain, len(reduced.points), reduced.config.repeat)

    def _sampled(self, passes: Passes, reduced: _Reduced, seed: int, on_step: OnStep | None) -> Completion:
        points, config, clock = reduced.points, reduced.config, reduced.clock
        with clock.stage("encode"):  # 3. the condition, once a scan
            eps_fn = passes.predictor(points[None])
        with clock.stage("denoise"):  # 4. K noisy copies of each point, denoised
            (x_0,) = self._denoise(eps_fn, points[None], config, reduced.noise, on_step)
        with clock.stage("clean"):  # 5. drop what lies out of range, or above or below the scan
            x_init = points.repeat(config.repeat, 1)
            kept, strays = clean_scene(x_0, x_init, config.max_range), share_of_strays(x_0, x_init)
            passes.check()  # here the host waits for a GPU, for the first time since the scan was reduced
            rows = kept.nonzero().squeeze(1)
            coarse = x_0[rows]
            check_not_empty(coarse, reduced.scan)
            warn_of_strays(float(strays), reduced.scan)
        with clock.stage("refine"):  # 6. six points for one, each moved by up to 1 m
            scene = passes.refine(x_0, rows) if config.refine else coarse
            passes.check()
        return Completion(to_numpy(scene), to_numpy(coarse), reduced.scan, clock.seconds, seed, config)

    def sample(
        self, points: Float[Tensor, "B N 3"], config: CompletionConfig, noise: NoiseFn
    ) -> Float[Tensor, "B M 3"]:
        """Stages 3 and 4 alone: the sampled scenes of reduced scans, neither cleaned nor refined [m]; M = N K."""
        eps_fn = self._passes(self._possible(config)).predictor(points)
        return self._denoise(eps_fn, points, config, noise, None)

    @torch.inference_mode()
    def refine(self, points: Float32[np.ndarray, "M 3"], **changes: Any) -> Float32[np.ndarray, "L 3"]:
        """Stage 6 alone, of points of any origin: six for each, moved by up to 1 m; L = 6 M.

        Args: points: sensor frame [m]. changes: as for a call.
        Raises: InputError: there is no refiner, or as for a call.
        """
        if self.networks.refiner is None:
            raise InputError("these weights hold no refiner: merge one in with `densescan weights merge`")
        passes = self._passes(self._checked(0, changes))
        return passes.refine(torch.from_numpy(points).to(self.device)).cpu().numpy()

    def _denoise(
        self,
        eps_fn: EpsFn,
        points: Float[Tensor, "B N 3"],
        config: CompletionConfig,
        noise: NoiseFn,
        on_step: OnStep | None,
    ) -> Float[Tensor, "B M 3"]:
        x_init = points.repeat(1, config.repeat, 1)
        x_T = noise_scene(x_init, config.lam, noise(x_init))
        return sampler_of(config)(
            eps_fn, x_init, x_T, self.schedule, config.steps,
            noise=None if config.sampler == "dpm-solver++" else noise,
            on_step=on_step and (lambda i, _: on_step(i + 1, config.steps)),
        )  # fmt: skip

    def _checked(self, seed: int, changes: dict[str, Any]) -> CompletionConfig:
        config = self.config.changed(**changes)
        if config.steps > self.schedule.T:
            raise InputError(f"steps must be at most {self.schedule.T}, got {config.steps}")
        if not 0 <= seed < 2**63:
            raise InputError(f"seed must lie in [0, 2^63), got {seed}")
        return self._possible(config)

    def _possible(self, config: CompletionConfig) -> CompletionConfig:
        """The parameters that this device computes with."""
        return config.changed(
            bfloat16=config.bfloat16 and multiplies_bfloat16(self.device),
            int8=config.int8 and multiplies_int8(self.device),
        )

    def _passes(self, config: CompletionConfig) -> Passes:
        """The networks as they are used: fused, for each type, size of voxels and guidance once."""
        kind = (torch.bfloat16 if config.bfloat16 else torch.float32), config.int8
        if kind not in self._fused:
            self._fused[kind] = self.networks.map(lambda net: fuse(net, *kind))
        key = kind, config.voxel_size, config.guidance_scale
        if key not in self._plain:
            networks = self._fused[kind]
            if config.voxel_size is not None:
                networks = networks.with_voxel_size(config.voxel_size)
            self._plain[key] = Passes(networks, config.guidance_scale)
        return self._plain[key]
