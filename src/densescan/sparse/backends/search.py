"""Searches among sorted voxel keys by Triton kernels: neighbours of every voxel, and the nearest voxel of another set.

Nothing here waits for the device: results have as many rows as their input, and `MISSING` where nothing was found.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Int, Int32
from torch import Tensor

from densescan.sparse.backends.launch import COMPILE, on_device_of
from densescan.sparse.keys import AXIS_BITS, BIAS
from densescan.sparse.tensor import Voxels

_SEARCH_BLOCK = 256  # voxels a program
_NEAREST_BLOCKS = (64, 32)  # queries and targets that a program compares at a time
MAX_TARGETS = 1 << 24  # a row number takes the lower bits of a 64-bit number, a squared distance the 40 above


@triton.jit
@no_type_check
def _neighbour_kernel(
    keys, rows, n, halvings,  # (V,) sorted int64, (27, V) int32
    BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """rows[k, v] = row of the voxel at offset k from voxel v, or -1; grid (V blocks, 9 columns of three along z)."""
    column = tl.program_id(1)
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < n
    step = ((column % 3 - 1).to(tl.int64) << 2 * BITS) + ((column // 3 - 1).to(tl.int64) << BITS)
    target = tl.load(keys + voxel, mask=inside, other=0) + step - 1
    low = tl.zeros((BLOCK,), tl.int32)
    high = low + n
    for _ in range(halvings):  # the first key that is not below the target
        middle = (low + high) // 2
        open_ = low < high
        below = tl.load(keys + middle, mask=open_, other=0) < target
        low = tl.where(open_ & below, middle + 1, low)
        high = tl.where(open_ & below, high, middle)
    for dz in range(3):  # voxels that follow each other along z have keys that do
        hit = (low < n) & (tl.load(keys + low, mask=low < n, other=0) == target)
        tl.store(rows + (column + 9 * dz) * n + voxel, tl.where(hit, low, -1), mask=inside)
        low += hit.to(tl.int32)
        target += 1


@triton.jit
@no_type_check
def _nearest_kernel(
    queries, targets, begins, ends, rows, n_queries,  # begins, ends: the targets in the cloud of each query
    query_stride, target_stride,
    BITS: tl.constexpr, OFFSET: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """rows[q] = the nearest target of query q, the first of equally near ones, or -1."""
    far = 0x7FFFFFFFFFFFFFFF
    query = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    inside = query < n_queries
    key = tl.load(queries + query, mask=inside, other=0)
    begin = tl.load(begins + query, mask=inside, other=far)
    end = tl.load(ends + query, mask=inside, other=0)
    axis_mask = (1 << BITS) - 1
    x = (((key >> 2 * BITS) & axis_mask).to(tl.int32) - OFFSET) * query_stride
    y = (((key >> BITS) & axis_mask).to(tl.int32) - OFFSET) * query_stride
    z = ((key & axis_mask).to(tl.int32) - OFFSET) * query_stride
    best = tl.full((BLOCK_Q,), far, tl.int64)
    for first in range(tl.min(begin, axis=0), tl.max(end, axis=0), BLOCK_T):
        target = first + tl.arange(0, BLOCK_T)
        known = (target[None, :] >= begin[:, None]) & (target[None, :] < end[:, None])
        other = tl.load(targets + target, mask=target < tl.max(end, axis=0), other=0)
        u = (((other >> 2 * BITS) & axis_mask).to(tl.int32) - OFFSET) * target_stride
        v = (((other >> BITS) & axis_mask).to(tl.int32) - OFFSET) * target_stride
        w = ((other & axis_mask).to(tl.int32) - OFFSET) * target_stride
        dx = (x[:, None] - u[None, :]).to(tl.int64)
        dy = (y[:, None] - v[None, :]).to(tl.int64)
        dz = (z[:, None] - w[None, :]).to(tl.int64)
        ranked = ((dx * dx + dy * dy + dz * dz) << 24) + target[None, :]
        best = tl.minimum(best, tl.min(tl.where(known, ranked, far), axis=1))
    tl.store(rows + query, tl.where(best == far, -1, best & ((1 << 24) - 1)), mask=inside)


def neighbour_rows(keys: Int[Tensor, " V"]) -> Int32[Tensor, "27 V"]:
    """For every voxel the row of its neighbour at each offset of the 3x3x3 kernel, or `MISSING`.

    keys: sorted, unique. Nine binary searches a voxel, of one column of three voxels each.
    """
    n = len(keys)
    rows = torch.empty(27, n, dtype=torch.int32, device=keys.device)
    if n:
        grid = (triton.cdiv(n, _SEARCH_BLOCK), 9)
        with on_device_of(keys):
            _neighbour_kernel[grid](
                keys, rows, n, n.bit_length(), BITS=AXIS_BITS, BLOCK=_SEARCH_BLOCK, **COMPILE
            )
    return rows


def nearest_rows(queries: Voxels, targets: Voxels) -> Int[Tensor, " V"]:
    """Row of the target voxel nearest to each query voxel within the same cloud; `MISSING` where it has no target.

    Distances are exact and Euclidean between the voxels' lower corners; among equally near targets the
    lexicographically smallest coordinate wins. All pairs within a cloud are compared, without storing any.

    Raises: ValueError: 2^24 targets or more.
    """
    if len(targets) >= MAX_TARGETS:
        raise ValueError(f"{len(targets)} target voxels, fewer than {MAX_TARGETS} are supported")
    cloud = queries.keys >> 3 * AXIS_BITS
    begins = torch.searchsorted(targets.keys, cloud << 3 * AXIS_BITS)
    ends = torch.searchsorted(targets.keys, (cloud + 1) << 3 * AXIS_BITS)
    rows = torch.empty_like(queries.keys)
    block_q, block_t = _NEAREST_BLOCKS
    if len(queries):
        with on_device_of(rows):
            _nearest_kernel[(triton.cdiv(len(queries), block_q),)](
                queries.keys, targets.keys, begins, ends, rows, len(queries), queries.stride, targets.stride,
                BITS=AXIS_BITS, OFFSET=BIAS, BLOCK_Q=block_q, BLOCK_T=block_t, **COMPILE,
            )  # fmt: skip
    return rows
