import numpy as np
import pytest
import torch
from plain import PlainPipeline, farthest_points, nearest_rows
from plain_layers import CUBE, voxelise
from random_networks import random_networks, steered
from runs import PlainPredictor
from safetensors.torch import load_file
from scipy.spatial import cKDTree

from densescan.completer import Completer
from densescan.completion import CompletionConfig
from densescan.diffusion import gaussian
from densescan.geometry.sampling import farthest_point_sampling
from densescan.sparse.tensor import voxelise as fast_voxelise

WIDTH = 0.25


@pytest.fixture(scope="module")
def networks(street):
    return random_networks(WIDTH, 0, torch.from_numpy(street))


def quantiles(a, b):
    return np.quantile(np.linalg.norm(a - b, axis=1), (0.5, 0.99, 0.999))


def test_the_plain_pipeline_reproduces_the_recorded_one(shared):
    recorded = np.load(shared / "reference" / "pipeline_cr025.npz")
    tensors = {}
    for name in ("diff", "refine"):
        tensors |= load_file(shared / "reference" / f"net_{name}_cr025_weights_fp16.safetensors")
    draws = iter((recorded["T2.z_init"], *recorded["T2.step_noise"]))
    config = CompletionConfig(steps=2, min_range=0.0)
    made = PlainPipeline(tensors)(recorded["scan"], config, lambda like: torch.from_numpy(next(draws))[None])
    assert made.coarse.shape == recorded["T2.post"].shape
    assert quantiles(made.coarse, recorded["T2.post"]) == pytest.approx(0, abs=1e-3)
    assert quantiles(made.points[:3000], recorded["T2.refined_first3000"]) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("t", [999, 300])
def test_one_prediction_agrees_with_ours(networks, street, t):
    scan = torch.from_numpy(street)
    x_init = scan.repeat(10, 1)
    x_t = x_init + torch.randn(x_init.shape, generator=torch.Generator().manual_seed(t))
    with torch.inference_mode():
        plain = PlainPipeline(networks.state_dict()).predict(x_t, t, x_init, 3.5)
        cond, uncond = networks.encoder(scan[None]), networks.encoder.unconditional()
        ours = networks.denoiser.guided(x_t[None], torch.tensor([t]), cond, uncond, 3.5)[0]
    assert 0.01 < ours.std() < 10, "a prediction of sensible size"
    torch.testing.assert_close(plain, ours, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("plain_steps", [3, 2])
def test_both_pipelines_make_the_same_scene(networks, street, plain_steps):
    tensors = networks.state_dict()
    config = CompletionConfig(steps=3)
    ours = Completer(steered(tensors), config)(street, seed=4)
    pipeline = PlainPipeline(tensors)
    predict = PlainPredictor(pipeline, tensors, 3, plain_steps)
    plain = pipeline(street, config, gaussian(torch.Generator().manual_seed(4)), predict=predict)
    assert len(ours.coarse) > 0.8 * 9000, "the points settle near the scan"
    assert plain.coarse.shape == ours.coarse.shape
    assert quantiles(plain.coarse, ours.coarse) == pytest.approx(0, abs=1e-3)
    assert quantiles(plain.points, ours.points) == pytest.approx(0, abs=1e-3)
    assert plain.seconds.keys() == ours.seconds.keys()
    assert len(predict.measured["encode"]) == plain_steps


def test_another_noise_makes_another_scene(networks, street):
    pipeline, config = PlainPipeline(networks.state_dict()), CompletionConfig(steps=1, refine=False)
    a, b = (pipeline(street, config, gaussian(torch.Generator().manual_seed(s))) for s in (4, 5))
    assert a.coarse.shape != b.coarse.shape or quantiles(a.coarse, b.coarse)[0] > 0.1


def test_a_given_order_replaces_the_selection(networks, street):
    pipeline = PlainPipeline(networks.state_dict())
    config = CompletionConfig(scan_points=300, steps=1, refine=False)
    draws = [gaussian(torch.Generator().manual_seed(1)) for _ in range(2)]
    free = pipeline(street, config, draws[0])
    told = pipeline(street, config, draws[1], order=np.arange(300))
    np.testing.assert_array_equal(free.chosen, told.chosen)
    assert free.coarse.shape != told.coarse.shape or not np.allclose(free.coarse, told.coarse)


def test_farthest_points_are_those_of_the_search_tree():
    points = torch.randn(3000, 3, generator=torch.Generator().manual_seed(2)) * 20
    assert torch.equal(farthest_points(points, 400), farthest_point_sampling(points, 400))
    assert torch.equal(farthest_points(points[:50], 60), torch.arange(50))


def test_farthest_points_are_the_recorded_ones(shared):
    recorded = np.load(shared / "reference" / "fps_open3d.npz")
    chosen = farthest_points(torch.from_numpy(recorded["points"]).float(), len(recorded["selection_order"]))
    np.testing.assert_array_equal(chosen, recorded["selection_order"])


def test_nearest_rows_are_nearest_and_first_among_equals():
    generator = torch.Generator().manual_seed(3)
    targets = torch.unique(torch.randint(-9, 9, (80, 3), generator=generator) * 16, dim=0)
    queries = torch.randint(-150, 150, (500, 3), generator=generator)
    rows = nearest_rows(queries, targets)
    distance, _ = cKDTree(targets.numpy()).query(queries.numpy())
    squared = (queries[:, None] - targets[None]).square().sum(2)
    np.testing.assert_allclose(squared[torch.arange(500), rows].sqrt(), distance, rtol=1e-6)
    equal = squared == squared.min(1, keepdim=True).values
    assert (equal.sum(1) > 1).any(), "no tie was tested"
    assert torch.equal(rows, equal.int().argmax(1))


def test_kernel_maps_join_what_ours_join():
    points = torch.rand(400, 3, generator=torch.Generator().manual_seed(6)) - 0.5
    level, _, _ = voxelise(points)
    rounded = torch.round(points / torch.tensor(0.05)).long()
    ours = fast_voxelise(torch.cat((torch.zeros(400, 1, dtype=torch.int64), rounded), dim=1)).voxels
    for _ in range(3):
        assert torch.equal(level.coords, ours.coords[:, 1:])
        same_rows = torch.arange(len(level.coords))
        for k, pair in enumerate(ours.submanifold.pairs):
            inside, outside = (same_rows, same_rows) if pair is None else pair
            assert set(zip(*level_rows(level.neighbours[k]), strict=True)) == set(
                zip(inside.tolist(), outside.tolist(), strict=True)
            ), f"offset {CUBE[k]}"
        for k, pair in enumerate(ours.strided.pairs):
            assert set(zip(*level_rows(level.down[k]), strict=True)) == set(
                zip(*level_rows(pair), strict=True)
            )
        level, ours = level.coarser, ours.coarser


def level_rows(pair):
    return pair[0].tolist(), pair[1].tolist()
