"""Sparse convolution by Triton kernels: the CUDA fast path of `sparse.functional.sparse_conv`, with the same signature.

`fused_conv` is the form for inference: the scaling of the input rows, the norm, the residual and the ReLU around a
convolution happen in its one pass over memory.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from densescan.sparse.backends import room
from densescan.sparse.backends.kernels import convolve_kernel, kernel_gradient_kernel
from densescan.sparse.backends.launch import COMPILE, INTERPRETED, cdiv, on_device_of, power_of_two, precision
from densescan.sparse.backends.table import NeighbourTable, table_of
from densescan.sparse.epilogue import Epilogue, RowProduct
from densescan.sparse.kernel_map import KernelMap
from densescan.sparse.rows import RowScale

MAX_ELEMENTS = 2**31 - 1  # the kernels count rows times channels in 32 bits
MOST_TOGETHER = 4
"""Copies of the features, at most and a power of two, that a program takes side by side: the guided and the unguided
branch look at the same columns of the table, which then make smaller tiles, of which more offsets are skipped."""
_MULTIPROCESSORS = 132  # of an H200
_PROGRAMS = 8 * _MULTIPROCESSORS  # aimed at in the weight gradient


@dataclass(frozen=True)
class Blocks:
    """How a product is cut into programs, and what the compiler makes of one."""

    rows: int
    """Output rows of a program, those of all its copies; pairs in the weight gradient."""
    c_out: int
    """Output channels of a program."""
    c_in: int
    """Input channels multiplied at a time."""
    warps: int = 4
    """Warps of 32 threads a program."""
    stages: int = 3
    """Loads that are in flight, in products."""


class _SparseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feats: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
        reduced = kernel.to(feats.dtype)
        ctx.save_for_backward(feats, reduced)
        ctx.kernel_map, ctx.kernel_dtype = kernel_map, kernel.dtype
        return convolve(feats, reduced, table_of(kernel_map))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        feats, kernel = ctx.saved_tensors
        grad_feats = grad_kernel = None
        if ctx.needs_input_grad[0]:
            grad_feats = _adjoint(grad_out, kernel.transpose(1, 2), ctx.kernel_map)
        if ctx.needs_input_grad[1]:
            grad_kernel = kernel_gradient(feats, grad_out, table_of(ctx.kernel_map)).to(ctx.kernel_dtype)
        return grad_feats, grad_kernel, None


def _adjoint(grad_out: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
    """The gradient of the features. kernel: with its channels exchanged."""
    if kernel_map.symmetric:  # the same table, looked at from the other end
        return convolve(grad_out, kernel.flip(0), table_of(kernel_map))
    return convolve(grad_out, kernel, table_of(kernel_map.transposed))


def sparse_conv(
    feats: Float[Tensor, "V_in *G C_in"], kernel: Float[Tensor, "K C_in C_out"], kernel_map: KernelMap
) -> Float[Tensor, "V_out *G C_out"]:
    """As `sparse.functional.sparse_conv`, on features in bfloat16, float16 or float32.

    Sums are kept in float32. float32 is multiplied as torch.get_float32_matmul_precision says: `highest` in float32,
    otherwise in TF32.
    """
    return _SparseConv.apply(feats, kernel, kernel_map)  # type: ignore[no-any-return]


def fused_conv(
    feats: Float[Tensor, "V_in *G C_in"],
    kernel: Float[Tensor, "K C_in C_out"],
    kernel_map: KernelMap,
    epilogue: Epilogue | None = None,
    scale: RowScale | None = None,
    beside: Float[Tensor, "V_out *G C_beside"] | None = None,
    product: RowProduct | None = None,
) -> Float[Tensor, "V_out *G C"]:
    """A convolution with what surrounds it, in one pass; not differentiable.

    Several copies G of the features, such as the guided and the unguided branch, share the map. beside: features of the
    same rows, whose channels follow those of the result. product: is added to the sums; not with a scale.
    """
    if scale is not None and scale.rows is None:
        feats, scale = scale(feats), None
    if beside is None:
        return convolve(feats, kernel, table_of(kernel_map), epilogue, scale, product=product)
    c_out = kernel.shape[2]
    out = beside.new_empty(*beside.shape[:-1], c_out + beside.shape[-1])
    _copy(beside, out[..., c_out:])
    convolve(feats, kernel, table_of(kernel_map), epilogue, scale, out=out[..., :c_out], product=product)
    return out


def pointwise(
    feats: Float[Tensor, "V *G C_in"],
    kernel: Float[Tensor, "C_in C_out"],
    epilogue: Epilogue | None = None,
    present: Int[Tensor, ""] | None = None,
) -> Float[Tensor, "V *G C_out"]:
    """feats @ kernel and what follows it; not differentiable. Features of a reduced type and a kernel in float32 are
    multiplied in float32.

    A row's result does not depend on how many there are, as it does where a library chooses among its kernels. present:
    how many rows, from the first on, mean anything; None: all.
    """
    return convolve(feats, kernel[None], None, epilogue, present=present)


def _copy(source: Tensor, target: Tensor) -> None:
    """Copy rows of a reduced type eight bytes at a time, four times as fast as number by number."""
    together = 8 // source.element_size()
    starts = target.storage_offset(), source.storage_offset(), source.shape[-1], *target.stride()[:-1]
    if source.stride(-1) == 1 and all(n % together == 0 for n in (*starts, *source.stride()[:-1])):
        source, target = source.view(torch.int64), target.view(torch.int64)
    target.copy_(source)


def _contiguous(feats: Tensor) -> Tensor:
    if feats.is_contiguous():
        return feats
    out = torch.empty_like(feats, memory_format=torch.contiguous_format)
    _copy(feats, out)
    return out


def convolve(
    feats: Tensor,
    kernel: Tensor,
    table: NeighbourTable | None,
    epilogue: Epilogue | None = None,
    scale: RowScale | None = None,
    blocks: Blocks | None = None,
    out: Tensor | None = None,
    present: Tensor | None = None,
    product: RowProduct | None = None,
) -> Tensor:
    """`fused_conv` on a neighbour table; None: the kernel has one offset, and each row goes to itself.

    out: where the result is written, which may be the first channels of wider rows; None: memory of its own. present:
    as for `pointwise`, without a table. product: not without a table, nor with a scale.
    Raises: ValueError: types or row counts that do not fit, or more elements than 32-bit indices reach.
    """
    epilogue = epilogue or Epilogue()
    feats, kernel = _contiguous(feats), kernel.contiguous()
    n_out = feats.shape[0] if table is None else table.n_out
    _check(feats, kernel, table, out)
    if product is not None:
        _check_product(product, feats, kernel, table, scale)
    copies = feats.shape[1:-1].numel()
    c_in, c_out = kernel.shape[1:]
    blocks = blocks or forward_blocks(kernel, copies * n_out, whole=epilogue.layer_eps is not None)
    together = math.gcd(copies, MOST_TOGETHER)
    if out is None:
        out = kernel.new_empty(n_out, *feats.shape[1:-1], c_out)
    if not out.numel():
        return out
    other = None if product is None else _contiguous(product.feats)
    c_other = 0 if other is None else other.shape[-1]
    columns = blocks.rows // together
    tiles = table.tiles(columns) if table is not None else None
    grid = (cdiv(n_out, columns) * cdiv(c_out, blocks.c_out), copies // together)
    absent = table.order if table is not None else feats
    spare = present is not None if table is None else room.current() is not None
    counts = tiles.counts if tiles is not None else _pointer(present, absent)
    with on_device_of(feats):
        convolve_kernel[grid](
            feats, kernel, out,
            table.rows if table is not None else absent, absent,
            tiles.offsets if tiles is not None else absent, counts,
            _pointer(scale.weight if scale else None, feats), _pointer(scale.rows if scale else None, absent),
            _pointer(other, feats), _pointer(product.kernel if product else None, kernel), c_other,
            _pointer(epilogue.gain, feats), _pointer(epilogue.shift, feats), _pointer(epilogue.limits, feats),
            _pointer(epilogue.residual, feats), epilogue.layer_eps or 0.0,
            n_out, copies, c_in, c_out, out.stride(-2), int(spare),
            K=kernel.shape[0], TOGETHER=together,
            BLOCK_ROWS=blocks.rows, BLOCK_OUT=blocks.c_out, BLOCK_IN=blocks.c_in,
            BLOCKS_IN=cdiv(c_in, blocks.c_in), BLOCKS_OTHER=cdiv(c_other, blocks.c_in),
            WHOLE_IN=(c_in % blocks.c_in, c_other % blocks.c_in) == (0, 0), WHOLE_OUT=c_out % blocks.c_out == 0,
            POINTWISE=table is None, SCALED=scale is not None, LAYER_NORM=epilogue.layer_eps is not None,
            GAIN=epilogue.gain is not None, SHIFT=epilogue.shift is not None,
            LIMITS=epilogue.limits is not None, RESIDUAL=epilogue.residual is not None,
            RELU=epilogue.relu, PRECISION=precision(), WIDEN=INTERPRETED or feats.dtype != kernel.dtype,
            num_warps=blocks.warps, num_stages=blocks.stages, **COMPILE,
        )  # fmt: skip
    return out


def kernel_gradient(
    feats: Tensor, grad_out: Tensor, table: NeighbourTable, blocks: Blocks | None = None
) -> Float[Tensor, "K C_in C_out"]:
    """grad_kernel[k] = sum over pairs (i, o) of feats[i]^T grad_out[o], in float32."""
    if feats.ndim > 2:
        copies = zip(feats.unbind(1), grad_out.unbind(1), strict=True)
        return torch.stack([kernel_gradient(*copy, table, blocks) for copy in copies]).sum(0)
    feats, grad_out = feats.contiguous(), grad_out.contiguous()
    n_offsets, c_in, c_out = len(table.rows), feats.shape[1], grad_out.shape[1]
    blocks = blocks or gradient_blocks(feats, c_out)
    cuts = (cdiv(c_in, blocks.c_in), cdiv(c_out, blocks.c_out))
    splits = _splits(table.n_out, blocks.rows, programs=n_offsets * cuts[0] * cuts[1])
    shape = (splits, n_offsets, c_in, c_out)
    partial = torch.empty(shape, dtype=torch.float32, device=feats.device)
    pairs = table.pairs
    with on_device_of(feats):
        kernel_gradient_kernel[(splits * n_offsets, *cuts)](
            feats, grad_out, partial,
            pairs.in_rows, pairs.out_rows, pairs.begins, splits, c_in, c_out,
            K=n_offsets,
            BLOCK_IN=blocks.c_in, BLOCK_OUT=blocks.c_out, BLOCK_PAIRS=blocks.rows,
            PRECISION=precision(), WIDEN=INTERPRETED,
            num_warps=blocks.warps, num_stages=blocks.stages, **COMPILE,
        )  # fmt: skip
    return partial.sum(0)


def forward_blocks(kernel: Tensor, n_out: int, whole: bool = False) -> Blocks:
    """Blocks of a convolution. n_out: rows of the result, those of all copies. whole: a program owns all output
    channels, which a layer norm needs.

    Those of reduced types are the fastest on an H200, or nearly, measured with two copies of the features (the guided
    and the unguided branch) at three noise levels; of float32, chosen on paper. A smaller scene gets smaller blocks, so
    that there are enough for 132 multiprocessors.
    """
    (c_in, c_out), wide = kernel.shape[1:], kernel.element_size() == 4
    most = _power_of_two(c_out)
    if not whole:
        most = min(most, 256 if c_in > c_out and not wide else 128)
    inner = min(32 if wide else 64, _power_of_two(c_in))
    rows = 64 if whole and most > 128 else 128
    if cdiv(n_out, rows) * cdiv(c_out, most) < 2 * _MULTIPROCESSORS:
        rows, most = 64, most if whole else min(128, most)
    large = rows * most >= (128 * 128 if wide else 64 * 256)
    return Blocks(rows, most, inner, warps=8 if large and (wide or most > 128) else 4)


def gradient_blocks(feats: Tensor, c_out: int) -> Blocks:
    """Blocks of the weight gradient; likewise chosen on paper."""
    c_in, wide = feats.shape[1], feats.element_size() == 4
    sides = min(128, _power_of_two(c_out)), min(128, _power_of_two(c_in))
    return Blocks(32 if wide else 64, *sides, warps=8 if sides == (128, 128) else 4)


def _splits(n_out: int, rows: int, programs: int) -> int:
    """Shares that the pairs of an offset are cut into: enough programs for a GPU, of at least four products each."""
    return max(1, min(64, _PROGRAMS // programs, n_out // (4 * rows)))


def _power_of_two(channels: int) -> int:
    """The smallest block side that holds so many channels; products need 16."""
    return max(16, power_of_two(channels))


def _check(feats: Tensor, kernel: Tensor, table: NeighbourTable | None, out: Tensor | None) -> None:
    if feats.dtype != kernel.dtype and (table is not None or kernel.dtype != torch.float32):
        raise ValueError(
            f"features are {feats.dtype} and the kernel is {kernel.dtype}: they must be of one type"
        )
    rows = feats.shape[0]
    n_in, n_out, offsets = (rows, rows, 1) if table is None else table.shape
    if (rows, kernel.shape[0]) != (n_in, offsets):
        raise ValueError(
            f"{rows} rows and {len(kernel)} offsets do not fit a map of {n_in} rows and {offsets} offsets"
        )
    copies, widest = feats.shape[1:-1].numel(), max(*kernel.shape[1:], 0 if out is None else out.stride(-2))
    if max(n_in, n_out) * copies * widest > MAX_ELEMENTS:
        raise ValueError(f"{rows} rows of {copies} x {widest} channels: take a smaller batch")


def _check_product(
    product: RowProduct, feats: Tensor, kernel: Tensor, table: NeighbourTable | None, scale: RowScale | None
) -> None:
    if table is None or scale is not None:
        raise ValueError("a product is added to convolutions on a map and without a scale alone")
    other, matrix = product.feats, product.kernel
    expected = (table.n_out, *feats.shape[1:-1], len(matrix)), (len(matrix), kernel.shape[2])
    what = f"a product of {tuple(other.shape)} and {tuple(matrix.shape)} in {other.dtype} and {matrix.dtype}"
    if (other.shape, matrix.shape) != expected or {other.dtype, matrix.dtype} != {kernel.dtype}:
        raise ValueError(f"{what} does not fit {table.n_out} rows and a kernel {tuple(kernel.shape)}")
    if other.numel() > MAX_ELEMENTS:
        raise ValueError(f"{what}: take a smaller batch")


def _pointer(tensor: Tensor | None, absent: Tensor) -> Tensor:
    """A tensor as the kernels read it, or any tensor of the same kind in place of one that is not read."""
    return absent if tensor is None else tensor.contiguous()
