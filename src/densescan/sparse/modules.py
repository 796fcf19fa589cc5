"""Layers on sparse tensors, with the parameter names of the official weights."""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from densescan.sparse.functional import linear, sparse_conv
from densescan.sparse.kernel_map import KernelMap
from densescan.sparse.matmul import with_repeating_rows
from densescan.sparse.tensor import SparseTensor, Voxels


def _init_kernel(kernel: nn.Parameter) -> nn.Parameter:
    """Kaiming's normal initialisation over the inputs that one output sees if all its neighbours exist."""
    fan_in = kernel.shape[:-1].numel()
    with torch.no_grad():
        kernel.normal_(0.0, math.sqrt(2.0 / fan_in))
    return kernel


class SparseConv(nn.Module, ABC):
    """What the convolutions between voxels have in common; they differ in their map. kernel: (K, C_in, C_out)."""

    OFFSETS: int

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.kernel = _init_kernel(nn.Parameter(torch.empty(self.OFFSETS, in_channels, out_channels)))

    @staticmethod
    @abstractmethod
    def route(voxels: Voxels, finer: Voxels | None = None) -> tuple[KernelMap, Voxels]:
        """The map from the voxels of the input to those of the output, and the latter."""

    def forward(self, x: SparseTensor, finer: Voxels | None = None) -> SparseTensor:
        """finer: the level that a `TransposedConv` leads to."""
        kernel_map, voxels = self.route(x.voxels, finer)
        return SparseTensor(sparse_conv(x.feats, self.kernel, kernel_map), voxels)


class SubmanifoldConv(SparseConv):
    """3x3x3 convolution whose outputs sit on the voxels of its input. kernel: (27, C_in, C_out)."""

    OFFSETS = 27

    @staticmethod
    def route(voxels: Voxels, finer: Voxels | None = None) -> tuple[KernelMap, Voxels]:
        """Onto the same voxels."""
        return voxels.submanifold, voxels


class StridedConv(SparseConv):
    """2x2x2 convolution with stride 2, onto the next coarser level. kernel: (8, C_in, C_out)."""

    OFFSETS = 8

    @staticmethod
    def route(voxels: Voxels, finer: Voxels | None = None) -> tuple[KernelMap, Voxels]:
        """Onto the next coarser level."""
        return voxels.strided, voxels.coarser


class TransposedConv(SparseConv):
    """2x2x2 transposed convolution with stride 2, onto the voxels of a given finer level. kernel: (8, C_in, C_out)."""

    OFFSETS = 8

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        with torch.no_grad():
            self.kernel.mul_(math.sqrt(8.0))  # every output has exactly one input

    @staticmethod
    def route(voxels: Voxels, finer: Voxels | None = None) -> tuple[KernelMap, Voxels]:
        """Onto the level whose `coarser` is that of the input, in its row order."""
        if finer is None or finer.coarser is not voxels:
            stride = "none" if finer is None else f"stride {finer.stride}"
            raise ValueError(f"the given level ({stride}) does not coarsen to that of the input")
        return finer.strided.transposed, finer


class PointwiseConv(nn.Module):
    """1x1x1 convolution. kernel: (C_in, C_out)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.kernel = _init_kernel(nn.Parameter(torch.empty(in_channels, out_channels)))

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_feats(with_repeating_rows(lambda rows: rows @ self.kernel, x.feats))


class Linear(nn.Linear):
    """A linear layer whose results, where no gradient is wanted, do not depend on the number of rows; see `linear`."""

    def forward(self, input: Float[Tensor, "*shape C_in"]) -> Float[Tensor, "*shape C_out"]:
        return linear(input, self.weight, self.bias)


class BatchNorm(nn.Module):
    """Batch normalisation over all voxels of the batch. Parameters `bn.*`.

    bound: keep what comes out within so many standard deviations of its mean in training; None: as released. A voxel
    with more neighbours than any in training gives more than any did, and that grows from layer to layer.
    """

    def __init__(self, channels: int, bound: float | None = None) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(channels)
        self.bound = bound

    def forward(self, x: SparseTensor) -> SparseTensor:
        feats = self.bn(x.feats.flatten(0, -2)).view_as(x.feats)
        if (limits := self.limits()) is not None:
            feats = torch.clamp(feats, *limits.unbind(0))
        return x.with_feats(feats)

    def limits(self) -> Float[Tensor, "2 C"] | None:
        """The least and the greatest value of each channel; None: unbounded."""
        if self.bound is None:
            return None
        reach = self.bound * self.bn.weight.detach().abs()
        return torch.stack((self.bn.bias.detach() - reach, self.bn.bias.detach() + reach))


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
    feats: Tensor = torch.cat((a.feats, b.feats), dim=-1)
    return a.with_feats(feats)
