"""Matrix products against float64."""

import pytest
import torch
from torch import nn

from densescan.sparse.matmul import (
    FINEST_STEP,
    ROWS_AT_ONCE,
    batch_limit,
    matmul,
    repeating,
    repeating_size,
    row_blocks,
    with_repeating_rows,
)


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("n", [70, 2_000])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-14), (torch.bfloat16, 1e-2)]
)
def test_products_are_right_in_every_type(dtype, tolerance, transposed, n, batch):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(*batch, n, 33, generator=generator, dtype=torch.float64).to(dtype)
    b = torch.randn(*batch, 33, 20, generator=generator, dtype=torch.float64).to(dtype)
    if transposed:
        a, b = a.mT.contiguous().mT, b.mT.contiguous().mT
    exact = a.double() @ b.double()
    out = torch.full((*batch, n, 20), 7.0, dtype=dtype)
    for product in (matmul(a, b), matmul(a, b, out=out)):
        assert product.dtype == dtype
        assert (product.double() - exact).abs().max() < tolerance * exact.abs().max()
    assert product.data_ptr() == out.data_ptr()


def test_batches_of_wider_numbers_and_larger_matrices_have_fewer_rows():
    limits = [batch_limit(torch.bfloat16, 2 * 64 * 64), batch_limit(torch.float32, 2 * 64 * 64)]
    assert limits[0] > limits[1] > 0
    assert limits[0] // batch_limit(torch.bfloat16, 2 * 256 * 256) == 16


def test_sizes_that_repeat_are_few_and_little_larger():
    counts = torch.arange(100_000)
    rounded = repeating(counts)
    assert rounded[0] == 0
    assert ((rounded >= counts) & (rounded - counts <= (counts // 8).clamp(min=FINEST_STEP))).all()
    assert len(rounded.unique()) < 150
    assert torch.equal(repeating(rounded), rounded)
    assert [repeating_size(n) for n in range(20_000)] == rounded[:20_000].tolist()


def test_coarser_sizes_are_fewer():
    counts = range(1_000, 500_000, 7)
    rounded = [repeating_size(n, halvings=2) for n in counts]
    assert len(set(rounded)) < 40
    assert all(n <= size <= 1.25 * n for n, size in zip(counts, rounded, strict=True))


@pytest.mark.parametrize("shape", [(0, 8), (1, 8), (33, 8), (1_000, 8), (5, 2, 8)])
def test_rows_and_gradients_are_those_without_padding(shape):
    generator = torch.Generator().manual_seed(0)
    mlp = nn.Sequential(nn.Linear(8, 6), nn.LeakyReLU(0.1), nn.Linear(6, 4)).double()
    rows = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    results = []
    for out in (mlp(rows), with_repeating_rows(mlp, rows)):
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        grads = torch.autograd.grad((out * weights).sum(), (rows, *mlp.parameters()))
        results.append((out, *grads))
    for plain, padded in zip(*results, strict=True):
        torch.testing.assert_close(padded, plain)


def test_products_are_of_sizes_that_repeat():
    seen = set()

    def product(rows):
        seen.add(len(rows))
        return rows

    for n in range(1, 2_000):
        assert len(with_repeating_rows(product, torch.zeros(n, 1))) == n
    assert len(seen) <= 40


def test_blocks_cover_all_rows_and_overlap_little():
    sizes = set()
    for n in (*range(600), *range(1_000, 40_000, 171), 180_000):
        blocks = list(row_blocks(n))
        covered = torch.zeros(n, dtype=torch.long)
        for block in blocks:
            covered[block] += 1
        assert (covered > 0).all()
        assert len({block.stop - block.start for block in blocks}) <= 1
        assert int(covered.sum()) - n <= max(n // 8, 2 * FINEST_STEP)
        sizes |= {block.stop - block.start for block in blocks if n >= 2 * FINEST_STEP}
    assert len(sizes) < 60
    assert max(sizes) == ROWS_AT_ONCE
    assert all(size == repeating_size(size) for size in sizes)
