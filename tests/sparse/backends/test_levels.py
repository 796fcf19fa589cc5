"""Voxels of all levels at once against level by level; what it waits for."""

import pytest
import torch

from densescan.errors import InputError
from densescan.sparse.keys import MAX_BATCH, MAX_COORD
from densescan.sparse.tensor import voxelise


@pytest.fixture
def levels(device):
    from densescan.sparse.backends import levels

    return levels


@pytest.fixture
def coords(device):
    """Points of three clouds in any order, several to a voxel."""
    generator = torch.Generator().manual_seed(0)
    xyz = torch.randint(-16, 16, (300, 3), generator=generator) // 2
    batch = torch.randint(3, (300, 1), generator=generator)
    return torch.cat((batch, xyz), dim=1).to(device)


def test_points_fall_into_the_same_voxels(levels, coords):
    found, expected = levels.voxelise(coords), voxelise(coords)
    for name in ("inverse", "order", "offsets"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert torch.equal(found.voxels.keys, expected.voxels.keys)


def test_coarser_levels_and_the_ways_between_them_are_the_same(levels, coords):
    from densescan.sparse.backends import room

    fine, expected = levels.voxelise(coords).voxels, voxelise(coords).voxels
    for _ in range(room.LEVELS):  # one more than was prepared
        coarse, expected_coarse = fine.coarser, expected.coarser
        assert torch.equal(coarse.keys, expected_coarse.keys)
        assert coarse.stride == expected_coarse.stride
        for one, other in ((fine.strided, expected.strided), (fine.submanifold, expected.submanifold)):
            sizes = [[len(rows) for rows in pair or (expected.keys,) * 2] for pair in other.pairs]
            assert [[len(rows) for rows in pair or (fine.keys,) * 2] for pair in one.pairs] == sizes
        for pair, wanted in zip(fine.strided.pairs, expected.strided.pairs, strict=True):
            assert all(torch.equal(rows, rows_wanted) for rows, rows_wanted in zip(pair, wanted, strict=True))
        fine, expected = coarse, expected_coarse


def test_a_single_point(levels, device):
    point_map = levels.voxelise(torch.tensor([[1, -3, 2, 5]], device=device))
    assert point_map.voxels.coords.tolist() == [[1, -3, 2, 5]]
    assert point_map.voxels.coarser.coords.tolist() == [[1, -4, 2, 4]]


@pytest.mark.parametrize(
    ("column", "value"), [(1, MAX_COORD + 1), (3, -MAX_COORD - 1), (0, -1), (0, MAX_BATCH)]
)
def test_coordinates_out_of_range_are_refused(levels, coords, column, value):
    coords[17, column] = value
    with pytest.raises(InputError, match=r"voxel coordinates span|batch indices"):
        levels.voxelise(coords)


def test_the_widest_coordinates_are_kept(levels, device):
    ends = [[0, -MAX_COORD, MAX_COORD, -MAX_COORD], [MAX_BATCH - 1, MAX_COORD, -MAX_COORD, MAX_COORD]]
    voxels = levels.voxelise(torch.tensor(ends, device=device)).voxels
    assert voxels.coords.tolist() == ends
    assert len(voxels.coarser.coarser.coarser.coarser) == 2


def test_the_host_reads_from_the_device_once(levels, coords, monkeypatch):
    """Counted where tensors become numbers. What lengths depend on would count too, but does not occur."""
    reads = []
    for name in ("tolist", "item", "nonzero", "__bool__", "__int__"):
        method = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, *args, f=method, n=name: reads.append(n) or f(self, *args)
        )
    assert len(levels.voxelise(coords).voxels.coarser.submanifold.neighbours.order)
    assert reads == ["tolist"]


def test_maps_of_the_device_are_tables_from_the_start(levels, coords, monkeypatch):
    """A table made of pairs waits for the device once for every map."""
    from densescan.sparse.backends import table

    monkeypatch.setattr(table.NeighbourTable, "of_map", lambda _: pytest.fail("made of pairs"))
    fine = levels.voxelise(coords).voxels
    for kernel_map in (fine.submanifold, fine.strided, fine.strided.transposed):
        assert table.table_of(kernel_map) is table.table_of(kernel_map)
