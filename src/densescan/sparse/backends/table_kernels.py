"""Triton kernels that make the neighbour tables of 2x2x2 maps, and lists of pairs of any table."""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Int, Int32
from torch import Tensor

from densescan.sparse.backends.launch import COMPILE, cdiv, on_device_of

_BLOCK = 512  # entries of a row of a table that a program has


@triton.jit(do_not_specialize=["n"])
@no_type_check
def _parent_kernel(
    parent, slot, rows, n,  # (V,), (V,), (8, V) int32
    BLOCK: tl.constexpr,
):  # fmt: skip
    """rows[slot[v], v] = parent[v], -1 elsewhere; negative parents are none."""
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < n
    row = tl.maximum(tl.load(parent + voxel, mask=inside, other=-1), -1).to(tl.int32)
    corner = tl.load(slot + voxel, mask=inside, other=0)
    for k in tl.static_range(8):
        tl.store(rows + k * n + voxel, tl.where(corner == k, row, -1), mask=inside)


@triton.jit(do_not_specialize=["n", "n_coarse"])
@no_type_check
def _children_kernel(
    parent, slot, rows, n, n_coarse,  # (V,), (V,), (8, n_coarse) int32
    BLOCK: tl.constexpr,
):  # fmt: skip
    """rows[slot[v], parent[v]] = v where the parent is not negative."""
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(parent + voxel, mask=voxel < n, other=-1)
    corner = tl.load(slot + voxel, mask=voxel < n, other=0)
    tl.store(rows + corner * n_coarse + row, voxel, mask=row >= 0)


@triton.jit(do_not_specialize=["n"])
@no_type_check
def _count_kernel(
    rows, counts, n,  # (K, n), (K, blocks) int32
    BLOCK: tl.constexpr,
):  # fmt: skip
    """counts[k, b] = how many entries of block b of row k are not missing; grid (blocks, K)."""
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(rows + tl.program_id(1) * n + column, mask=column < n, other=-1)
    tl.store(
        counts + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0),
        tl.sum((row >= 0).to(tl.int32), axis=0),
    )


@triton.jit(do_not_specialize=["n"])
@no_type_check
def _list_kernel(
    rows, ends, in_rows, out_rows, begins, n,  # (K, n), (K, blocks), (K n,), (K n,), (K + 1,) int32
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Entries that are not missing, one after the other, and their columns. ends: running sums of `_count_kernel`;
    those of each row's last block are begins[k + 1]."""
    block, k = tl.program_id(0), tl.program_id(1)
    column = block * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(rows + k * n + column, mask=column < n, other=-1)
    there = (row >= 0).to(tl.int32)
    end = tl.load(ends + k * tl.num_programs(0) + block)
    tl.store(begins + k + 1, end, mask=block == tl.num_programs(0) - 1)
    tl.store(begins, 0, mask=block + k == 0)
    place = end - tl.sum(there, axis=0) + tl.cumsum(there, axis=0) - 1
    tl.store(in_rows + place, row, mask=row >= 0)
    tl.store(out_rows + place, column, mask=row >= 0)


def parent_rows(parent: Int[Tensor, " V"], slot: Int[Tensor, " V"], out: Int32[Tensor, "8 V"]) -> None:
    """For every voxel the row of its parent at the corner that it fills there; `MISSING` elsewhere, and where there is
    none, as the parent is negative."""
    n = len(parent)
    if n:
        with on_device_of(out):
            _parent_kernel[(cdiv(n, _BLOCK),)](parent, slot, out, n, BLOCK=_BLOCK, **COMPILE)


def children_rows(parent: Int[Tensor, " V"], slot: Int[Tensor, " V"], out: Int32[Tensor, "8 P"]) -> None:
    """For every parent the row of the voxel at each of its corners, or `MISSING`."""
    n = len(parent)
    out.fill_(-1)
    if n:
        with on_device_of(out):
            _children_kernel[(cdiv(n, _BLOCK),)](parent, slot, out, n, out.shape[1], BLOCK=_BLOCK, **COMPILE)


def listed(
    rows: Int32[Tensor, "K V"],
) -> tuple[Int32[Tensor, " P"], Int32[Tensor, " P"], Int32[Tensor, " K_1"]]:
    """As `table.listed_by_torch`; what follows the last pair is anything."""
    n_offsets, n = rows.shape
    in_rows, out_rows = rows.new_empty(n_offsets * n), rows.new_empty(n_offsets * n)
    if not n:
        return in_rows, out_rows, rows.new_zeros(n_offsets + 1)
    begins, blocks = rows.new_empty(n_offsets + 1), cdiv(n, _BLOCK)
    with on_device_of(rows):
        counts = rows.new_empty(n_offsets, blocks)
        _count_kernel[(blocks, n_offsets)](rows, counts, n, BLOCK=_BLOCK, **COMPILE)
        ends = counts.flatten().cumsum(0, dtype=torch.int32)
        _list_kernel[(blocks, n_offsets)](rows, ends, in_rows, out_rows, begins, n, BLOCK=_BLOCK, **COMPILE)
    return in_rows, out_rows, begins
