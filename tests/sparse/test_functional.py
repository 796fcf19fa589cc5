"""Sparse convolutions against dense ones, recorded arrays and finite differences; voxel means and gathers likewise."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from densescan.sparse import chunks, kernel_map
from densescan.sparse.epilogue import Epilogue, RowProduct
from densescan.sparse.functional import finished_conv, points_to_voxels, sparse_conv
from densescan.sparse.rows import RowScale, gather
from densescan.sparse.tensor import Voxels, voxelise

CLOUDS = {
    "clouds of different size": lambda make: make((60, 1, 25)),
    "crowded": lambda make: make((300, 340), low=-3, high=4),
    "negative": lambda make: make((40,), low=-9, high=-3),
    "odd": lambda make: 2 * make((40,), low=-3, high=3) + torch.tensor([0, 1, 1, 1]),
    "single voxel": lambda make: torch.tensor([[0, -3, 2, 1]]),
}
every_cloud = pytest.mark.parametrize("cloud", CLOUDS)
GRID = 20  # voxels a side of the dense grid
ORIGIN = -12  # its lowest coordinate; even, so that its coarse cells are those of the sparse levels


@dataclass
class Layer:
    """A sparse convolution by name, and the dense one that does the same on a grid with zeros between voxels."""

    offsets: int
    moves: str

    def map(self, fine):
        maps = {
            "same": lambda: fine.submanifold,
            "down": lambda: fine.strided,
            "up": lambda: fine.strided.transposed,
        }
        return maps[self.moves]()

    def sparse(self, feats, kernel, fine):
        return sparse_conv(feats, kernel, self.map(fine))

    def dense(self, grid, kernel):
        k = round(self.offsets ** (1 / 3))
        weight = kernel.unflatten(0, (k, k, k))  # z, y, x, C_in, C_out
        if self.moves == "up":
            return F.conv_transpose3d(grid, weight.permute(3, 4, 2, 1, 0), stride=2)
        weight = weight.permute(4, 3, 2, 1, 0)
        return F.conv3d(grid, weight, padding=1) if self.moves == "same" else F.conv3d(grid, weight, stride=2)

    def levels(self, fine):
        """Input and output level."""
        coarse = fine.coarser
        return {"same": (fine, fine), "down": (fine, coarse), "up": (coarse, fine)}[self.moves]


LAYERS = {"submanifold": Layer(27, "same"), "strided": Layer(8, "down"), "transposed": Layer(8, "up")}
every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())


def cells(voxels):
    """Index of every voxel in a dense grid (B, X, Y, Z) of its own stride."""
    b, *xyz = voxels.coords.unbind(1)
    return (b, *(x.sub(ORIGIN).div(voxels.stride, rounding_mode="floor") for x in xyz))


def on_grid(feats, voxels):
    """(V, C) -> (B, C, X, Y, Z), zero where there is no voxel; differentiable."""
    side = GRID // voxels.stride
    grid = feats.new_zeros(int(voxels.batch.max()) + 1, side, side, side, feats.shape[1])
    return grid.index_put(cells(voxels), feats).movedim(4, 1)


def draw(*shape, seed=1, dtype=torch.float64):
    """The same normal numbers, rounded, in every type."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def gradients(out, *inputs):
    """Gradients of sum(out * R) with a fixed random R."""
    return torch.autograd.grad((out * draw(*out.shape, seed=2, dtype=out.dtype)).sum(), inputs)


@pytest.fixture
def fine(request, random_coords, level_of):
    return level_of(CLOUDS[request.param](random_coords))[0]


every_fine = pytest.mark.parametrize("fine", CLOUDS, indirect=True)
crowded = pytest.mark.parametrize("fine", ["crowded"], indirect=True)


# Convolutions


@every_layer
@every_fine
def test_convolution_equals_the_dense_one(layer, fine):
    source, target = layer.levels(fine)
    feats = draw(len(source), 3).requires_grad_()
    kernel = draw(layer.offsets, 3, 4, seed=3).requires_grad_()
    sparse = layer.sparse(feats, kernel, fine)
    b, *xyz = cells(target)
    dense = layer.dense(on_grid(feats, source), kernel).movedim(1, 4)[(b, *xyz)]
    torch.testing.assert_close(sparse, dense)
    for of_sparse, of_dense in zip(
        gradients(sparse, feats, kernel), gradients(dense, feats, kernel), strict=True
    ):
        torch.testing.assert_close(of_sparse, of_dense)


@every_layer
@every_fine
def test_convolution_of_a_coarse_level_equals_the_dense_one(layer, fine):
    """The same one level up: the maps of stride 2 count in voxels of stride 2."""
    fine = fine.coarser
    source, target = layer.levels(fine)
    feats, kernel = draw(len(source), 2), draw(layer.offsets, 2, 3, seed=3)
    dense = layer.dense(on_grid(feats, source), kernel).movedim(1, 4)[cells(target)]
    torch.testing.assert_close(layer.sparse(feats, kernel, fine), dense)


@every_layer
@pytest.mark.parametrize("fine", ["negative", "single voxel"], indirect=True)
def test_gradients_of_the_convolution_are_finite_differences(layer, fine):
    source, _ = layer.levels(fine)
    feats = draw(len(source), 2).requires_grad_()
    kernel = draw(layer.offsets, 2, 2, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, k: layer.sparse(f, k, fine), (feats, kernel))


CASES = {  # name: (layer, stride of the finer of its two levels)
    "conv_k3s1": ("submanifold", 1),
    "conv_k3s1_ts2": ("submanifold", 2),
    "conv_k2s2": ("strided", 1),
    "conv_k2s2_ts2": ("strided", 2),
    "convT_k2s2_ts4to2": ("transposed", 2),
    "convT_k2s2_ts2to1": ("transposed", 1),
}
INPUTS = {
    "conv_k3s1": "conv.F1",
    "conv_k2s2": "conv.F1",
    "convT_k2s2_ts4to2": "conv.conv_k2s2_ts2.out_F",
}  # the others take the output of conv_k2s2


@pytest.mark.parametrize("case", CASES)
def test_convolution_reproduces_the_recorded_arrays(case, recorded, level_of):
    name, finest = CASES[case]
    layer = LAYERS[name]
    fine, _ = level_of(recorded[f"conv.C{finest}"], finest)
    if name != "submanifold":
        assert torch.equal(
            fine.coarser.coords, level_of(recorded[f"conv.C{2 * finest}"], 2 * finest)[0].coords
        )
    source, target = layer.levels(fine)
    in_order = level_of(recorded[f"conv.C{source.stride}"], source.stride)[1]
    out_order = level_of(recorded[f"conv.C{target.stride}"], target.stride)[1]
    feats = recorded[INPUTS.get(case, "conv.conv_k2s2.out_F")][in_order].requires_grad_()
    kernel = recorded[f"conv.{case}.kernel"].requires_grad_()
    out = layer.sparse(feats, kernel, fine)
    torch.testing.assert_close(out, recorded[f"conv.{case}.out_F"][out_order], rtol=1e-5, atol=1e-6)
    (out * recorded[f"conv.{case}.R"][out_order]).sum().backward()
    torch.testing.assert_close(feats.grad, recorded[f"conv.{case}.grad_in_F"][in_order], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(kernel.grad, recorded[f"conv.{case}.grad_kernel"], rtol=1e-5, atol=1e-5)


# Order, batch, place, repetition


@every_layer
@crowded
def test_results_do_not_depend_on_the_rest_of_the_batch(layer, fine, level_of):
    second = fine.batch == 1
    alone, _ = level_of(fine.coords[second] - torch.tensor([1, 0, 0, 0]))
    source, target = layer.levels(fine)
    feats, kernel = draw(len(source), 3), draw(layer.offsets, 3, 4, seed=3)
    together = layer.sparse(feats, kernel, fine)[target.batch == 1]
    torch.testing.assert_close(together, layer.sparse(feats[source.batch == 1], kernel, alone))


@every_layer
@crowded
@pytest.mark.parametrize("shift", [(2, -4, 16), (-32_000, 32_000, 30_002)])
def test_a_shifted_cloud_has_shifted_features(layer, fine, level_of, shift):
    """By whole coarse voxels: exactly the same numbers, since the rows keep their order."""
    shifted, _ = level_of(fine.coords + torch.tensor([0, *shift]))
    source, target = layer.levels(fine)
    feats, kernel = draw(len(source), 3), draw(layer.offsets, 3, 4, seed=3)
    assert torch.equal(layer.levels(shifted)[1].coords, target.coords + torch.tensor([0, *shift]))
    assert torch.equal(layer.sparse(feats, kernel, fine), layer.sparse(feats, kernel, shifted))


def assert_repeatable(run):
    """Two calls of run() return bit-identical tensors."""
    assert all(torch.equal(one, other) for one, other in zip(run(), run(), strict=True))


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def run_layer(layer, dtype, random_coords, level_of):
    """A function that returns output and gradients of a layer on a few thousand voxels."""
    fine, _ = level_of(random_coords((5_000, 700), low=-10, high=10))
    feats = draw(len(layer.levels(fine)[0]), 16).to(dtype).requires_grad_()
    kernel = draw(layer.offsets, 16, 24, seed=3).to(dtype).requires_grad_()

    def run():
        out = layer.sparse(feats, kernel, fine)
        return out, *gradients(out, feats, kernel)

    return run


@every_layer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_runs_are_bit_identical(layer, dtype, random_coords, level_of):
    assert_repeatable(run_layer(layer, dtype, random_coords, level_of))


def test_two_runs_with_two_threads_are_bit_identical(random_coords, level_of, two_threads):
    """One layer with few offsets: threads wait for each other at every step, which is slow on a busy machine."""
    assert_repeatable(run_layer(LAYERS["strided"], torch.float32, random_coords, level_of))


@every_layer
@crowded
def test_the_size_of_chunks_does_not_matter(layer, fine, monkeypatch):
    source, _ = layer.levels(fine)
    feats, kernel = draw(len(source), 3).requires_grad_(), draw(layer.offsets, 3, 4, seed=3).requires_grad_()
    results = []
    for pairs in (16_384, 70):
        monkeypatch.setattr(kernel_map, "pairs_at_once", lambda dtype, pairs=pairs: pairs)
        out = layer.sparse(feats, kernel, Voxels(fine.keys))
        results.append((out, *gradients(out, feats, kernel)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("needed", ["feats", "kernel"])
@crowded
def test_only_the_needed_gradient_is_computed(fine, needed):
    inputs = {"feats": draw(len(fine), 3), "kernel": draw(27, 3, 4)}
    inputs[needed].requires_grad_()
    sparse_conv(**inputs, kernel_map=fine.submanifold).sum().backward()
    assert {name: x.grad is not None for name, x in inputs.items()} == {n: n == needed for n in inputs}


# With what comes before and after


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_few_neighbours_are_added_as_many_are(dtype, level_of, random_coords, monkeypatch):
    """Rows that have none take their own product as it is: the sums are the same to the bit."""
    coords = random_coords((150,), low=-8, high=8)
    results = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(chunks, "FEW_SUMS", share)
        fine, _ = level_of(coords)
        feats, kernel = draw(len(fine), 2, 4, dtype=dtype), draw(27, 4, 5, seed=3, dtype=dtype)
        results.append(sparse_conv(feats, kernel, fine.submanifold))
        (chunk,) = fine.submanifold.chunks(dtype)
        assert (chunk.few_sums is None) == (share == 0.0)
    assert torch.equal(*results)


@every_layer
@crowded
@pytest.mark.parametrize("spent", [False, True])
@pytest.mark.parametrize("same_rows", [False, True])
def test_a_finished_convolution_is_its_parts(layer, fine, spent, same_rows):
    source, target = layer.levels(fine)
    feats, kernel = draw(len(source), 2, 3), draw(layer.offsets, 3, 4, seed=3)
    rows = (
        None if same_rows else torch.randint(7, (len(source), 2), generator=torch.Generator().manual_seed(4))
    )
    weight = draw(1 if same_rows else 7, 3, seed=5)
    residual, beside = draw(len(target), 2, 4, seed=6), draw(len(target), 2, 6, seed=7)
    scale, kernel_map = RowScale(weight, rows, spent), layer.map(fine)
    plain = [sparse_conv(copy.contiguous(), kernel, kernel_map) for copy in scale(feats).unbind(1)]
    expected = torch.relu(torch.stack(plain, dim=1) + draw(4, seed=8) + residual)
    epilogue = Epilogue(shift=draw(4, seed=8), residual=residual, spent=spent, relu=True)
    given, kept = feats.clone(), residual.clone()
    both = finished_conv(feats.clone(), kernel, kernel_map, epilogue, scale, beside)
    torch.testing.assert_close(both, torch.cat((expected, beside), dim=-1))
    found = finished_conv(given, kernel, kernel_map, epilogue, scale)
    torch.testing.assert_close(found, expected)
    assert (found.data_ptr() == residual.data_ptr()) == spent
    assert spent or torch.equal(given, feats)
    assert spent or torch.equal(kept, residual)


@every_layer
@crowded
def test_a_product_of_the_output_rows_is_added(layer, fine):
    source, target = layer.levels(fine)
    feats, kernel = draw(len(source), 2, 3), draw(layer.offsets, 3, 4, seed=3)
    product = RowProduct(draw(len(target), 2, 6, seed=6), draw(6, 4, seed=7))
    plain = [sparse_conv(copy.contiguous(), kernel, layer.map(fine)) for copy in feats.unbind(1)]
    expected = torch.relu(torch.stack(plain, dim=1) + draw(4, seed=8) + product.feats @ product.kernel)
    epilogue = Epilogue(shift=draw(4, seed=8), relu=True)
    torch.testing.assert_close(
        finished_conv(feats, kernel, layer.map(fine), epilogue, product=product), expected
    )


def test_factors_of_rows_are_the_same_in_blocks():
    feats, weight = draw(2 * RowScale.BLOCK + 3, 2, 4), draw(50, 4, seed=2)
    rows = torch.randint(50, feats.shape[:2], generator=torch.Generator().manual_seed(3))
    expected = feats * weight[rows]
    expanded = feats[:, :1].expand(-1, 2, -1)
    assert torch.equal(RowScale(weight, rows).in_blocks(expanded), expanded * weight[rows])
    assert torch.equal(RowScale(weight, rows).in_blocks(feats), expected)
    assert torch.equal(RowScale(weight, rows, spent=True).in_blocks(feats), expected)
    assert torch.equal(feats, expected)


# Reduced precision


def relative_error(approximate, exact):
    return ((approximate.double() - exact.double()).norm() / exact.double().norm()).item()


@every_layer
@every_fine
def test_bfloat16_features_give_bfloat16_results(layer, fine):
    """Against the exact result of the rounded inputs: one rounding of 2^-9 a product and one of the sum."""
    source, _ = layer.levels(fine)
    feats = draw(len(source), 32).bfloat16().requires_grad_()
    kernel = draw(layer.offsets, 32, 16, seed=3).bfloat16().requires_grad_()
    wide = [x.detach().double().requires_grad_() for x in (feats, kernel)]
    out, exact = layer.sparse(feats, kernel, fine), layer.sparse(*wide, fine)
    assert out.dtype == torch.bfloat16
    assert relative_error(out, exact) < 2**-8
    for grad, exact_grad in zip(gradients(out, feats, kernel), gradients(exact, *wide), strict=True):
        assert grad.dtype == torch.bfloat16
        assert relative_error(grad, exact_grad) < 2**-7


@every_layer
@crowded
def test_autocast_multiplies_in_bfloat16_and_returns_float32_gradients(layer, fine):
    source, _ = layer.levels(fine)
    feats = draw(len(source), 32, dtype=torch.float32).requires_grad_()
    kernel = draw(layer.offsets, 32, 16, seed=3, dtype=torch.float32).requires_grad_()
    exact = layer.sparse(feats, kernel, fine)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer.sparse(feats, kernel, fine)
    assert out.dtype == torch.bfloat16
    assert 0 < relative_error(out, exact) < 0.01
    for grad, exact_grad in zip(gradients(out, feats, kernel), gradients(exact, feats, kernel), strict=True):
        assert grad.dtype == torch.float32
        assert 0 < relative_error(grad, exact_grad) < 0.01


def test_sums_of_bfloat16_are_kept_wider(level_of):
    """1 + 2^-8 + 2^-8: a sum kept in bfloat16 would lose both small terms, one after the other."""
    row, _ = level_of(torch.tensor([[0, 0, 0, z] for z in (-1, 0, 1)]))
    feats = torch.tensor([[2**-8], [1.0], [2**-8]], dtype=torch.bfloat16)
    out = sparse_conv(feats, torch.ones(27, 1, 1, dtype=torch.bfloat16), row.submanifold)
    assert out[1].item() == 1 + 2**-7


# Points and voxels


def test_voxel_means_reproduce_the_recorded_field(recorded, level_of):
    field = {name.removeprefix("field."): x for name, x in recorded.items() if name.startswith("field.")}
    point_map = voxelise(field["coords"])
    order = level_of(field["sparse_C"])[1]
    feats = field["F"].requires_grad_()
    mean = points_to_voxels(feats, point_map)
    torch.testing.assert_close(mean, field["sparse_F"][order], rtol=1e-6, atol=1e-6)
    (grad,) = torch.autograd.grad((mean * field["R_sparse"][order]).sum(), feats)
    torch.testing.assert_close(grad, field["grad_F_sparse"], rtol=1e-6, atol=1e-6)

    back = gather(points_to_voxels(feats, point_map), point_map.inverse)
    torch.testing.assert_close(back, field["slice_F"], rtol=1e-6, atol=1e-6)
    (grad,) = torch.autograd.grad((back * field["R_slice"]).sum(), feats)
    torch.testing.assert_close(grad, field["grad_F_slice"], rtol=1e-6, atol=1e-6)


@every_cloud
def test_voxel_means_equal_a_loop(cloud, random_coords):
    coords = CLOUDS[cloud](random_coords)
    coords = coords[
        torch.randint(len(coords), (2 * len(coords),), generator=torch.Generator().manual_seed(0))
    ]
    feats, point_map = draw(len(coords), 3), voxelise(coords)
    expected = [feats[(coords == c).all(1)].mean(0) for c in point_map.voxels.coords]
    torch.testing.assert_close(points_to_voxels(feats, point_map), torch.stack(expected))


def test_voxel_means_do_not_depend_on_the_order_of_points(random_coords):
    coords = random_coords((50, 20)).repeat(5, 1)
    feats = draw(len(coords), 3)
    shuffle = torch.randperm(len(coords), generator=torch.Generator().manual_seed(0))
    one, other = voxelise(coords), voxelise(coords[shuffle])
    torch.testing.assert_close(points_to_voxels(feats, one), points_to_voxels(feats[shuffle], other))


def test_gather_takes_rows_in_any_shape():
    feats, rows = draw(5, 3), torch.tensor([[0, 4, 4], [2, 2, 2]])
    assert torch.equal(gather(feats, rows), feats[rows])
    assert torch.equal(gather(feats.bfloat16(), rows), feats.bfloat16()[rows])


def test_gradients_of_means_and_gathers_are_finite_differences(random_coords):
    point_map = voxelise(random_coords((6, 3)).repeat(3, 1))
    feats = draw(27, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: points_to_voxels(f, point_map), feats)
    assert torch.autograd.gradcheck(lambda f: gather(f, point_map.inverse[:20].view(4, 5)), feats)


def test_means_of_bfloat16_features(random_coords):
    point_map = voxelise(random_coords((40,)).repeat(4, 1))
    feats = draw(160, 3).bfloat16().requires_grad_()
    mean = points_to_voxels(feats, point_map)
    assert mean.dtype == torch.bfloat16
    assert relative_error(mean, points_to_voxels(feats.detach().double(), point_map)) < 2**-7
    mean.sum().backward()
    torch.testing.assert_close(feats.grad, torch.full_like(feats, 0.25))


def test_means_and_gathers_with_two_threads_are_bit_identical_in_two_runs(two_threads):
    generator = torch.Generator().manual_seed(0)
    point_map = voxelise(torch.randint(-4, 4, (20_000, 4), generator=generator).abs())
    feats = draw(20_000, 8, dtype=torch.float32).requires_grad_()

    def run():
        mean = points_to_voxels(feats, point_map)
        back = gather(mean, point_map.inverse)
        return back, *gradients(back, mean, feats)

    assert_repeatable(run)
