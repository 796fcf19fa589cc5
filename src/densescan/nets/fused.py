"""Networks in the form in which they only predict: norms are part of the convolutions before them.

A batch norm by its running statistics is a factor and a bias a channel: the factor goes into the kernel. Bias, ReLU and
the sum of a residual block are then done to rows that are still in the cache. Where a reduced type is asked for, the
weights are rounded to it once; the stem, which sees coordinates, and the head, which gives metres, stay in float32.
Whole numbers of 8 bits are for convolutions between voxels alone, and of these for those with many pairs.
"""

import copy
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from densescan.errors import InputError
from densescan.nets.blocks import DownBlock, ResidualBlock, UpBlock
from densescan.nets.denoiser import Denoiser
from densescan.nets.minkunet import EncoderHalf
from densescan.sparse.backends import backend_of
from densescan.sparse.epilogue import Epilogue, RowProduct
from densescan.sparse.functional import finished_conv, pointwise_conv
from densescan.sparse.int8 import Int8Kernel, worth
from densescan.sparse.kernel_map import KernelMap
from densescan.sparse.modules import BatchNorm, LayerNorm, PointwiseConv, SparseConv
from densescan.sparse.rows import RowScale
from densescan.sparse.tensor import SparseTensor

Net = TypeVar("Net", bound=EncoderHalf)


class _Folded(nn.Module):
    """Kernel, bias and limits that do what a convolution and its batch norm do; of a layer norm, the kernel alone."""

    def __init__(self, conv: SparseConv | PointwiseConv, norm: nn.Module) -> None:
        super().__init__()
        self.kernel, self.bias = _fold(conv, norm)
        limits = norm.limits() if isinstance(norm, BatchNorm) else None
        self.limits = None if limits is None else nn.Parameter(limits, False)
        self.ln = norm.ln if isinstance(norm, LayerNorm) else None

    @property
    def norm(self) -> Epilogue:
        """What is left of the norm."""
        if self.ln is None:
            return Epilogue(shift=self.bias, limits=self.limits)
        return Epilogue(self.ln.weight, self.ln.bias, self.ln.eps)


def _fold(conv: SparseConv | PointwiseConv, norm: nn.Module) -> tuple[nn.Parameter, nn.Parameter | None]:
    if not isinstance(norm, BatchNorm):
        return conv.kernel, None
    bn = norm.bn
    assert bn.running_mean is not None
    assert bn.running_var is not None
    factor = bn.weight / (bn.running_var + bn.eps).sqrt()
    return nn.Parameter(conv.kernel * factor, False), nn.Parameter(bn.bias - bn.running_mean * factor, False)


class FusedConv(_Folded):
    """A convolution, the norm after it, a shortcut to add and a ReLU, in one pass over the output."""

    def __init__(self, conv: SparseConv, norm: nn.Module) -> None:
        super().__init__(conv, norm)
        self.route = conv.route
        self.int8: Int8Kernel | None = None

    def forward(
        self,
        x: SparseTensor,
        skip: SparseTensor | None = None,
        scale: RowScale | None = None,
        shortcut: Tensor | None = None,
    ) -> SparseTensor:
        """skip, scale: as for `UpBlock`. shortcut: features to add before the ReLU; they are not needed afterwards."""
        finer, beside = (None, None) if skip is None else (skip.voxels, skip.feats)
        kernel_map, voxels = self.route(x.voxels, finer)
        epilogue = replace(self.norm, residual=shortcut, spent=True, relu=True)
        kernel = self._kernel_for(kernel_map)
        return SparseTensor(finished_conv(x.feats, kernel, kernel_map, epilogue, scale, beside), voxels)

    def _kernel_for(self, kernel_map: KernelMap) -> Tensor | Int8Kernel:
        return self.int8 if self.int8 is not None and worth(kernel_map) else self.kernel

    def with_product(self, x: SparseTensor, product: RowProduct, shift: Tensor) -> SparseTensor:
        """The same with a product in place of features to add. shift: takes the place of the norm's."""
        kernel_map, voxels = self.route(x.voxels)
        epilogue = Epilogue(shift=shift, relu=True)
        return SparseTensor(
            finished_conv(x.feats, self.kernel, kernel_map, epilogue, product=product), voxels
        )


class FusedPointwise(_Folded):
    """A 1x1x1 convolution and the norm after it."""

    def forward(self, x: SparseTensor) -> Tensor:
        """The features alone."""
        return pointwise_conv(x.feats, self.kernel, self.norm, x.voxels.present)


class FusedResidual(nn.Module):
    """`ResidualBlock` in two passes, or three where it changes the width; on a GPU in two, for a shortcut of batch norm
    without limits becomes part of the second convolution.

    The features that it is given may be written over: in these networks nothing else needs the input of a block.
    """

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        first, norm, _, second, last_norm = _parts(block.net)
        self.first = FusedConv(first, norm)
        self.second = FusedConv(second, last_norm)
        self.shortcut = FusedPointwise(*_parts(block.downsample)) if len(block.downsample) else None
        self.both_shifts: nn.Parameter | None = None
        if self.shortcut is not None and self.shortcut.bias is not None and self.shortcut.limits is None:
            assert self.second.bias is not None
            self.both_shifts = nn.Parameter(self.second.bias + self.shortcut.bias, False)

    def forward(self, x: SparseTensor) -> SparseTensor:
        if self.shortcut is not None and self.both_shifts is not None and backend_of(x.feats) == "triton":
            product = RowProduct(x.feats, self.shortcut.kernel)
            return self.second.with_product(self.first(x), product, self.both_shifts)
        shortcut = x.feats if self.shortcut is None else self.shortcut(x)
        out: SparseTensor = self.second(self.first(x), shortcut=shortcut)
        return out


class Cast(nn.Module):
    """The same features in another type."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_feats(x.feats.to(self.dtype))


class Widened(nn.Module):
    """Layers that take features of a reduced type in float32; Triton's kernels widen them as they read them."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, feats: Tensor) -> Tensor:
        out: Tensor = self.layers(feats if backend_of(feats) == "triton" else feats.float())
        return out


def _parts(layers: nn.Sequential) -> list[Any]:
    return list(layers)


def _fused(module: nn.Module) -> nn.Module:
    """The module with its blocks replaced, children included; it must not be used otherwise any more."""
    if isinstance(module, ResidualBlock):
        return FusedResidual(module)
    if isinstance(module, DownBlock | UpBlock):
        conv, norm, _ = _parts(module.net)
        return FusedConv(conv, norm)
    for name, child in module.named_children():
        setattr(module, name, _fused(child))
    return module


def _round_kernels(net: nn.Module, dtype: torch.dtype) -> None:
    for conv in net.modules():
        if isinstance(conv, FusedConv):
            conv.int8 = Int8Kernel.rounded(conv.kernel, dtype)


@torch.no_grad()
def fuse(net: Net, dtype: torch.dtype = torch.float32, int8: bool = False) -> Net:
    """A copy of a network for inference alone: the same predictions up to rounding, in less time.

    dtype: what its matrices are multiplied in, float32 or a reduced type. int8: those of convolutions with many pairs
        in whole numbers of 8 bits, on processors.
    Raises: InputError: a weight that is not finite. `sparse.rectify` would hide what comes of it.
    """
    for name, value in net.state_dict().items():
        if not torch.isfinite(value).all():
            raise InputError(
                f"expected finite weights, got NaN or infinity in {name}: these were not trained well"
            )
    net = copy.deepcopy(net).requires_grad_(False).eval()
    first, norm, _, second, last_norm, _ = _parts(net.stem)
    stem = FusedConv(first, norm), FusedConv(second, last_norm)
    last: nn.Module | None = getattr(net, "last", None)
    net.stem, net.last = nn.Sequential(), nn.Sequential()  # these two keep their type
    _fused(net)
    if int8:
        _round_kernels(net, dtype)
    net.to(dtype)
    net.stem = nn.Sequential(*stem, Cast(dtype))
    if last is not None:
        net.last = Widened(last)
    if isinstance(net, Denoiser):
        net.tabulate_times()
    return net
