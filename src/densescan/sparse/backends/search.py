"""Searches among sorted voxel keys by Triton kernels: neighbours of every voxel, and the nearest voxel of another set.

Nothing here waits for the device: results have as many rows as their input, and `MISSING` where nothing was found.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Int, Int32
from torch import Tensor

from densescan.sparse.backends.launch import COMPILE, cdiv, on_device_of
from densescan.sparse.backends.room import FIRST_FREE
from densescan.sparse.keys import AXIS_BITS, BIAS
from densescan.sparse.tensor import Voxels

_SEARCH_BLOCK = 256  # voxels a program
_NEAREST_BLOCKS = (32, 16)  # queries and targets that a program of two warps compares at a time
MAX_TARGETS = 1 << 24  # a row number takes the lower bits of a 64-bit number, a squared distance the 40 above


@triton.jit
@no_type_check
def first_not_below(keys, wanted, n, halvings):
    """The row of the first of n sorted keys that is not below each wanted one, or n; halvings: n.bit_length()."""
    low = (wanted * 0).to(tl.int32)
    high = low + n
    for _ in range(halvings):
        middle = (low + high) // 2
        open_ = low < high
        below = tl.load(keys + middle, mask=open_, other=0) < wanted
        low = tl.where(open_ & below, middle + 1, low)
        high = tl.where(open_ & below, high, middle)
    return low


@triton.jit
@no_type_check
def _neighbour_kernel(
    keys, rows, n, halvings,  # (V,) sorted int64, (27, V) int32
    BITS: tl.constexpr, FREE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """rows[k, v] = row of the voxel at offset k from voxel v, or -1; grid (V blocks, 9 columns of three along z).

    Rows whose key is FREE or more hold no voxel.
    """
    column = tl.program_id(1)
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < n
    step = ((column % 3 - 1).to(tl.int64) << 2 * BITS) + ((column // 3 - 1).to(tl.int64) << BITS)
    key = tl.load(keys + voxel, mask=inside, other=0)
    known = key < FREE
    target = key + step - 1
    low = first_not_below(keys, target, n, halvings)
    for dz in range(3):  # voxels that follow each other along z have keys that do
        hit = known & (low < n) & (tl.load(keys + low, mask=low < n, other=0) == target)
        tl.store(rows + (column + 9 * dz) * n + voxel, tl.where(hit, low, -1), mask=inside)
        low += hit.to(tl.int32)
        target += 1


@triton.jit
@no_type_check
def coordinate(key, axis: tl.constexpr, stride, BITS: tl.constexpr, OFFSET: tl.constexpr):
    """x (axis 2), y (1) or z (0) of a key, in units of the finest level."""
    return (((key >> axis * BITS) & ((1 << BITS) - 1)).to(tl.int32) - OFFSET) * stride


@triton.jit
@no_type_check
def _nearer(
    best, x, y, z, begin, end, targets, first, stride,
    BITS: tl.constexpr, OFFSET: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The least of `best` and 2^24 times squared distance plus row, over BLOCK targets from row `first` on."""
    target = first + tl.arange(0, BLOCK)
    known = (target[None, :] >= begin[:, None]) & (target[None, :] < end[:, None])
    key = tl.load(targets + target, mask=(target >= 0) & (target < tl.max(end, axis=0)), other=0)
    dx = (x[:, None] - coordinate(key, 2, stride, BITS, OFFSET)[None, :]).to(tl.int64)
    dy = (y[:, None] - coordinate(key, 1, stride, BITS, OFFSET)[None, :]).to(tl.int64)
    dz = (z[:, None] - coordinate(key, 0, stride, BITS, OFFSET)[None, :]).to(tl.int64)
    ranked = ((dx * dx + dy * dy + dz * dz) << 24) + target[None, :]
    return tl.minimum(best, tl.min(tl.where(known, ranked, 0x7FFFFFFFFFFFFFFF), axis=1))


@triton.jit
@no_type_check
def targets_about(
    key, targets, n_targets, halvings, query_stride, target_stride, BITS: tl.constexpr, OFFSET: tl.constexpr
):  # fmt: skip
    """Where the targets in the cloud of each key begin and end, the same of all keys together, the first target at the
    x of one of them or beyond, and whether they are of several clouds."""
    cloud = key >> 3 * BITS << 3 * BITS
    x_from_0 = ((key >> 2 * BITS) & ((1 << BITS) - 1)) * query_stride  # never negative: division rounds down
    slab = x_from_0 // target_stride - OFFSET * query_stride // target_stride + OFFSET
    begin = first_not_below(targets, cloud, n_targets, halvings)
    first = first_not_below(targets, cloud + (slab << 2 * BITS), n_targets, halvings)
    end = first_not_below(targets, cloud + (1 << 3 * BITS), n_targets, halvings)
    low = tl.min(begin, axis=0)
    return begin, end, low, tl.max(end, axis=0), tl.min(first, axis=0), tl.max(begin, axis=0) > low


@triton.jit
@no_type_check
def swept(
    key, targets, n_targets, halvings, query_stride, target_stride,
    BITS: tl.constexpr, OFFSET: tl.constexpr, FREE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """2^24 times squared distance plus row of the target nearest to each of the keys, the largest number if there is
    none; of keys from FREE on, any number.

    The keys, which ascend, lie in a slice along x, as do consecutive targets: it goes from that slice outwards, until
    the distance along x alone exceeds all that it has found. Of keys of several clouds it looks at all targets.
    """
    least = tl.min(key, axis=0)
    key = tl.where(key < FREE, key, least)  # the first one again
    begin, end, low, high, start, mixed = targets_about(
        key, targets, n_targets, halvings, query_stride, target_stride, BITS, OFFSET
    )
    x = coordinate(key, 2, query_stride, BITS, OFFSET)
    y = coordinate(key, 1, query_stride, BITS, OFFSET)
    z = coordinate(key, 0, query_stride, BITS, OFFSET)
    best = tl.full((BLOCK_Q,), 0x7FFFFFFFFFFFFFFF, tl.int64)
    row, near = start, least < FREE
    while (row < high) & near:
        best = _nearer(best, x, y, z, begin, end, targets, row, target_stride, BITS, OFFSET, BLOCK_T)
        row += BLOCK_T
        ahead = coordinate(tl.load(targets + row, mask=row < high, other=0), 2, target_stride, BITS, OFFSET)
        gap = tl.maximum(ahead - tl.max(x, axis=0), 0).to(tl.int64)
        near = mixed | (gap * gap <= (tl.max(best, axis=0) >> 24))
    row, near = start, least < FREE
    while (row > low) & near:
        row -= BLOCK_T
        best = _nearer(best, x, y, z, begin, end, targets, row, target_stride, BITS, OFFSET, BLOCK_T)
        behind = coordinate(
            tl.load(targets + row - 1, mask=row > low, other=0), 2, target_stride, BITS, OFFSET
        )
        gap = tl.maximum(tl.min(x, axis=0) - behind, 0).to(tl.int64)
        near = mixed | (gap * gap <= (tl.max(best, axis=0) >> 24))
    return best


@triton.jit
@no_type_check
def row_of(best):
    """The row of what `swept` found, or -1."""
    return tl.where(best == 0x7FFFFFFFFFFFFFFF, -1, best & ((1 << 24) - 1))


@triton.jit
@no_type_check
def _nearest_kernel(
    queries, targets, rows, n_queries, n_targets, halvings, query_stride, target_stride,
    BITS: tl.constexpr, OFFSET: tl.constexpr, FREE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """rows[q] = the nearest target of query q, the first of equally near ones, or -1; any number for FREE and above."""
    query = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    query = tl.minimum(query, n_queries - 1)  # the last one again, rather than none
    key = tl.load(queries + query)
    best = swept(
        key, targets, n_targets, halvings, query_stride, target_stride, BITS, OFFSET, FREE, BLOCK_Q, BLOCK_T
    )
    tl.store(rows + query, row_of(best))


def neighbour_rows(keys: Int[Tensor, " V"], out: Int32[Tensor, "27 V"]) -> None:
    """For every voxel the row of its neighbour at each offset of the 3x3x3 kernel, or `MISSING`.

    keys: sorted, unique but for those from `FIRST_FREE` on, which have no neighbours. Nine binary searches a voxel, of
        one column of three voxels each.
    """
    n = len(keys)
    if n:
        grid = (cdiv(n, _SEARCH_BLOCK), 9)
        with on_device_of(keys):
            _neighbour_kernel[grid](
                keys, out, n, n.bit_length(), BITS=AXIS_BITS, FREE=FIRST_FREE, BLOCK=_SEARCH_BLOCK, **COMPILE
            )


def check_targets(targets: Voxels) -> None:
    """Raises: ValueError: 2^24 targets or more."""
    if len(targets) >= MAX_TARGETS:
        raise ValueError(f"{len(targets)} target voxels, fewer than {MAX_TARGETS} are supported")


def nearest_rows(queries: Voxels, targets: Voxels) -> Int[Tensor, " V"]:
    """Row of the target voxel nearest to each query voxel within the same cloud; `MISSING` where it has no target, and
    something or other for rows that hold no voxel.

    Distances are exact and Euclidean between the voxels' lower corners; among equally near targets the
    lexicographically smallest coordinate wins. Targets are compared in order of their distance along x.

    Raises: ValueError: 2^24 targets or more.
    """
    check_targets(targets)
    rows = torch.empty_like(queries.keys)
    block_q, block_t = _NEAREST_BLOCKS
    if len(queries):
        with on_device_of(rows):
            _nearest_kernel[(cdiv(len(queries), block_q),)](
                queries.keys, targets.keys, rows, len(queries),
                len(targets), len(targets).bit_length(), queries.stride, targets.stride,
                BITS=AXIS_BITS, OFFSET=BIAS, FREE=FIRST_FREE, BLOCK_Q=block_q, BLOCK_T=block_t, num_warps=2, **COMPILE,
            )  # fmt: skip
    return rows
