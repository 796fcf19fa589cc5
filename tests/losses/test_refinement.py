"""The refiner's loss against all pairwise distances (scipy), its masks and its gradient."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from densescan.errors import InputError
from densescan.losses.refinement import chamfer_loss


def clouds(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 3, generator=generator, dtype=dtype), torch.randn(
        30, 3, generator=generator, dtype=dtype
    )


def test_equals_all_pairs() -> None:
    scene, truth = clouds()
    pairs = cdist(scene.numpy(), truth.numpy())
    loss = chamfer_loss(scene, truth)
    assert loss.scene_to_truth.item() == pytest.approx(pairs.min(1).mean(), rel=1e-12)
    assert loss.truth_to_scene.item() == pytest.approx(pairs.min(0).mean(), rel=1e-12)
    assert loss.total.item() == pytest.approx((pairs.min(1).mean() + pairs.min(0).mean()) / 2, rel=1e-12)


def test_masked_points_remain_neighbours_but_do_not_count() -> None:
    scene, truth = clouds()
    counted_scene, counted_truth = scene[:, 0] > 0, truth[:, 1] < 0.2
    pairs = cdist(scene.numpy(), truth.numpy())
    loss = chamfer_loss(scene, truth, counted_scene, counted_truth)
    assert loss.scene_to_truth.item() == pytest.approx(pairs.min(1)[counted_scene.numpy()].mean(), rel=1e-12)
    assert loss.truth_to_scene.item() == pytest.approx(pairs.min(0)[counted_truth.numpy()].mean(), rel=1e-12)
    alone = cdist(scene[counted_scene].numpy(), truth[counted_truth].numpy())
    assert loss.scene_to_truth.item() < alone.min(1).mean(), "masked truth must still serve as a neighbour"


def test_masks_of_all_points_change_nothing() -> None:
    scene, truth = clouds()
    every = chamfer_loss(scene, truth, torch.ones(40, dtype=torch.bool), torch.ones(30, dtype=torch.bool))
    assert torch.equal(torch.stack(every), torch.stack(chamfer_loss(scene, truth)))


def test_nothing_is_lost_at_the_truth_itself() -> None:
    scene = clouds(torch.float32)[0].requires_grad_()
    loss = chamfer_loss(scene, scene.detach()[torch.randperm(40, generator=torch.Generator().manual_seed(1))])
    assert loss.total.item() == pytest.approx(0, abs=1.01e-4), "distances below 0.1 mm count as 0.1 mm"
    (gradient,) = torch.autograd.grad(loss.total, scene)
    assert torch.equal(gradient, torch.zeros_like(scene))


def test_gradient() -> None:
    scene, truth = clouds()
    counts = (scene[:, 2] > -1, truth[:, 2] > -1)
    scene.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: chamfer_loss(x, truth, *counts).total, (scene,))


def test_a_step_against_the_gradient_moves_points_to_the_truth() -> None:
    scene, truth = torch.tensor([[0.0, 0, 0]], requires_grad=True), torch.tensor([[3.0, 4, 0]])
    loss = chamfer_loss(scene, truth)
    (gradient,) = torch.autograd.grad(loss.total, scene)
    assert loss.total.item() == pytest.approx(5.0)
    np.testing.assert_allclose(gradient.numpy(), [[-0.6, -0.8, 0]], rtol=1e-6)


@pytest.mark.parametrize("side", ["scene", "truth"])
def test_points_that_count_are_needed_on_both_sides(side: str) -> None:
    given = dict(zip(("scene", "truth"), clouds(), strict=True))
    with pytest.raises(InputError, match=f"{side} that count, got none of 0"):
        chamfer_loss(**{**given, side: torch.zeros(0, 3, dtype=torch.float64)})
    none = torch.zeros(len(given[side]), dtype=torch.bool)
    with pytest.raises(InputError, match=f"{side} that count, got none of {len(none)}"):
        chamfer_loss(**given, **{f"{side}_counts": none})


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_scene_that_is_not_finite_stops_training(value: float) -> None:
    scene, truth = clouds()
    scene[3, 1] = value
    with pytest.raises(FloatingPointError, match="lower lr"):
        chamfer_loss(scene, truth)
