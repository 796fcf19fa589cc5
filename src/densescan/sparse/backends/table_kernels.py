"""Triton kernels that sort neighbour tables: patterns of columns, and the offsets that occur in tiles of them.

They compute what `table.pattern_code` and `table.tiles_by_torch` define, in one launch in place of a dozen each.
"""

from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Int32
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


@triton.jit(do_not_specialize=["n"])
@no_type_check
def _tiles_kernel(
    rows, offsets, counts, n,  # (K, n), (T, K), (T,) int32
    K: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """offsets[t, :counts[t]] = the offsets that occur in columns t * SIZE to (t + 1) * SIZE, ascending."""
    tile = tl.program_id(0)
    column = tile * SIZE + tl.arange(0, SIZE)
    count = 0
    for k in range(K):
        row = tl.load(rows + k * n + column, mask=column < n, other=-1)
        occurs = tl.max(row, axis=0) >= 0
        tl.store(offsets + tile * K + count, k, mask=occurs)
        count += occurs.to(tl.int32)
    tl.store(counts + tile, count)


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
            _tiles_kernel[(n_tiles,)](rows, offsets, counts, n, K=n_offsets, SIZE=size, **COMPILE)
    return offsets, counts
