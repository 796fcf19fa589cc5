"""Sparse convolution and the passage between points and voxels, as differentiable functions.

Plain PyTorch, see `convolve`; on CPU and on CUDA, in any floating-point type. Results are bit-identical from run to
run: no sum depends on the order in which threads arrive. Where `backends` has kernels for the device, they compute
instead.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from densescan.sparse.backends import backend_of
from densescan.sparse.convolve import convolve
from densescan.sparse.epilogue import Epilogue, RowProduct
from densescan.sparse.int8 import Int8Kernel
from densescan.sparse.kernel_map import KernelMap
from densescan.sparse.matmul import ROWS_AT_ONCE, batch_limit, matmul, repeating_size, row_blocks
from densescan.sparse.rows import RowScale
from densescan.sparse.tensor import PointMap


def _kernel_gradient(feats: Tensor, grad_out: Tensor, kernel_map: KernelMap) -> Tensor:
    """grad_kernel[k] = sum over pairs (i, o) of feats[i]^T grad_out[o], summed in float32 or wider."""
    c_in, c_out = feats.shape[-1], grad_out.shape[-1]
    n_copies, wide = feats.shape[1:-1].numel(), torch.promote_types(feats.dtype, torch.float32)
    grad = torch.zeros(len(kernel_map.pairs), c_in, c_out, dtype=wide, device=feats.device)
    for chunk in kernel_map.chunks(feats.dtype):
        if chunk.same is not None:
            where = slice(chunk.first, chunk.last)
            for same, ends in _padded_blocks(feats[where].reshape(-1, c_in), grad_out[where].view(-1, c_out)):
                grad[chunk.same] += matmul(same.T, ends)
        fetched = feats.flatten(1).index_select(0, chunk.in_rows).view(-1, c_in)
        ends = F.pad(grad_out[chunk.first : chunk.last].flatten(1), (0, 0, 0, 1))  # zeros for the padding
        ends = ends.index_select(0, chunk.ends).view(-1, c_out)
        batches = chunk.batches(batch_limit(feats.dtype, n_copies * c_in * c_out))
        sizes = [n_copies * batch.n_products for batch in batches]
        for batch, block, block_ends in zip(batches, fetched.split(sizes), ends.split(sizes), strict=True):
            if batch.n_offsets == 1:
                grad[batch.offset] += matmul(block.T, block_ends)
            else:
                shape = (batch.n_offsets, -1)
                grad[batch.offsets] += matmul(block.unflatten(0, shape).mT, block_ends.unflatten(0, shape))
    return grad


def _padded_blocks(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of the rows of both, with zeros up to a size that repeats."""
    for block, other in zip(a.split(ROWS_AT_ONCE), b.split(ROWS_AT_ONCE), strict=True):
        missing = repeating_size(len(block)) - len(block)
        yield F.pad(block, (0, 0, 0, missing)), F.pad(other, (0, 0, 0, missing))


class _SparseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feats: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
        reduced = kernel.to(feats.dtype)
        ctx.save_for_backward(feats, reduced)
        ctx.kernel_map, ctx.kernel_dtype = kernel_map, kernel.dtype
        return convolve(feats, reduced, kernel_map)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        feats, kernel = ctx.saved_tensors
        grad_feats = grad_kernel = None
        if ctx.needs_input_grad[0]:
            grad_feats = _adjoint(grad_out, kernel.transpose(1, 2), ctx.kernel_map)
        if ctx.needs_input_grad[1]:
            grad_kernel = _kernel_gradient(feats, grad_out.contiguous(), ctx.kernel_map).to(ctx.kernel_dtype)
        return grad_feats, grad_kernel, None


def _adjoint(grad_out: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
    """The gradient of the features. kernel: with its channels exchanged."""
    if kernel_map.symmetric:  # the same chunks, looked at from the other end
        return convolve(grad_out, kernel.flip(0), kernel_map)
    return convolve(grad_out, kernel, kernel_map.transposed)


def sparse_conv(
    feats: Float[Tensor, "V_in *G C_in"], kernel: Float[Tensor, "K C_in C_out"], kernel_map: KernelMap
) -> Float[Tensor, "V_out *G C_out"]:
    """Sparse convolution (a correlation, no bias): out[o] = sum_k feats[o + offset_k] @ kernel[k].

    One function serves the submanifold, the strided and the transposed convolution: they differ in their map alone.
    Differentiable once, in `feats` and `kernel`. It multiplies in the type of the features, under `torch.autocast` in
    the reduced type, as dense convolutions do; sums are kept in float32, those of a kernel's gradient until they are
    given in the type of the kernel.
    """
    (feats,) = _autocast(feats)
    if backend_of(feats) == "triton":
        from densescan.sparse.backends import triton

        return triton.sparse_conv(feats, kernel, kernel_map)
    return _SparseConv.apply(feats, kernel, kernel_map)  # type: ignore[no-any-return]


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All in the reduced type, under `torch.autocast`."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)


def finished_conv(
    feats: Float[Tensor, "V_in *G C_in"],
    kernel: Float[Tensor, "K C_in C_out"] | Int8Kernel,
    kernel_map: KernelMap,
    epilogue: Epilogue,
    scale: RowScale | None = None,
    beside: Float[Tensor, "V_out *G C_beside"] | None = None,
    product: RowProduct | None = None,
) -> Float[Tensor, "V_out *G C"]:
    """`sparse_conv` of scaled rows, with what follows it done to rows that are still at hand. Not differentiable.

    Several copies G of the features share every row list and every look at the kernel. beside: features of the same
    rows, whose channels follow those of the result. product: is added to the sums; neither with a scale nor with more
    of an epilogue than shift and ReLU. A kernel of 8 bits is multiplied with rows rounded to as many, on processors.
    """
    if backend_of(feats) == "triton":
        assert isinstance(kernel, Tensor)
        from densescan.sparse.backends import triton

        return triton.fused_conv(feats, kernel, kernel_map, epilogue, scale, beside, product)
    if product is not None:
        added = pointwise_conv(product.feats, product.kernel, Epilogue())
        epilogue = replace(epilogue, residual=added, spent=True)
    c_out = kernel.shape[-1]
    if epilogue.residual is not None and epilogue.spent and beside is None:
        out = epilogue.residual
    else:
        c_beside = 0 if beside is None else beside.shape[-1]
        out = feats.new_empty(kernel_map.n_out, *feats.shape[1:-1], c_out + c_beside)
    convolve(
        feats if scale is None else scale.in_blocks(feats), kernel, kernel_map, epilogue, out[..., :c_out]
    )
    if beside is not None:
        out[..., c_out:] = beside
    return out


def pointwise_conv(
    feats: Float[Tensor, "V *G C_in"],
    kernel: Float[Tensor, "C_in C_out"],
    epilogue: Epilogue,
    present: Int[Tensor, ""] | None = None,
) -> Float[Tensor, "V *G C_out"]:
    """feats @ kernel, and what follows it; without a residual. Not differentiable. present: see `Voxels.present`.

    On processors in blocks of a size that repeats, see `matmul.repeating`; the last one overlaps the one before.
    """
    everything = slice(None)
    if backend_of(feats) == "triton":
        from densescan.sparse.backends import triton

        return triton.pointwise(feats, kernel, epilogue, present)
    if feats.device.type != "cpu":
        products = feats @ kernel
        epilogue(products, everything, products)
        return products
    rows, out = feats.reshape(-1, feats.shape[-1]), feats.new_empty(*feats.shape[:-1], kernel.shape[1])
    products, blocks = out.view(-1, kernel.shape[1]), list(row_blocks(len(rows)))
    epilogue = epilogue.repeated(products[blocks[0]].shape) if blocks else epilogue
    for where in blocks:
        block = products[where]
        matmul(rows[where], kernel, out=block)
        epilogue(block, everything, block)
    return out


def linear(
    rows: Float[Tensor, "*shape C_in"],
    weight: Float[Tensor, "C_out C_in"],
    bias: Float[Tensor, " C_out"] | None = None,
) -> Float[Tensor, "*shape C_out"]:
    """rows @ weight^T + bias. Differentiable.

    Where no gradient is wanted and Triton's kernels compute, a row's result does not depend on how many there are.
    """
    if torch.is_grad_enabled() or backend_of(rows) != "triton":
        return F.linear(rows, weight, bias)
    from densescan.sparse.backends import triton

    rows, weight = _autocast(rows, weight)
    return triton.pointwise(rows, weight.T, Epilogue(shift=bias))


def _learns(feats: Tensor) -> bool:
    return torch.is_grad_enabled() and feats.requires_grad


def points_to_voxels(feats: Float[Tensor, "P C"], point_map: PointMap) -> Float[Tensor, "V C"]:
    """The plain mean of the points in every voxel."""
    if feats.dtype == torch.float32 and backend_of(feats) == "triton" and not _learns(feats):
        from densescan.sparse.backends.means import means_of_points

        return means_of_points(feats, point_map)
    return F.embedding_bag(point_map.order, feats, point_map.offsets, mode="mean")
