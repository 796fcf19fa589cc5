"""Building blocks of the sparse U-Net: convolution, deconvolution and residual blocks."""

from typing import Literal

from torch import nn

from densescan.sparse.modules import (
    BatchNorm,
    LayerNorm,
    PointwiseConv,
    ReLU,
    StridedConv,
    SubmanifoldConv,
    TransposedConv,
    concat,
)
from densescan.sparse.rows import RowScale
from densescan.sparse.tensor import SparseTensor

Norm = Literal["batch", "bounded", "layer"]
BOUND = 10.0
"""Standard deviations within which the norm `bounded` keeps features, see docs/experiments.md."""


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """Batch norm as released, the same within bounds, or a norm over the channels of each voxel that sees no batch."""
    if norm == "layer":
        return LayerNorm(channels)
    return BatchNorm(channels, BOUND if norm == "bounded" else None)


def make_stem(in_channels: int, channels: int, norm: Norm) -> nn.Sequential:
    """Two 3x3x3 convolutions at full resolution."""
    return nn.Sequential(
        SubmanifoldConv(in_channels, channels),
        make_norm(norm, channels),
        ReLU(),
        SubmanifoldConv(channels, channels),
        make_norm(norm, channels),
        ReLU(),
    )


class DownBlock(nn.Module):
    """Strided convolution onto the next coarser level, norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.net = nn.Sequential(
            StridedConv(in_channels, out_channels), make_norm(norm, out_channels), ReLU()
        )

    def forward(self, x: SparseTensor, scale: RowScale | None = None) -> SparseTensor:
        """scale: what the features are multiplied by first."""
        out: SparseTensor = self.net(x if scale is None else x.with_feats(scale(x.feats)))
        return out


class UpBlock(nn.Module):
    """Transposed convolution onto a finer level, norm, ReLU; beside it the features that a skip connection brings."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.net = nn.Sequential(
            TransposedConv(in_channels, out_channels), make_norm(norm, out_channels), ReLU()
        )

    def forward(self, x: SparseTensor, skip: SparseTensor, scale: RowScale | None = None) -> SparseTensor:
        """skip: on the finer level. scale: as for `DownBlock`."""
        conv, norm, relu = self.net
        x = x if scale is None else x.with_feats(scale(x.feats))
        return concat(relu(norm(conv(x, skip.voxels))), skip)


class ResidualBlock(nn.Module):
    """ReLU(conv-norm-ReLU-conv-norm(x) + shortcut(x)); the shortcut is a 1x1x1 convolution where widths differ."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.net = nn.Sequential(
            SubmanifoldConv(in_channels, out_channels),
            make_norm(norm, out_channels),
            ReLU(),
            SubmanifoldConv(out_channels, out_channels),
            make_norm(norm, out_channels),
        )
        self.downsample = (
            nn.Sequential()
            if in_channels == out_channels
            else nn.Sequential(PointwiseConv(in_channels, out_channels), make_norm(norm, out_channels))
        )
        self.relu = ReLU()

    def forward(self, x: SparseTensor) -> SparseTensor:
        out: SparseTensor = self.relu(x.with_feats(self.net(x).feats + self.downsample(x).feats))
        return out
