"""Levels within a room: the same voxels and maps, and rows that nothing touches; scenes that leave it are found."""

from itertools import pairwise

import pytest
import torch

from densescan.sparse.backends import using
from densescan.sparse.keys import MAX_COORD


@pytest.fixture(autouse=True)
def by_triton():
    with using("triton"):
        yield


@pytest.fixture
def room(device):
    from densescan.sparse.backends import room

    return room


@pytest.fixture
def coords(device):
    """(seed, high) -> points of three clouds in any order, several to a voxel."""

    def coords(seed=0, high=8):
        generator = torch.Generator().manual_seed(seed)
        xyz = torch.randint(-high, high, (200, 3), generator=generator)
        batch = torch.randint(3, (200, 1), generator=generator)
        return torch.cat((batch, xyz), dim=1).to(device)

    return coords


@pytest.fixture
def voxelised(room):
    """(coords, room) -> the points' map."""
    from densescan.sparse.backends.levels import voxelise

    def voxelised(coords, where=None):
        if where is None:
            return voxelise(coords)
        with room.within(where):
            return voxelise(coords)

    return voxelised


def chain(voxels):
    """Its levels, from fine to coarse."""
    levels = [voxels]
    while "_coarsening" in vars(levels[-1]):
        levels.append(levels[-1].coarser)
    return levels


@pytest.fixture
def learnt(room, voxelised, coords, device):
    """A room for scenes like the first."""
    first = room.Room(device)
    voxelised(coords(), first)
    assert first.held()
    return first.enough()


def test_a_room_has_as_many_rows_whatever_the_scene(room, voxelised, coords, learnt):
    sizes = {
        tuple(len(level) for level in chain(voxelised(coords(seed, high), learnt).voxels))
        for seed, high in ((0, 8), (1, 8), (2, 4), (3, 1))
    }
    assert len(sizes) == 1
    assert learnt.held()


def test_voxels_and_maps_are_those_of_levels_that_fit(room, voxelised, coords, learnt):
    from densescan.sparse.backends.table import table_of

    def column_of_row(kernel_map):
        table = table_of(kernel_map)
        rows = torch.empty_like(table.rows)
        rows[:, table.order.long()] = table.rows
        return rows

    roomy, exact = voxelised(coords(1), learnt), voxelised(coords(1))
    assert torch.equal(roomy.inverse, exact.inverse)
    assert torch.equal(roomy.order, exact.order)
    assert torch.equal(roomy.offsets[: len(exact.offsets)], exact.offsets)
    for wide, tight in zip(chain(roomy.voxels), chain(exact.voxels), strict=True):
        n = len(tight)
        assert torch.equal(wide.keys[:n], tight.keys)
        assert torch.equal(wide.batch[:n], tight.batch)
        assert (wide.keys[n:] >= room.FIRST_FREE).all()
        assert (wide.batch[n:] == 0).all()
        maps = [(wide.submanifold, tight.submanifold)]
        if "_coarsening" in vars(wide):
            ways = wide.strided, tight.strided
            maps += [ways, tuple(way.transposed for way in ways)]
        for one, other in maps:
            rows, expected = column_of_row(one), column_of_row(other)
            assert torch.equal(rows[:, : expected.shape[1]], expected)
            assert (rows[:, expected.shape[1] :] == -1).all()


def test_free_rows_have_no_nearest_voxel_and_are_nobodys(room, voxelised, coords, learnt, level):
    from densescan.nets.matching import nearest_voxel

    wide, tight = voxelised(coords(1), learnt).voxels, voxelised(coords(1)).voxels
    targets = level((9, 9, 9))
    assert torch.equal(nearest_voxel(wide, targets)[: len(tight)], nearest_voxel(tight, targets))
    assert torch.equal(nearest_voxel(targets, wide), nearest_voxel(targets, tight))


@pytest.mark.parametrize("allowed", [True, False])
def test_absent_points_fill_no_voxel(room, voxelised, coords, learnt, allowed):
    learnt.absent = allowed
    every, present = coords(1), torch.arange(200) % 3 > 0
    some = every.clone()
    some[~present] = torch.tensor([room.ABSENT, 7, -9, 2**40], device=every.device)
    found, expected = voxelised(some, learnt), voxelised(every[present])
    n = len(expected.voxels)
    assert torch.equal(found.voxels.keys[:n], expected.voxels.keys)
    assert torch.equal(found.inverse[present], expected.inverse)
    assert (found.inverse[~present] < len(found.voxels)).all()
    assert learnt.held() == allowed


def test_a_room_has_a_box_that_is_sorted_by_short_numbers(room, voxelised, coords, device, monkeypatch):
    """Larger than what was found; points outside it are noticed, and it changes nothing for the others."""
    from densescan.sparse.backends import box, levels

    monkeypatch.setattr(box, "SHORT", 40_000)  # so that the largest box is not large
    types, original = [], levels.places
    monkeypatch.setattr(
        levels, "places", lambda *args: types.append(original(*args)[1].dtype) or original(*args)
    )
    first = room.Room(device)
    voxelised(coords(), first)
    learnt, wide = first.enough(), first.enough(boxed=False)
    assert learnt.box.places <= 40_000
    assert wide.box == box.EVERYWHERE
    lowest, highest = coords().amin(0)[1:].tolist(), coords().amax(0)[1:].tolist()
    for low, size, least, most in zip(learnt.box.low, learnt.box.size, lowest, highest, strict=True):
        assert low < least
        assert most < low + size - 1
    boxed, expected = voxelised(coords(1), learnt), voxelised(coords(1), wide)
    assert types == [torch.int64, torch.int32, torch.int64]
    for found, wanted in zip(chain(boxed.voxels), chain(expected.voxels), strict=True):
        assert torch.equal(found.keys[: len(wanted)], wanted.keys[: len(found)])
    assert torch.equal(boxed.inverse, expected.inverse)
    assert torch.equal(boxed.order, expected.order)
    assert learnt.held()
    far = coords(1)
    far[5, 2] = learnt.box.low[1] + learnt.box.size[1]
    voxelised(far, learnt)
    voxelised(far, wide)
    assert not learnt.held()
    assert wide.held()


@pytest.mark.parametrize(("column", "value"), [(1, MAX_COORD + 1), (3, -MAX_COORD - 1), (0, 1 << 14)])
def test_coordinates_out_of_range_are_found(voxelised, coords, learnt, column, value):
    bad = coords(1)
    bad[17, column] = value
    voxelised(bad, learnt)
    voxelised(coords(1), learnt)
    assert not learnt.held()
    voxelised(coords(1), learnt)
    assert learnt.held(), "each question is about what came since the last"


def test_voxels_that_find_no_room_are_found_on_every_level(room, voxelised, coords, device):
    """And no map leads beyond the rows that there are."""
    from densescan.sparse.backends.table import table_of

    sizes = [len(level) for level in chain(voxelised(coords()).voxels)]
    for short in range(1, len(sizes)):
        enough = [n - (i == short) for i, n in enumerate(sizes)]
        tight, small = room.Room(device, sizes), room.Room(device, enough)
        voxelised(coords(), tight)
        assert tight.held()
        levels = chain(voxelised(coords(), small).voxels)
        assert not small.held()
        for fine, coarse in pairwise(levels):
            assert table_of(fine.strided).rows.max() < len(fine)
            assert table_of(fine.strided.transposed).rows.max() < len(coarse)
        assert table_of(levels[-1].submanifold).rows.max() < len(levels[-1])


def test_convolutions_are_the_same_where_there_are_voxels(voxelised, coords, learnt, draw):
    from densescan.sparse.functional import sparse_conv

    wide, tight = voxelised(coords(1), learnt).voxels, voxelised(coords(1)).voxels
    n, coarse = len(tight), len(tight.coarser)
    feats = draw(len(wide), 16)
    feats[n:] = torch.nan
    kernel, down = draw(27, 16, 8, seed=2), draw(8, 16, 8, seed=3)
    for weights, one, other, rows in (
        (kernel, wide.submanifold, tight.submanifold, n),
        (down, wide.strided, tight.strided, coarse),
    ):
        found, expected = sparse_conv(feats, weights, one), sparse_conv(feats[:n], weights, other)
        assert torch.allclose(found[:rows], expected, rtol=1e-5, atol=1e-5)
        assert (found[rows:] == 0).all()


def test_a_room_is_left(room, learnt):
    assert room.current() is None
    with room.within(learnt):
        assert room.current() is learnt
    assert room.current() is None
