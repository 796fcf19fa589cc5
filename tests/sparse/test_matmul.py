"""Matrix products against float64."""

import pytest
import torch

from densescan.sparse.matmul import matmul


@pytest.mark.parametrize("n", [70, 2_000])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-14), (torch.bfloat16, 1e-2)]
)
def test_products_are_right_in_every_type(dtype, tolerance, transposed, n):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(n, 33, generator=generator, dtype=torch.float64).to(dtype)
    b = torch.randn(33, 20, generator=generator, dtype=torch.float64).to(dtype)
    if transposed:
        a, b = a.T.contiguous().T, b.T.contiguous().T
    exact = a.double() @ b.double()
    out = torch.full((n, 20), 7.0, dtype=dtype)
    for product in (matmul(a, b), matmul(a, b, out=out)):
        assert product.dtype == dtype
        assert (product.double() - exact).abs().max() < tolerance * exact.abs().max()
    assert product.data_ptr() == out.data_ptr()
