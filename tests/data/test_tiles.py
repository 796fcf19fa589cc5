"""Tiles of a map against the whole map."""

import json

import numpy as np
import pytest

from densescan.data import tiles
from densescan.data.maps import ground_truth_crop
from densescan.data.tiles import TileMap, split_by_tile, tile_path, write_array, write_index
from densescan.errors import InputError
from densescan.geometry.voxels import voxel_keys


def by_rows(points):
    return points[np.lexsort(points.T)]


def write_map(folder, points):
    order, found = split_by_tile(voxel_keys(points, 0.1))
    for tile, (start, stop) in found.items():
        write_array(tile_path(folder, tile), points[order[start:stop]])
    write_index(folder, {tile: stop - start for tile, (start, stop) in found.items()})
    return TileMap(folder)


@pytest.fixture
def street():
    """Points (P, 3) of a street of 400 m, with many of them on the edges of tiles."""
    rng = np.random.default_rng(0)
    points = rng.uniform((-200, -60, -3), (200, 60, 5), (20_000, 3))
    points[::7, 0] = 25.0 * rng.integers(-8, 8, len(points[::7]))
    points[::11, 1] = np.nextafter(25.0 * rng.integers(-2, 3, len(points[::11])), -np.inf)
    return points


def pose(x, y):
    T = np.eye(4)
    T[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    T[:3, 3] = [x, y, 0.5]
    return T


def test_split_by_tile_against_a_dictionary(street):
    expected = {}
    for i, point in enumerate(street.tolist()):
        voxel = [int(np.floor(c / 0.1)) for c in point[:2]]
        expected.setdefault((voxel[0] // 250, voxel[1] // 250), []).append(i)
    order, found = split_by_tile(voxel_keys(street, 0.1))
    assert {tile: order[start:stop].tolist() for tile, (start, stop) in found.items()} == expected
    assert split_by_tile(np.zeros(0, dtype=np.int64))[1] == {}


def test_all_tiles_together_are_the_map(tmp_path, street):
    written = write_map(tmp_path, street)
    assert len(written) == len(street)
    assert np.array_equal(by_rows(np.concatenate(list(written))), by_rows(street))
    assert (written.tile_size, written.voxel_size) == (25.0, 0.1)


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (-113.0, 7.5), (25.0, -25.0), (190.0, 40.0)])
def test_crop_equals_that_of_the_whole_map(tmp_path, street, x, y):
    scan = np.random.default_rng(1).uniform((-30, -20, -2), (45, 30, 2), (200, 3)).astype(np.float32)
    expected = ground_truth_crop(street, pose(x, y), scan)
    found = write_map(tmp_path, street).crop(pose(x, y), scan)
    assert len(found) == len(expected) > 100
    np.testing.assert_allclose(by_rows(found.round(9)), by_rows(expected.round(9)), atol=1e-9)


def test_only_tiles_within_reach_are_read(tmp_path, street, monkeypatch):
    written = write_map(tmp_path, street)
    read = []
    monkeypatch.setattr(TileMap, "_read", lambda self, tile: read.append(tile) or np.zeros((1, 3)))
    written.near(np.array([12.0, 12.0, 0.0]), 5.0)
    assert read == [(0, 0)]
    written.near(np.array([12.0, 12.0, 0.0]), 14.0)
    assert sorted(read) == [(-1, 0), (0, -1), (0, 0), (0, 1), (1, 0)], (
        "a tile that was read is not read again"
    )
    assert len(written.near(np.array([5000.0, 0.0, 0.0]), 50.0)) == 0


def test_within_gives_the_points_within_a_distance_and_keeps_none(tmp_path, street):
    written = write_map(tmp_path, street)
    for centre, radius in (([0.0, 0.0, 9.0], 7.0), ([25.0, -25.0, 0.0], 60.0), ([24.9, 3.0, 0.0], 0.5)):
        away = np.linalg.norm(street[:, :2] - centre[:2], axis=1)
        found = written.within(np.array(centre), radius)
        assert type(found) is np.ndarray
        assert (away < radius).sum() <= len(found) <= (away < radius + 0.011).sum()
        assert {tuple(p) for p in street[away < radius].tolist()} <= {tuple(p) for p in found.tolist()}
    assert written.within(np.array([5000.0, 0.0, 0.0]), 50.0).shape == (0, 3)
    assert not written._cache


def test_few_tiles_are_kept_in_memory(tmp_path, street, monkeypatch):
    monkeypatch.setattr(tiles, "CACHED_TILES", 3)
    written = write_map(tmp_path, street)
    for x in np.arange(-180.0, 180.0, 10.0):
        written.near(np.array([x, 0.0, 0.0]), 20.0)
        assert len(written._cache) <= 3


def test_errors(tmp_path, street):
    with pytest.raises(InputError, match=r"no map in .*densescan data prepare"):
        TileMap(tmp_path)
    written = write_map(tmp_path, street)
    far = np.array([[500.0, 0.0, 0.0]], dtype=np.float32)
    with pytest.raises(InputError, match="one sequence"):
        written.crop(pose(0.0, 0.0), far)
    write_array(tmp_path / "0_0.npy", np.zeros((2, 3)))
    with pytest.raises(InputError, match=r"0_0\.npy: expected \d+ points in float64, got \(2, 3\)"):
        list(written)
    (tmp_path / "0_0.npy").write_bytes((tmp_path / "1_0.npy").read_bytes()[:-5])
    with pytest.raises(InputError, match=r"0_0\.npy: it is missing, no NumPy array or cut off"):
        list(written)
    (tmp_path / "0_0.npy").unlink()
    with pytest.raises(InputError, match=r"0_0\.npy: it is missing"):
        list(written)
    for damaged in ("{", json.dumps({"points": {}}), "[]"):
        (tmp_path / "index.json").write_text(damaged)
        with pytest.raises(InputError, match=r"index\.json: it is no index of a map"):
            TileMap(tmp_path)
