"""Sparse voxel tensors: a level of voxels with its cached maps, and features on it."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from densescan.sparse.backends import backend_of
from densescan.sparse.kernel_map import KernelMap, strided_map, submanifold_map
from densescan.sparse.keys import pack, unpack


class Voxels:
    """A set of occupied voxels of one size, sorted by (batch, x, y, z), with the maps that convolutions on it need.

    Every map is built on first use and kept: tensors that share a level share its maps. Row order is lexicographic,
    so it depends on the set of voxels alone and not on the order of the points that filled them.

    keys: sorted unique packed coordinates in units of this level's voxels. stride: size of a voxel in units of the
    finest level's. present: how many rows hold a voxel, the first ones: fewer than there are within a room, see
    `sparse.backends.room`. None: all do.
    """

    def __init__(
        self, keys: Int[Tensor, " V"], stride: int = 1, present: Int[Tensor, ""] | None = None
    ) -> None:
        self.keys = keys
        self.stride = stride
        self.present = present

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def coords(self) -> Int[Tensor, "V 4"]:
        """(batch, x, y, z) of every voxel's lower corner, in units of the finest level."""
        coords = unpack(self.keys)
        coords[:, 1:] *= self.stride
        return coords

    @cached_property
    def batch(self) -> Int[Tensor, " V"]:
        """Batch index of every voxel."""
        return self.coords[:, 0]

    @cached_property
    def submanifold(self) -> KernelMap:
        """The 3x3x3 map of this level onto itself."""
        return submanifold_map(self.keys)

    @cached_property
    def _coarsening(self) -> tuple["Voxels", KernelMap]:
        local = unpack(self.keys)
        corner = local[:, 1:] & 1  # two's complement: also right for negative coordinates
        local[:, 1:] >>= 1  # floor division
        keys, parent = torch.unique(pack(local), return_inverse=True)
        slot = corner[:, 0] + 2 * corner[:, 1] + 4 * corner[:, 2]
        return Voxels(keys, 2 * self.stride), strided_map(parent, slot, len(keys))

    @property
    def coarser(self) -> "Voxels":
        """The level of voxels twice this size that holds every voxel of this one: floor(c / 2) per axis."""
        return self._coarsening[0]

    @property
    def strided(self) -> KernelMap:
        """The 2x2x2 map from this level to `coarser`; its transpose leads back."""
        return self._coarsening[1]


@dataclass(frozen=True)
class SparseTensor:
    """Features (V, C) on a level of voxels, row by row; with several copies of them G in between, (V, G, C)."""

    feats: Float[Tensor, "V *G C"]
    voxels: Voxels

    def with_feats(self, feats: Float[Tensor, "V *G D"]) -> "SparseTensor":
        """The same voxels with other features."""
        return SparseTensor(feats, self.voxels)


@dataclass(frozen=True)
class PointMap:
    """Which voxel each point lies in, and which points each voxel holds.

    inverse: row of the voxel of every point. order, offsets: the points sorted by voxel, and where each voxel's
    points begin in that order.
    """

    voxels: Voxels
    inverse: Int[Tensor, " P"]
    order: Int[Tensor, " P"]
    offsets: Int[Tensor, " V"]


def voxelise(coords: Int[Tensor, "P 4"]) -> PointMap:
    """The voxels that integer point coordinates (batch, x, y, z) fall into.

    Points need no order, batches no grouping.
    """
    if backend_of(coords) == "triton":
        from densescan.sparse.backends import levels

        return levels.voxelise(coords)
    keys, inverse, counts = torch.unique(pack(coords), return_inverse=True, return_counts=True)
    offsets = counts.cumsum(0) - counts
    return PointMap(Voxels(keys), inverse, torch.argsort(inverse, stable=True), offsets)
