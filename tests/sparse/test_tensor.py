"""Levels of voxels: their order, their coarsening, and which points they hold."""

import json

import numpy as np
import pytest
import torch

from densescan.errors import InputError
from densescan.sparse.tensor import SparseTensor, Voxels, voxelise


def sort_rows(coords):
    return np.lexsort(np.asarray(coords).T[::-1])


def test_voxels_hold_every_point_once(random_coords):
    coords = random_coords((300, 40), low=-3, high=4).repeat(3, 1)[torch.randperm(1020)[:700]]
    point_map = voxelise(coords)
    expected, inverse, counts = np.unique(coords.numpy(), axis=0, return_inverse=True, return_counts=True)
    assert np.array_equal(point_map.voxels.coords, expected)
    assert np.array_equal(point_map.voxels.batch, expected[:, 0])
    assert np.array_equal(point_map.inverse, inverse.ravel())
    assert sorted(point_map.order.tolist()) == list(range(700))
    held = [rows.tolist() for rows in point_map.order.tensor_split(point_map.offsets[1:])]
    assert [len(rows) for rows in held] == counts.tolist()
    assert all((coords[rows] == coords[rows[0]]).all() for rows in held)
    assert all(rows == sorted(rows) for rows in held), "points of a voxel keep their order"


def test_the_recorded_field_has_these_voxels(recorded):
    point_map = voxelise(recorded["field.coords"])
    order = sort_rows(recorded["field.sparse_C"])
    assert torch.equal(point_map.voxels.coords, recorded["field.sparse_C"][order].long())
    assert torch.equal(torch.from_numpy(order)[point_map.inverse], recorded["field.inverse"].long())


def test_rows_do_not_depend_on_the_order_of_points(random_coords):
    coords = random_coords((100, 60))
    shuffle = torch.randperm(160, generator=torch.Generator().manual_seed(0))
    one, other = voxelise(coords), voxelise(coords[shuffle])
    assert torch.equal(one.voxels.keys, other.voxels.keys)
    assert torch.equal(one.inverse[shuffle], other.inverse)


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_coarser_levels_are_floored_coordinates(levels, random_coords, level_of):
    coords = random_coords((300, 5, 120), low=-37, high=41)
    voxels, _ = level_of(coords)
    for _ in range(levels):
        voxels = voxels.coarser
    stride = 2**levels
    expected = coords.numpy().copy()
    expected[:, 1:] = np.floor(expected[:, 1:] / stride) * stride
    assert voxels.stride == stride
    assert np.array_equal(voxels.coords, np.unique(expected, axis=0))


def test_recorded_levels_coarsen_into_each_other(recorded, level_of):
    fine, _ = level_of(recorded["conv.C1"])
    for stride in (2, 4):
        fine = fine.coarser
        expected, _ = level_of(recorded[f"conv.C{stride}"], stride)
        assert torch.equal(fine.coords, expected.coords)


def test_strided_coordinates_floor_towards_minus_infinity(shared):
    """The recorded coarse coordinates are multiples of the stride and their own floor, at every level."""
    recorded = json.loads((shared / "reference" / "conventions.json").read_text())["stride_floor"]
    finest = torch.tensor(recorded["2"]["coords"])
    finest[:, 1:] //= 2
    voxels = Voxels(voxelise(finest).voxels.keys, stride=2)
    for stride in (4, 8, 16):
        voxels = voxels.coarser
        expected = np.array(recorded[str(stride)]["coords"])
        assert np.array_equal(voxels.coords, expected[sort_rows(expected)])


def test_levels_and_maps_are_built_once(random_coords, level_of):
    voxels, _ = level_of(random_coords((30,)))
    assert voxels.coarser is voxels.coarser
    assert voxels.strided is voxels.strided
    assert voxels.submanifold is voxels.submanifold


def test_features_change_and_voxels_stay(random_coords, level_of):
    voxels, _ = level_of(random_coords((30,)))
    x = SparseTensor(torch.zeros(30, 2), voxels)
    y = x.with_feats(torch.ones(30, 5))
    assert y.voxels is voxels
    assert torch.equal(y.feats, torch.ones(30, 5))


def test_points_out_of_range_are_refused():
    with pytest.raises(InputError, match="crop the points"):
        voxelise(torch.tensor([[0, 40_000, 0, 0]]))
