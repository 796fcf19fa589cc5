"""Truth near a place against the whole ground truth."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from densescan.data.maps import ground_truth_crop
from densescan.data.tiles import TileMap, split_by_tile, tile_path, write_array, write_index
from densescan.data.truth import ArrayTruth, FileTruth, MapTruth
from densescan.errors import InputError
from densescan.geometry.voxels import voxel_keys


@pytest.fixture
def world(tmp_path: Path) -> tuple[TileMap, np.ndarray]:
    """A map, and its points in the order of its tiles."""
    points = np.random.default_rng(0).uniform((-60, -60, -25), (60, 60, 25), (60_000, 3))
    order, found = split_by_tile(voxel_keys(points, 0.1))
    for tile, (start, stop) in found.items():
        write_array(tile_path(tmp_path, tile), points[order[start:stop]])
    write_index(tmp_path, {tile: stop - start for tile, (start, stop) in found.items()})
    return TileMap(tmp_path), points[order]


@pytest.mark.parametrize("reach", [0.5, 4.0, 30.0])
@pytest.mark.parametrize("tilt", [0.0, 0.4])
def test_nothing_near_is_missed_however_the_road_is_inclined(
    world: tuple[TileMap, np.ndarray], reach: float, tilt: float
) -> None:
    scan = np.random.default_rng(1).uniform((-40, -30, -2), (40, 35, 3), (300, 3)).astype(np.float32)
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("zyx", [0.7, tilt, -tilt / 2]).as_matrix()
    T[:3, 3] = [3.0, -7.0, 1.0]
    whole = ground_truth_crop(world[1], T, scan).astype(np.float32)
    truth = MapTruth("08/000000", world[0], T, scan)
    for centre in scan[:10, :2]:
        expected = whole[np.linalg.norm(whole[:, :2] - centre, axis=1) < reach]
        found = truth.near(centre, reach)
        assert found.dtype == np.float32
        kept = found[np.linalg.norm(found[:, :2] - centre, axis=1) < reach]
        np.testing.assert_allclose(kept, expected, atol=1e-5)  # in the same order
        if reach < 5:
            assert len(found) < len(whole) / 8, "not the whole scene"


def test_places_beyond_the_map_have_no_truth(world: tuple[TileMap, np.ndarray]) -> None:
    scan = np.float32([[1, 1, 0]])
    assert MapTruth("", world[0], np.eye(4), scan).near(np.array([500.0, 0.0]), 3.0).shape == (0, 3)


def test_files_and_arrays_give_their_points(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    np.save(tmp_path / "truth.npy", points)
    for truth in (FileTruth(tmp_path / "truth.npy"), ArrayTruth("street 5", points)):
        assert np.array_equal(truth.near(np.zeros(2), 1.0), points)
    assert FileTruth(tmp_path / "truth.npy").name == str(tmp_path / "truth.npy")
    np.save(tmp_path / "truth.npy", points.astype(np.float64))
    with pytest.raises(InputError, match=r"truth\.npy: expected points of shape \(N, 3\) in float32, got"):
        FileTruth(tmp_path / "truth.npy").near(np.zeros(2), 1.0)
    (tmp_path / "truth.npy").unlink()
    with pytest.raises(InputError, match=r"truth\.npy: it is missing"):
        FileTruth(tmp_path / "truth.npy").near(np.zeros(2), 1.0)
