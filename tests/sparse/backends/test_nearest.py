"""Nearest points by Triton against k-d trees, for clouds that are hard on boxes and on the order of points."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree


def uniform(seed: int, n: int, extent=(20.0, 20.0, 3.0), shift=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Points spread evenly over a box [m]."""
    return np.random.default_rng(seed).uniform(0, extent, (n, 3)) + shift


def outliers() -> np.ndarray:
    """A surface, and a few points tens of metres beside it."""
    cloud = uniform(2, 250)
    cloud[::40] += np.random.default_rng(3).normal(scale=30, size=cloud[::40].shape)
    return cloud


def line(seed: int, n: int, axis: int) -> np.ndarray:
    """Points that differ along one axis alone."""
    return uniform(seed, n) * np.eye(3)[axis] * 5


CLOUDS = {
    "random": (uniform(0, 300), uniform(1, 500)),
    "outliers among queries": (outliers(), uniform(1, 500)),
    "outliers among targets": (uniform(1, 300), outliers()),
    "one target": (uniform(0, 70), uniform(1, 1)),
    "one query": (uniform(0, 1), uniform(1, 300)),
    "a point to itself": (uniform(0, 1), uniform(0, 1)),
    "far apart": (uniform(0, 100), uniform(1, 300, shift=(500.0, -300.0, 20.0))),
    "along x": (line(0, 100, 0), line(1, 300, 0)),
    "along y": (line(0, 100, 1), line(1, 300, 1)),
    "along z": (line(0, 100, 2), line(1, 300, 2)),
    "one place": (np.ones((90, 3)), np.full((130, 3), 2.0)),
    "whole blocks": (uniform(0, 128), uniform(1, 192)),
}


def search(queries: np.ndarray, targets: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray]:
    from densescan.sparse.backends.nearest import nearest_points

    clouds = (torch.tensor(points, dtype=torch.float32, device=device) for points in (queries, targets))
    distances, rows = nearest_points(*clouds)
    assert distances.device.type == rows.device.type == device
    return distances.cpu().numpy(), rows.cpu().numpy()


def assert_nearest(queries: np.ndarray, targets: np.ndarray, device: str) -> None:
    """Distances are those of the tree, and those of the rows."""
    queries, targets = queries.astype(np.float32), targets.astype(np.float32)
    distances, rows = search(queries, targets, device)
    expected = cKDTree(targets.astype(np.float64)).query(queries.astype(np.float64))[0]
    np.testing.assert_allclose(distances, expected, rtol=1e-6)
    of_rows = np.linalg.norm(queries.astype(np.float64) - targets[rows], axis=1)
    np.testing.assert_allclose(of_rows, expected, rtol=1e-6)


@pytest.mark.parametrize("blocks", [(64, 64, 128), (16, 16, 16)], ids=["blocks", "small blocks"])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_nearest_point_is_that_of_the_tree(device, monkeypatch, cloud, blocks):
    """Small blocks: so many that boxes are looked at in several rounds."""
    from densescan.sparse.backends import nearest

    monkeypatch.setattr(nearest, "_BLOCKS", blocks)
    assert_nearest(*CLOUDS[cloud], device)


def test_the_order_of_points_does_not_matter(device, monkeypatch):
    """Nor is it needed: with the queries and targets of a block all over the scene, nothing is missed."""
    from densescan.sparse.backends import nearest

    queries, targets = uniform(0, 128), uniform(1, 192)
    distances, rows = search(queries, targets, device)
    shuffled = np.random.default_rng(4).permutation(128)
    moved, moved_rows = search(queries[shuffled], targets[::-1].copy(), device)
    np.testing.assert_array_equal(moved, distances[shuffled])
    np.testing.assert_array_equal(191 - moved_rows, rows[shuffled])
    monkeypatch.setattr(nearest, "_in_blocks", lambda points, block: torch.arange(len(points), device=device))
    assert_nearest(queries, targets, device)


def test_equally_near_targets_give_one_of_them_and_always_the_same(device):
    targets = np.repeat(uniform(0, 60), 3, axis=0)
    queries = uniform(0, 60)
    distances, rows = search(queries, targets, device)
    assert not distances.any()
    np.testing.assert_array_equal(rows // 3, np.arange(60))
    np.testing.assert_array_equal(search(queries, targets, device)[1], rows)


def test_blocks_are_of_points_close_together(device):
    """Boxes of 64 points out of 4096 in a cube: most are near a 64th of its volume."""
    from densescan.sparse.backends.nearest import _in_blocks

    points = torch.tensor(uniform(0, 4096, (8.0, 8.0, 8.0)), dtype=torch.float32)
    blocks = points[_in_blocks(points, 64)].view(-1, 64, 3)
    volumes = (blocks.amax(1) - blocks.amin(1)).prod(1)
    assert float(volumes.median()) < 2 * 8**3 / 64


def test_no_queries_find_nothing(device):
    distances, rows = search(np.zeros((0, 3)), uniform(0, 5), device)
    assert (distances.shape, rows.shape) == ((0,), (0,))
    assert (distances.dtype, rows.dtype) == (np.float32, np.int64)


def test_targets_are_needed_and_limited(device, monkeypatch):
    from densescan.sparse.backends import nearest

    with pytest.raises(ValueError, match="got 0 and 5"):
        search(uniform(0, 5), np.zeros((0, 3)), device)
    monkeypatch.setattr(nearest, "MAX_POINTS", 4)
    with pytest.raises(ValueError, match="expected 1 to 4 targets and as many queries at most, got 1 and 5"):
        search(uniform(0, 5), uniform(1, 1), device)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_points_that_are_not_finite_leave_no_distance(device, side, value):
    clouds = [uniform(0, 70), uniform(1, 150)]
    clouds[side][3, 1] = value
    distances, rows = search(*clouds, device)
    assert np.isnan(distances).all()
    assert ((rows >= 0) & (rows < 150)).all()


def test_nothing_is_differentiated(device):
    from densescan.sparse.backends.nearest import nearest_points

    points = torch.tensor(uniform(0, 5), dtype=torch.float32, device=device, requires_grad=True)
    assert not nearest_points(points, points)[0].requires_grad
