"""Triton kernels that sort neighbour tables: patterns of columns, and the offsets that occur in tiles of them.

They compute what `table.pattern_code` and `table.tiles_by_torch` define, in one launch in place of a dozen each, and
put columns in order.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Int, Int32
from torch import Tensor

from densescan.sparse.backends.launch import COMPILE, on_device_of

_BLOCK = 512  # columns of a program


@triton.jit(do_not_specialize=["n"])
@no_type_check
def _code_kernel(
    rows, weights, code, n,  # (K, n), (K,), (n,) int32
    K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """code[p] = place in a Gray code of the sum of weights[k] over the offsets k that column p has."""
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = column < n
    found = tl.zeros((BLOCK,), tl.int32)
    for k in range(K):
        row = tl.load(rows + k * n + column, mask=inside, other=-1)
        found += tl.where(row >= 0, tl.load(weights + k), 0)
    for shift in tl.static_range(5):
        found ^= found >> (1 << shift)
    tl.store(code + column, found, mask=inside)


@triton.jit(do_not_specialize=["n", "n_tiles"])
@no_type_check
def _tiles_kernel(
    rows, offsets, counts, n, n_tiles,  # (K, n), (T, K), (T,) int32
    K: tl.constexpr, SIZE: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """offsets[t, :counts[t]] = the offsets that occur in columns t * SIZE to (t + 1) * SIZE, ascending."""
    tile = tl.program_id(0) * TILES + tl.arange(0, TILES)
    column = tile[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    count = tl.zeros((TILES,), tl.int32)
    for k in range(K):
        row = tl.load(rows + k * n + column, mask=column < n, other=-1)
        occurs = tl.max(row, axis=1) >= 0
        tl.store(offsets + tile * K + count, k, mask=occurs)
        count += occurs.to(tl.int32)
    tl.store(counts + tile, count, mask=tile < n_tiles)


@triton.jit(do_not_specialize=["n"])
@no_type_check
def _permute_kernel(
    rows, order, ordered, n,  # (K, n), (n,), (K, n)
    K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """ordered[k, p] = rows[k, order[p]]."""
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = column < n
    place = tl.load(order + column, mask=inside, other=0).to(tl.int32)
    for k in range(K):
        tl.store(ordered + k * n + column, tl.load(rows + k * n + place, mask=inside, other=0), mask=inside)


def pattern_code(rows: Int32[Tensor, "K V"], weights: Int32[Tensor, " K"]) -> Int32[Tensor, " V"]:
    """As `table.pattern_code`."""
    rows = rows.contiguous()
    n_offsets, n = rows.shape
    code = rows.new_empty(n)
    if n:
        with on_device_of(rows):
            _code_kernel[(triton.cdiv(n, _BLOCK),)](
                rows, weights, code, n, K=n_offsets, BLOCK=_BLOCK, **COMPILE
            )
    return code


def tiles(rows: Int32[Tensor, "K V"], size: int) -> tuple[Int32[Tensor, "T K"], Int32[Tensor, " T"]]:
    """As `table.tiles_by_torch`, for a size that is a power of two."""
    n_offsets, n = rows.shape
    n_tiles = triton.cdiv(n, size)
    offsets, counts = rows.new_empty(n_tiles, n_offsets), rows.new_empty(n_tiles)
    if n:
        with on_device_of(rows):
            at_once = max(1, _BLOCK // size)
            _tiles_kernel[(triton.cdiv(n_tiles, at_once),)](
                rows, offsets, counts, n, n_tiles, K=n_offsets, SIZE=size, TILES=at_once, **COMPILE
            )
    return offsets, counts


def permuted(rows: Int32[Tensor, "K V"], order: Int[Tensor, " V"]) -> Int32[Tensor, "K V"]:
    """rows[:, order]."""
    rows = rows.contiguous()
    n_offsets, n = rows.shape
    ordered = torch.empty_like(rows)
    if n:
        with on_device_of(rows):
            _permute_kernel[(triton.cdiv(n, _BLOCK),)](
                rows, order, ordered, n, K=n_offsets, BLOCK=_BLOCK, **COMPILE
            )
    return ordered
