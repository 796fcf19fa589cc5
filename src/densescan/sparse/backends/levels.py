"""Points to voxels and all coarser levels at once: the host waits for the device once, for the numbers of voxels, and
within a room not at all."""

from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from densescan.sparse.backends.room import ABSENT, FIRST_FREE, LEVELS, NO_VOXEL, current
from densescan.sparse.backends.table_map import TableMap, sort_together, strided_map, submanifold_map
from densescan.sparse.keys import AXIS_BITS, BIAS, MAX_BATCH, MAX_COORD, pack
from densescan.sparse.tensor import PointMap, Voxels

_AXES = 1 + (1 << AXIS_BITS) + (1 << 2 * AXIS_BITS)  # times a number: that number in each axis of a key
_HALVES = ((1 << AXIS_BITS - 1) - 1) * _AXES
_HALF_BIAS = BIAS // 2 * _AXES
_CLOUD = -1 << 3 * AXIS_BITS


class DeviceVoxels(Voxels):
    """A level whose 3x3x3 map is a table found on the device."""

    @cached_property
    def batch(self) -> Int[Tensor, " V"]:
        """As `Voxels`; rows that no voxel takes count to the first cloud."""
        return torch.where(self.keys < FIRST_FREE, self.keys >> 3 * AXIS_BITS, 0)

    @cached_property
    def submanifold(self) -> TableMap:
        """As `Voxels`."""
        return submanifold_map(self.keys)


def voxelise(coords: Int[Tensor, "P 4"]) -> PointMap:
    """As `tensor.voxelise`, with the levels that are `coarser`, and the maps between them.

    Raises: InputError: as `keys.pack`; within a room never.
    """
    room = current()
    fits, keys = _pack(coords) if room is None else _pack_present(coords, room.absent)
    point_keys, order = torch.sort(keys, stable=True)
    keys, inverse = _distinct(point_keys, order)
    levels, steps, counts = [keys], [], [_count(keys)]
    for level in range(1, LEVELS):
        keys, slot = _coarser(levels[-1])
        keys, parent = _distinct(*torch.sort(keys, stable=True))
        counts.append(_count(keys))
        levels.append(keys[: room.sizes[level]] if room is not None and room.sizes else keys)
        steps.append((parent, slot))
    if room is not None:
        room.note(torch.stack(counts), fits)
        if not room.sizes:
            levels = [keys[: int(n) + 1] for keys, n in zip(levels, counts, strict=True)]
        return PointMap(
            _link_within(levels, steps), inverse, order, torch.searchsorted(point_keys, levels[0])
        )
    *sizes, valid = torch.stack((*counts, fits.long())).tolist()
    if not valid:
        pack(coords)  # says what is wrong
    levels = [keys[:n] for keys, n in zip(levels, sizes, strict=True)]
    steps = [(parent[:n], slot[:n]) for (parent, slot), n in zip(steps, sizes[:-1], strict=True)]
    ways = [strided_map(*step, len(coarse)) for step, coarse in zip(steps, levels[1:], strict=True)]
    return PointMap(_link(levels, ways), inverse, order, torch.searchsorted(point_keys, levels[0]))


def _count(keys: Int[Tensor, " P"]) -> Int[Tensor, ""]:
    """Number of voxels among sorted keys."""
    return (keys < FIRST_FREE).sum()


def _pack(coords: Int[Tensor, "P 4"]) -> tuple[Bool[Tensor, ""], Int[Tensor, " P"]]:
    """Whether all coordinates fit into keys, and the keys, as `keys.pack` makes them."""
    fit, keys = _pack_each(coords)
    return fit.all(), keys


def _pack_present(coords: Int[Tensor, "P 4"], absent: bool) -> tuple[Bool[Tensor, ""], Int[Tensor, " P"]]:
    """Likewise for points of which some may be absent; those, and the ones that do not fit, get no voxel."""
    fit, keys = _pack_each(coords)
    fits = (fit | (coords[:, 0] == ABSENT)).all() if absent else fit.all()
    return fits, torch.where(fit, keys, NO_VOXEL)


def _pack_each(coords: Int[Tensor, "P 4"]) -> tuple[Bool[Tensor, " P"], Int[Tensor, " P"]]:
    b, x, y, z = coords.long().unbind(1)
    xyz = coords[:, 1:]  # compared twice: the least integer has no absolute value
    fit = ((xyz <= MAX_COORD) & (xyz >= -MAX_COORD)).all(1) & (b >= 0) & (b < MAX_BATCH)
    keys = (b << 3 * AXIS_BITS) + ((x + BIAS) << 2 * AXIS_BITS) + ((y + BIAS) << AXIS_BITS) + (z + BIAS)
    return fit, keys


def _distinct(
    ordered: Int[Tensor, " P"], order: Int[Tensor, " P"]
) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
    """The distinct values of a sorted vector, filled up with `NO_VOXEL`, and the place of every value among them.

    order: where each sorted value stood; the places are those of the values as they stood.
    """
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    rank = new.cumsum(0) - 1
    distinct = torch.full_like(ordered, NO_VOXEL).scatter_(0, rank, ordered)  # equal values meet: any may win
    return distinct, torch.empty_like(rank).scatter_(0, order, rank)


def _coarser(keys: Int[Tensor, " P"]) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
    """Keys of the voxels twice as large that hold these, and the corners they fill there, in [0, 8)."""
    halves = (keys >> 1) & _HALVES  # of all three biased coordinates at once
    coarse = (keys & _CLOUD) + (halves + _HALF_BIAS)
    x, y, z = keys >> 2 * AXIS_BITS, keys >> AXIS_BITS - 1, keys << 2
    return coarse, (x & 1) | (y & 2) | (z & 4)


def _link_within(levels: list[Tensor], steps: list[tuple[Tensor, Tensor]]) -> Voxels:
    """Levels of a room, where some rows hold no voxel, and the parents of some voxels may have found no room."""
    ways = []
    for fine, coarse, (parent, slot) in zip(levels[:-1], levels[1:], steps, strict=True):
        parent, slot = parent[: len(fine)], slot[: len(fine)]
        known = (fine < FIRST_FREE) & (parent < len(coarse))
        ways.append(strided_map(parent, slot, len(coarse), known))
    return _link(levels, ways)


def _link(levels: list[Tensor], ways: list[TableMap]) -> Voxels:
    """Levels from fine to coarse, each with its way to the next."""
    voxels = [DeviceVoxels(keys, 1 << i) for i, keys in enumerate(levels)]
    for fine, coarse, way in zip(voxels[:-1], voxels[1:], ways, strict=True):
        vars(fine)["_coarsening"] = (coarse, way)
    sort_together(
        [level.submanifold for level in voxels] + [m for way in ways for m in (way, way.transposed)]
    )
    return voxels[0]
