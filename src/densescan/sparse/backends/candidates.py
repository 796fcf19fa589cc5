"""The nearest voxels for all levels of a scene at once: what lies in one coarsest voxel has few to choose from.

A target can be the nearest of some place in a coarsest voxel, a cell, only if its least distance from the cell is not
above the greatest distance of every other target. The scenes of LiDAR scans have 14 such candidates a cell, on average.
"""

from dataclasses import dataclass, field
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Int, Int32
from torch import Tensor

from densescan.sparse.backends.box import LEVELS
from densescan.sparse.backends.launch import COMPILE, cdiv, on_device_of
from densescan.sparse.backends.room import FIRST_FREE
from densescan.sparse.backends.search import check_targets, coordinate, row_of, swept, targets_about
from densescan.sparse.keys import AXIS_BITS, BIAS
from densescan.sparse.tensor import Voxels

MOST = 96
"""Candidates that are listed of a cell; where there are more, all targets are compared."""
_CELLS = (32, 32)  # cells and targets that a program compares at a time
_QUERIES = (32, 16, 16)  # queries, and candidates or targets, likewise


@triton.jit
@no_type_check
def _reach(cell, target, stride):
    """Squares of the least and of the greatest distance along an axis between corners of voxels within a cell and a
    target's."""
    gap = target[None, :] - cell[:, None]
    least = tl.maximum(tl.maximum(gap - (stride - 1), -gap), 0).to(tl.int64)
    greatest = tl.maximum(gap, stride - 1 - gap).to(tl.int64)
    return least * least, greatest * greatest


@triton.jit
@no_type_check
def _reaches(
    x, y, z, begin, end, targets, first, stride,
    BITS: tl.constexpr, OFFSET: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Which of BLOCK targets from row `first` on are of the cells' clouds, and `_reach` of all in space; for those that
    are not, the greatest distance is infinite."""
    target = first + tl.arange(0, BLOCK)
    known = (target[None, :] >= begin[:, None]) & (target[None, :] < end[:, None])
    key = tl.load(targets + target, mask=(target >= 0) & (target < tl.max(end, axis=0)), other=0)
    x_least, x_greatest = _reach(x, coordinate(key, 2, stride, BITS, OFFSET), stride)
    y_least, y_greatest = _reach(y, coordinate(key, 1, stride, BITS, OFFSET), stride)
    z_least, z_greatest = _reach(z, coordinate(key, 0, stride, BITS, OFFSET), stride)
    least, greatest = x_least + y_least + z_least, x_greatest + y_greatest + z_greatest
    return known, least, tl.where(known, greatest, 0x7FFFFFFFFFFFFFFF)


@triton.jit(do_not_specialize=["n_cells", "n_targets", "halvings"])
@no_type_check
def _candidates_kernel(
    cells, targets, lists, counts, n_cells, n_targets, halvings, stride,  # (V,), (P,) int64, (V, MOST), (V,) int32
    BITS: tl.constexpr, OFFSET: tl.constexpr, FREE: tl.constexpr, MOST: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """lists[c, :counts[c]] = the candidates of cell c, as far as there is place; of keys from FREE on, none.

    Outwards along x as in `search.swept`, for the distance that no nearest target exceeds; then, among the targets that
    were met, for those that come as near.
    """
    cell = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    key = tl.load(cells + cell, mask=cell < n_cells, other=FREE)
    there = key < FREE
    key_0 = tl.min(key, axis=0)
    key = tl.where(there, key, key_0)  # the first one again
    begin, end, low, high, start, mixed = targets_about(
        key, targets, n_targets, halvings, stride, stride, BITS, OFFSET
    )
    x = coordinate(key, 2, stride, BITS, OFFSET)
    y = coordinate(key, 1, stride, BITS, OFFSET)
    z = coordinate(key, 0, stride, BITS, OFFSET)
    bound = tl.full((BLOCK_Q,), 0x7FFFFFFFFFFFFFFF, tl.int64)
    last, near = start, key_0 < FREE
    while (last < high) & near:
        _, _, greatest = _reaches(x, y, z, begin, end, targets, last, stride, BITS, OFFSET, BLOCK_T)
        bound = tl.minimum(bound, tl.min(greatest, axis=1))
        last += BLOCK_T
        ahead = coordinate(tl.load(targets + last, mask=last < high, other=0), 2, stride, BITS, OFFSET)
        gap = tl.maximum(ahead - tl.max(x, axis=0) - (stride - 1), 0).to(tl.int64)
        near = mixed | (gap * gap <= tl.max(bound, axis=0))
    row, near = start, key_0 < FREE
    while (row > low) & near:
        row -= BLOCK_T
        _, _, greatest = _reaches(x, y, z, begin, end, targets, row, stride, BITS, OFFSET, BLOCK_T)
        bound = tl.minimum(bound, tl.min(greatest, axis=1))
        behind = coordinate(tl.load(targets + row - 1, mask=row > low, other=0), 2, stride, BITS, OFFSET)
        gap = tl.maximum(tl.min(x, axis=0) - behind, 0).to(tl.int64)
        near = mixed | (gap * gap <= tl.max(bound, axis=0))
    count = tl.zeros((BLOCK_Q,), tl.int32)
    while row < last:
        known, least, _ = _reaches(x, y, z, begin, end, targets, row, stride, BITS, OFFSET, BLOCK_T)
        chosen = (known & (least <= bound[:, None])).to(tl.int32)
        place = count[:, None] + tl.cumsum(chosen, axis=1) - 1
        target = row + tl.arange(0, BLOCK_T)[None, :] + tl.zeros_like(chosen)
        listed = (chosen > 0) & there[:, None] & (place < MOST)
        tl.store(lists + cell[:, None] * MOST + place, target, mask=listed)
        count += tl.sum(chosen, axis=1)
        row += BLOCK_T
    tl.store(counts + cell, tl.where(there, count, 0), mask=cell < n_cells)


@triton.jit(do_not_specialize=["n", "n_cells", "n_targets", "halvings"])
@no_type_check
def _among_kernel(
    keys, cells, targets, lists, counts, rows, n, n_cells, n_targets, halvings, stride,  # keys, rows: (L, P)
    LEVELS: tl.constexpr, BITS: tl.constexpr, OFFSET: tl.constexpr, FREE: tl.constexpr, MOST: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """rows[i, q] = what `search._nearest_kernel` finds for voxel q of level i; 0 for keys from FREE on.

    cells: (L - 1, P), the row at the coarsest level of the voxel that holds each voxel of the others.
    """
    level = tl.program_id(1)
    query = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    key = tl.load(keys + level * n + query, mask=query < n, other=FREE)
    there = key < FREE
    held = there & (level + 0 * query < LEVELS - 1)  # the others are cells themselves
    cell = tl.load(cells + level * n + query, mask=held, other=0).to(tl.int32)
    cell = tl.where(held, cell, query)
    there = there & (cell < n_cells)
    count = tl.load(counts + cell, mask=there, other=0)
    most, own_stride = tl.max(count, axis=0), 1 << level
    best = tl.full((BLOCK_Q,), 0x7FFFFFFFFFFFFFFF, tl.int64)
    if most <= MOST:
        x = coordinate(key, 2, own_stride, BITS, OFFSET)
        y = coordinate(key, 1, own_stride, BITS, OFFSET)
        z = coordinate(key, 0, own_stride, BITS, OFFSET)
        for first in range(0, most, BLOCK_C):
            place = first + tl.arange(0, BLOCK_C)
            listed = place[None, :] < count[:, None]
            row = tl.load(lists + cell[:, None] * MOST + place[None, :], mask=listed, other=0)
            target = tl.load(targets + row, mask=listed, other=0)
            dx = (x[:, None] - coordinate(target, 2, stride, BITS, OFFSET)).to(tl.int64)
            dy = (y[:, None] - coordinate(target, 1, stride, BITS, OFFSET)).to(tl.int64)
            dz = (z[:, None] - coordinate(target, 0, stride, BITS, OFFSET)).to(tl.int64)
            ranked = ((dx * dx + dy * dy + dz * dz) << 24) + row
            best = tl.minimum(best, tl.min(tl.where(listed, ranked, 0x7FFFFFFFFFFFFFFF), axis=1))
    else:
        best = swept(
            key, targets, n_targets, halvings, own_stride, stride, BITS, OFFSET, FREE, BLOCK_Q, BLOCK_T
        )
    tl.store(rows + level * n + query, tl.where(there, row_of(best), 0), mask=query < n)


@dataclass(frozen=True)
class Nested:
    """The levels of a scene, from the finest on, as `level_kernels.Rows` has them.

    cells: the row at the coarsest level of the voxel that holds each voxel of the others. n_cells: rows of the coarsest
    level. Levels within a room hold fewer voxels, see `room`.
    """

    keys: Int[Tensor, "L P"]
    cells: Int[Tensor, "M P"]
    n_cells: int
    _found: dict[Voxels, Int[Tensor, "L P"]] = field(default_factory=dict, repr=False, compare=False)

    STRIDE = 1 << LEVELS - 1
    """Of the coarsest level, and of the targets."""

    def nearest_rows(self, targets: Voxels) -> Int[Tensor, "L P"]:
        """`search.nearest_rows` of all levels; kept. targets: of the coarsest level's stride."""
        check_targets(targets)
        if targets not in self._found:
            self._found[targets] = self._among(targets, *self._candidates(targets))
        return self._found[targets]

    def _candidates(self, targets: Voxels) -> tuple[Int32[Tensor, "V MOST"], Int32[Tensor, " V"]]:
        cells = self.keys[-1]
        lists = torch.empty(self.n_cells, MOST, dtype=torch.int32, device=cells.device)
        counts = torch.empty(self.n_cells, dtype=torch.int32, device=cells.device)
        block_q, block_t = _CELLS
        with on_device_of(cells):
            _candidates_kernel[(cdiv(self.n_cells, block_q),)](
                cells, targets.keys, lists, counts,
                self.n_cells, len(targets), len(targets).bit_length(), self.STRIDE,
                BITS=AXIS_BITS, OFFSET=BIAS, FREE=FIRST_FREE, MOST=MOST, BLOCK_Q=block_q, BLOCK_T=block_t, **COMPILE,
            )  # fmt: skip
        return lists, counts

    def _among(self, targets: Voxels, lists: Tensor, counts: Tensor) -> Int[Tensor, "L P"]:
        rows, n = torch.empty_like(self.keys), self.keys.shape[1]
        block_q, block_c, block_t = _QUERIES
        with on_device_of(rows):
            _among_kernel[(cdiv(n, block_q), LEVELS)](
                self.keys, self.cells, targets.keys, lists, counts, rows,
                n, self.n_cells, len(targets), len(targets).bit_length(), self.STRIDE,
                LEVELS=LEVELS, BITS=AXIS_BITS, OFFSET=BIAS, FREE=FIRST_FREE, MOST=MOST,
                BLOCK_Q=block_q, BLOCK_C=block_c, BLOCK_T=block_t, num_warps=2, **COMPILE,
            )  # fmt: skip
        return rows
