"""Rows and kernels of 8 bits: how they are rounded, and convolutions of them against those of what they stand for."""

import pytest
import torch

from densescan.sparse import chunks
from densescan.sparse.convolve import convolve
from densescan.sparse.epilogue import Epilogue
from densescan.sparse.functional import finished_conv, sparse_conv
from densescan.sparse.int8 import Int8Kernel, _products_are_exact, multiplies_int8, rounded_rows, worth
from densescan.sparse.matmul import matmul
from densescan.sparse.rows import RowScale

CPU = torch.device("cpu")
every_type = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
needs_int8 = pytest.mark.skipif(
    not multiplies_int8(CPU), reason="the processor's sums of 8 bits may overflow"
)
MAPS = {
    "submanifold": lambda fine: fine.submanifold,
    "strided": lambda fine: fine.strided,
    "transposed": lambda fine: fine.strided.transposed,
}
every_map = pytest.mark.parametrize("kernel_map", MAPS, indirect=True)
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-2}


@pytest.fixture
def crowd(level_of, random_coords):
    return level_of(random_coords((300, 340), low=-3, high=4))[0]


@pytest.fixture
def kernel_map(request, crowd):
    return MAPS[request.param](crowd)


def draw(*shape, seed=1, dtype=torch.float32):
    """The same normal numbers, rounded, in every type."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def meant(feats):
    """What the rounded rows of features stand for, in float64."""
    values, scales = rounded_rows(feats.flatten(1))
    return (values.double() * scales.double()[:, None]).view(feats.shape)


def test_no_gpu_multiplies_them():
    assert not multiplies_int8(torch.device("cuda"))


def test_a_processor_whose_sums_overflow_is_not_taken(monkeypatch):
    """AVX2 multiplies numbers without a sign by others, and adds pairs of products in 16 bits."""

    def overflowing(a, b):
        pairs = ((a.int() + 128)[:, :, None] * b.int()).unflatten(1, (-1, 2)).sum(2)
        return pairs.clamp(-(2**15), 2**15 - 1).sum(1) - 128 * b.int().sum(0)

    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setattr(torch, "_int_mm", overflowing)
    _products_are_exact.cache_clear()
    try:
        assert not multiplies_int8(CPU)
    finally:
        _products_are_exact.cache_clear()


@every_type
def test_rows_are_rounded_by_their_greatest(dtype):
    rows = draw(50, 40, dtype=dtype) * torch.logspace(-6, 6, 50)[:, None].to(dtype)
    rows[7] = 0
    rows[8, 3] = -2 * rows[8].abs().max()
    kept = rows.clone()
    values, scales = rounded_rows(rows)
    assert torch.equal(rows, kept)
    assert scales.dtype == dtype
    assert torch.equal(values.abs().amax(1), torch.where(torch.arange(50) == 7, 0, 127).to(torch.int8))
    assert values[8, 3] == -127
    error = (values.double() * scales.double()[:, None] - rows.double()).abs()
    assert (error <= 0.502 * scales.double()[:, None]).all()
    assert torch.equal(error[7], torch.zeros(40, dtype=torch.float64))


@every_type
def test_many_rows_are_rounded_as_each_is(dtype, monkeypatch):
    rows = draw(50, 40, dtype=dtype)
    expected = rounded_rows(rows)
    monkeypatch.setattr("densescan.sparse.int8._AT_ONCE", 7 * 40)
    for found, wanted in zip(rounded_rows(rows), expected, strict=True):
        assert torch.equal(found, wanted)


@every_type
def test_kernels_are_rounded_channel_by_channel(dtype):
    kernel = draw(27, 12, 5) * torch.tensor([1e-3, 1.0, 50.0, 1.0, 1.0])
    kernel[:, :, 3] = 0
    rounded = Int8Kernel.rounded(kernel, dtype)
    assert rounded.shape == kernel.shape
    assert rounded.gains.dtype == dtype
    assert torch.equal(
        rounded.values.abs().amax((0, 1)), torch.tensor([127, 127, 127, 0, 127], dtype=torch.int8)
    )
    error = (rounded.values.double() * rounded.gains.double() - kernel.double()).abs()
    assert (error <= 0.502 * rounded.gains.double()).all()


@needs_int8
def test_products_are_exact():
    generator = torch.Generator().manual_seed(0)
    a, b = (
        torch.randint(-127, 128, shape, dtype=torch.int8, generator=generator)
        for shape in ((70, 400), (400, 9))
    )
    a[0], b[:, 0] = 127, -127  # the largest sum there can be
    found = matmul(a, b, out=torch.empty(70, 9))
    assert torch.equal(found, (a.long() @ b.long()).float())


@needs_int8
@every_type
@every_map
@pytest.mark.parametrize("n_chunks", [1, 4])
def test_a_convolution_is_that_of_the_rounded_numbers(dtype, kernel_map, n_chunks, monkeypatch):
    pairs = -(-kernel_map.n_pairs // n_chunks)
    monkeypatch.setattr(chunks, "WIDE_PAIRS", pairs)
    monkeypatch.setattr(chunks, "REDUCED_PAIRS", pairs)
    assert len(kernel_map.chunks(dtype)) == n_chunks
    feats, kernel = draw(kernel_map.n_in, 2, 16, dtype=dtype), draw(len(kernel_map.pairs), 16, 12, seed=3)
    rounded = Int8Kernel.rounded(kernel, dtype)
    stands_for = rounded.values.double() * rounded.gains.double()
    expected = sparse_conv(meant(feats), stands_for, kernel_map)
    found = convolve(feats, rounded, kernel_map)
    assert found.dtype == dtype
    assert (found.double() - expected).abs().max() < TOLERANCE[dtype] * expected.abs().max()
    exact = sparse_conv(feats.double(), kernel.double(), kernel_map)
    assert (found.double() - exact).square().mean().sqrt() < 0.02 * exact.std()


@needs_int8
def test_what_comes_before_and_after_is_done_as_to_other_numbers(crowd):
    feats, kernel = draw(len(crowd), 2, 16), Int8Kernel.rounded(draw(27, 16, 12, seed=3), torch.float32)
    scale = RowScale(draw(5, 16, seed=4), torch.arange(2 * len(crowd)).view(-1, 2) % 5)
    beside, residual, shift = draw(len(crowd), 2, 3), draw(len(crowd), 2, 12, seed=6), draw(12, seed=7)
    sums = convolve(scale(feats), kernel, crowd.submanifold)
    epilogue = Epilogue(shift=shift, residual=residual, relu=True)
    found = finished_conv(feats, kernel, crowd.submanifold, epilogue, scale, beside)
    torch.testing.assert_close(found, torch.cat((torch.relu(sums + shift + residual), beside), -1))


@needs_int8
def test_rows_without_neighbours_are_scaled_too(level_of, random_coords):
    """Where few rows have a neighbour, other types take a row's own product as it is."""
    level, _ = level_of(random_coords((150,), low=-30, high=30))
    feats = draw(len(level), 16) * torch.logspace(-3, 3, len(level))[:, None]
    kernel = Int8Kernel.rounded(draw(27, 16, 12, seed=3), torch.float32)
    assert level.submanifold.chunks(torch.float32)[0].few_sums is not None
    found = convolve(feats, kernel, level.submanifold)
    expected = sparse_conv(meant(feats), kernel.values.double() * kernel.gains.double(), level.submanifold)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_it_is_worth_it_where_rows_have_many_pairs(level_of, random_coords, crowd):
    alone, _ = level_of(random_coords((150,), low=-30, high=30))
    assert worth(crowd.submanifold)
    assert worth(crowd.strided.transposed)
    assert not worth(crowd.strided)
    assert not worth(alone.submanifold)
