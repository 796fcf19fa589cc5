import json
import math

import numpy as np
import pytest

from densescan.data.maps import accumulate, crop_map, ground_truth_crop, in_cells_of, witnesses
from densescan.errors import InputError


@pytest.fixture
def crop(shared):
    """(arrays of the released crop, its counts)."""
    folder = shared / "reference"
    return np.load(folder / "metrics_gt_crop.npz"), json.loads((folder / "metrics.json").read_text())[
        "gt_crop"
    ]


EVERYTHING = {"z_range": (-math.inf, math.inf), "cell": 10_000.0}


@pytest.mark.parametrize(
    ("mask", "count", "options"),
    [
        ("mask_range", "after_range", EVERYTHING),
        ("mask_range_z", "after_z", {"cell": 10_000.0}),
        ("mask_final", "after_viewpoint_grid", {}),
    ],
)
def test_each_stage_of_the_released_crop(crop, mask, count, options):
    arrays, counts = crop
    points = ground_truth_crop(arrays["seq_map"], arrays["pose"], arrays["cur_scan"], **options)
    kept = arrays["seq_map"][arrays[mask]].astype(np.float64)
    expected = np.linalg.solve(arrays["pose"], np.c_[kept, np.ones(len(kept))].T).T[:, :3]
    assert len(points) == counts[count]
    np.testing.assert_allclose(points, expected, atol=1e-9)


def test_points_of_the_released_crop(crop):
    arrays, _ = crop
    points = ground_truth_crop(arrays["seq_map"], arrays["pose"], arrays["cur_scan"])
    np.testing.assert_allclose(points[:200], arrays["gt_points_first200"], rtol=0, atol=1e-12)


def test_crop_by_hand():
    pose = np.eye(4)
    pose[:3, 3] = [100.0, 0.0, 0.0]
    scan = np.array([[0.0, 0.0, 0.0], [22.0, 0.0, 0.0]], dtype=np.float32)  # cells [-5, 5) and [15, 25) in x
    in_sensor = np.array(
        [[1.0, 1, 1], [10, 1, 1], [20, 1, 1], [20, 1, 4.5], [20, 1, -4], [20, 5.1, 1], [-6, 0, 0], [55, 0, 0]]
    )
    points = ground_truth_crop(in_sensor + [100.0, 0, 0], pose, scan)
    np.testing.assert_allclose(points, in_sensor[[0, 2]], atol=1e-12)


def test_a_stray_point_of_the_scan_costs_no_memory():
    scan = np.array([[0.0, 0.0, 0.0], [9000.0, -9000.0, 9000.0]], dtype=np.float32)
    assert len(ground_truth_crop(np.zeros((1, 3)), np.eye(4), scan)) == 1


def test_crop_errors():
    cloud, nothing = np.zeros((2, 3)), np.zeros((0, 3))
    with pytest.raises(InputError, match="expected a scan with points"):
        ground_truth_crop(cloud, np.eye(4), nothing)
    with pytest.raises(InputError, match="check that pose and map belong to one sequence"):
        ground_truth_crop(cloud + 1000.0, np.eye(4), cloud)


def reference_map(scans, voxel_size, min_range):
    """The first point to fall in each voxel, by a dictionary."""
    voxels = {}
    for points, T in scans:
        for point in points.tolist():
            if math.hypot(*point) > min_range:
                x, y, z = (sum(T[i, k] * point[k] for k in range(3)) + T[i, 3] for i in range(3))
                voxels.setdefault(tuple(math.floor(c / voxel_size) for c in (x, y, z)), (x, y, z))
    return sorted(voxels.values())


def test_accumulate_keeps_the_first_point_of_each_voxel():
    rng = np.random.default_rng(0)
    scans = []
    for i in range(8):
        T = np.eye(4)
        c, s = math.cos(0.2 * i), math.sin(0.2 * i)
        T[:2, :2] = [[c, -s], [s, c]]
        T[:3, 3] = [1.3 * i, 0.2, 0.0]
        scans.append((rng.normal(0, 3, (int(rng.integers(0, 300)), 3)), T))
    world = accumulate(iter(scans), voxel_size=0.5, min_range=2.0)
    np.testing.assert_allclose(sorted(map(tuple, world.tolist())), reference_map(scans, 0.5, 2.0), atol=1e-9)


def test_accumulate_the_same_scan_twice_changes_nothing():
    points = np.random.default_rng(0).normal(0, 10, (500, 3)).astype(np.float32)
    once = accumulate([(points, np.eye(4))])
    assert np.array_equal(accumulate([(points, np.eye(4))] * 3), once)
    assert np.linalg.norm(once, axis=1).min() > 3.5


def test_accumulate_nothing():
    near = (np.ones((4, 3)), np.eye(4))
    for scans in ([], [near]):
        with pytest.raises(InputError, match=r"beyond 3\.5 m to make a map of"):
            accumulate(scans)


def test_witnesses_stand_for_the_scan():
    rng = np.random.default_rng(0)
    scan = rng.normal(0, 15, (20_000, 3)).astype(np.float32)
    few = witnesses(scan, 10.0)
    points = rng.uniform(-60, 60, (20_000, 3))
    kept = in_cells_of(points, scan, 10.0)
    assert np.array_equal(in_cells_of(points, few, 10.0), kept)
    assert 0 < kept.sum() < len(kept)
    assert len(few) < 1_000
    assert {tuple(p) for p in few.tolist()} <= {tuple(p) for p in scan.tolist()}


def test_a_piece_of_a_map_may_give_nothing():
    scan = np.float32([[1, 1, 0]])
    far = np.array([[300.0, 0.0, 0.0]])
    assert crop_map(far, np.eye(4), scan).shape == (0, 3)
    with pytest.raises(InputError, match="no point of the map is near the scan"):
        ground_truth_crop(far, np.eye(4), scan)
