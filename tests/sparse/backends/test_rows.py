"""Rows that mean nothing are left alone; features of a reduced type meet kernels in float32; rows are copied whole."""

import pytest
import torch

from densescan.sparse.backends import using
from densescan.sparse.functional import finished_conv, pointwise_conv


@pytest.fixture
def backend(device):
    from densescan.sparse.backends import triton

    return triton


@pytest.mark.parametrize("present", [0, 1, 64, 65, 129, 300])
def test_products_of_rows_that_mean_something_are_made(backend, draw, present):
    rows, kernel = draw(300, 40), draw(40, 24)
    out = torch.full((300, 24), 7.0, device=rows.device)
    counts = torch.tensor(
        [5, present, 9], device=rows.device
    )  # somewhere in a vector, as those of levels are
    backend.convolve(rows, kernel[None], None, out=out, present=counts[1])
    assert torch.equal(out[:present], backend.pointwise(rows, kernel)[:present])
    whole_tiles = -(-present // backend.forward_blocks(kernel[None], 300).rows)
    first_spared = whole_tiles * backend.forward_blocks(kernel[None], 300).rows
    assert (out[first_spared:] == 7.0).all()


def test_features_of_a_reduced_type_are_multiplied_in_float32(backend, draw):
    rows, kernel = draw(70, 2, 40, dtype=torch.bfloat16), draw(40, 20)
    found = backend.pointwise(rows, kernel)
    assert found.dtype == torch.float32
    assert torch.equal(found, backend.pointwise(rows.float(), kernel))
    with pytest.raises(ValueError, match="must be of one type"):
        backend.pointwise(rows.float(), kernel.bfloat16())


@pytest.mark.parametrize("channels", [(32, 96), (5, 8), (8, 6)])
@pytest.mark.parametrize("copies", [(), (2,)])
def test_features_beside_a_result_are_copied_in_whole_words_or_not(backend, level, draw, channels, copies):
    """The skip features may be one copy that is seen twice."""
    voxels = level((60, 1, 25))
    c_out, c_beside = channels
    feats = draw(len(voxels), *copies, 16, dtype=torch.bfloat16)
    kernel = draw(27, 16, c_out, seed=2, dtype=torch.bfloat16)
    beside = draw(len(voxels), c_beside, seed=7, dtype=torch.bfloat16)
    beside = beside[:, None].expand(-1, 2, -1) if copies else beside
    found = backend.fused_conv(feats, kernel, voxels.submanifold, beside=beside)
    assert torch.equal(found[..., :c_out], backend.fused_conv(feats, kernel, voxels.submanifold))
    assert torch.equal(found[..., c_out:], beside)


def test_features_seen_twice_are_two_copies(backend, level, draw):
    voxels = level((60, 1, 25))
    feats, kernel = draw(len(voxels), 32, dtype=torch.bfloat16), draw(27, 32, 16, dtype=torch.bfloat16)
    twice = backend.fused_conv(feats[:, None].expand(-1, 2, -1), kernel, voxels.submanifold)
    once = backend.fused_conv(feats, kernel, voxels.submanifold)
    assert torch.allclose(twice[:, 0].float(), once.float(), rtol=1e-2, atol=1e-2)
    assert torch.equal(twice[:, 0], twice[:, 1])


def test_within_a_room_rows_that_hold_no_voxel_are_left_alone(backend, device, draw):
    """And the others are those of a level that fits."""
    from densescan.sparse.backends.levels import voxelise
    from densescan.sparse.backends.room import Room, within
    from densescan.sparse.epilogue import Epilogue

    generator = torch.Generator().manual_seed(0)
    coords = torch.nn.functional.pad(torch.randint(0, 6, (600, 3), generator=generator), (1, 0)).to(device)
    exact = voxelise(coords).voxels
    n, epilogue = len(exact), Epilogue(relu=True)
    weights = draw(27, 16, 16, seed=2), draw(16, 16, seed=3)
    feats = draw(600, 16)
    with within(Room(device, [600] * 5)), using("triton"):
        roomy = voxelise(coords).voxels
        assert len(roomy) == 600 > n
        assert int(roomy.present) == n
        found = finished_conv(feats, weights[0], roomy.submanifold, epilogue)
        rows = pointwise_conv(feats, weights[1], epilogue, roomy.present)
    with using("triton"):
        expected = finished_conv(feats[:n], weights[0], exact.submanifold, epilogue)
        expected_rows = pointwise_conv(feats[:n], weights[1], epilogue, exact.present)
    assert torch.allclose(found[:n], expected, rtol=1e-5, atol=1e-5)
    assert torch.allclose(rows[:n], expected_rows, rtol=1e-5, atol=1e-5)
