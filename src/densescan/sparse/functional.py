"""Sparse convolution and the passage between points and voxels, as differentiable functions.

Plain PyTorch: gather rows, multiply, add rows; on CPU and on CUDA, in any floating-point type. Results are
bit-identical from run to run: no sum depends on the order in which threads arrive.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from densescan.sparse.kernel_map import KernelMap
from densescan.sparse.tensor import PointMap

ROWS_AT_ONCE = 16_384  # rows gathered and multiplied at a time: the buffers stay in the processor's cache


def _convolve(feats: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
    """out[o] = sum_k feats[i] @ kernel[k] over the pairs (i, o) of each offset; sums are kept in float32 or wider."""
    wide = torch.promote_types(feats.dtype, torch.float32)
    out = torch.zeros(kernel_map.n_out, kernel.shape[2], dtype=wide, device=feats.device)
    for k in range(len(kernel)):
        rows = kernel_map.rows(k)
        if rows is None:
            out += feats @ kernel[k]
            continue
        for in_rows, out_rows in zip(rows[0].split(ROWS_AT_ONCE), rows[1].split(ROWS_AT_ONCE), strict=True):
            out.index_add_(0, out_rows, (feats.index_select(0, in_rows) @ kernel[k]).to(wide))
    return out.to(feats.dtype)


def _kernel_gradient(feats: Tensor, grad_out: Tensor, kernel_map: KernelMap, n_offsets: int) -> Tensor:
    """grad_kernel[k] = sum over pairs (i, o) of feats[i]^T grad_out[o], summed in float32 or wider."""
    wide = torch.promote_types(feats.dtype, torch.float32)
    grad = torch.zeros(n_offsets, feats.shape[1], grad_out.shape[1], dtype=wide, device=feats.device)
    for k in range(n_offsets):
        rows = kernel_map.rows(k)
        if rows is None:
            grad[k] = feats.T @ grad_out
            continue
        for in_rows, out_rows in zip(rows[0].split(ROWS_AT_ONCE), rows[1].split(ROWS_AT_ONCE), strict=True):
            grad[k] += feats.index_select(0, in_rows).T @ grad_out.index_select(0, out_rows)
    return grad.to(feats.dtype)


class _SparseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feats: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(feats, kernel)
        ctx.kernel_map = kernel_map
        return _convolve(feats, kernel, kernel_map)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        feats, kernel = ctx.saved_tensors
        grad_feats = grad_kernel = None
        if ctx.needs_input_grad[0]:
            grad_feats = _convolve(grad_out, kernel.transpose(1, 2), ctx.kernel_map.transposed)
        if ctx.needs_input_grad[1]:
            grad_kernel = _kernel_gradient(feats, grad_out.contiguous(), ctx.kernel_map, len(kernel))
        return grad_feats, grad_kernel, None


def sparse_conv(
    feats: Float[Tensor, "V_in C_in"], kernel: Float[Tensor, "K C_in C_out"], kernel_map: KernelMap
) -> Float[Tensor, "V_out C_out"]:
    """Sparse convolution (a correlation, no bias): out[o] = sum_k feats[o + offset_k] @ kernel[k].

    One function serves the submanifold, the strided and the transposed convolution: they differ in their map alone.
    Differentiable once, in `feats` and `kernel`.
    """
    return _SparseConv.apply(feats, kernel, kernel_map)  # type: ignore[no-any-return]


def points_to_voxels(feats: Float[Tensor, "P C"], point_map: PointMap) -> Float[Tensor, "V C"]:
    """The plain mean of the points in every voxel."""
    return F.embedding_bag(point_map.order, feats, point_map.offsets, mode="mean")


def gather(feats: Float[Tensor, "V C"], rows: Tensor) -> Float[Tensor, "P C"]:
    """feats[rows], with a backward pass that is deterministic where rows repeat."""
    return F.embedding(rows, feats)
