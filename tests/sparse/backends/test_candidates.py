"""The nearest voxels of all levels at once against one search after the other."""

import pytest
import torch

from densescan.sparse.tensor import Voxels

CLOUDS = {
    "clouds of different size": ((90, 2, 25), -40, 40),
    "more than a block of cells": ((130,), -60, 60),
    "in one cell": ((60,), 0, 15),
    "single voxel": ((1,), -3, 3),
}
every_cloud = pytest.mark.parametrize("cloud", CLOUDS)


@pytest.fixture
def scene(device, random_coords):
    """(counts, low, high, seed) -> the voxels of all levels of random clouds, the finest."""
    from densescan.sparse.backends import levels

    return lambda *cloud: levels.voxelise(random_coords(*cloud).to(device)).voxels


def coarsest(voxels):
    for _ in range(4):
        voxels = voxels.coarser
    return voxels


def assert_nearest(scene, targets):
    from densescan.sparse.backends import levels, search

    for _ in range(5):
        assert torch.equal(levels.nearest_rows(scene, targets), search.nearest_rows(scene, targets))
        scene = scene.coarser


@every_cloud
@pytest.mark.parametrize("most", [96, 3])
def test_each_level_finds_what_a_search_of_its_own_does(scene, cloud, most, monkeypatch):
    """Targets of another scene, far from some cells; with few places in a list, cells that have more search alone."""
    from densescan.sparse.backends import candidates

    monkeypatch.setattr(candidates, "MOST", most)
    counts, low, high = CLOUDS[cloud]
    fine = scene(counts, low, high, 0)
    nearby = coarsest(scene(counts, low, high, 1))
    assert_nearest(fine, nearby)
    assert_nearest(fine, coarsest(scene([1 + count // 9 for count in counts], 3 * low, 2 * high, 2)))


def test_the_lists_are_what_is_used(scene, monkeypatch):
    from densescan.sparse.backends import levels, search

    fine, targets = scene((60,), -40, 40, 0), coarsest(scene((60,), -40, 40, 1))
    monkeypatch.setattr(search, "nearest_rows", lambda *_: pytest.fail("searched alone"))
    first = levels.nearest_rows(fine, targets)
    assert first.data_ptr() == levels.nearest_rows(fine, targets).data_ptr(), "searched twice"


def test_equally_near_targets_count_in_their_order(scene, device):
    """A lattice, in whose cells many corners lie as far from several targets."""
    cells = torch.cartesian_prod(*[torch.arange(-2, 3)] * 3)
    lattice = torch.nn.functional.pad(16 * cells[cells.sum(1) % 2 == 0], (1, 0))
    from densescan.sparse.backends import levels

    fine = levels.voxelise(torch.nn.functional.pad(8 * cells, (1, 0)).to(device)).voxels
    assert_nearest(fine, coarsest(levels.voxelise(lattice.to(device)).voxels))


def test_a_cloud_without_targets_finds_none(scene):
    from densescan.sparse.backends import levels

    fine, targets = scene((40, 40, 40), -40, 40, 0), coarsest(scene((20, 20, 20), -40, 40, 1))
    targets = Voxels(targets.keys[targets.batch != 1], targets.stride)
    assert torch.equal(levels.nearest_rows(fine, targets) == -1, fine.batch == 1)
    assert_nearest(fine, targets)


def test_rows_to_spare_find_some_row_and_change_no_other(device, scene, random_coords):
    from densescan.sparse.backends import levels, room

    coords = random_coords((200,), -60, 60, 0).to(device).repeat(2, 1)
    targets = coarsest(scene((50,), -60, 60, 1))
    plain = levels.voxelise(coords).voxels
    with room.within(room.Room(device, [400, 300, 300, 250, 250])):
        spacious = levels.voxelise(coords).voxels
        while True:
            found = levels.nearest_rows(spacious, targets)
            assert len(found) == len(spacious) > len(plain)
            assert torch.equal(found[: len(plain)], levels.nearest_rows(plain, targets))
            assert ((found >= 0) & (found < len(targets))).all()
            if plain.stride == 16:
                break
            plain, spacious = plain.coarser, spacious.coarser


def test_targets_with_rows_to_spare_are_found_as_without(device, scene, random_coords):
    from densescan.sparse.backends import levels, room

    coords, fine = random_coords((50,), -60, 60, 1).to(device), scene((200,), -60, 60, 0)
    with room.within(room.Room(device, [99] * 5)):
        spacious = coarsest(levels.voxelise(coords).voxels)
    assert_nearest(fine, spacious)
    expected = levels.nearest_rows(fine, coarsest(levels.voxelise(coords).voxels))
    assert torch.equal(levels.nearest_rows(fine, spacious), expected)
