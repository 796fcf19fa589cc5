"""Chunks against the pairs they are cut from."""

from itertools import pairwise

import pytest
import torch

from densescan.sparse.chunks import FEW_SUMS, SPARE_ROWS, cut
from densescan.sparse.matmul import FINEST_STEP, ROWS_AT_ONCE

N_IN, N_OUT = 500, 400


def random_pairs(seed=0, same=None):
    """Ascending row lists of nine offsets, one of them empty, one complete: with itself, if that is the one."""
    generator = torch.Generator().manual_seed(seed)
    counts = (0, N_OUT, 1, 30, 200, 7, 399, 64, 120)
    rows = [torch.randperm(N_OUT, generator=generator)[:n].sort().values for n in counts]
    ins = [torch.randint(N_IN, (len(r),), generator=generator) for r in rows]
    if same is not None:
        ins[same] = rows[same]
    return ins, rows


def pairs_of(pieces):
    """{(offset, in row, out row)} that the bags of the chunks add up, each as often as it is added."""
    found = []
    for chunk in pieces:
        same = [chunk.same] * chunk.n_same
        offset = torch.tensor(
            same
            + [
                k
                for first, count, size in chunk.widest
                for k in range(first, first + count)
                for _ in range(size)
            ]
        )
        in_rows = torch.cat((torch.arange(chunk.first, chunk.first + chunk.n_same), chunk.in_rows))
        assert len(offset) == len(in_rows) == chunk.n_products
        ends = [*chunk.bag_starts.tolist(), len(chunk.bags)]
        for row, (a, b) in enumerate(pairwise(ends)):
            held = chunk.bags[a:b]
            found += [
                (k, i, chunk.first + row)
                for k, i in zip(offset[held].tolist(), in_rows[held].tolist(), strict=True)
            ]
    return sorted(found)


@pytest.mark.parametrize("same", [None, 1])
@pytest.mark.parametrize("n_chunks", [1, 5, 25])
def test_every_pair_is_added_once(n_chunks, same):
    ins, outs = random_pairs(same=same)
    pieces = cut(ins, outs, N_OUT, n_chunks, same)
    every = [
        (k, i, o)
        for k, (a, b) in enumerate(zip(ins, outs, strict=True))
        for i, o in zip(a.tolist(), b.tolist(), strict=True)
    ]
    assert pairs_of(pieces) == sorted(every)
    assert len(pieces) == n_chunks
    assert [p.first for p in pieces] == [0, *(p.last for p in pieces[:-1])]
    assert pieces[-1].last == N_OUT
    for piece in pieces:
        for row in range(piece.last - piece.first):
            held = _bag(piece, row).sort().values
            assert (same is None) == (row not in held[: piece.n_same] if piece.n_same else True)
            fetched = torch.nonzero(piece.ends == row)[:, 0] + piece.n_same
            assert torch.equal(fetched, held[held >= piece.n_same])
        padding = piece.n_products - len(piece.bags)
        assert (piece.ends == piece.last - piece.first).sum() == padding


def _bag(piece, row):
    """The products that are added to a row."""
    return piece.bags.tensor_split(piece.bag_starts[1:])[row]


def test_products_have_few_sizes():
    sizes = set()
    for count in range(1, 6_000, 7):
        rows = torch.arange(count)
        (piece,) = cut([rows, rows[:3]], [rows, rows[:3]], count, 1)
        assert sum(batch.n_products for batch in piece.widest) == len(piece.in_rows)
        assert len(piece.in_rows) - count <= max(count // 8, FINEST_STEP) + FINEST_STEP + 2 * SPARE_ROWS
        sizes |= {batch.size for batch in piece.widest}
    assert max(sizes) <= ROWS_AT_ONCE
    assert len(sizes) < 70


@pytest.mark.parametrize("same", [None, 2])
def test_offsets_with_about_as_many_pairs_are_one_batch(same):
    """On either side of the offset of rows with themselves."""
    counts = (10, 31, 400, 200, 190, 160)
    rows = [torch.arange(count) for count in counts]
    (piece,) = cut(rows, rows, N_OUT, 1, same)
    if same is None:
        assert piece.widest == ((0, 1, 32), (1, 1, 32), (2, 1, 416), (3, 1, 224), (4, 1, 192), (5, 1, 160))
    else:
        assert piece.widest == ((0, 2, 32), (3, 3, 256))
        assert piece.batches(256) == list(piece.widest)
        assert piece.batches(255) == [(0, 2, 32), (3, 1, 256), (4, 1, 256), (5, 1, 256)]
    assert len(piece.in_rows) == sum(batch.n_products for batch in piece.widest)


def test_offsets_with_many_pairs_are_cut():
    rows = torch.arange(2 * ROWS_AT_ONCE + 5)
    (piece,) = cut([rows], [rows], len(rows), 1)
    assert piece.widest == ((0, 1, ROWS_AT_ONCE), (0, 1, ROWS_AT_ONCE), (0, 1, 1024))


def test_no_pairs_make_no_chunks():
    none = torch.zeros(0, dtype=torch.long)
    assert cut([none] * 3, [none] * 3, 0, 0) == ()


@pytest.mark.parametrize("n_more", [0, 20, 60])
def test_few_sums_are_those_of_rows_with_more_than_themselves(n_more):
    every, more = torch.arange(N_OUT), torch.arange(n_more) * 5
    for piece in cut([more, every], [more, every], N_OUT, 3, same=1):
        rows = [row for row in range(piece.last - piece.first) if len(_bag(piece, row)) > 1]
        if len(rows) > FEW_SUMS * (piece.last - piece.first):
            assert piece.few_sums is None
            continue
        found, bags, starts = piece.few_sums
        assert found.tolist() == rows
        for row, bag in zip(rows, bags.tensor_split(starts[1:]), strict=bool(rows)):
            assert torch.equal(bag, _bag(piece, row))
    assert cut([every], [every], N_OUT, 3)[0].few_sums is None
