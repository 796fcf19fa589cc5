"""The refiner against the reference; its points stay with their source and within its reach."""

import torch

from densescan.nets.minkunet import NetConfig, embed_points
from densescan.nets.refiner import MAX_OFFSET, OFFSETS_PER_POINT, Refiner


@torch.no_grad()
def test_reference_offsets(reference, released):
    arrays, summary = reference("net_refine_cr025.npz"), reference("net_refine_cr025.json")
    points = arrays["x"][None]
    scene = embed_points(points, NetConfig())
    assert torch.equal(scene.tensor.voxels.coords[scene.rows[0]], arrays["coords"].long())
    offsets = released(Refiner).offsets(points)[0]
    torch.testing.assert_close(offsets[arrays["rows"].long()], arrays["out_rows"], rtol=0, atol=1e-4)
    sums = torch.tensor(summary["out_colsum"], dtype=torch.float64)
    torch.testing.assert_close(offsets.double().sum(0), sums, rtol=1e-5, atol=0.02)  # 18,000 terms
    assert abs(offsets.mean().item() - summary["out_mean"]) < 1e-6
    assert abs(offsets.std().item() - summary["out_std"]) < 1e-6


@torch.no_grad()
def test_every_point_becomes_six_next_to_each_other(small, cloud):
    refiner, points = small(Refiner), cloud(2, 300)
    refined, offsets = refiner(points), refiner.offsets(points)
    assert refined.shape == (2, 300 * OFFSETS_PER_POINT, 3)
    for j in range(OFFSETS_PER_POINT):
        moved = points + offsets[..., 3 * j : 3 * j + 3]
        torch.testing.assert_close(refined[:, j::OFFSETS_PER_POINT], moved)
    assert offsets.std() > 0.05


@torch.no_grad()
def test_offsets_stay_within_reach(small, cloud):
    refiner = small(Refiner)
    refiner.last[2].weight.mul_(1e3)
    offsets = refiner.offsets(cloud(1, 300))
    assert MAX_OFFSET == 1.0
    assert 0.99 < offsets.abs().max() <= MAX_OFFSET


@torch.no_grad()
def test_offsets_do_not_depend_on_order_or_batch(small, cloud):
    refiner, points = small(Refiner), cloud(2, 300)
    offsets = refiner.offsets(points)
    shuffle = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(refiner.offsets(points[:, shuffle]), offsets[:, shuffle])
    torch.testing.assert_close(refiner.offsets(points[1:]), offsets[1:])


def test_every_parameter_gets_a_gradient(small, cloud):
    refiner = small(Refiner).train()
    points = cloud(2, 300)
    (refiner(points) * torch.randn(2, 1800, 3, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in refiner.parameters())
