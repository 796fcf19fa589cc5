"""The Triton kernels against plain PyTorch, forward and backward, and against finite differences."""

import pytest
import torch
import torch.nn.functional as F

from densescan.sparse.backends import using
from densescan.sparse.epilogue import Epilogue, RowProduct
from densescan.sparse.functional import finished_conv, sparse_conv
from densescan.sparse.tensor import Voxels

CLOUDS = {
    "clouds of different size": ((60, 1, 25), -4, 4),
    "crowded": ((90,), -3, 3),
    "lonely": ((12,), -30, 30),  # most offsets have no pair
    "single voxel": ((1,), -3, 3),
}
LAYERS = {
    "submanifold": lambda fine: fine.submanifold,
    "strided": lambda fine: fine.strided,
    "transposed": lambda fine: fine.strided.transposed,
}
NETWORK = [(3, 32), (32, 64), (96, 96), (128, 96), (384, 256)]
"""Channels of some of the network's convolutions: the first, the last, the widest."""
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
every_layer = pytest.mark.parametrize("layer", LAYERS)


@pytest.fixture
def backend(device):
    """The module; importing it needs Triton."""
    from densescan.sparse.backends import triton

    return triton


@pytest.fixture
def case(level, draw):
    """(layer, cloud, c_in, c_out) -> the map, and features and kernel on it."""

    def case(layer, cloud="crowded", c_in=5, c_out=7, dtype=torch.float32):
        kernel_map = LAYERS[layer](level(*CLOUDS[cloud]))
        offsets = 27 if layer == "submanifold" else 8
        feats = draw(kernel_map.n_in, c_in, dtype=dtype).requires_grad_()
        return kernel_map, feats, draw(offsets, c_in, c_out, seed=2, dtype=dtype).requires_grad_()

    return case


def results(convolve, feats, kernel, kernel_map):
    """Output and gradients of sum(out * R)."""
    out = convolve(feats, kernel, kernel_map)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(out)
    return out, *torch.autograd.grad((out * weights).sum(), (feats, kernel))


def reference(feats, kernel, kernel_map):
    """The same by plain PyTorch in float64."""
    with using("torch"):
        exact = [x.detach().double().requires_grad_() for x in (feats, kernel)]
        return results(sparse_conv, *exact, kernel_map)


def assert_near(found, expected, tolerance):
    for x, exact in zip(found, expected, strict=True):
        assert (x.double() - exact).norm() <= tolerance * exact.norm()
        assert x.shape == exact.shape


# Against plain PyTorch


@every_layer
@pytest.mark.parametrize("cloud", CLOUDS)
def test_kernels_agree_with_plain_pytorch(backend, case, layer, cloud):
    kernel_map, feats, kernel = case(layer, cloud)
    found = results(backend.sparse_conv, feats, kernel, kernel_map)
    assert_near(found, reference(feats, kernel, kernel_map), TOLERANCE[torch.float32])


@pytest.mark.parametrize(("c_in", "c_out"), NETWORK)
def test_kernels_agree_at_the_channels_of_the_network(backend, case, c_in, c_out):
    kernel_map, feats, kernel = case("submanifold", "lonely", c_in, c_out)
    found = results(backend.sparse_conv, feats, kernel, kernel_map)
    assert_near(found, reference(feats, kernel, kernel_map), TOLERANCE[torch.float32])


@every_layer
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernels_agree_in_reduced_precision(backend, case, layer, dtype):
    """Sums are float32: the error is that of one rounding, not of as many as there are products."""
    kernel_map, feats, kernel = case(layer, c_in=40, c_out=24, dtype=dtype)
    found = results(backend.sparse_conv, feats, kernel, kernel_map)
    assert {x.dtype for x in found} == {dtype}
    assert_near(found, reference(feats, kernel, kernel_map), TOLERANCE[dtype])


@every_layer
def test_a_wider_kernel_is_rounded_and_its_gradient_is_not(backend, case, layer):
    kernel_map, feats, kernel = case(layer, c_in=40, c_out=24)
    reduced = [x.detach().bfloat16().requires_grad_() for x in (feats, kernel)]
    wide = reduced[1].detach().float().requires_grad_()
    found = results(backend.sparse_conv, reduced[0], wide, kernel_map)
    expected = results(backend.sparse_conv, *reduced, kernel_map)
    assert [x.dtype for x in found] == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[2].bfloat16(), expected[2])
    assert not torch.equal(found[2], expected[2].float())


def test_tf32_is_used_where_it_is_allowed(backend, case, device):
    kernel_map, feats, kernel = case("strided", c_in=32, c_out=32)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        out = backend.sparse_conv(feats, kernel, kernel_map)
    finally:
        torch.set_float32_matmul_precision(before)
    expected = reference(feats, kernel, kernel_map)[:1]
    assert_near([out], expected, 2e-3)
    if device == "cuda":
        assert (out.double() - expected[0]).norm() > 1e-5 * expected[0].norm()


@pytest.mark.parametrize("shape", [(32, 16, 16), (64, 64, 32), (128, 32, 64)])
def test_the_cut_into_programs_does_not_matter(backend, case, shape):
    kernel_map, feats, kernel = case("submanifold", c_in=40, c_out=20)
    table, blocks = backend.table_of(kernel_map), backend.Blocks(*shape)
    out, _, grad_kernel = reference(feats, kernel, kernel_map)
    grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(feats)
    found = backend.convolve(feats.detach(), kernel.detach(), table, blocks=blocks)
    gradient = backend.kernel_gradient(feats.detach(), grad_out, table, blocks)
    assert_near([found, gradient], [out, grad_kernel], TOLERANCE[torch.float32])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_runs_are_bit_identical(backend, case, dtype):
    kernel_map, feats, kernel = case("strided", c_in=16, c_out=16, dtype=dtype)
    runs = [results(backend.sparse_conv, feats, kernel, kernel_map) for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


@pytest.mark.parametrize("needed", ["feats", "kernel"])
def test_only_the_needed_gradient_is_computed(backend, case, needed):
    kernel_map, feats, kernel = case("strided")
    inputs = {"feats": feats.detach(), "kernel": kernel.detach()}
    inputs[needed].requires_grad_()
    backend.sparse_conv(**inputs, kernel_map=kernel_map).sum().backward()
    assert {name: x.grad is not None for name, x in inputs.items()} == {n: n == needed for n in inputs}


def test_no_voxels_give_no_features(backend, draw, device):
    empty = Voxels(torch.zeros(0, dtype=torch.int64, device=device)).submanifold
    out = backend.sparse_conv(draw(0, 4), draw(27, 4, 6), empty)
    assert out.shape == (0, 6)


@every_layer
def test_gradients_are_finite_differences(backend, case, draw, layer):
    """A convolution is linear in each input: central differences are exact at any width, up to rounding."""
    kernel_map, *inputs = case(layer, "lonely", 2, 3)
    _, *gradients = results(backend.sparse_conv, *inputs, kernel_map)
    for i, gradient in enumerate(gradients):
        step = draw(*inputs[i].shape, seed=5)
        sums = []
        for sign in (1, -1):
            moved = [x.detach() + sign * step if i == j else x.detach() for j, x in enumerate(inputs)]
            out = backend.sparse_conv(*moved, kernel_map)
            weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(out)
            sums.append((out * weights).sum())
        torch.testing.assert_close((sums[0] - sums[1]) / 2, (gradient * step).sum(), rtol=1e-4, atol=1e-4)


# What surrounds a convolution


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("kind", ["none", "shift", "bounded", "affine", "layer"])
def test_the_epilogue_is_norm_then_residual_then_relu(backend, case, draw, kind, residual, relu):
    kernel_map, feats, kernel = case("strided", c_in=6, c_out=20)
    gain, shift = draw(20, seed=10).abs() + 0.1, draw(20, seed=11)
    added = draw(kernel_map.n_out, 20, seed=6) if residual else None
    limits = torch.stack((shift - 1, shift + 1))
    epilogue = backend.Epilogue(
        gain if kind in ("affine", "layer") else None,
        None if kind == "none" else shift,
        1e-5 if kind == "layer" else None,
        limits if kind == "bounded" else None,
        added,
        relu,
    )
    with torch.no_grad():
        expected = sparse_conv(feats, kernel, kernel_map)
        if kind == "layer":
            expected = F.layer_norm(expected, (20,), gain, shift)
        elif kind != "none":
            expected = expected * (gain if kind == "affine" else 1) + shift
        if kind == "bounded":
            expected = expected.clamp(*limits)
        expected = expected + (added if residual else 0)
        expected = expected.relu() if relu else expected
        found = backend.fused_conv(feats, kernel, kernel_map, epilogue)
        with using("torch"):
            plain = finished_conv(feats, kernel, kernel_map, epilogue)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(plain, expected, rtol=1e-4, atol=1e-5)


@every_layer
def test_input_rows_are_scaled_as_they_are_read(backend, case, draw, device, layer):
    kernel_map, feats, kernel = case(layer)
    rows = torch.randint(4, (kernel_map.n_in,), generator=torch.Generator().manual_seed(7)).to(device)
    weight = draw(4, 5, seed=8)
    with torch.no_grad():
        found = backend.fused_conv(feats, kernel, kernel_map, scale=backend.RowScale(weight, rows))
        expected = sparse_conv(feats * F.embedding(rows, weight), kernel, kernel_map)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("layer", ["strided", "transposed"])
def test_copies_of_the_features_share_a_map(backend, case, draw, device, layer):
    """Both guidance branches in one launch, each with its own scale and residual."""
    kernel_map, feats, kernel = case(layer)
    feats = torch.stack((feats.detach(), draw(*feats.shape, seed=9)), dim=1)
    rows = torch.randint(4, feats.shape[:2], generator=torch.Generator().manual_seed(7)).to(device)
    weight, added = draw(4, 5, seed=8), draw(kernel_map.n_out, 2, 7, seed=6)

    def run(copy):
        epilogue = backend.Epilogue(residual=added[:, copy], relu=True)
        scale = backend.RowScale(weight, rows[:, copy])
        return backend.fused_conv(feats[:, copy], kernel.detach(), kernel_map, epilogue, scale)

    torch.testing.assert_close(run(slice(None)), torch.stack((run(0), run(1)), dim=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("cloud", "channels"), [("crowded", (96, 96, 128)), ("lonely", (5, 7, 40))])
def test_a_product_of_the_output_rows_is_added_to_the_sums(backend, case, draw, cloud, channels, dtype):
    """As the shortcut of a residual block; its blocks of channels are more, and not all of them whole."""
    c_in, c_out, c_other = channels
    kernel_map, feats, kernel = case("submanifold", cloud, c_in, c_out, dtype)
    feats = torch.stack((feats.detach(), draw(*feats.shape, seed=9, dtype=dtype)), dim=1)
    other = draw(kernel_map.n_out, 2, c_other, seed=6, dtype=dtype)
    product = RowProduct(other, draw(c_other, c_out, seed=7, dtype=dtype))
    epilogue = Epilogue(shift=draw(c_out, seed=11), relu=True)
    with using("torch"):
        sums = [sparse_conv(x.double(), kernel.double(), kernel_map) for x in feats.unbind(1)]
    sums = torch.stack(sums, dim=1) + other.double() @ product.kernel.double()
    expected = (sums + epilogue.shift).relu()
    found = backend.fused_conv(feats, kernel.detach(), kernel_map, epilogue, product=product)
    assert_near([found], [expected], TOLERANCE[dtype])


def test_products_that_do_not_fit_are_refused(backend, case, draw):
    """They would be read beyond their end."""
    kernel_map, feats, kernel = case("submanifold")
    feats, kernel, n = feats.detach(), kernel.detach(), kernel_map.n_out
    scale = backend.RowScale(draw(4, 5), torch.zeros(n, dtype=torch.long, device=feats.device))
    for rows, channels, c_out in ((n - 1, 6, 7), (n, 6, 8)):
        product = RowProduct(draw(rows, channels), draw(channels, c_out))
        with pytest.raises(ValueError, match="does not fit"):
            backend.fused_conv(feats, kernel, kernel_map, product=product)
    with pytest.raises(ValueError, match="without a scale"):
        backend.fused_conv(feats, kernel, kernel_map, scale=scale, product=RowProduct(draw(n, 6), draw(6, 7)))


def test_a_product_goes_with_features_beside(backend, case, draw):
    kernel_map, feats, kernel = case("submanifold")
    product = RowProduct(draw(kernel_map.n_out, 6, seed=6), draw(6, 7, seed=7))
    beside = draw(kernel_map.n_out, 4, seed=8)
    with torch.no_grad():
        alone = backend.fused_conv(feats, kernel, kernel_map, product=product)
        both = backend.fused_conv(feats, kernel, kernel_map, beside=beside, product=product)
    torch.testing.assert_close(both, torch.cat((alone, beside), dim=1))


@pytest.mark.parametrize("copies", [3, 4, 6])
def test_any_number_of_copies(backend, case, draw, copies):
    kernel_map, _, kernel = case("submanifold")
    feats = draw(kernel_map.n_in, copies, 5, seed=9)
    expected = torch.stack(
        [reference(x.contiguous().requires_grad_(), kernel, kernel_map)[0] for x in feats.unbind(1)], 1
    )
    found = backend.fused_conv(feats, kernel.detach(), kernel_map)
    assert_near([found], [expected], TOLERANCE[torch.float32])


def test_gradients_of_copies_are_those_of_each(backend, case, draw):
    kernel_map, feats, kernel = case("strided")
    both = torch.stack((feats.detach(), draw(*feats.shape, seed=9)), dim=1).requires_grad_()
    out, grad_feats, grad_kernel = results(backend.sparse_conv, both, kernel, kernel_map)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(out)
    single = []
    for copy in range(2):
        alone = backend.sparse_conv(both[:, copy], kernel, kernel_map)
        single.append(torch.autograd.grad((alone * weights[:, copy]).sum(), (both, kernel)))
    torch.testing.assert_close(grad_feats, single[0][0] + single[1][0])
    torch.testing.assert_close(grad_kernel, single[0][1] + single[1][1])


# Errors


def test_inputs_that_do_not_fit_are_refused(backend, case):
    kernel_map, feats, kernel = case("strided")
    with pytest.raises(ValueError, match="must be of one type"):
        backend.fused_conv(feats.bfloat16(), kernel, kernel_map)
    with pytest.raises(ValueError, match="do not fit a map"):
        backend.fused_conv(feats[1:], kernel, kernel_map)
    with pytest.raises(ValueError, match="do not fit a map"):
        backend.fused_conv(feats, kernel[1:], kernel_map)


def test_more_elements_than_indices_reach_are_refused(backend, case, monkeypatch):
    kernel_map, feats, kernel = case("strided")
    monkeypatch.setattr(backend, "MAX_ELEMENTS", 100)
    with pytest.raises(ValueError, match="smaller batch"):
        backend.fused_conv(feats, kernel, kernel_map)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("c_in", "c_out"), [(96, 20), (20, 3), (128, 96), (256, 256)])
def test_products_of_rows_are_those_of_plain_pytorch(backend, draw, c_in, c_out, dtype):
    rows, kernel, shift = draw(33, 2, c_in, dtype=dtype), draw(c_in, c_out, dtype=dtype), draw(c_out, seed=4)
    epilogue = Epilogue(shift=shift.to(dtype), relu=True)
    found = backend.pointwise(rows, kernel, epilogue)
    expected = torch.relu(rows.double() @ kernel.double() + shift.to(dtype).double())
    assert found.dtype == dtype
    assert_near([found], [expected], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_does_not_depend_on_the_cut_into_programs_nor_on_the_rows_beside_it(backend, case, draw, dtype):
    """To the bit on a GPU: recordings have rows to spare, and so other cuts, and yet give the same scenes. In the
    interpreter a product depends, in its last bits, on its place in a tile."""
    kernel_map, feats, kernel = case("submanifold", c_in=96, c_out=128, dtype=dtype)
    feats, kernel = feats.detach(), kernel.detach()
    table = backend.table_of(kernel_map)
    cuts = [
        backend.Blocks(*cut)
        for cut in ((128, 128, 32, 8), (64, 128, 32, 4), (64, 64, 32, 4), (128, 32, 32, 4))
    ]
    first, *others = (backend.convolve(feats, kernel, table, blocks=cut) for cut in cuts)
    rows, weight = draw(200, 96, dtype=dtype), draw(96, 128, dtype=dtype)
    pairs = [(first, other) for other in others]
    pairs += [
        (backend.pointwise(rows, weight)[:n], backend.pointwise(rows[:n], weight)) for n in (1, 65, 130)
    ]
    for one, other in pairs:
        if feats.is_cuda:
            assert torch.equal(one, other)
        else:
            assert_near([one], [other.double()], TOLERANCE[dtype])


def test_linear_layers_are_differentiable_and_the_same_without_gradients(backend, draw):
    from densescan.sparse.modules import Linear

    layer = Linear(24, 7).to(draw(1).device)
    rows = draw(19, 2, 24)
    with using("triton"):
        learnt = layer(rows)
        with torch.no_grad():
            found = layer(rows)
        with torch.no_grad(), torch.autocast(rows.device.type, torch.bfloat16):
            reduced = layer(rows)
    assert learnt.requires_grad
    assert not found.requires_grad
    assert reduced.dtype == torch.bfloat16
    expected = F.linear(rows, layer.weight, layer.bias)
    assert_near([found], [expected.double()], TOLERANCE[torch.float32])
    assert_near([reduced], [expected.double()], TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize("copies", [(), (2,)])
def test_features_beside_the_result_are_kept(backend, case, draw, copies):
    kernel_map, _, kernel = case("transposed", c_in=16, c_out=8)
    feats, beside = draw(kernel_map.n_in, *copies, 16), draw(kernel_map.n_out, *copies, 5, seed=7)
    alone = backend.fused_conv(feats, kernel.detach(), kernel_map)
    found = backend.fused_conv(feats, kernel.detach(), kernel_map, beside=beside)
    assert torch.equal(found, torch.cat((alone, beside), dim=-1))
    assert torch.equal(
        finished_conv(feats, kernel.detach(), kernel_map, Epilogue(), beside=beside)[..., 8:], beside
    )


def test_the_gradient_of_a_symmetric_map_needs_no_other_table(backend, level, draw, monkeypatch):
    from densescan.sparse.backends.table_map import TableMap, submanifold_map

    keys = level((60, 1, 25)).keys
    feats, kernel = draw(len(keys), 5).requires_grad_(), draw(27, 5, 7, seed=2).requires_grad_()
    expected = reference(feats, kernel, submanifold_map(keys))
    monkeypatch.setattr(TableMap, "transposed", property(lambda _: pytest.fail("made another table")))
    assert_near(
        results(backend.sparse_conv, feats, kernel, submanifold_map(keys)), expected, TOLERANCE[torch.float32]
    )
