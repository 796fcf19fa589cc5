"""Voxel thinning against a dictionary."""

import math

import numpy as np
import pytest

from densescan.errors import InputError
from densescan.geometry.voxels import distinct, voxel_coordinates, voxel_downsample, voxel_keys


def first_of_each(points, voxel_size):
    """Reference: walk through the points, remember each cell."""
    seen = {}
    for index, point in enumerate(points.tolist()):
        seen.setdefault(tuple(math.floor(c / voxel_size) for c in point), index)
    return list(seen.values())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("voxel_size", [0.1, 0.5, 2.0])
def test_keeps_the_first_point_of_each_voxel(dtype, voxel_size):
    points = np.random.default_rng(0).normal(0, 1.5, (4000, 3)).astype(dtype)
    assert voxel_downsample(points, voxel_size).tolist() == first_of_each(points, voxel_size)


def test_cells_do_not_straddle_the_origin():
    points = np.array([[-0.01, 0, 0], [0.01, 0, 0], [0, -0.01, 0], [0, 0, -0.01]])
    assert voxel_downsample(points, 0.1).tolist() == [0, 1, 2, 3]


def test_keys_sort_like_cells():
    cells = np.array(sorted(np.random.default_rng(1).integers(-50, 50, (500, 3)).tolist()))
    assert (np.diff(voxel_keys(cells + 0.5, 1.0)) >= 0).all()


def test_an_empty_cloud_has_no_voxels():
    assert len(voxel_downsample(np.zeros((0, 3)), 0.1)) == 0


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan")])
def test_refuses_a_voxel_size_that_is_not_positive(size):
    with pytest.raises(InputError, match="voxel size above 0"):
        voxel_downsample(np.zeros((1, 3)), size)


@pytest.mark.parametrize("far", [np.nan, np.inf, -np.inf, 1.1e5, -1.1e5])
def test_refuses_points_that_do_not_fit_the_key(far):
    with pytest.raises(InputError, match="local frame"):
        voxel_downsample(np.array([[0.0, far, 0.0]]), 0.1)


def test_coordinates_of_keys():
    points = np.random.default_rng(0).uniform(-1000, 1000, (200, 3))
    expected = np.floor(points / 0.1).astype(np.int64)
    assert np.array_equal(voxel_coordinates(voxel_keys(points, 0.1)), expected)


@pytest.mark.parametrize("number", [0, 1, 1000])
def test_every_key_once(number):
    keys = np.random.default_rng(1).integers(-50, 50, number)
    assert distinct(keys).tolist() == sorted(set(keys.tolist()))
