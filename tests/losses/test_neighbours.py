"""Pairs of nearest points against all distances, by k-d trees and by Triton (in its interpreter without a GPU)."""

import pytest
import torch
from torch import Tensor

from densescan.losses.neighbours import nearest_rows
from densescan.losses.refinement import chamfer_loss
from densescan.losses.structural import structural_loss
from densescan.sparse.backends import using

GPU = "cuda" if torch.cuda.is_available() else "cpu"


def clouds(dimensions: int = 3, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(150, dimensions, generator=generator, dtype=dtype),
        torch.randn(90, dimensions, generator=generator, dtype=dtype),
    )


@pytest.fixture
def triton():
    pytest.importorskip("triton", reason="needs Triton: pip install triton")
    with using("triton"):
        yield


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_are_those_of_the_least_distance(dimensions, dtype):
    queries, targets = clouds(dimensions, dtype)
    rows = nearest_rows(queries.requires_grad_(), targets)
    assert torch.equal(rows, torch.cdist(queries, targets).argmin(1))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_rows_by_triton_are_the_same(triton, dimensions):
    queries, targets = (points.to(GPU) for points in clouds(dimensions))
    rows = nearest_rows(queries.requires_grad_(), targets)
    assert torch.equal(rows, torch.cdist(queries, targets).argmin(1))


def test_losses_by_triton_are_the_same(triton):
    scene, truth = clouds()
    key_points = torch.arange(0, 90, 7)
    on_gpu = scene.to(GPU).requires_grad_(), truth.to(GPU)
    found = torch.stack((*chamfer_loss(*on_gpu), *structural_loss(*on_gpu, key_points.to(GPU))))
    (gradient,) = torch.autograd.grad(found.sum(), on_gpu[0])
    scene.requires_grad_()
    with using("torch"):
        expected = torch.stack((*chamfer_loss(scene, truth), *structural_loss(scene, truth, key_points)))
    torch.testing.assert_close(found.cpu(), expected)
    torch.testing.assert_close(gradient.cpu(), torch.autograd.grad(expected.sum(), scene)[0])


def test_targets_are_needed():
    with pytest.raises(ValueError, match="at least one target, got none"):
        nearest_rows(torch.zeros(2, 3), torch.zeros(0, 3))


@pytest.mark.parametrize("side", [0, 1])
def test_points_must_be_finite(side):
    given = clouds()
    given[side][3, 1] = torch.nan
    with pytest.raises(ValueError, match="must be finite"):
        nearest_rows(*given)


@pytest.mark.skipif(GPU == "cuda", reason="a device-side assertion ends the use of the GPU")
@pytest.mark.parametrize("side", [0, 1])
def test_points_must_be_finite_for_triton(triton, side):
    given = clouds()
    given[side][3, 1] = torch.nan
    with pytest.raises(RuntimeError, match="nonzero"):
        nearest_rows(*given)
