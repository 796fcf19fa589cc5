"""The released pipeline, rendered plainly: the yardstick that `densescan.completer.Completer` is timed against.

Written from what the releases compute, step by step, without the identities that densescan uses. The same weights, scan
and noise give the same scene up to float rounding. What is done here because the releases do it:

- the condition encoder runs at every step and for both guidance branches, on the repeated scan and on as many zeros;
- the MLPs of the condition run on every scene voxel, and so does the search for its condition voxel: eight
  exhaustive searches for each branch and step, one for each place where the network is conditioned;
- both branches run the stem; they share voxels and kernel maps, as in the releases;
- the head runs on every point; one search for each of the 27 offsets of a kernel map; convolution is
  gather, multiply, add; farthest point sampling looks at all points for each selection.

Deviations from the releases: ties of the condition search go to the lexicographically smallest voxel, not to chance; the
selected points keep their order of selection; the sampler starts afresh for each scan; no MinkowskiEngine, no CUDA.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from densescan.completer import CompletionConfig
from densescan.diffusion import Schedule, dpm_solver_pp, noise_scene
from densescan.diffusion.samplers import NoiseFn
from densescan.geometry.crop import clean_scene, within_range

VOXEL_SIZE = 0.05
"""Edge of the finest voxels [m]."""
PAIRS_AT_ONCE = 1 << 20
"""Distances that the exhaustive search holds at a time."""
CUBE = [(dx, dy, dz) for dz in (-1, 0, 1) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
"""Offsets of the 3x3x3 kernel, x running fastest."""
CORNERS = [(dx, dy, dz) for dz in (0, 1) for dy in (0, 1) for dx in (0, 1)]
"""Offsets of the 2x2x2 kernel, x running fastest."""

Pairs = list[tuple[Tensor, Tensor]]
"""For each kernel offset the input rows and the output rows that it joins."""


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


def _keys(coords: Int[Tensor, "V 3"]) -> Int[Tensor, " V"]:
    """One number a voxel, in lexicographic order."""
    x, y, z = (coords + (1 << 20)).unbind(1)
    return (x << 42) + (y << 21) + z


class Level:
    """Occupied voxels of one size in lexicographic order, and the kernel maps on them, each made on first use.

    coords: lower corners in units of the finest voxel, (V, 3). stride: edge of a voxel in the same unit.
    """

    def __init__(self, coords: Int[Tensor, "V 3"], stride: int) -> None:
        self.coords, self.stride, self.keys = coords, stride, _keys(coords)

    def _find(self, wanted: Int[Tensor, "W 3"]) -> tuple[Tensor, Tensor]:
        """Rows of those wanted voxels that exist, and which of the wanted they are."""
        keys = _keys(wanted)
        rows = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        found = torch.nonzero(self.keys[rows] == keys).squeeze(1)
        return rows[found], found

    @cached_property
    def neighbours(self) -> Pairs:
        """The 3x3x3 map of this level onto itself."""
        return [self._find(self.coords + self.stride * torch.tensor(offset)) for offset in CUBE]

    @cached_property
    def coarser(self) -> "Level":
        """Voxels of twice the size that hold those of this level."""
        stride = 2 * self.stride
        corners = torch.div(self.coords, stride, rounding_mode="floor") * stride
        return Level(_unique(corners)[0], stride)

    @cached_property
    def down(self) -> Pairs:
        """The 2x2x2 map from this level to the coarser one."""
        coarse = self.coarser.coords
        return [self._find(coarse + self.stride * torch.tensor(corner)) for corner in CORNERS]

    @property
    def up(self) -> Pairs:
        """The 2x2x2 map back from the coarser level to this one."""
        return [(coarse, fine) for fine, coarse in self.down]


def _unique(coords: Int[Tensor, "P 3"]) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct coordinates in lexicographic order, the row of each given one, and how often each occurs."""
    keys, rows, counts = torch.unique(_keys(coords), return_inverse=True, return_counts=True)
    axes = [(keys >> shift) & ((1 << 21) - 1) for shift in (42, 21, 0)]
    return torch.stack(axes, dim=1) - (1 << 20), rows, counts


def voxelise(points: Float[Tensor, "P 3"]) -> tuple[Level, Float[Tensor, "V 3"], Int[Tensor, " P"]]:
    """The voxels of a cloud, the mean point of each [m], and the row of every point's voxel."""
    coords, rows, counts = _unique(torch.round(points / VOXEL_SIZE).long())
    sums = torch.zeros(len(coords), 3).index_add_(0, rows, points)
    return Level(coords, 1), sums / counts[:, None], rows


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


@dataclass
class Net:
    """One network as a bag of tensors; the methods are its layers, named as the tensors are."""

    tensors: dict[str, Tensor]

    def conv(self, name: str, x: Tensor, pairs: Pairs, n_out: int) -> Tensor:
        """out[o] = sum_k x[i] @ kernel[k] over the pairs (i, o) of each offset k."""
        kernel = self.tensors[f"{name}.kernel"]
        out = torch.zeros(n_out, kernel.shape[2])
        for weight, (in_rows, out_rows) in zip(kernel, pairs, strict=True):
            out.index_add_(0, out_rows, x.index_select(0, in_rows) @ weight)
        return out

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Batch norm by its running statistics."""
        mean, var, weight, bias = (
            self.tensors[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias)

    def mlp(self, name: str, x: Tensor) -> Tensor:
        """Linear, leaky ReLU, linear."""
        t = self.tensors
        hidden = F.leaky_relu(F.linear(x, t[f"{name}.0.weight"], t[f"{name}.0.bias"]), 0.1)
        return F.linear(hidden, t[f"{name}.2.weight"], t[f"{name}.2.bias"])

    def pair_of_convs(self, name: str, x: Tensor, level: Level) -> Tensor:
        """Convolution, norm, ReLU, convolution, norm: what stem and residual blocks have in common."""
        x = torch.relu(self.norm(f"{name}.1", self.conv(f"{name}.0", x, level.neighbours, len(level.coords))))
        return self.norm(f"{name}.4", self.conv(f"{name}.3", x, level.neighbours, len(level.coords)))

    def residual(self, name: str, x: Tensor, level: Level) -> Tensor:
        """ReLU(convolutions(x) + shortcut(x))."""
        shortcut = x
        if f"{name}.downsample.0.kernel" in self.tensors:
            shortcut = self.norm(f"{name}.downsample.1", x @ self.tensors[f"{name}.downsample.0.kernel"])
        return torch.relu(self.pair_of_convs(f"{name}.net", x, level) + shortcut)

    def stem(self, x: Tensor, level: Level) -> Tensor:
        """Two convolutions at full resolution."""
        return torch.relu(self.pair_of_convs("stem", x, level))

    def stage(self, i: int, x: Tensor, level: Level) -> Tensor:
        """From a level to the next coarser one."""
        name, coarse = f"stage{i}", level.coarser
        x = self.conv(f"{name}.0.net.0", x, level.down, len(coarse.coords))
        x = torch.relu(self.norm(f"{name}.0.net.1", x))
        return self.residual(f"{name}.2", self.residual(f"{name}.1", x, coarse), coarse)

    def up(self, i: int, x: Tensor, level: Level, skip: Tensor) -> Tensor:
        """From the next coarser level to this one, where it meets the skip connection."""
        name = f"up{i}"
        x = self.conv(f"{name}.0.net.0", x, level.up, len(level.coords))
        x = torch.cat((torch.relu(self.norm(f"{name}.0.net.1", x)), skip), dim=1)
        return self.residual(f"{name}.1.1", self.residual(f"{name}.1.0", x, level), level)

    def unet(self, feats: Tensor, level: Level, rows: Tensor, scale: Callable[..., Tensor]) -> Tensor:
        """The whole U-Net; scale(place, x, level) acts on the features that enter each stage and each upward step.
        Returns the head's output for every point."""
        levels, x = [level], [self.stem(feats, level)]
        for i in range(1, 5):
            x.append(self.stage(i, scale(f"stage{i}", x[-1], levels[-1]), levels[-1]))
            levels.append(levels[-1].coarser)
        y = x[4]
        for i in range(1, 5):
            y = self.up(i, scale(f"up{i}", y, levels[5 - i]), levels[4 - i], skip=x[4 - i])
        return self.mlp("last", y[rows])


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
        scene = voxelise(x_t)
        branches = []
        for condition_points in (x_init, torch.zeros_like(x_init)):
            with self._stage("encode"):
                condition = encode(self.encoder, condition_points)
            branches.append(denoise(self.denoiser, scene, t, condition))
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

        Args: scan: sensor frame [m]. config: of its fields those count that the releases have. noise: called for the start
            and then once a step. order: selection to go on with in place of the one made here, so that a tie does not
            change which point gets which noise. predict: used in place of `self.predict`.
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
