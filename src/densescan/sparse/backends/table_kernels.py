"""Triton kernels that make and sort neighbour tables: those of the 2x2x2 maps, patterns of columns, columns in order,
the offsets that occur in tiles of them, and lists of pairs.

They compute what `table.pattern_code` and `table.tiles_by_torch` define, in one launch in place of a dozen each. All
offsets of a column are loaded at once: one after the other, a program would wait for memory so many times.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Int, Int32
from torch import Tensor

from densescan.sparse.backends.launch import COMPILE, cdiv, on_device_of, power_of_two

_BLOCK = 512  # entries of a row of a table that a program has
_COLUMNS = 128  # columns of a program that has all their entries


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


@triton.jit(do_not_specialize=["n", "tag"], do_not_specialize_on_alignment=["code"])
@no_type_check
def _code_kernel(
    rows, weights, code, n, tag,  # (K, n), (K,), (n,) int32
    K: tl.constexpr, KS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """code[p] = tag + place in a Gray code of the sum of weights[k] over the offsets k that column p has.

    KS: K or more, a power of two.
    """
    k = tl.arange(0, KS)[:, None]
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = (k < K) & (column < n)[None, :]
    row = tl.load(rows + k * n + column[None, :], mask=there, other=-1)
    found = tl.sum(tl.where(row >= 0, tl.load(weights + k, mask=k < K, other=0), 0), axis=0)
    for shift in tl.static_range(5):
        found ^= found >> (1 << shift)
    tl.store(code + column, found + tag, mask=column < n)


@triton.jit(do_not_specialize=["n", "n_tiles"])
@no_type_check
def _tiles_kernel(
    rows, offsets, counts, n, n_tiles,  # (K, n), (T, K), (T,) int32
    K: tl.constexpr, KS: tl.constexpr, SIZE: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """offsets[t, :counts[t]] = the offsets that occur in columns t * SIZE to (t + 1) * SIZE, ascending."""
    tile = tl.program_id(0) * TILES + tl.arange(0, TILES)
    k = tl.arange(0, KS)[:, None, None]
    column = tile[None, :, None] * SIZE + tl.arange(0, SIZE)[None, None, :]
    row = tl.load(rows + k * n + column, mask=(k < K) & (column < n), other=-1)
    occurs = (tl.max(row, axis=2) >= 0).to(tl.int32)  # (KS, TILES)
    place = tile[None, :] * K + tl.cumsum(occurs, axis=0) - 1
    number = tl.arange(0, KS)[:, None] + tl.zeros_like(occurs)
    tl.store(offsets + place, number, mask=occurs > 0)
    tl.store(counts + tile, tl.sum(occurs, axis=0), mask=tile < n_tiles)


@triton.jit(do_not_specialize=["n", "begin"], do_not_specialize_on_alignment=["order"])
@no_type_check
def _permute_kernel(
    rows, order, ordered, own, n, begin,  # (K, n), (n,), (K, n), (n,)
    BLOCK: tl.constexpr,
):  # fmt: skip
    """own[p] = order[p] - begin; ordered[k, p] = rows[k, own[p]]; grid (blocks, K)."""
    k = tl.program_id(1)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = column < n
    place = tl.load(order + column, mask=inside, other=0).to(tl.int32) - begin
    tl.store(ordered + k * n + column, tl.load(rows + k * n + place, mask=inside, other=0), mask=inside)
    tl.store(own + column, place, mask=k * n + column < n)  # once


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


def parent_rows(parent: Int[Tensor, " V"], slot: Int[Tensor, " V"]) -> Int32[Tensor, "8 V"]:
    """For every voxel the row of its parent at the corner that it fills there; `MISSING` elsewhere, and where there is
    none, as the parent is negative."""
    n = len(parent)
    rows = torch.empty(8, n, dtype=torch.int32, device=parent.device)
    if n:
        with on_device_of(rows):
            _parent_kernel[(cdiv(n, _BLOCK),)](parent, slot, rows, n, BLOCK=_BLOCK, **COMPILE)
    return rows


def children_rows(parent: Int[Tensor, " V"], slot: Int[Tensor, " V"], n_coarse: int) -> Int32[Tensor, "8 P"]:
    """For every parent the row of the voxel at each of its corners, or `MISSING`."""
    n = len(parent)
    rows = torch.full((8, n_coarse), -1, dtype=torch.int32, device=parent.device)
    if n:
        with on_device_of(rows):
            _children_kernel[(cdiv(n, _BLOCK),)](parent, slot, rows, n, n_coarse, BLOCK=_BLOCK, **COMPILE)
    return rows


def pattern_code(
    rows: Int32[Tensor, "K V"],
    weights: Int32[Tensor, " K"],
    tag: int = 0,
    out: Int32[Tensor, " V"] | None = None,
) -> Int32[Tensor, " V"]:
    """As `table.pattern_code`, with a number added. out: where the codes are written."""
    rows = rows.contiguous()
    n_offsets, n = rows.shape
    code = rows.new_empty(n) if out is None else out
    if n:
        with on_device_of(rows):
            _code_kernel[(cdiv(n, _COLUMNS),)](
                rows, weights, code, n, tag,
                K=n_offsets, KS=power_of_two(n_offsets), BLOCK=_COLUMNS, **COMPILE,
            )  # fmt: skip
    return code


def tiles(rows: Int32[Tensor, "K V"], size: int) -> tuple[Int32[Tensor, "T K"], Int32[Tensor, " T"]]:
    """As `table.tiles_by_torch`, for a size that is a power of two."""
    n_offsets, n = rows.shape
    n_tiles = cdiv(n, size)
    offsets, counts = rows.new_empty(n_tiles, n_offsets), rows.new_empty(n_tiles)
    if n:
        at_once = max(1, _COLUMNS // size)
        with on_device_of(rows):
            _tiles_kernel[(cdiv(n_tiles, at_once),)](
                rows, offsets, counts, n, n_tiles,
                K=n_offsets, KS=power_of_two(n_offsets), SIZE=size, TILES=at_once, **COMPILE,
            )  # fmt: skip
    return offsets, counts


def permuted(
    rows: Int32[Tensor, "K V"], order: Int[Tensor, " V"], begin: int = 0
) -> tuple[Int32[Tensor, "K V"], Int32[Tensor, " V"]]:
    """rows[:, order - begin], and order - begin."""
    rows, order = rows.contiguous(), order.contiguous()
    n_offsets, n = rows.shape
    ordered, own = torch.empty_like(rows), rows.new_empty(n)
    if n:
        with on_device_of(rows):
            _permute_kernel[(cdiv(n, _BLOCK), n_offsets)](
                rows, order, ordered, own, n, begin, BLOCK=_BLOCK, **COMPILE
            )
    return ordered, own


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
