"""From points to voxels: rounding, features, marks; and the form of the trunk."""

import numpy as np
import pytest
import torch

from densescan.errors import InputError
from densescan.nets.minkunet import EncoderHalf, NetConfig, UNet, embed_points, point_feats
from densescan.sparse.tensor import SparseTensor


def test_widths_are_fractions_of_the_released_ones():
    assert NetConfig().channels == (32, 32, 64, 128, 256, 256, 128, 96, 96)
    assert NetConfig(width=0.25).channels == (8, 8, 16, 32, 64, 64, 32, 24, 24)
    assert NetConfig().in_channels == 3
    assert NetConfig(point_features="local").in_channels == 5


@pytest.mark.parametrize("width", [0.01, 0.1])
def test_a_width_that_cannot_hold_the_time_is_refused(width):
    with pytest.raises(InputError, match=rf"width {width} gives .* channels.*take a width"):
        NetConfig(width=width)


@pytest.mark.parametrize("voxel_size", [0.0, -0.05, float("nan")])
def test_a_voxel_size_that_is_not_positive_is_refused(voxel_size):
    with pytest.raises(InputError, match="above 0 m"):
        NetConfig(voxel_size=voxel_size)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_points_that_are_not_finite_are_refused(cloud, bad):
    points = cloud(2, 10)
    points[1, 4, 1] = bad
    with pytest.raises(InputError, match="finite points"):
        embed_points(points, NetConfig())
    with pytest.raises(InputError, match="finite points"):
        embed_points(cloud(2, 10), NetConfig(), scan=points)


def test_points_too_far_away_are_refused():
    with pytest.raises(InputError, match="crop the points"):
        embed_points(torch.tensor([[[0.0, 1_700.0, 0.0]]]), NetConfig())


def test_half_a_voxel_rounds_to_even():
    points = torch.tensor([[[0.25, 0.75, 1.25], [-0.25, -0.75, -1.25], [0.24, 0.26, -0.26]]])
    scene = embed_points(points, NetConfig(voxel_size=0.5))
    expected = torch.tensor([[0, 0, 2, 2], [0, 0, -2, -2], [0, 0, 1, -1]])
    assert torch.equal(scene.tensor.voxels.coords[scene.rows[0]], expected)


@pytest.mark.parametrize("case", ["t999", "t300"])
def test_reference_points_fall_into_the_reference_voxels(case, reference):
    arrays = reference("net_diff_cr025.npz")
    scene = embed_points(arrays[f"{case}.x"][None], NetConfig())
    assert torch.equal(scene.tensor.voxels.coords[scene.rows[0]], arrays[f"{case}.coords"].long())


def test_reference_batches_fall_into_the_reference_voxels(reference):
    arrays = reference("net_train_tiny.npz")
    for points, coords in (("x", "x_coords"), ("part", "part_coords")):
        scene = embed_points(arrays[points].view(2, -1, 3), NetConfig())
        rows = scene.rows.flatten()
        assert torch.equal(scene.tensor.voxels.coords[rows], arrays[coords].long())


def test_voxels_hold_the_mean_of_their_points(cloud):
    points = cloud(2, 400, spread=0.4)
    scene = embed_points(points, NetConfig(voxel_size=0.1))
    cells = np.round(points.numpy() / 0.1).astype(int)
    assert len(scene.tensor.voxels) < 600, "voxels hold several points"
    for voxel, feats in zip(scene.tensor.voxels.coords.numpy(), scene.tensor.feats, strict=True):
        inside = (cells[voxel[0]] == voxel[1:]).all(1)
        np.testing.assert_allclose(feats, points[voxel[0]][inside].mean(0))


def test_points_get_the_features_of_their_voxel(cloud):
    points = cloud(2, 400, spread=0.4)
    scene = embed_points(points, NetConfig(voxel_size=0.1))
    back = scene.to_points(scene.tensor)
    assert back.shape == points.shape
    assert ((back - points).abs() <= 0.1).all(), "the mean of a voxel lies within it"
    doubled = scene.to_points(scene.tensor.with_feats(2 * scene.tensor.feats))
    assert torch.equal(doubled, 2 * back)


def test_gradients_pass_through_the_mean(cloud):
    points = cloud(1, 40, spread=0.3).requires_grad_()
    for form in ("absolute", "local"):
        config = NetConfig(voxel_size=0.25, point_features=form)
        voxels = len(embed_points(points, config).tensor.voxels)
        assert voxels < 40
        (grad,) = torch.autograd.grad(embed_points(points, config).tensor.feats[:, :3].sum(), points)
        scale = 1.0 if form == "absolute" else 4.0  # local offsets count in voxels
        assert grad.sum().item() == pytest.approx(3 * voxels * scale)


def test_local_features_are_offset_height_and_range(cloud):
    points = cloud(2, 30)
    config = NetConfig(voxel_size=0.1, point_features="local")
    rounded = torch.round(points / 0.1)
    feats = point_feats(points, rounded, config).numpy()
    p = points.numpy()
    np.testing.assert_allclose(feats[..., :3], p / 0.1 - rounded.numpy(), atol=1e-12)
    assert np.abs(feats[..., :3]).max() <= 0.5
    np.testing.assert_allclose(feats[..., 3], p[..., 2] / 10)
    np.testing.assert_allclose(feats[..., 4], np.hypot(p[..., 0], p[..., 1]) / 50)


def test_absolute_features_are_the_coordinates(cloud):
    points = cloud(2, 30)
    assert torch.equal(point_feats(points, torch.round(points / 0.05), NetConfig()), points)


@pytest.mark.parametrize("form", ["absolute", "local"])
def test_the_scan_adds_voxels_and_a_mark(cloud, form):
    config = NetConfig(voxel_size=0.1, point_features=form)
    points, scan = cloud(2, 60, seed=1, spread=0.4), cloud(2, 50, seed=2, spread=0.4)
    scene = embed_points(points, config, scan)
    assert scene.rows.shape == (2, 60), "points of the scan get no row"
    cells = {
        name: {(b, *c) for b in range(2) for c in torch.round(cloud_[b] / 0.1).int().tolist()}
        for name, cloud_ in (("points", points), ("scan", scan))
    }
    assert set(map(tuple, scene.tensor.voxels.coords.tolist())) == cells["points"] | cells["scan"]
    assert scene.tensor.feats.shape[1] == config.in_channels + 1
    for voxel, mark in zip(
        scene.tensor.voxels.coords.tolist(), scene.tensor.feats[:, -1].tolist(), strict=True
    ):
        of_scan = (torch.round(scan[voxel[0]] / 0.1) == torch.tensor(voxel[1:])).all(1).sum().item()
        of_points = (torch.round(points[voxel[0]] / 0.1) == torch.tensor(voxel[1:])).all(1).sum().item()
        assert mark == pytest.approx(of_scan / (of_scan + of_points))


def test_every_stage_halves_the_resolution_and_every_up_doubles_it(cloud):
    config = NetConfig(width=1 / 8)
    net = UNet(config, out_channels=2)
    x = [net.stem(embed_points(cloud(1, 100).float(), config).tensor)]
    for i in range(1, 5):
        x.append(net.stage(i, x[-1]))
    assert [level.voxels.stride for level in x] == [1, 2, 4, 8, 16]
    assert [level.feats.shape[1] for level in x] == list(config.channels[:5])
    y = x[4]
    for i in range(1, 5):
        y = net.join(i, net.up(i, y, x[4 - i]))
        assert y.voxels is x[4 - i].voxels
        assert y.feats.shape[1] == config.channels[4 + i]
    assert net.last(y.feats).shape == (len(x[0].voxels), 2)


def test_features_of_the_scan_widen_the_stem_alone():
    plain, marked = EncoderHalf(NetConfig(width=1 / 8)), EncoderHalf(NetConfig(width=1 / 8), in_channels=6)
    different = {
        name for name, tensor in marked.state_dict().items() if tensor.shape != plain.state_dict()[name].shape
    }
    assert different == {"stem.0.kernel"}


def test_offset_features_do_not_feel_a_shift_by_whole_coarse_voxels(cloud):
    """Height and range are removed here; a shift by multiples of 16 voxels shifts every level of the encoder."""
    config = NetConfig(width=1 / 8, voxel_size=0.1, point_features="local")
    torch.manual_seed(0)
    net = EncoderHalf(config).double().eval()
    results = []
    for shift in (torch.zeros(3), torch.tensor([1.6, -3.2, 16.0])):
        x = embed_points(cloud(1, 200) + shift.double(), config).tensor
        x = net.stem(SparseTensor(x.feats * torch.tensor([1.0, 1, 1, 0, 0]), x.voxels))
        for i in range(1, 5):
            x = net.stage(i, x)
        results.append((x.voxels.coords[:, 1:] - torch.round(shift / 0.1).long(), x.feats))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])
