"""Points to voxels and all coarser levels at once: the host waits for the device once, for the numbers of voxels."""

from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from densescan.sparse.backends.table_map import strided_map, submanifold_map
from densescan.sparse.kernel_map import KernelMap
from densescan.sparse.keys import AXIS_BITS, BIAS, MAX_BATCH, MAX_COORD, pack
from densescan.sparse.tensor import PointMap, Voxels

LEVELS = 5
"""Levels of the networks; coarser ones are made on demand."""
_NO_VOXEL = torch.iinfo(torch.int64).max
"""Fills rows that no voxel takes; its batch index is beyond `MAX_BATCH` at every level."""
_AXES = 1 + (1 << AXIS_BITS) + (1 << 2 * AXIS_BITS)  # times a number: that number in each axis of a key
_HALVES = ((1 << AXIS_BITS - 1) - 1) * _AXES
_HALF_BIAS = BIAS // 2 * _AXES
_CLOUD = -1 << 3 * AXIS_BITS


class DeviceVoxels(Voxels):
    """A level whose 3x3x3 map is a table found on the device."""

    @cached_property
    def submanifold(self) -> KernelMap:
        """As `Voxels`."""
        return submanifold_map(self.keys)


def voxelise(coords: Int[Tensor, "P 4"]) -> PointMap:
    """As `tensor.voxelise`, with the levels that are `coarser`, and the maps between them.

    Raises: InputError: as `keys.pack`.
    """
    fits, keys = _pack(coords)
    point_keys, order = torch.sort(keys, stable=True)
    keys, inverse = _distinct(point_keys, order)
    levels, steps = [keys], []
    for _ in range(1, LEVELS):
        keys, slot = _coarser(levels[-1])
        keys, parent = _distinct(*torch.sort(keys, stable=True))
        levels.append(keys)
        steps.append((parent, slot))
    counts = torch.stack([(keys >> 3 * AXIS_BITS < MAX_BATCH).sum() for keys in levels])
    *sizes, valid = torch.cat((counts, fits[None].long())).tolist()
    if not valid:
        pack(coords)  # says what is wrong
    offsets = torch.searchsorted(point_keys, levels[0][: sizes[0]])
    return PointMap(_link(levels, steps, sizes), inverse, order, offsets)


def _pack(coords: Int[Tensor, "P 4"]) -> tuple[Bool[Tensor, ""], Int[Tensor, " P"]]:
    """Whether all coordinates fit into keys, and the keys, as `keys.pack` makes them."""
    b, x, y, z = coords.long().unbind(1)
    fits = (coords[:, 1:].abs() <= MAX_COORD).all() & ((b >= 0) & (b < MAX_BATCH)).all()
    keys = (b << 3 * AXIS_BITS) + ((x + BIAS) << 2 * AXIS_BITS) + ((y + BIAS) << AXIS_BITS) + (z + BIAS)
    return fits, keys


def _distinct(
    ordered: Int[Tensor, " P"], order: Int[Tensor, " P"]
) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
    """The distinct values of a sorted vector, filled up with `_NO_VOXEL`, and the place of every value among them.

    order: where each sorted value stood; the places are those of the values as they stood.
    """
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    rank = new.cumsum(0) - 1
    distinct = torch.full_like(ordered, _NO_VOXEL).scatter_(
        0, rank, ordered
    )  # equal values meet: any may win
    return distinct, torch.empty_like(rank).scatter_(0, order, rank)


def _coarser(keys: Int[Tensor, " P"]) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
    """Keys of the voxels twice as large that hold these, and the corners they fill there, in [0, 8)."""
    halves = (keys >> 1) & _HALVES  # of all three biased coordinates at once
    coarse = (keys & _CLOUD) + (halves + _HALF_BIAS)
    x, y, z = keys >> 2 * AXIS_BITS, keys >> AXIS_BITS - 1, keys << 2
    return coarse, (x & 1) | (y & 2) | (z & 4)


def _link(levels: list[Tensor], steps: list[tuple[Tensor, Tensor]], sizes: list[int]) -> Voxels:
    """Levels cut to their sizes, from fine to coarse, each with its way to the next."""
    strides = [1 << i for i in range(len(levels))]
    voxels = [DeviceVoxels(keys[:n], stride) for keys, n, stride in zip(levels, sizes, strides, strict=True)]
    for fine, coarse, (parent, slot) in zip(voxels[:-1], voxels[1:], steps, strict=True):
        way = strided_map(parent[: len(fine)], slot[: len(fine)], len(coarse))
        vars(fine)["_coarsening"] = (coarse, way)
    return voxels[0]
