"""Chunks against the pairs they are cut from."""

from itertools import pairwise

import pytest
import torch

from densescan.sparse.chunks import ROWS_AT_ONCE, cut
from densescan.sparse.matmul import FINEST_STEP

N_IN, N_OUT = 500, 400


def random_pairs(seed=0):
    """Ascending row lists of nine offsets, one of them empty, one complete."""
    generator = torch.Generator().manual_seed(seed)
    counts = (0, N_OUT, 1, 30, 200, 7, 399, 64, 120)
    rows = [torch.randperm(N_OUT, generator=generator)[:n].sort().values for n in counts]
    return [torch.randint(N_IN, (len(r),), generator=generator) for r in rows], rows


def pairs_of(pieces):
    """{(offset, in row, out row)} that the bags of the chunks add up, each as often as it is added."""
    found = []
    for chunk in pieces:
        offset = torch.repeat_interleave(torch.tensor(chunk.offsets), torch.tensor(chunk.sizes))
        assert len(offset) == len(chunk.in_rows)
        ends = [*chunk.bag_starts.tolist(), len(chunk.bags)]
        for row, (a, b) in enumerate(pairwise(ends)):
            held = chunk.bags[a:b]
            found += [
                (k, i, chunk.first + row)
                for k, i in zip(offset[held].tolist(), chunk.in_rows[held].tolist(), strict=True)
            ]
    return sorted(found)


@pytest.mark.parametrize("at_once", [50, 300, 100_000])
def test_every_pair_is_added_once(at_once):
    ins, outs = random_pairs()
    pieces = cut(ins, outs, N_OUT, at_once)
    every = [
        (k, i, o)
        for k, (a, b) in enumerate(zip(ins, outs, strict=True))
        for i, o in zip(a.tolist(), b.tolist(), strict=True)
    ]
    assert pairs_of(pieces) == sorted(every)
    assert len(pieces) == -(-len(every) // at_once)
    assert [p.first for p in pieces] == [0, *(p.last for p in pieces[:-1])]
    assert pieces[-1].last == N_OUT
    for piece in pieces:
        for row in range(piece.last - piece.first):
            assert torch.equal(torch.nonzero(piece.ends == row)[:, 0], _bag(piece, row).sort().values)
        assert (piece.ends == piece.last - piece.first).sum() == len(piece.in_rows) - len(piece.bags)


def _bag(piece, row):
    """The products that are added to a row."""
    return piece.bags.tensor_split(piece.bag_starts[1:])[row]


def test_products_have_few_sizes():
    sizes = set()
    for count in range(1, 6_000, 7):
        rows = torch.arange(count)
        (piece,) = cut([rows, rows[:3]], [rows, rows[:3]], count, 16_384)
        assert sum(piece.sizes) == len(piece.in_rows)
        assert len(piece.in_rows) - count <= max(count // 8, FINEST_STEP) + FINEST_STEP
        sizes |= set(piece.sizes)
    assert max(sizes) <= ROWS_AT_ONCE
    assert len(sizes) < 50


def test_no_pairs_make_no_chunks():
    none = torch.zeros(0, dtype=torch.long)
    assert cut([none] * 3, [none] * 3, 0, 16_384) == ()
