"""Blocks against dense 3-D layers on a solid cube of voxels, where every neighbour inside the cube exists."""

import pytest
import torch
from torch import nn

from densescan.nets.blocks import BOUND, DownBlock, ResidualBlock, UpBlock, make_norm, make_stem
from densescan.sparse.modules import BatchNorm, LayerNorm
from densescan.sparse.tensor import SparseTensor, voxelise

SIDE = 6


@pytest.fixture(scope="module")
def voxels():
    axis = torch.arange(-2, SIDE - 2)
    corners = torch.cartesian_prod(torch.arange(2), axis, axis, axis)
    return voxelise(corners).voxels


def draw(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def to_grid(feats, side=SIDE):
    """Rows of a full cube, sorted by (batch, x, y, z), as (B, C, X, Y, Z)."""
    return feats.view(2, side, side, side, -1).movedim(4, 1)


def from_grid(grid):
    return grid.movedim(1, 4).flatten(0, 3)


def dense_conv(kernel, **options):
    side = round(len(kernel) ** (1 / 3))
    weight = kernel.detach().unflatten(0, (side,) * 3)
    transposed = options.pop("transposed", False)
    c_in, c_out = kernel.shape[1:]
    conv = (nn.ConvTranspose3d if transposed else nn.Conv3d)(
        c_in, c_out, side, bias=False, **options
    ).double()
    conv.weight.data = weight.permute((3, 4, 2, 1, 0) if transposed else (4, 3, 2, 1, 0)).contiguous()
    return conv


def dense_norm(norm):
    dense = nn.BatchNorm3d(norm.bn.num_features).double()
    dense.load_state_dict(norm.bn.state_dict())
    return dense


def dense_pair(conv, norm, **options):
    return nn.Sequential(dense_conv(conv.kernel, **options), dense_norm(norm))


def lively(block):
    torch.manual_seed(0)
    for module in block.double().modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return block


def test_stem_equals_the_dense_one(voxels):
    stem = lively(make_stem(3, 4, "batch"))
    dense = nn.Sequential(
        dense_pair(stem[0], stem[1], padding=1), nn.ReLU(), dense_pair(stem[3], stem[4], padding=1), nn.ReLU()
    )
    x = draw(len(voxels), 3)
    torch.testing.assert_close(stem(SparseTensor(x, voxels)).feats, from_grid(dense(to_grid(x))))


@pytest.mark.parametrize("c_out", [4, 5])
def test_residual_block_equals_the_dense_one(voxels, c_out):
    """With and without a convolution in the shortcut."""
    block = lively(ResidualBlock(4, c_out, "batch"))
    first = dense_pair(block.net[0], block.net[1], padding=1)
    second = dense_pair(block.net[3], block.net[4], padding=1)
    shortcut = nn.Identity()
    if c_out != 4:
        shortcut = nn.Sequential(
            dense_conv(block.downsample[0].kernel[None]), dense_norm(block.downsample[1])
        )
    x = draw(len(voxels), 4)
    grid = to_grid(x)
    dense = torch.relu(second(torch.relu(first(grid))) + shortcut(grid))
    out = block(SparseTensor(x, voxels))
    assert out.voxels is voxels
    torch.testing.assert_close(out.feats, from_grid(dense))


def test_down_block_equals_the_dense_one(voxels):
    block = lively(DownBlock(3, 4, "batch"))
    x = draw(len(voxels), 3)
    dense = torch.relu(dense_pair(block.net[0], block.net[1], stride=2)(to_grid(x)))
    out = block(SparseTensor(x, voxels))
    assert out.voxels is voxels.coarser
    torch.testing.assert_close(out.feats, from_grid(dense))


def test_up_block_equals_the_dense_one(voxels):
    block = lively(UpBlock(3, 4, "batch"))
    x = draw(len(voxels.coarser), 3)
    dense = torch.relu(
        dense_pair(block.net[0], block.net[1], stride=2, transposed=True)(to_grid(x, SIDE // 2))
    )
    skip = draw(len(voxels), 2)
    out = block(SparseTensor(x, voxels.coarser), SparseTensor(skip, voxels))
    assert out.voxels is voxels
    torch.testing.assert_close(out.feats, torch.cat((from_grid(dense), skip), dim=1))


def test_shortcut_has_parameters_only_where_widths_differ():
    assert not list(ResidualBlock(4, 4, "batch").downsample.parameters())
    assert [*ResidualBlock(4, 5, "layer").downsample.state_dict()] == ["0.kernel", "1.ln.weight", "1.ln.bias"]


def test_norms_by_name():
    assert isinstance(make_norm("batch", 3), BatchNorm)
    assert make_norm("batch", 3).bound is None
    assert make_norm("bounded", 3).bound == BOUND
    assert isinstance(make_norm("layer", 3), LayerNorm)
    modules = [type(m) for m in make_stem(3, 4, "layer").modules()]
    assert modules.count(LayerNorm) == 2
    assert BatchNorm not in modules
