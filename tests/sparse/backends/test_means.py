"""Means of points in voxels against the bags of plain PyTorch."""

import pytest
import torch
import torch.nn.functional as F

from densescan.sparse.backends import using
from densescan.sparse.functional import points_to_voxels


@pytest.fixture
def points(device):
    """(channels) -> coordinates of several points a voxel, and features."""

    def points(channels):
        generator = torch.Generator().manual_seed(channels)
        coords = torch.randint(-3, 3, (500, 4), generator=generator)
        coords[:, 0] = 0
        return coords.to(device), torch.randn(500, channels, generator=generator).to(device)

    return points


def bags(feats, point_map):
    return F.embedding_bag(point_map.order, feats, point_map.offsets, mode="mean")


@pytest.mark.parametrize("channels", [3, 6])
def test_means_are_those_of_bags_to_the_bit(points, channels):
    from densescan.sparse.backends.levels import voxelise

    coords, feats = points(channels)
    point_map = voxelise(coords)
    with using("triton"):
        found = points_to_voxels(feats, point_map)
    assert torch.equal(found, bags(feats, point_map))


def test_within_a_room_voxels_have_the_same_means_and_absent_points_none(points, device):
    from densescan.sparse.backends.levels import voxelise
    from densescan.sparse.backends.room import ABSENT, Room, within

    coords, feats = points(3)
    present = torch.arange(500, device=device) % 3 > 0
    expected = bags(feats[present], voxelise(coords[present]))
    coords[~present, 0], feats[~present] = ABSENT, torch.nan
    with within(Room(device, [500] * 5, absent=True)), using("triton"):
        found = points_to_voxels(feats, voxelise(coords))
    assert torch.equal(found[: len(expected)], expected)
    assert (found[len(expected) :] == 0).all()


def test_gradients_are_still_there(points):
    from densescan.sparse.backends.levels import voxelise

    coords, feats = points(3)
    feats.requires_grad_()
    with using("triton"):
        mean = points_to_voxels(feats, voxelise(coords))
    mean.sum().backward()
    assert torch.allclose(feats.grad.sum(), torch.tensor(float(mean.numel()), device=feats.device))
