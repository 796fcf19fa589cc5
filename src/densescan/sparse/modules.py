"""Layers on sparse tensors, with the parameter names of the official weights."""

import math

import torch
from torch import Tensor, nn

from densescan.sparse.functional import sparse_conv
from densescan.sparse.tensor import SparseTensor, Voxels


def _init_kernel(kernel: nn.Parameter) -> nn.Parameter:
    """Kaiming's normal initialisation over the inputs that one output sees if all its neighbours exist."""
    fan_in = kernel.shape[:-1].numel()
    with torch.no_grad():
        kernel.normal_(0.0, math.sqrt(2.0 / fan_in))
    return kernel


class SubmanifoldConv(nn.Module):
    """3x3x3 convolution whose outputs sit on the voxels of its input. kernel: (27, C_in, C_out)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.kernel = _init_kernel(nn.Parameter(torch.empty(27, in_channels, out_channels)))

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_feats(sparse_conv(x.feats, self.kernel, x.voxels.submanifold))


class PointwiseConv(nn.Module):
    """1x1x1 convolution. kernel: (C_in, C_out)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.kernel = _init_kernel(nn.Parameter(torch.empty(in_channels, out_channels)))

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_feats(x.feats @ self.kernel)


class StridedConv(nn.Module):
    """2x2x2 convolution with stride 2, onto the next coarser level. kernel: (8, C_in, C_out)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.kernel = _init_kernel(nn.Parameter(torch.empty(8, in_channels, out_channels)))

    def forward(self, x: SparseTensor) -> SparseTensor:
        return SparseTensor(sparse_conv(x.feats, self.kernel, x.voxels.strided), x.voxels.coarser)


class TransposedConv(nn.Module):
    """2x2x2 transposed convolution with stride 2, onto the voxels of a given finer level. kernel: (8, C_in, C_out)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.kernel = _init_kernel(nn.Parameter(torch.empty(8, in_channels, out_channels)))
        with torch.no_grad():
            self.kernel.mul_(math.sqrt(8.0))  # every output has exactly one input

    def forward(self, x: SparseTensor, finer: Voxels) -> SparseTensor:
        """finer: the level whose `coarser` is the level of x; the output has its voxels in its row order."""
        if finer.coarser is not x.voxels:
            raise ValueError(f"the given level (stride {finer.stride}) does not coarsen to that of the input")
        return SparseTensor(sparse_conv(x.feats, self.kernel, finer.strided.transposed), finer)


class BatchNorm(nn.Module):
    """Batch normalisation over all voxels of the batch. Parameters `bn.*`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(channels)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_feats(self.bn(x.feats))


class LayerNorm(nn.Module):
    """Normalisation over the channels of each voxel alone: sees neither batch nor noise level. Parameters `ln.*`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(channels)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_feats(self.ln(x.feats))


class ReLU(nn.Module):
    """max(x, 0)."""

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_feats(torch.relu(x.feats))


def concat(a: SparseTensor, b: SparseTensor) -> SparseTensor:
    """Channels of a followed by those of b, which must live on the same voxels."""
    if a.voxels is not b.voxels:
        raise ValueError(f"tensors live on different voxels ({len(a.voxels)} and {len(b.voxels)})")
    feats: Tensor = torch.cat((a.feats, b.feats), dim=1)
    return a.with_feats(feats)
