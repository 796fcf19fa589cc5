"""Nearest condition voxels against exhaustive search in numpy, recorded matches, and against each other.

tests/data_arrays/nets_small.npz holds matches of random voxels: full_C (scene), part_C (condition, multiples of 16) and
idx_lex, the first in lexicographic order among equally near rows of part_C.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from densescan.errors import InputError
from densescan.nets import matching
from densescan.nets.matching import nearest_voxel
from densescan.sparse.keys import pack
from densescan.sparse.tensor import Voxels

ARRAYS = Path(__file__).parents[1] / "data_arrays" / "nets_small.npz"
CASES = ["single_batch", "two_batches", "two_batches_all_negative_leaks", "three_batches_uncond_single_voxel"]


def level(coords, stride=1):
    local = torch.as_tensor(np.asarray(coords)).long().clone()
    local[:, 1:] //= stride
    return Voxels(pack(local).sort().values, stride)


def brute_force(queries, targets):
    """(V, 4), (P, 4) -> rows of P: nearest in the same batch element, ties to the smallest (x, y, z)."""
    rows = []
    for b, *q in np.asarray(queries).tolist():
        squared = [
            (sum((x - y) ** 2 for x, y in zip(q, t, strict=True)), t, i)
            for i, (other, *t) in enumerate(np.asarray(targets).tolist())
            if other == b
        ]
        rows.append(min(squared)[2])
    return np.array(rows)


@pytest.mark.parametrize("case", CASES)
def test_matches_reproduce_the_recorded_ones(case):
    with np.load(ARRAYS) as arrays:
        full, part, expected = (arrays[f"match.{case}.{name}"] for name in ("full_C", "part_C", "idx_lex"))
    queries, targets = level(full), level(part, 16)
    order = np.lexsort(full.T[::-1])
    found = targets.coords[nearest_voxel(queries, targets)].numpy()
    assert np.array_equal(targets.coords[torch.from_numpy(brute_force(full[order], targets.coords))], found)
    same = full[order, 0] == part[expected[order], 0]  # the recorded search can leave its batch element
    assert np.array_equal(part[expected[order]][same], found[same])
    assert same.all() == (case != "two_batches_all_negative_leaks")
    assert same.mean() > 0.5


def random_levels(seed, counts_q, counts_t, stride=16):
    rng = np.random.default_rng(seed)

    def cloud(counts, step):
        rows = [
            np.column_stack((np.full(n, b), step * rng.integers(-6, 7, (n, 3)))) for b, n in enumerate(counts)
        ]
        return np.unique(np.concatenate(rows), axis=0)

    return level(cloud(counts_q, 1) * np.array([1, 8, 8, 8])), level(cloud(counts_t, stride), stride)


@pytest.mark.parametrize("search", ["_by_tree", "_exhaustive"])
@pytest.mark.parametrize("counts", [((300,), (40,)), ((120, 3, 90), (25, 1, 2)), ((40, 0, 50), (20, 5, 20))])
def test_both_searches_equal_brute_force(search, counts, monkeypatch):
    """Queries on a grid of half the targets' spacing: many are equally near to several."""
    for name in ("_by_tree", "_exhaustive"):
        monkeypatch.setattr(matching, name, getattr(matching, search))
    queries, targets = random_levels(0, *counts)
    found = nearest_voxel(queries, targets).numpy()
    assert np.array_equal(found, brute_force(queries.coords, targets.coords))


def test_the_test_has_ties():
    queries, targets = random_levels(0, (300,), (40,))
    q, t = queries.coords[:, None, 1:], targets.coords[None, :, 1:]
    squared = (q - t).square().sum(2)
    ties = (squared == squared.amin(1, keepdim=True)).sum(1) > 1
    assert ties.float().mean() > 0.1


def test_the_tree_settles_ties_at_the_ends_of_the_range():
    """Squared distances near 10^10 and a thousand targets: the tie-breaking fraction is still resolved."""
    far = 32_752
    ring = [[0, far, 16 * i, 16 * j] for i in range(-16, 16) for j in range(-16, 16)]
    t = torch.tensor(ring)[:, 1:]
    q = torch.tensor([[-far, 16 * i + 8, 16 * j + 8] for i in range(-9, 9) for j in range(-9, 9)])
    assert torch.equal(matching._by_tree(q, t), matching._exhaustive(q, t))


def test_the_chunk_size_does_not_matter(monkeypatch):
    queries, targets = random_levels(1, (200,), (30,))
    q, t = queries.coords[:, 1:], targets.coords[:, 1:]
    whole = matching._exhaustive(q, t)
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", 100)
    assert torch.equal(matching._exhaustive(q, t), whole)


def test_a_level_matches_itself():
    queries, _ = random_levels(2, (100, 40), (5,))
    assert torch.equal(nearest_voxel(queries, queries), torch.arange(len(queries)))


def test_a_cloud_without_condition_is_refused():
    queries, targets = level([[0, 0, 0, 0], [1, 0, 0, 0], [1, 2, 0, 0]]), level([[0, 0, 0, 0]])
    with pytest.raises(InputError, match="batch element 1 has 2 scene voxels but no condition voxel"):
        nearest_voxel(queries, targets)


def test_no_queries_give_no_rows():
    empty = Voxels(torch.zeros(0, dtype=torch.long))
    assert nearest_voxel(empty, level([[0, 0, 0, 0]])).shape == (0,)
