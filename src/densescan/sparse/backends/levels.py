"""Points to voxels and all coarser levels at once: the host waits for the device once, for the numbers of voxels, and
within a room not at all."""

from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from densescan.sparse.backends import search
from densescan.sparse.backends.box import EVERYWHERE
from densescan.sparse.backends.candidates import Nested
from densescan.sparse.backends.level_kernels import Ways, places, rows_of_levels, ways_between_levels
from densescan.sparse.backends.room import FIRST_FREE, current
from densescan.sparse.backends.table_map import TableMap, sort_together, strided_map, submanifold_map
from densescan.sparse.keys import AXIS_BITS, pack
from densescan.sparse.tensor import PointMap, Voxels


class DeviceVoxels(Voxels):
    """A level whose 3x3x3 map is a table found on the device."""

    nested: Nested
    """All levels of its scene, itself among them."""

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
    keys, ranked, fit = places(coords, EVERYWHERE if room is None else room.box)
    ordered, order = torch.sort(ranked.flatten(), stable=True)
    new = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=new[1:])
    rows = rows_of_levels(keys, order, new)
    counts = (rows.levels < FIRST_FREE).sum(1)
    if room is None:
        *sizes, valid = torch.cat((counts, (fit == 1).all()[None])).tolist()
        if not valid:
            pack(coords)  # says what is wrong
    else:
        if not room.sizes and len(coords):
            room.note_reach(coords, fit == 1)
        room.note(counts, (fit != 0).all() if room.absent else (fit == 1).all())
        sizes = list(room.sizes) or [size + 1 for size in counts.tolist()]
    ways = ways_between_levels(rows, counts if room is None else room.limits)
    levels = [
        DeviceVoxels(keys[:size], 1 << i, present)
        for i, (keys, size, present) in enumerate(zip(rows.levels, sizes, counts, strict=True))
    ]
    voxels = _link(levels, ways, Nested(rows.levels, ways.cells, len(levels[-1])))
    return PointMap(voxels, rows.of_points[0], order[: len(coords)], rows.begins[: len(voxels)])


def nearest_rows(queries: Voxels, targets: Voxels) -> Int[Tensor, " V"]:
    """As `search.nearest_rows`; for targets as coarse as the coarsest level of the queries' scene, all its levels are
    searched together."""
    if isinstance(queries, DeviceVoxels) and targets.stride == Nested.STRIDE:
        return queries.nested.nearest_rows(targets)[queries.stride.bit_length() - 1, : len(queries)]
    return search.nearest_rows(queries, targets)


def _link(voxels: "list[DeviceVoxels]", ways: Ways, nested: Nested) -> Voxels:
    """Give levels from fine to coarse their ways to the next."""
    maps = []
    for fine, coarse, parent, slot in zip(voxels[:-1], voxels[1:], ways.parents, ways.slots, strict=True):
        maps.append(strided_map(parent[: len(fine)], slot[: len(fine)], len(coarse)))
        vars(fine)["_coarsening"] = (coarse, maps[-1])
    for level in voxels:
        level.nested = nested
    sort_together(
        [level.submanifold for level in voxels] + [m for way in maps for m in (way, way.transposed)]
    )
    return voxels[0]
