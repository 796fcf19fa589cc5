"""Kernel maps against a dictionary of coordinates, and against one search for every offset."""

import json
from itertools import product

import numpy as np
import pytest
import torch

from densescan.sparse.chunks import pairs_at_once
from densescan.sparse.kernel_map import CENTRE, submanifold_map
from densescan.sparse.keys import MAX_COORD, key_step, pack

OFFSETS_3 = [(dx, dy, dz) for dz, dy, dx in product((-1, 0, 1), repeat=3)]  # x fastest
OFFSETS_2 = [(dx, dy, dz) for dz, dy, dx in product((0, 1), repeat=3)]


def pairs_of(kernel_map):
    """{(in row, out row)} of every offset, the identity written out."""
    assert kernel_map.pairs[CENTRE] is None if len(kernel_map.pairs) == 27 else None not in kernel_map.pairs
    identity = (torch.arange(kernel_map.n_in),) * 2
    return [set(zip(*(rows.tolist() for rows in pair or identity), strict=True)) for pair in kernel_map.pairs]


def by_dictionary(fine, coarse, offsets, scale):
    """{(in row, out row)} with fine[in] = scale * coarse[out] + offset."""
    row = {tuple(c): i for i, c in enumerate(fine.tolist())}
    found = []
    for d in offsets:
        hits = set()
        for o, (b, *c) in enumerate(coarse.tolist()):
            at = (b, *(scale * x + dx for x, dx in zip(c, d, strict=True)))
            hits |= {(row[at], o)} if at in row else set()
        found.append(hits)
    return found


def limits():
    """Voxels at the ends of the range whose keys would be neighbours if an axis ran into the next."""
    ends = [
        (x, y, z) for x, y, z in product((-MAX_COORD, -MAX_COORD + 1, 0, MAX_COORD - 1, MAX_COORD), repeat=3)
    ]
    return torch.tensor([(b, *end) for b in (0, 1) for end in ends])


CLOUDS = {
    "dense": lambda make: make((200, 90), low=-3, high=4),
    "sparse": lambda make: make((150, 1, 40), low=-9, high=9),
    "single": lambda make: torch.tensor([[0, -1, 3, 5]]),
    "limits": lambda make: limits(),
    "empty": lambda make: torch.zeros(0, 4, dtype=torch.long),
}
every_cloud = pytest.mark.parametrize("cloud", CLOUDS)


@every_cloud
def test_submanifold_map_equals_a_dictionary(cloud, random_coords, level_of):
    voxels, _ = level_of(CLOUDS[cloud](random_coords))
    expected = by_dictionary(voxels.coords, voxels.coords, OFFSETS_3, scale=1)
    assert pairs_of(voxels.submanifold) == expected
    assert (voxels.submanifold.n_in, voxels.submanifold.n_out) == (len(voxels), len(voxels))


@every_cloud
def test_strided_map_equals_a_dictionary(cloud, random_coords, level_of):
    voxels, _ = level_of(CLOUDS[cloud](random_coords))
    coarse = voxels.coarser.coords.clone()
    coarse[:, 1:] //= 2
    assert pairs_of(voxels.strided) == by_dictionary(voxels.coords, coarse, OFFSETS_2, scale=2)
    assert (voxels.strided.n_in, voxels.strided.n_out) == (len(voxels), len(coarse))


@every_cloud
def test_four_searches_find_what_27_find(cloud, random_coords):
    keys = pack(CLOUDS[cloud](random_coords)).sort().values
    for found, d in zip(pairs_of(submanifold_map(keys)), OFFSETS_3, strict=True):
        hits = torch.isin(keys + key_step(*d), keys)
        rows = torch.searchsorted(keys, (keys + key_step(*d))[hits])
        assert found == set(zip(rows.tolist(), torch.nonzero(hits).squeeze(1).tolist(), strict=True))


def test_voxels_at_opposite_ends_of_an_axis_do_not_touch(level_of):
    voxels, _ = level_of(limits())
    differences = [
        (voxels.coords[rows_in] - voxels.coords[rows_out]).abs().amax(0)
        for rows_in, rows_out in filter(None, voxels.submanifold.pairs)
        if len(rows_in)
    ]
    assert len(differences) == 26
    assert torch.stack(differences).amax(0).tolist() == [0, 1, 1, 1]


def test_no_row_occurs_twice_within_an_offset(random_coords, level_of):
    voxels, _ = level_of(random_coords((200, 90), low=-3, high=4))
    for kernel_map in (voxels.submanifold, voxels.strided):
        for pair in filter(None, kernel_map.pairs):
            assert all(len(rows.unique()) == len(rows) for rows in pair)


def test_the_transposed_map_exchanges_inputs_and_outputs(random_coords, level_of):
    kernel_map = level_of(random_coords((60, 20)))[0].strided
    back = kernel_map.transposed
    assert (back.n_in, back.n_out) == (kernel_map.n_out, kernel_map.n_in)
    assert pairs_of(back) == [{(o, i) for i, o in pairs} for pairs in pairs_of(kernel_map)]
    assert back is kernel_map.transposed, "it is built once"
    assert back.transposed is kernel_map


def test_offsets_are_numbered_as_recorded(shared):
    conventions = json.loads((shared / "reference" / "conventions.json").read_text())
    for name, offsets in (("conv_k3_s1", OFFSETS_3), ("conv_k2_s2", OFFSETS_2)):
        assert conventions[f"offsets_{name}_ts1"] == [list(d) for d in offsets]
        assert conventions[f"offsets_{name}_ts2"] == [[2 * x for x in d] for d in offsets]
    assert conventions["offsets_convT_k2_s2_onto_existing_fine"] == [list(d) for d in OFFSETS_2]
    assert conventions["offsets_convT_k2_s2_negative_cell"] == [list(d) for d in OFFSETS_2]


def test_voxel_and_pair_counts_are_those_of_scans(shared, level_of):
    """The recorded counts belong to other draws of the noise: they agree within a percent or two."""
    recorded = json.loads((shared / "reference" / "voxel_level_statistics.json").read_text())
    with np.load(shared / "reference" / "net_diff_cr025.npz") as arrays:
        scan = torch.from_numpy(arrays["scan"])
    for sigma in (1.0, 0.768, 0.24, 0.05):
        noise = torch.randn(10 * len(scan), 3, generator=torch.Generator().manual_seed(0))
        points = ((scan.repeat(10, 1) + sigma * noise) / 0.05).round().long()
        voxels, _ = level_of(torch.nn.functional.pad(points, (1, 0)).unique(dim=0))
        for row in recorded[f"n18000_sigma{sigma:.3f}"]:
            pairs = count_pairs(voxels.submanifold)
            assert voxels.stride == row["stride"]
            assert len(voxels) == pytest.approx(row["voxels"], rel=0.015)
            assert pairs == pytest.approx(row["k3_pairs"], rel=0.03)
            voxels = voxels.coarser


def test_chunks_of_wider_numbers_are_smaller_and_chunks_are_cut_once():
    grid = torch.cartesian_prod(torch.arange(1), *(torch.arange(20),) * 3)
    full = submanifold_map(pack(grid).sort().values)
    types = torch.bfloat16, torch.float32
    cuts = [full.chunks(dtype) for dtype in types]
    for chunks, dtype in zip(cuts, types, strict=True):
        assert sum(len(chunk.bags) for chunk in chunks) == count_pairs(full)
        assert max(len(chunk.bags) for chunk in chunks) < 1.05 * pairs_at_once(dtype)
    assert [len(chunks) for chunks in cuts] == [2, 8]
    assert full.chunks(torch.float16) is cuts[0]


def count_pairs(kernel_map):
    return sum(kernel_map.n_in if pair is None else len(pair[0]) for pair in kernel_map.pairs)
