"""Voxels, kernel maps and layers for `plain`: one search an offset; gather, multiply, add."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

VOXEL_SIZE = 0.05
"""Edge of the finest voxels [m]."""
CUBE = [(dx, dy, dz) for dz in (-1, 0, 1) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
"""Offsets of the 3x3x3 kernel, x running fastest."""
CORNERS = [(dx, dy, dz) for dz in (0, 1) for dy in (0, 1) for dx in (0, 1)]
"""Offsets of the 2x2x2 kernel, x running fastest."""

Pairs = list[tuple[Tensor, Tensor]]
"""For each kernel offset the input rows and the output rows that it joins."""


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
