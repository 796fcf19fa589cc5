"""Triton kernels that turn points into the voxels of all levels.

The levels are sorted as one list: a voxel's place there tells the level first, then what its key tells, counted within
a `Box`.
"""

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Int, Int8
from torch import Tensor

from densescan.sparse.backends.box import LEVELS, SHORT, Box
from densescan.sparse.backends.launch import COMPILE, cdiv, on_device_of
from densescan.sparse.backends.room import ABSENT, FIRST_FREE, NO_VOXEL
from densescan.sparse.keys import AXIS_BITS, BIAS

_BLOCK = 256


@triton.jit(
    do_not_specialize=["n", "begin", "clouds", "x_low", "y_low", "z_low", "x_size", "y_size", "z_size"]
)
@no_type_check
def _places_kernel(
    coords, keys, places, fit,  # (P, 4) int64, (L, P) int64, (L, P) int32 or int64, (P,) int8
    n, begin, clouds, x_low, y_low, z_low, x_size, y_size, z_size,  # of a `Box`
    LEVELS: tl.constexpr, ABSENT: tl.constexpr,
    BITS: tl.constexpr, BIAS: tl.constexpr, NO_VOXEL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """keys[i, p]: of the voxel of point p at level i. places: numbers from `begin` on in the same order, those of one
    level after those of the level before; on each level points that are not in the box come last. fit: 1 where a point
    is, -1 where it is absent, else 0.
    """
    point = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = point < n
    batch = tl.load(coords + 4 * point, mask=inside, other=0)
    x = tl.load(coords + 4 * point + 1, mask=inside, other=0)
    y = tl.load(coords + 4 * point + 2, mask=inside, other=0)
    z = tl.load(coords + 4 * point + 3, mask=inside, other=0)
    fits = (batch >= 0) & (batch < clouds)
    fits = fits & (x >= x_low) & (x < x_low + x_size) & (y >= y_low) & (y < y_low + y_size)
    fits = fits & (z >= z_low) & (z < z_low + z_size)
    tl.store(fit + point, tl.where(fits, 1, tl.where(batch == ABSENT, -1, 0)).to(tl.int8), mask=inside)
    first = begin + tl.zeros((1,), tl.int64)
    for i in tl.static_range(LEVELS):
        key = (((batch << BITS) + (x >> i) + BIAS) << BITS) + (y >> i) + BIAS
        key = (key << BITS) + (z >> i) + BIAS
        tl.store(keys + i * n + point, tl.where(fits, key, NO_VOXEL), mask=inside)
        x_sites = ((x_low + x_size - 1) >> i) - (x_low >> i) + 1
        y_sites = ((y_low + y_size - 1) >> i) - (y_low >> i) + 1
        z_sites = ((z_low + z_size - 1) >> i) - (z_low >> i) + 1
        place = (batch * x_sites + (x >> i) - (x_low >> i)) * y_sites + (y >> i) - (y_low >> i)
        place = place * z_sites + (z >> i) - (z_low >> i)
        last = first + clouds.to(tl.int64) * x_sites * y_sites * z_sites
        tl.store(
            places + i * n + point,
            tl.where(fits, first + place, last).to(places.dtype.element_ty),
            mask=inside,
        )
        first = last + 1


@triton.jit(do_not_specialize=["n"])
@no_type_check
def _rows_kernel(
    keys, order, ranks, levels, rows, firsts, begins, n,  # (L, P) int64, but the last: (P,) int64
    BLOCK: tl.constexpr,
):  # fmt: skip
    """levels[i, v] = key of voxel v at level i, rows[i, p] = voxel of point p, firsts[i, v] = its first point.

    order: of the places of all points on all levels; ranks: of voxels in it, from 1 on. begins[v]: where the points of
    voxel v begin in the order of the finest level.
    """
    level = tl.program_id(1)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < n
    here = level * n + place
    rank = tl.load(ranks + here, mask=inside, other=0)
    before = tl.load(ranks + here - 1, mask=inside & (here > 0), other=0)
    row = rank - tl.load(ranks + level * n)
    point = tl.load(order + here, mask=inside, other=0) - level * n
    tl.store(rows + level * n + point, row, mask=inside)
    new = inside & (rank != before)
    key = tl.load(keys + level * n + point, mask=new, other=0)
    tl.store(levels + level * n + row, key, mask=new)
    tl.store(firsts + level * n + row, point, mask=new)
    tl.store(begins + row, place, mask=new & (here < n))  # of the finest level


@triton.jit(do_not_specialize=["n"])
@no_type_check
def _parents_kernel(
    levels, rows, firsts, limits,  # (L, P), (L, P), (L, P), (L,) int64
    parents, slots, cells, n,  # (L - 1, P) int64
    LEVELS: tl.constexpr, BITS: tl.constexpr, FREE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """parents[i, v] = row at level i + 1 of the voxel that holds voxel v of level i, or -1 where there is no voxel or
    the row is not below limits[i + 1]; slots[i, v] = the corner that it fills there, x + 2 y + 4 z. cells[i, v] = row
    at the coarsest level of the voxel that holds it, 0 where there is no voxel."""
    level = tl.program_id(1)
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < n
    here = level * n + voxel
    key = tl.load(levels + here, mask=inside, other=FREE)
    there = inside & (key < FREE)
    point = tl.load(firsts + here, mask=there, other=0)
    parent = tl.load(rows + (level + 1) * n + point, mask=there, other=0)
    tl.store(cells + here, tl.load(rows + (LEVELS - 1) * n + point, mask=there, other=0), mask=inside)
    held = there & (parent < tl.load(limits + level + 1))
    tl.store(parents + here, tl.where(held, parent, -1), mask=inside)
    slot = ((key >> 2 * BITS) & 1) + 2 * ((key >> BITS) & 1) + 4 * (key & 1)
    tl.store(slots + here, slot, mask=inside)


def places(
    coords: Int[Tensor, "P 4"], box: Box
) -> tuple[Int[Tensor, "L P"], Int[Tensor, "L P"], Int8[Tensor, " P"]]:
    """Of every point on every level the key, a number to sort all levels by as one list, and whether it is in the box:
    1, 0, or -1 where it is `ABSENT`."""
    coords = coords.long().contiguous()
    n, short = len(coords), box.places <= SHORT
    keys = coords.new_empty(LEVELS, n)
    ranked = torch.empty_like(keys, dtype=torch.int32 if short else torch.int64)
    fit = coords.new_empty(n, dtype=torch.int8)
    if n:
        with on_device_of(coords):
            _places_kernel[(cdiv(n, _BLOCK),)](
                coords, keys, ranked, fit,
                n, -SHORT // 2 if short else 0, box.clouds, *box.low, *box.size,
                LEVELS=LEVELS, ABSENT=ABSENT, NO_VOXEL=NO_VOXEL, BITS=AXIS_BITS, BIAS=BIAS, BLOCK=_BLOCK, **COMPILE,
            )  # fmt: skip
    return keys, ranked, fit


class Rows(NamedTuple):
    """Which voxels points make on each level."""

    levels: Int[Tensor, "L P"]
    """Keys of the voxels, ascending and filled up with `NO_VOXEL`."""
    of_points: Int[Tensor, "L P"]
    """The voxel of every point."""
    firsts: Int[Tensor, "L P"]
    """The first point of each voxel."""
    begins: Int[Tensor, " P"]
    """Where the points of each voxel of the finest level begin, once points are sorted; where there is no voxel, the
    number of points."""


def rows_of_levels(keys: Int[Tensor, "L P"], order: Int[Tensor, " LP"], new: Bool[Tensor, " LP"]) -> Rows:
    """order: of the places of all points on all levels. new: where in it a place differs from the one before."""
    n = keys.shape[1]
    rows = Rows(
        torch.full_like(keys, NO_VOXEL),
        torch.empty_like(keys),
        torch.zeros_like(keys),
        keys.new_full((n,), n),
    )
    if n:
        with on_device_of(keys):
            _rows_kernel[(cdiv(n, _BLOCK), LEVELS)](
                keys, order, new.cumsum(0), *rows, n, BLOCK=_BLOCK, **COMPILE
            )
    return rows


class Ways(NamedTuple):
    """From the voxels of each level but the last to those that hold them."""

    parents: Int[Tensor, "M P"]
    """Rows at the next level; -1 where there is none below the limit of that level."""
    slots: Int[Tensor, "M P"]
    """The corners that are filled there."""
    cells: Int[Tensor, "M P"]
    """Rows at the last level, whatever its limit."""


def ways_between_levels(rows: Rows, limits: Int[Tensor, " L"]) -> Ways:
    """limits: rows that each level has place for."""
    n = rows.levels.shape[1]
    ways = Ways(*(torch.empty_like(rows.levels[1:]) for _ in range(3)))
    if n:
        with on_device_of(limits):
            _parents_kernel[(cdiv(n, _BLOCK), LEVELS - 1)](
                rows.levels, rows.of_points, rows.firsts, limits, *ways, n,
                LEVELS=LEVELS, BITS=AXIS_BITS, FREE=FIRST_FREE, BLOCK=_BLOCK, **COMPILE,
            )  # fmt: skip
    return ways
