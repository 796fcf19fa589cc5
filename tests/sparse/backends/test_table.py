"""Neighbour tables against the pairs they are made of; the order of their columns; tiles."""

from functools import partial
from itertools import pairwise

import pytest
import torch

from densescan.sparse.backends.table import MISSING, NeighbourTable, padding, pattern_order
from densescan.sparse.kernel_map import KernelMap


def pairs_of(kernel_map):
    """{(offset, in row, out row)}."""
    every = range(kernel_map.n_in)
    lists = [(every, every) if p is None else (p[0].tolist(), p[1].tolist()) for p in kernel_map.pairs]
    return {(k, i, o) for k, (ins, outs) in enumerate(lists) for i, o in zip(ins, outs, strict=True)}


@pytest.fixture
def fine(random_coords, level_of):
    return level_of(random_coords((150, 1, 60), low=-5, high=5))[0]


@pytest.fixture(params=["submanifold", "strided", "transposed"])
def kernel_map(request, fine):
    return {"submanifold": fine.submanifold, "strided": fine.strided}.get(
        request.param, fine.strided.transposed
    )


def test_a_table_holds_the_pairs_of_its_map(kernel_map):
    table = NeighbourTable.of_map(kernel_map)
    assert sorted(table.order.tolist()) == list(range(kernel_map.n_out))
    k, p = torch.nonzero(table.rows != MISSING, as_tuple=True)
    found = zip(k.tolist(), table.rows[k, p].tolist(), table.order[p].tolist(), strict=True)
    assert set(found) == pairs_of(kernel_map)


def test_listed_pairs_are_those_of_the_map_in_ascending_order(kernel_map):
    pairs = NeighbourTable.of_map(kernel_map).pairs
    sizes = pairs.begins.diff().tolist()
    ins, outs = (rows[: sum(sizes)].split(sizes) for rows in (pairs.in_rows, pairs.out_rows))
    lists = tuple(zip(ins, outs, strict=True))
    assert pairs_of(KernelMap(lists, kernel_map.n_in, kernel_map.n_out)) == pairs_of(kernel_map)
    assert all((outs.diff() > 0).all() for _, outs in lists)


@pytest.mark.parametrize("size", [16, 1000])
def test_tiles_list_the_offsets_that_occur_in_them(kernel_map, size):
    table = NeighbourTable.of_map(kernel_map)
    tiles = table.tiles(size)
    assert len(tiles.counts) == -(-table.n_out // size)
    assert tiles.offsets.is_contiguous()
    for t, (offsets, count) in enumerate(zip(tiles.offsets.tolist(), tiles.counts.tolist(), strict=True)):
        occurs = (table.rows[:, t * size : (t + 1) * size] != MISSING).any(1)
        assert offsets[:count] == torch.nonzero(occurs).flatten().tolist()
    assert table.tiles(size) is tiles


def test_columns_with_the_same_pattern_follow_each_other(kernel_map):
    table = NeighbourTable.of_map(kernel_map)
    patterns = [tuple(column) for column in (table.rows != MISSING).T.tolist()]
    changes = sum(a != b for a, b in pairwise(patterns))
    assert changes == len(set(patterns)) - 1


def test_the_order_of_patterns_saves_products(random_coords, level_of):
    """Half-filled neighbourhoods, where no two patterns are the same."""
    table = NeighbourTable.of_map(level_of(random_coords((3_000,), low=-10, high=11))[0].submanifold)
    natural = torch.empty_like(table.rows)
    natural[:, table.order.long()] = table.rows
    unsorted = NeighbourTable(natural, torch.arange(table.n_out, dtype=torch.int32), table.n_in)
    assert padding(table, 1) == 1
    assert padding(table, 16) < 0.85 * padding(unsorted, 16)


def test_tiles_with_most_offsets_come_last(random_coords, level_of):
    """So that they can be taken first: a long program must not be left when the others are done."""
    voxels = level_of(random_coords((3_000,), low=-10, high=11))[0]
    counts = NeighbourTable.of_map(voxels.submanifold).tiles(16).counts.float()
    quarter = len(counts) // 4
    assert counts[-quarter:].mean() > 1.3 * counts[:quarter].mean()


def test_patterns_are_walked_in_a_gray_code():
    """All patterns of three offsets: successive ones differ in one offset."""
    digits = torch.tensor([[p >> k & 1 for p in range(8)] for k in range(3)], dtype=torch.int32)
    walked = digits[:, pattern_order(digits - 1)]
    assert (walked.diff(dim=1) != 0).sum(0).tolist() == [1] * 7


def test_a_map_without_pairs_has_an_empty_table():
    nothing = torch.zeros(0, dtype=torch.int64)
    table = NeighbourTable.of_map(KernelMap(((nothing, nothing),) * 8, n_in=3, n_out=5))
    assert (table.rows == MISSING).all()
    assert table.tiles(16).counts.tolist() == [0]
    assert table.pairs.begins.tolist() == [0] * 9


@pytest.fixture
def random_rows(device):
    """(K, V) -> a table of random patterns, a third of them missing."""

    def random_rows(n_offsets, n):
        generator = torch.Generator().manual_seed(n)
        rows = torch.randint(-n // 2 - 1, n + 1, (n_offsets, n), generator=generator, dtype=torch.int32)
        return rows.clamp(min=MISSING).to(device)

    return random_rows


SHAPES = [(27, 700), (8, 1), (27, 1024), (8, 65)]


@pytest.mark.parametrize(
    "shapes", [*([shape] for shape in SHAPES), SHAPES, [(8, 512), (27, 0), (27, 33)] * 7]
)
def test_tables_made_together_by_triton_are_sorted_as_by_pytorch(random_rows, shapes, device):
    from densescan.sparse.backends.table import tiles_by_torch

    tables = [random_rows(*shape) for shape in shapes]
    for rows in tables:
        rows[3::4, : rows.shape[1] // 2] = MISSING  # so that not every tile has every offset
    numbers = list(range(len(tables)))
    found = NeighbourTable.filled(
        shapes, [partial(copy_to, rows) for rows in tables], numbers, torch.device(device)
    )
    for table, rows, number in zip(found, tables, numbers, strict=True):
        order = pattern_order(rows)
        assert torch.equal(table.order.long(), order)
        assert torch.equal(table.rows, rows[:, order])
        assert table.n_in == number
        for size in (1, 16, 128, 256):
            tiles, expected = table.tiles(size), tiles_by_torch(table.rows, size)
            assert torch.equal(tiles.counts, expected.counts)
            assert tiles.offsets.is_contiguous()
            used = torch.arange(len(rows), device=rows.device) < tiles.counts[:, None]
            assert torch.equal(tiles.offsets[used], expected.offsets[used])


def copy_to(rows, out):
    out.copy_(rows)


@pytest.mark.parametrize("learning", [False, True])
def test_tables_made_by_triton_list_their_pairs(random_rows, device, learning):
    """With and without the columns as they were before they were sorted."""
    from densescan.sparse.backends import using
    from densescan.sparse.backends.table import listed_by_torch

    rows = random_rows(27, 700)
    with using("triton"), torch.set_grad_enabled(learning):
        (table,) = NeighbourTable.filled([rows.shape], [partial(copy_to, rows)], [700], torch.device(device))
        pairs = table.pairs
    in_rows, out_rows, begins = listed_by_torch(rows)
    n = begins[-1]
    assert torch.equal(pairs.begins, begins)
    assert torch.equal(pairs.in_rows[:n], in_rows[:n])
    assert torch.equal(pairs.out_rows[:n], out_rows[:n])


@pytest.mark.parametrize(("n_offsets", "n"), SHAPES)
def test_triton_lists_pairs_as_pytorch_does(random_rows, n_offsets, n):
    from densescan.sparse.backends import table, table_kernels

    rows = random_rows(n_offsets, n)
    (*found, begins), (*expected, expected_begins) = table_kernels.listed(rows), table.listed_by_torch(rows)
    assert torch.equal(begins, expected_begins)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one[: begins[-1]], other[: begins[-1]])
