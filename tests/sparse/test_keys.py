"""Keys sort as coordinates do, give them back, and never wrap into the next axis."""

import numpy as np
import pytest
import torch

from densescan.errors import InputError
from densescan.sparse.keys import MAX_BATCH, MAX_COORD, key_step, pack, pack_batch, unpack

EXTREMES = torch.cartesian_prod(
    torch.tensor([0, MAX_BATCH - 1]), *[torch.tensor([-MAX_COORD, -1, 0, 1, MAX_COORD])] * 3
)


def test_the_range_is_the_documented_one():
    assert (MAX_COORD, MAX_BATCH) == (32_766, 16_384)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_unpack_inverts_pack(dtype):
    keys = pack(EXTREMES.to(dtype))
    assert keys.dtype == torch.int64
    assert torch.equal(unpack(keys), EXTREMES)
    assert len(keys.unique()) == len(EXTREMES)


def test_keys_sort_as_coordinates():
    rng = np.random.default_rng(0)
    random = np.column_stack(
        (rng.integers(0, MAX_BATCH, 500), rng.integers(-MAX_COORD, MAX_COORD + 1, (500, 3)))
    )
    coords = np.concatenate((EXTREMES.numpy(), random))
    order = np.lexsort(coords.T[::-1])
    assert np.array_equal(torch.argsort(pack(torch.from_numpy(coords))).numpy(), order)


def test_a_step_reaches_the_neighbour_from_every_corner_of_the_range():
    keys = pack(EXTREMES)
    for step in torch.cartesian_prod(*[torch.arange(-1, 2)] * 3):
        moved = unpack(keys + key_step(*step.tolist()))
        assert torch.equal(moved[:, 0], EXTREMES[:, 0])
        assert torch.equal(moved[:, 1:], EXTREMES[:, 1:] + step)


def test_the_batch_shift_moves_a_cloud_to_another_element():
    coords = EXTREMES[EXTREMES[:, 0] == 0]
    moved = unpack(pack(coords) + pack_batch(7))
    assert torch.equal(moved[:, 1:], coords[:, 1:])
    assert (moved[:, 0] == 7).all()


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("coordinate", [MAX_COORD + 1, -MAX_COORD - 1])
def test_a_coordinate_out_of_range_is_refused(axis, coordinate):
    coords = torch.zeros(2, 4, dtype=torch.long)
    coords[1, axis] = coordinate
    with pytest.raises(InputError, match=rf"{coordinate}.*at most \+-32766.*crop the points"):
        pack(coords)


@pytest.mark.parametrize("batch", [-1, MAX_BATCH])
def test_a_batch_index_out_of_range_is_refused(batch):
    with pytest.raises(InputError, match=rf"{batch}.*\[0, 16384\).*smaller batches"):
        pack(torch.tensor([[batch, 0, 0, 0]]))


def test_no_voxels_give_no_keys():
    assert pack(torch.zeros(0, 4, dtype=torch.long)).shape == (0,)
    assert unpack(torch.zeros(0, dtype=torch.long)).shape == (0, 4)
