"""The condition encoder against the reference, and conditions that are put together against those encoded alone."""

import pytest
import torch

from densescan.nets.encoder import ConditionEncoder, drop_condition


def lexicographic(coords):
    """Order that sorts rows (batch, x, y, z)."""
    order = torch.arange(len(coords))
    for column in (3, 2, 1, 0):
        order = order[coords[order, column].sort(stable=True).indices]
    return order


def same_condition(ours, expected, atol=1e-12):
    assert torch.equal(ours.voxels.keys, expected.voxels.keys)
    assert ours.voxels.stride == expected.voxels.stride
    torch.testing.assert_close(ours.feats, expected.feats, rtol=1e-9, atol=atol)


@torch.no_grad()
def test_reference_features_of_a_scan(reference, released):
    arrays = reference("net_diff_cr025.npz")
    cond = released(ConditionEncoder)(arrays["scan"][None])
    order = lexicographic(arrays["part_cond.enc_C"])
    assert cond.voxels.stride == 16
    assert torch.equal(cond.voxels.coords, arrays["part_cond.enc_C"][order].long())
    torch.testing.assert_close(cond.feats, arrays["part_cond.enc_F"][order], rtol=0, atol=1e-4)


@torch.no_grad()
def test_reference_features_of_no_scan(reference, released):
    arrays = reference("net_diff_cr025.npz")
    encoder = released(ConditionEncoder)
    for cond in (encoder.unconditional(), encoder(torch.zeros(1, 1800, 3))):
        assert torch.equal(cond.voxels.coords, arrays["part_uncond.enc_C"].long())
        torch.testing.assert_close(cond.feats, arrays["part_uncond.enc_F"], rtol=0, atol=1e-6)


@torch.no_grad()
def test_reference_features_of_a_batch(reference, released):
    arrays = reference("net_train_tiny.npz")
    cond = released(ConditionEncoder)(arrays["part"].view(2, 60, 3))
    order = lexicographic(arrays["eval.enc_C"])
    assert torch.equal(cond.voxels.coords, arrays["eval.enc_C"][order].long())
    torch.testing.assert_close(cond.feats, arrays["eval.enc_F"][order], rtol=0, atol=1e-5)


@torch.no_grad()
def test_no_scan_is_one_voxel_for_each_cloud(small):
    encoder = small(ConditionEncoder)
    null = encoder.unconditional(batch=3)
    assert null.voxels.coords.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0]]
    assert null.scan.shape == (3, 1, 3)
    torch.testing.assert_close(null.feats, encoder.unconditional().feats.expand(3, -1))
    assert null.feats.dtype == torch.float64, "that of the parameters"


@torch.no_grad()
@pytest.mark.parametrize("form", [{}, {"norm": "layer", "point_features": "local", "voxel_size": 0.1}])
def test_scans_are_encoded_independently_of_their_batch_and_order(small, cloud, form):
    encoder, scans = small(ConditionEncoder, **form), cloud(3, 200)
    cond = encoder(scans)
    shuffle = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    same_condition(encoder(scans[:, shuffle]), cond)
    for b in range(3):
        rows = cond.voxels.batch == b
        alone = encoder(scans[b : b + 1])
        torch.testing.assert_close(cond.feats[rows], alone.feats)
        assert torch.equal(cond.voxels.coords[rows, 1:], alone.voxels.coords[:, 1:])
    assert torch.equal(cond.scan, scans)


@torch.no_grad()
@pytest.mark.parametrize(
    "dropped", [[False, True, False], [True, False, True], [True, True, True], [False, False, False]]
)
def test_dropping_conditions_equals_encoding_each_cloud_alone(small, cloud, dropped):
    encoder, scans = small(ConditionEncoder), cloud(3, 150)
    cond = drop_condition(encoder(scans), encoder.unconditional(), torch.tensor(dropped))
    zeroed = torch.where(torch.tensor(dropped)[:, None, None], 0.0, scans)
    same_condition(cond, encoder(zeroed))
    assert torch.equal(cond.scan, zeroed)


def test_dropping_keeps_the_gradients_of_both_sides(small, cloud):
    encoder = small(ConditionEncoder)
    cond, null = encoder(cloud(2, 50)), encoder.unconditional()
    mixed = drop_condition(cond, null, torch.tensor([True, False]))
    of_cond, of_null = torch.autograd.grad(mixed.feats.sum(), (cond.feats, null.feats))
    assert torch.equal(of_null, torch.ones_like(null.feats))
    assert torch.equal(of_cond, (cond.voxels.batch == 1).double()[:, None].expand_as(of_cond))
