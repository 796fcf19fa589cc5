"""The released pipeline, rendered plainly: the yardstick that `densescan.completer.Completer` is timed against.

Written from what the releases compute, step by step, without the identities that densescan uses. The same weights, scan
and noise give the same scene up to float rounding. What is done here because the releases do it:

- the condition encoder runs at every step and for both guidance branches, on the repeated scan and on as many zeros;
- the MLPs of the condition run on every scene voxel, and so does the search for its condition voxel: eight
  exhaustive searches for each branch and step, one for each place where the network is conditioned;
- each branch makes its own voxels and kernel maps and runs the stem;
- the head runs on every point; one search for each of the 27 offsets of a kernel map; convolution is
  gather, multiply, add; farthest point sampling looks at all points for each selection.

Deviations from the releases: of equally near condition voxels the lexicographically smallest is taken, not one by
chance; the selected points keep their order of selection; the sampler starts afresh for each scan; it runs on PyTorch
for CPUs, not on MinkowskiEngine.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from plain_layers import Level, Net, voxelise
from torch import Tensor

from densescan.completion import CompletionConfig
from densescan.diffusion import Schedule, dpm_solver_pp, noise_scene
from densescan.diffusion.samplers import NoiseFn
from densescan.geometry.crop import clean_scene, within_range

PAIRS_AT_ONCE = 1 << 20
"""Distances that the exhaustive search holds at a time."""


def farthest_points(points: Float[Tensor, "N 3"], n: int) -> Int[Tensor, " K"]:
    """Indices of n points, the first one and then always the farthest from all selected; all N if there are no more."""
    if n >= len(points):
        return torch.arange(len(points))
    axes = points.T.contiguous()
    nearest = torch.full((len(points),), math.inf)
    chosen = torch.zeros(n, dtype=torch.int64)
    for i in range(1, n):
        latest = chosen[i - 1]
        torch.minimum(nearest, (axes - axes[:, latest, None]).square().sum(0), out=nearest)
        chosen[i] = nearest.argmax()
    return chosen


def nearest_rows(queries: Int[Tensor, "V 3"], targets: Int[Tensor, "P 3"]) -> Int[Tensor, " V"]:
    """Row of the nearest target, the first of equally near ones, by all distances (exact in float32)."""
    q, t = queries.float(), targets.float()
    chunks = []
    for part in q.split(max(1, PAIRS_AT_ONCE // len(t))):
        distance = torch.zeros(len(part), len(t))
        for axis in range(3):
            distance += (part[:, axis, None] - t[None, :, axis]).square_()
        chunks.append(distance.argmin(1))
    return torch.cat(chunks)


def encode(net: Net, points: Float[Tensor, "P 3"]) -> tuple[Tensor, Level]:
    """The condition: features at stride 16 and their voxels."""
    level, x, _ = voxelise(points)
    x = net.stem(x, level)
    for i in range(1, 5):
        x, level = net.stage(i, x, level), level.coarser
    return x, level


def time_embedding(t: int, dim: int) -> Float[Tensor, " D"]:
    """Sines, then cosines, of t at dim / 2 frequencies from 1 down to 1 / 10,000."""
    half = dim // 2
    angles = t * torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half))
    return torch.cat((angles.sin(), angles.cos()))


def denoise(
    net: Net, scene: tuple[Level, Tensor, Tensor], t: int, condition: tuple[Tensor, Level]
) -> Float[Tensor, "M 3"]:
    """The predicted noise of every point of a voxelised scene, under one condition."""
    level, feats, rows = scene
    cond_feats, cond_level = condition
    time_feats = time_embedding(t, net.tensors["stage1_temp.0.weight"].shape[1])

    def scale(place: str, x: Tensor, at: Level) -> Tensor:
        match = cond_feats[nearest_rows(at.coords, cond_level.coords)]
        latent = net.mlp(f"latent_{place}", match)
        temp = net.mlp(f"{place}_temp", time_feats[None]).expand(len(x), -1)
        parts = (temp, latent) if place == "up1" else (latent, temp)
        return x * net.mlp(f"latemp_{place}", torch.cat(parts, dim=1))

    return net.unet(feats, level, rows, scale)


def refine(net: Net, points: Float[Tensor, "M 3"]) -> Float[Tensor, "L 3"]:
    """Six points for each, moved by up to 1 m an axis."""
    level, feats, rows = voxelise(points)
    offsets = torch.tanh(net.unet(feats, level, rows, lambda place, x, at: x))
    return (points[:, None] + offsets.reshape(-1, 6, 3)).reshape(-1, 3)


@dataclass
class PlainCompletion:
    """What `PlainPipeline` made of a scan."""

    points: np.ndarray
    """The scene [m], (L, 3)."""
    coarse: np.ndarray
    """The scene before refinement [m], (M, 3)."""
    chosen: np.ndarray
    """Indices, within the cropped scan, of the points that farthest point sampling selected."""
    seconds: dict[str, float]
    """Wall-clock time of each stage, under the names that `Completer` uses."""


class PlainPipeline:
    """Scan to scene the released way, with the released form of the networks.

    tensors: a state dict under the official names (`partial_enc.`, `model.` and, if there is one, `model_refine.`).
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.encoder, self.denoiser, self.refiner = (
            Net({k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)})
            for prefix in ("partial_enc.", "model.", "model_refine.")
        )
        self.seconds: dict[str, float] = {}

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def predict(
        self, x_t: Float[Tensor, "M 3"], t: int, x_init: Float[Tensor, "M 3"], guidance_scale: float
    ) -> Float[Tensor, "M 3"]:
        """The guided noise estimate of one step, with everything that the releases compute in a step."""
        branches = []
        for condition_points in (x_init, torch.zeros_like(x_init)):
            with self._stage("encode"):
                condition = encode(self.encoder, condition_points)
            branches.append(denoise(self.denoiser, voxelise(x_t), t, condition))
        eps_cond, eps_uncond = branches
        return eps_uncond + guidance_scale * (eps_cond - eps_uncond)

    @torch.inference_mode()
    def __call__(
        self,
        scan: Float[np.ndarray, "S 3"],
        config: CompletionConfig,
        noise: NoiseFn,
        order: Int[np.ndarray, " N"] | None = None,
        predict: Callable[[Tensor, int, Tensor, float], Tensor] | None = None,
    ) -> PlainCompletion:
        """Complete a scan.

        Args: scan: sensor frame [m]. config: of its fields those count that the releases have. noise: called for the
            start and then once a step. order: selection to go on with in place of the one made here, so that a tie
            does not change which point gets which noise. predict: used in place of `self.predict`.
        """
        self.seconds = {}
        predict = predict or self.predict
        with self._stage("crop"):
            points = torch.from_numpy(scan)
            points = points[within_range(points, config.min_range, config.max_range)]
        with self._stage("reduce"):
            chosen = farthest_points(points, config.scan_points)
        with self._stage("denoise"):
            x_init = points[chosen if order is None else torch.from_numpy(order)].repeat(config.repeat, 1)
            x_0 = dpm_solver_pp(
                lambda x_t, t: predict(x_t[0], int(t), x_init, config.guidance_scale)[None],
                x_init[None], noise_scene(x_init[None], config.lam, noise(x_init[None])),
                Schedule(), config.steps, noise=noise,
            )[0]  # fmt: skip
        self.seconds["denoise"] -= self.seconds.setdefault("encode", 0.0)
        with self._stage("clean"):
            coarse = x_0[clean_scene(x_0, x_init, config.max_range)]
        with self._stage("refine"):
            refined = refine(self.refiner, coarse) if config.refine and self.refiner.tensors else coarse
        return PlainCompletion(refined.numpy(), coarse.numpy(), chosen.numpy(), self.seconds)
