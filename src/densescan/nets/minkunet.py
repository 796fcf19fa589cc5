"""The trunk that all three networks share: a sparse U-Net of five levels ("MinkUNet")."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from densescan.errors import InputError
from densescan.nets.blocks import DownBlock, Norm, ResidualBlock, UpBlock, make_stem
from densescan.sparse.backends import room
from densescan.sparse.functional import points_to_voxels
from densescan.sparse.memory import give_back
from densescan.sparse.modules import Linear
from densescan.sparse.rows import RowScale, gather
from densescan.sparse.tensor import SparseTensor, voxelise

RELEASED_WIDTHS = (32, 32, 64, 128, 256, 256, 128, 96, 96)  # stem, stage 1-4, up 1-4
PointFeatures = Literal["absolute", "local"]
Prediction = Literal["noise", "displacement"]


@dataclass(frozen=True)
class NetConfig:
    """Form of a network. The defaults are the released form, whose official weights load unchanged."""

    width: float = 1.0
    """Factor on the released channel counts (32 to 256)."""
    norm: Norm = "batch"
    """`batch`: as released. `bounded`: the same, kept within ten standard deviations, so that scans denser than those
    of training cannot make features run away. `layer`: over the channels of each voxel, whatever the batch."""
    voxel_size: float = 0.05
    """Edge of a voxel at the finest level [m]."""
    point_features: PointFeatures = "absolute"
    """What a point tells its voxel. `absolute`: its coordinates [m], as released. `local`: see `point_feats`."""
    see_scan: bool = False
    """The denoiser's voxels also hold the scan's own points, marked as such. False: as released, where the scan is
    known through the encoder alone."""
    predicts: Prediction = "noise"
    """What the denoiser's last layer means. `noise`: standard deviations, as released. `displacement`: metres, from the
    noisy point to x_0. Either way the denoiser gives noise."""

    def __post_init__(self) -> None:
        last = self.channels[8]
        if last < 4 or last % 2:
            raise InputError(
                f"width {self.width} gives {last} channels to the last level, but half of them hold sines and half "
                "cosines of the time: take a width whose 96-fold is even and at least 4"
            )
        if not self.voxel_size > 0:
            raise InputError(f"expected a voxel size above 0 m, got {self.voxel_size}")

    @property
    def channels(self) -> tuple[int, ...]:
        """Channel counts: stem, stages 1 to 4, ups 1 to 4."""
        return tuple(int(self.width * c) for c in RELEASED_WIDTHS)

    @property
    def in_channels(self) -> int:
        """Features of a point, without the mark of the scan's points."""
        return 3 if self.point_features == "absolute" else 5


@dataclass(frozen=True)
class VoxelisedPoints:
    """Clouds turned into voxels: features at the finest level, and the row of every point's voxel."""

    tensor: SparseTensor
    rows: Int[Tensor, "B M"]

    def to_points(self, x: SparseTensor) -> Float[Tensor, "B M *GC"]:
        """The features of each point's voxel."""
        return gather(x.feats, self.rows)


def point_feats(points: Float[Tensor, "B M 3"], rounded: Float[Tensor, "B M 3"], config: NetConfig) -> Tensor:
    """What each point tells its voxel, (B, M, config.in_channels).

    `absolute`: x, y, z [m], as released. `local` (ours): the offset from the voxel's centre [voxels], the height
    [10 m] and the horizontal range [50 m], so that what a network learns on crops holds anywhere in a scan.
    The range carries no gradient.
    """
    if config.point_features == "absolute":
        return points
    horizontal = points[..., :2].detach().norm(dim=2, keepdim=True)
    return torch.cat((points / config.voxel_size - rounded, points[..., 2:] / 10.0, horizontal / 50.0), dim=2)


def embed_points(
    points: Float[Tensor, "B M 3"], config: NetConfig, scan: Float[Tensor, "B N 3"] | None = None
) -> VoxelisedPoints:
    """Round points to voxels, round(p / voxel_size) half to even, and average their features there.

    scan: points that fill voxels of their own or shared ones, and carry a mark; None: neither points nor mark.
    Raises: InputError: a coordinate is not finite, or more than 32,766 voxels from the origin. Within a room (see
        `sparse.backends.room`), which takes note instead, points that are not finite fill no voxel.
    """
    every = points if scan is None else torch.cat((points, scan), dim=1)
    finite = torch.isfinite(every)
    if room.current() is None and not finite.all():
        raise InputError(
            "expected finite points, got NaN or infinite coordinates: drop them before voxelising"
        )
    # A tensor, not a number: some devices replace division by a number with multiplication by its inverse.
    size = torch.full((), config.voxel_size, dtype=points.dtype, device=points.device)
    rounded = torch.round(every.detach() / size)
    feats = point_feats(every, rounded, config)
    if scan is not None:
        mark = (torch.arange(every.shape[1], device=every.device) >= points.shape[1]).to(feats.dtype)
        feats = torch.cat((feats, mark[None, :, None].expand(len(every), -1, 1)), dim=2)
    batch = torch.arange(len(every), device=every.device)[:, None, None].expand(-1, every.shape[1], 1)
    if room.current() is not None:
        batch = torch.where(finite.all(2, keepdim=True), batch, room.ABSENT)
    point_map = voxelise(torch.cat((batch, rounded.long()), dim=2).flatten(0, 1))
    voxel_feats = points_to_voxels(feats.flatten(0, 1), point_map)
    rows = point_map.inverse.unflatten(0, every.shape[:2])[:, : points.shape[1]]
    return VoxelisedPoints(SparseTensor(voxel_feats, point_map.voxels), rows)


class _Stage(nn.Sequential):
    """To the next coarser level, and what follows there."""

    def forward(self, x: SparseTensor, scale: RowScale | None = None) -> SparseTensor:
        """scale: as for `DownBlock`."""
        down, *blocks = self
        x = down(x, scale=scale)
        for block in blocks:
            x = block(x)
        return x


class EncoderHalf(nn.Module):
    """Stem and four stages, each half the resolution of the one before."""

    def __init__(self, config: NetConfig, in_channels: int | None = None) -> None:
        super().__init__()
        self.config = config
        c, norm = config.channels, config.norm
        self.stem = make_stem(in_channels or config.in_channels, c[0], norm)
        for i in range(1, 5):
            fine, coarse = c[i - 1], c[i]
            down, widen = DownBlock(fine, fine, norm), ResidualBlock(fine, coarse, norm)
            self.add_module(f"stage{i}", _Stage(down, widen, ResidualBlock(coarse, coarse, norm)))

    def stage(self, i: int, x: SparseTensor, scale: RowScale | None = None) -> SparseTensor:
        """Stage i, in 1..4: from the level of x, scaled, to the next coarser one."""
        out: SparseTensor = self.get_submodule(f"stage{i}")(x, scale)
        return out


class UNet(EncoderHalf):
    """The encoder half, four upward steps with skip connections, and a small head per point."""

    HEAD_WIDTH = 20

    def __init__(self, config: NetConfig, out_channels: int, in_channels: int | None = None) -> None:
        super().__init__(config, in_channels)
        c, norm = config.channels, config.norm
        for i in range(1, 5):
            coarse, fine, skip = c[3 + i], c[4 + i], c[4 - i]
            blocks = nn.Sequential(ResidualBlock(fine + skip, fine, norm), ResidualBlock(fine, fine, norm))
            self.add_module(f"up{i}", nn.ModuleList([UpBlock(coarse, fine, norm), blocks]))
        hidden = Linear(c[8], self.HEAD_WIDTH)
        self.last = nn.Sequential(hidden, nn.LeakyReLU(0.1), Linear(self.HEAD_WIDTH, out_channels))

    def up(self, i: int, x: SparseTensor, skip: SparseTensor, scale: RowScale | None = None) -> SparseTensor:
        """First half of upward step i, in 1..4: from the level of x, scaled, to that of the skip connection, whose
        features are put beside the result.

        It is apart from the second so that x, which is large, can be let go of between them.
        """
        _fill_no_holes(x)
        out: SparseTensor = self._step(i)[0](x, skip, scale)
        return out

    def join(self, i: int, x: SparseTensor) -> SparseTensor:
        """Second half of upward step i: the blocks that see both."""
        _fill_no_holes(x)
        out: SparseTensor = self._step(i)[1](x)
        return out

    def _step(self, i: int) -> nn.ModuleList:
        step = self.get_submodule(f"up{i}")
        assert isinstance(step, nn.ModuleList)
        return step


def _fill_no_holes(x: SparseTensor) -> None:
    """In a completion on a processor, give back the holes that the arrays of coarser levels leave: those of finer ones
    do not fit into them. Training, which samples without inference mode, needs as much memory again at once."""
    if x.feats.device.type == "cpu" and torch.is_inference_mode_enabled():
        give_back()
