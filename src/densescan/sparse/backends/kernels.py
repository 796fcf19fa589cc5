"""Triton kernels of the sparse convolution: implicit GEMM over a neighbour table, and the gradient of its weights.

Output stationary: a program owns a tile of output rows and a block of output channels, goes through the offsets that
occur in its tile, gathers the input rows there, multiplies, and accumulates in registers (float32). No atomics: results
are bit-identical from run to run. In Triton's interpreter the same kernels run on CPU tensors.

Numbers that differ from scene to scene are not compiled into a kernel, which would then be compiled again and again.
`no_type_check` keeps the import hook of the tests from wrapping functions that Triton compiles from their source.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["n_out", "copies", "spare"], do_not_specialize_on_alignment=["counts"])
@no_type_check
def convolve_kernel(
    feats, kernel, out,  # (n_in, copies, c_in), (K, c_in, c_out), (n_out, copies, c_out) in rows of stride_out
    table, order, offsets, counts,  # (K, n_out), (n_out,), (T, K), (T,), see `NeighbourTable`
    scale, scale_rows,  # (P, c_in), (n_in, copies): input row i is multiplied by scale[scale_rows[i]]
    other, other_kernel, c_other,  # (n_out, copies, c_other), (c_other, c_out)
    gain, shift, limits, residual, eps,  # (c_out,), (c_out,), (2, c_out), (n_out, copies, c_out)
    n_out, copies, c_in, c_out, stride_out, spare,
    K: tl.constexpr, TOGETHER: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr,
    BLOCKS_IN: tl.constexpr, BLOCKS_OTHER: tl.constexpr, WHOLE_IN: tl.constexpr, WHOLE_OUT: tl.constexpr,
    POINTWISE: tl.constexpr, SCALED: tl.constexpr, LAYER_NORM: tl.constexpr, GAIN: tl.constexpr, SHIFT: tl.constexpr,
    LIMITS: tl.constexpr, RESIDUAL: tl.constexpr, RELU: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """out[order[p]] = epilogue(sum_k (feats * scale)[table[k, p]] @ kernel[k] + other[order[p]] @ other_kernel).

    Grid (T times c_out blocks, copies / TOGETHER). A program has BLOCK_ROWS / TOGETHER columns of the table, and for
    each of them TOGETHER copies side by side. The last tiles, which have most offsets, come first, so that no long one
    is left when the others are done; blocks of one tile, which read the same rows, follow each other. BLOCKS_IN,
    BLOCKS_OTHER, WHOLE_IN, WHOLE_OUT: how many blocks the input channels and the other channels are, if there are any,
    and whether all blocks are whole. POINTWISE: K is 1 and row p goes to row p; there is no table. spare: 1 if output
    rows without any pair, or POINTWISE those from counts[0] on, are nobody's; tiles of such rows alone are not written.
    WIDEN: multiply in float32.
    """
    blocks_out = tl.cdiv(c_out, BLOCK_OUT)
    tile, lane = (tl.num_programs(0) - 1 - tl.program_id(0)) // blocks_out, tl.arange(0, BLOCK_ROWS)
    position = tile * (BLOCK_ROWS // TOGETHER) + lane // TOGETHER
    copy = tl.program_id(1) * TOGETHER + lane % TOGETHER
    column = tl.program_id(0) % blocks_out * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    inside, wanted = position < n_out, (column < c_out) | WHOLE_OUT
    total = tl.zeros((BLOCK_ROWS, BLOCK_OUT), tl.float32)
    # One flat loop over the blocks of other channels, then over (offset that occurs, block of input channels). Offset
    # and rows are loaded a product ahead: were they loaded with it, the compiler would see addresses that wait for
    # loads, and start no product's loads early.
    count = 1 if POINTWISE else tl.load(counts + tile)
    nobodys = count == 0
    if POINTWISE:
        nobodys = tl.load(counts, mask=spare > 0, other=0) <= tile * (BLOCK_ROWS // TOGETHER)
    if (spare > 0) & nobodys:
        return
    k, row = 0, tl.where(inside, position, -1)
    if not POINTWISE:
        k = tl.load(offsets + tile * K, mask=count > 0, other=0)
        row = tl.load(table + k * n_out + position, mask=inside, other=-1)
    if BLOCKS_OTHER > 0:
        own = tl.load(order + position, mask=inside, other=-1).to(tl.int32)
        row = own
    if SCALED:
        place = tl.load(scale_rows + row * copies + copy, mask=row >= 0, other=0).to(tl.int32)
    for step in range(BLOCKS_OTHER + count * BLOCKS_IN):
        if not POINTWISE:
            ahead = tl.maximum(tl.minimum(step + 1 - BLOCKS_OTHER, count * BLOCKS_IN - 1), 0) // BLOCKS_IN
            next_k = tl.load(offsets + tile * K + ahead, mask=count > 0, other=0)
            next_row = tl.load(table + next_k * n_out + position, mask=inside, other=-1)
            if BLOCKS_OTHER > 0:
                next_row = tl.where(step + 1 < BLOCKS_OTHER, own, next_row)
            if SCALED:
                next_source = next_row * copies + copy
                next_place = tl.load(scale_rows + next_source, mask=next_row >= 0, other=0).to(tl.int32)
        rows, width, matrix, offset, block = feats, c_in, kernel, k, (step - BLOCKS_OTHER) % BLOCKS_IN
        if BLOCKS_OTHER > 0:
            of_other = step < BLOCKS_OTHER
            rows, width = tl.where(of_other, other, feats), tl.where(of_other, c_other, c_in)
            matrix, offset = tl.where(of_other, other_kernel, kernel), tl.where(of_other, 0, k)
            block = tl.where(of_other, step, block)
        channel = block * BLOCK_IN + tl.arange(0, BLOCK_IN)
        there = (channel < width) | WHOLE_IN
        source = row * copies + copy
        known = (row >= 0)[:, None] & there[None, :]
        a = tl.load(rows + source[:, None] * width + channel[None, :], mask=known, other=0.0)
        if SCALED:
            factor = tl.load(scale + place[:, None] * c_in + channel[None, :], mask=known, other=0.0)
            a = (a.to(tl.float32) * factor.to(tl.float32)).to(a.dtype)
        b = tl.load(
            matrix + (offset * c_in + channel)[:, None] * c_out + column[None, :],
            mask=there[:, None] & wanted[None, :], other=0.0,
        )  # fmt: skip
        if WIDEN:  # the interpreter cannot multiply bfloat16; the products are exact in float32
            a, b = a.to(tl.float32), b.to(tl.float32)
        total = tl.dot(a, b, total, input_precision=PRECISION)
        if not POINTWISE:
            k, row = next_k, next_row
            if SCALED:
                place = next_place

    if LAYER_NORM:  # over the channels of each row; the block holds all of them
        mean = tl.sum(total, axis=1) / c_out
        total = tl.where(wanted[None, :], total - mean[:, None], 0.0)
        variance = tl.sum(total * total, axis=1) / c_out
        total *= tl.rsqrt(variance + eps)[:, None]
    if GAIN:
        total *= tl.load(gain + column, mask=wanted, other=0.0).to(tl.float32)[None, :]
    if SHIFT:
        total += tl.load(shift + column, mask=wanted, other=0.0).to(tl.float32)[None, :]
    if LIMITS:
        low = tl.load(limits + column, mask=wanted, other=0.0).to(tl.float32)
        high = tl.load(limits + c_out + column, mask=wanted, other=0.0).to(tl.float32)
        total = tl.minimum(tl.maximum(total, low[None, :]), high[None, :])
    row = position if POINTWISE else tl.load(order + position, mask=inside, other=0).to(tl.int32)
    kept = inside[:, None] & wanted[None, :]
    if RESIDUAL:
        place = (row * copies + copy)[:, None] * c_out + column[None, :]
        total += tl.load(residual + place, mask=kept, other=0.0).to(tl.float32)
    if RELU:
        total = tl.maximum(total, 0.0)
    place = (row * copies + copy)[:, None] * stride_out + column[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=kept)


@triton.jit(do_not_specialize=["splits"])
@no_type_check
def kernel_gradient_kernel(
    feats, grad_out, partial,  # (n_in, c_in), (n_out, c_out), (splits, K, c_in, c_out) float32
    in_rows, out_rows, begins,  # (P,), (P,), (K + 1,), see `OffsetPairs`
    splits, c_in, c_out,
    K: tl.constexpr,
    BLOCK_IN: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_PAIRS: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """partial[s, k] = sum over the s-th share of the pairs (i, o) of offset k of feats[i]^T grad_out[o]."""
    split, k = tl.program_id(0) // K, tl.program_id(0) % K
    channel = tl.program_id(1) * BLOCK_IN + tl.arange(0, BLOCK_IN)
    column = tl.program_id(2) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    begin, end = tl.load(begins + k), tl.load(begins + k + 1)
    share = tl.cdiv(tl.cdiv(end - begin, splits), BLOCK_PAIRS) * BLOCK_PAIRS
    begin += split * share
    end = tl.minimum(end, begin + share)
    total = tl.zeros((BLOCK_IN, BLOCK_OUT), tl.float32)
    lane = tl.arange(0, BLOCK_PAIRS)
    i = tl.load(in_rows + begin + lane, mask=begin + lane < end, other=0)
    o = tl.load(out_rows + begin + lane, mask=begin + lane < end, other=0)
    for first in range(begin, end, BLOCK_PAIRS):
        ahead = first + BLOCK_PAIRS + lane  # as in `convolve_kernel`
        next_i = tl.load(in_rows + ahead, mask=ahead < end, other=0)
        next_o = tl.load(out_rows + ahead, mask=ahead < end, other=0)
        known = first + lane < end
        a = tl.load(
            feats + i[:, None] * c_in + channel[None, :],
            mask=known[:, None] & (channel < c_in)[None, :], other=0.0,
        )  # fmt: skip
        b = tl.load(
            grad_out + o[:, None] * c_out + column[None, :],
            mask=known[:, None] & (column < c_out)[None, :], other=0.0,
        )  # fmt: skip
        if WIDEN:
            a, b = a.to(tl.float32), b.to(tl.float32)
        total = tl.dot(tl.trans(a), b, total, input_precision=PRECISION)
        i, o = next_i, next_o
    place = (split * K + k).to(tl.int64) * c_in * c_out + channel[:, None] * c_out + column[None, :]
    tl.store(partial + place, total, mask=(channel < c_in)[:, None] & (column < c_out)[None, :])
