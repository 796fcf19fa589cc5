"""Searches on the device and the maps made of them, against the searches of plain PyTorch and a k-d tree."""

import pytest
import torch

from densescan.nets.matching import nearest_voxel
from densescan.sparse.kernel_map import KernelMap, strided_map, submanifold_map
from densescan.sparse.tensor import Voxels

CLOUDS = {
    "clouds of different size": ((90, 1, 25), -4, 4),
    "more than a block": ((300,), -4, 4),
    "lonely": ((12,), -30, 30),
    "single voxel": ((1,), -3, 3),
}
every_cloud = pytest.mark.parametrize("cloud", CLOUDS)


def assert_same_map(found, expected):
    """The same pairs, in the same order, forward and transposed."""
    for one, other in ((found, expected), (found.transposed, expected.transposed)):
        assert isinstance(one, KernelMap)
        assert (one.n_in, one.n_out) == (other.n_in, other.n_out)
        for pair, wanted in zip(one.pairs, other.pairs, strict=True):
            every = torch.arange(one.n_in, device=pair[0].device)
            for rows, rows_wanted in zip(pair, wanted or (every, every), strict=True):
                assert torch.equal(rows, rows_wanted)


@every_cloud
def test_the_submanifold_map_is_that_of_plain_pytorch(device, level, cloud):
    from densescan.sparse.backends import table_map

    keys = level(*CLOUDS[cloud]).keys
    assert_same_map(table_map.submanifold_map(keys), submanifold_map(keys))


@every_cloud
def test_the_strided_map_is_that_of_plain_pytorch(device, level, cloud):
    from densescan.sparse.backends import table_map

    coords = level(*CLOUDS[cloud]).coords
    _, parent = torch.unique(coords // torch.tensor([1, 2, 2, 2], device=device), dim=0, return_inverse=True)
    slot = (coords[:, 1:] % 2 * torch.tensor([1, 2, 4], device=device)).sum(1)
    n = int(parent.max()) + 1
    assert_same_map(table_map.strided_map(parent, slot, n), strided_map(parent, slot, n))


@every_cloud
@pytest.mark.parametrize("halvings", [2, 4])
def test_the_nearest_voxel_is_that_of_the_tree(device, level, cloud, halvings):
    """Coarse targets have many ties."""
    from densescan.sparse.backends.search import nearest_rows

    queries = level(*CLOUDS[cloud])
    targets = queries
    for _ in range(halvings):
        targets = targets.coarser
    for level_of_queries in (queries, queries.coarser):
        expected = nearest_voxel(
            Voxels(level_of_queries.keys.cpu(), level_of_queries.stride),
            Voxels(targets.keys.cpu(), targets.stride),
        )
        assert torch.equal(nearest_rows(level_of_queries, targets).cpu(), expected)


def test_distances_between_the_farthest_voxels_are_exact(device):
    """Squared distances beyond 32 bits, that differ by one."""
    from densescan.sparse.backends.search import nearest_rows
    from densescan.sparse.keys import MAX_COORD, pack

    far = torch.tensor(
        [[0, 1 - MAX_COORD, -MAX_COORD, -MAX_COORD], [0, 2 - MAX_COORD, -MAX_COORD, -MAX_COORD]]
    )
    query = torch.tensor([[0, MAX_COORD, MAX_COORD, MAX_COORD]])
    queries, targets = (Voxels(pack(coords).to(device)) for coords in (query, far))
    assert nearest_rows(queries, targets).tolist() == [1]


def test_a_cloud_without_targets_finds_none(device, level):
    from densescan.sparse.backends.search import nearest_rows

    queries = level((20, 20, 20))
    targets = Voxels(queries.keys[queries.batch != 1])
    rows = nearest_rows(queries, targets)
    assert torch.equal(rows == -1, queries.batch == 1)


def test_too_many_targets_are_refused(device, level, monkeypatch):
    from densescan.sparse.backends import search

    monkeypatch.setattr(search, "MAX_TARGETS", 5)
    with pytest.raises(ValueError, match="fewer than 5"):
        search.nearest_rows(level((4,)), level((5,)))
